"""Class mode: larger type, no sidebar and no bar of pages, for a projector."""

from __future__ import annotations

import streamlit as st

# Without the bar of pages, question and figures of a lesson fit 1280 x 720 together.
STYLE = """<style>
[data-testid="stSidebar"], [data-testid="stExpandSidebarButton"], [data-testid="stHeader"] { display: none; }
.stMainBlockContainer { padding-top: 0.8rem; }
html { font-size: 125%; }
</style>"""
# The lessons measure on models of their own, not on the displayed run.
OWN = "<style>.st-key-source { display: none; }</style>"


def title(text: str) -> None:
    """The page's title, and beside it the switch of class mode."""
    left, right = st.columns([6, 1], vertical_alignment="center", gap="small")
    left.title(text, anchor=False)
    with right:
        _toggle()


def _toggle() -> None:
    on = st.toggle(
        "Class",
        key="class",
        bind="query-params",
        persist_state="session",
        help="Class mode, for a projector: hides sidebar and pages, and enlarges type.",
    )
    if on:
        st.html(STYLE)
