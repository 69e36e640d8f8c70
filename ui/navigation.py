"""The pages and their order."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from pruning.paths import ASSETS


def pages() -> StreamlitPage:
    """Declare the pages; gives the one that the address names."""
    # first of all, and an image file: without it the browser fetches a page's icon from Google as its tab's
    st.set_page_config(page_title="Prunescope", page_icon=str(ASSETS / "icon.png"), layout="wide")
    return st.navigation(
        {
            "Start": [st.Page("pages/overview.py", title="Overview", icon=":material/home:", default=True)],
            "Understand": [
                st.Page("pages/calibration.py", title="Calibration", icon=":material/library_books:"),
                st.Page("pages/importance.py", title="Importance", icon=":material/grid_on:"),
                st.Page("pages/masks.py", title="Masks", icon=":material/filter_alt:"),
            ],
            "Run": [
                st.Page("pages/prune.py", title="Prune", icon=":material/content_cut:"),
                st.Page("pages/results.py", title="Results", icon=":material/bar_chart:"),
                st.Page("pages/experiments.py", title="Experiments", icon=":material/science:"),
            ],
        }
    )


def ensure_frame() -> None:
    """Begin again with `app.py` where a page was run without it.

    A folder called `pages` makes Streamlit run a page's file by itself, until `st.navigation` was called once
    in the server: the first visitor who comes by a link to a page meets that.
    """
    if "run" not in st.session_state:
        pages()
        st.rerun()


def go(page: str) -> None:
    """Another page with all choices.

    `st.switch_page` refuses to drop parameters that are bound to widgets, unless it is told which to have; then
    the address forgets them all, and `remember` writes them again.
    """
    st.session_state.address = [*st.query_params]
    st.switch_page(page, query_params={})


def remember() -> None:
    """Write the choices into the address again after `go`: a value that is set is one that the browser is told."""
    for key in st.session_state.pop("address", []):
        if key in st.session_state:
            st.session_state[key] = st.session_state[key]
