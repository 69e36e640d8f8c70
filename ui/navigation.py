"""The pages and their order."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from pruning.paths import ASSETS

LARGEST = 1e15  # number in a link: what the browser, which counts in doubles, keeps exactly


def pages() -> StreamlitPage:
    """Declare the pages; returns the page of the current URL."""
    # first of all, and an image file: without it the browser fetches a page's icon from Google as its tab's
    st.set_page_config(page_title="Prunescope", page_icon=str(ASSETS / "icon.png"), layout="wide")
    return st.navigation(
        [
            st.Page(
                "pages/overview.py", title="Overview", icon=":material/home:", url_path="home", default=True
            ),
            # the first page has the server's own address; whoever writes its name finds it as well
            st.Page("pages/overview.py", title="Overview", url_path="overview", visibility="hidden"),
            st.Page("pages/calibration.py", title="Calibration", icon=":material/library_books:"),
            st.Page("pages/importance.py", title="Importance", icon=":material/grid_on:"),
            st.Page("pages/masks.py", title="Masks", icon=":material/filter_alt:"),
            st.Page("pages/sensitivity.py", title="Sensitivity", icon=":material/show_chart:"),
            # its name until version 0.2, for one version more
            st.Page("pages/sensitivity.py", title="Sensitivity", url_path="damage", visibility="hidden"),
            st.Page("pages/prune.py", title="Prune", icon=":material/content_cut:"),
            st.Page("pages/results.py", title="Results", icon=":material/bar_chart:"),
            st.Page("pages/experiments.py", title="Experiments", icon=":material/science:"),
            st.Page("pages/learn.py", title="Learn", icon=":material/school:"),
        ],
        position="top",
    )


def ensure_frame() -> None:
    """Restart with `app.py` if a page was run without it.

    With a folder called `pages`, Streamlit runs a page's file directly until `st.navigation` has been called once
    in the server. This happens to the first visitor who opens a link to a page.
    """
    if "run" not in st.session_state:
        pages()
        st.rerun()


def go(page: str, **settings: list[str]) -> None:
    """Switch to another page and keep all settings.

    `st.switch_page` must be told which query parameters to keep when some are bound to widgets. It is told none,
    which clears the URL; `remember` writes the parameters back.

    Args:
        page: its file.
        settings: of that page alone, as its link would have them.
    """
    st.session_state.address = [*st.query_params]
    st.switch_page(page, query_params=settings)


def remember() -> None:
    """Write the settings back into the URL after `go`: assigning a value makes Streamlit send it to the browser."""
    for key in st.session_state.pop("address", []):
        if key in st.session_state:
            st.session_state[key] = st.session_state[key]


def drop_absurd() -> None:
    """Drop numbers of a link that no setting can have, infinite ones too: widgets would read them, and fail."""
    for key in [*st.query_params]:
        if any(_absurd(value) for value in st.query_params.get_all(key)):
            del st.query_params[key]


def _absurd(value: str) -> bool:
    """Whether a value is a number, and none that a setting can have."""
    try:
        return not abs(float(value)) < LARGEST
    except ValueError:
        return False
