"""What all pages have around them: the navigation, the run on view, the sidebar."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from pruning.paths import ASSETS
from ui import navigation, place, sidebar, source

# Streamlit leaves 96 pixels of white above a page and wide gaps in the sidebar; the settings fit 720 pixels without.
STYLE = """<style>
.stMainBlockContainer { padding: 4.2rem 2.5rem 3rem; }
.stMainBlockContainer h1 { padding: 0; }
[data-testid="stSidebarHeader"] { height: 2.6rem; margin-bottom: 0; padding-bottom: 0; }
[data-testid="stSidebarUserContent"] { padding-top: 0.4rem; padding-bottom: 1rem; }
.st-key-source button p { font-size: 0.875rem; }
</style>"""


def draw() -> StreamlitPage:
    """Draw the frame; returns the page of the current URL."""
    _admit()
    page = navigation.pages()
    st.logo(str(ASSETS / "logo.svg"), size="large")
    st.html(STYLE)
    navigation.remember()
    place.seed()
    run, runs = source.on_view()
    sidebar.draw(run, runs)
    source.draw(run, runs)
    return page


def _admit() -> None:
    """Where a login is configured (`[auth]` in `.streamlit/secrets.toml`), ask for it before anything is shown."""
    if getattr(st.user, "is_logged_in", True):
        return
    st.title("Prunescope")
    st.button("Log in", type="primary", on_click=st.login)
    st.stop()
