"""The frame of all pages: the navigation, the displayed run, the sidebar."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from pruning.errors import CorruptFileError, PruningError
from pruning.paths import ASSETS
from ui import navigation, sidebar, source, state, view_state

# Streamlit leaves 96 pixels of white above a page and wide gaps in the sidebar; the settings fit 720 pixels without.
# All pages fit a bar of 980 pixels without their icons. On a narrow window columns wrap before their text is cut.
STYLE = """<style>
.stMainBlockContainer { padding: 4.2rem 2.5rem 3rem; }
.stMainBlockContainer h1 { padding: 0; }
[data-testid="stTopNavLink"] { padding: 0 0.25rem; }
[data-testid="stSidebarHeader"] { height: 2.6rem; margin-bottom: 0; padding-bottom: 0; }
[data-testid="stSidebarUserContent"] { padding-top: 0.4rem; padding-bottom: 1rem; }
[data-testid="stTopNavLink"] > span:has([data-testid="stIconMaterial"]) { display: none; }
.st-key-mixture [data-testid="stSliderThumbValue"] { display: none; }
[data-testid="stMetricValue"] { font-size: 1.6rem; }
.st-key-source button p { font-size: 0.875rem; }
@media (max-width: 800px) {
  .stMainBlockContainer [data-testid="stColumn"] { min-width: min(17rem, 100%); }
}
</style>"""


def run() -> None:
    """Draw the frame and the page of the current URL, or an error about corrupt files in its place."""
    try:
        _draw().run()
    except PruningError as error:
        state.explain(error)
        run = state.choice().run
        if isinstance(error, CorruptFileError) and run.path not in state.SHIPPED and not run.active:
            state.resume_button(run)


def _draw() -> StreamlitPage:
    _admit()
    page = navigation.pages()
    st.logo(str(ASSETS / "logo.svg"), size="large")
    st.html(STYLE)
    navigation.remember()
    navigation.drop_absurd()
    view_state.seed()
    displayed, runs = source.displayed()
    sidebar.draw(displayed, runs)
    source.draw(displayed, runs)
    return page


def _admit() -> None:
    """Where a login is configured (`[auth]` in `.streamlit/secrets.toml`), ask for it before anything is shown."""
    if getattr(st.user, "is_logged_in", True):
        return
    st.title("Prunescope")
    st.button("Log in", type="primary", on_click=st.login)
    st.stop()
