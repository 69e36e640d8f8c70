"""The glossary: one entry for each term of the app, for the popovers of all pages and for the Learn page."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st
import yaml

from pruning.paths import ASSETS


@dataclass(frozen=True)
class Entry:
    """One term.

    Attributes:
        text: its definition.
        formula: in LaTeX.
        page: that shows it, a file of `pages` without its suffix.
        at: where on that page, unless it is visible at once.
        lesson: about it.
    """

    text: str
    formula: str = ""
    page: str = ""
    at: str = ""
    lesson: str = ""


@functools.cache
def entries() -> dict[str, Entry]:
    """Entries by term."""
    content = yaml.safe_load((ASSETS / "glossary.yaml").read_text(encoding="utf-8"))
    return {term: Entry(**entry) for term, entry in content.items()}


def popover(*names: str) -> None:
    """A button that shows the definitions of a page's terms."""
    with st.popover("Glossary", icon=":material/menu_book:"):
        for name in names:
            st.markdown(f"**{name}**: {entries()[name].text}")
        st.page_link(
            "pages/learn.py", label="All terms", icon=":material/school:", query_params={"lesson": "glossary"}
        )


def draw(lessons: Mapping[str, str]) -> None:
    """All entries, with a search field.

    Args:
        lessons: titles by key.
    """
    query = st.text_input("Search", placeholder="variance", key="glossary-search").strip().lower()
    matches = {
        term: entry
        for term, entry in sorted(entries().items())
        if query in term.lower() or query in entry.text.lower()
    }
    if not matches:
        st.info(f"No entry contains {query!r}. Clear the search to see all {len(entries())}.")
    for term, entry in matches.items():
        with st.container(border=True):
            left, right = st.columns([3, 2], vertical_alignment="center")
            left.markdown(f"**{term}**  \n{entry.text}")
            right.latex(entry.formula)
            with left.container(horizontal=True, vertical_alignment="center"):
                if entry.page:
                    label = ", ".join(filter(None, (f"Shown on {entry.page.capitalize()}", entry.at)))
                    st.page_link(f"pages/{entry.page}.py", label=label, icon=":material/arrow_outward:")
                if entry.lesson:
                    st.button(
                        f"Lesson: {lessons[entry.lesson]}",
                        key=f"glossary-{term}",
                        type="tertiary",
                        icon=":material/school:",
                        on_click=_open,
                        args=(entry.lesson,),
                    )


def _open(lesson: str) -> None:
    st.session_state.lesson = lesson
