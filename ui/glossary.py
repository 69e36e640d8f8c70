"""The glossary: terms and their definitions."""

from __future__ import annotations

import functools

import streamlit as st
import yaml

from pruning.paths import ASSETS


@functools.cache
def terms() -> dict[str, str]:
    """Definitions by term."""
    return yaml.safe_load((ASSETS / "glossary.yaml").read_text(encoding="utf-8"))


def popover(*names: str) -> None:
    """A button that shows the definitions of a page's terms."""
    with st.popover("Glossary", icon=":material/menu_book:"):
        for name in names:
            st.markdown(f"**{name}**: {terms()[name]}")
