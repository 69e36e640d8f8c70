"""Class mode: larger type and no sidebar, for a projector."""

from __future__ import annotations

import streamlit as st

STYLE = """<style>
[data-testid="stSidebar"], [data-testid="stExpandSidebarButton"] { display: none; }
html { font-size: 125%; }
</style>"""


def toggle() -> None:
    """The switch, kept in the address."""
    on = st.toggle(
        "Class mode",
        key="class",
        bind="query-params",
        persist_state="session",
        help="For a projector: hides the sidebar and enlarges type.",
    )
    if on:
        st.html(STYLE)
