"""Terms and what they mean, one click away."""

from __future__ import annotations

import functools

import streamlit as st
import yaml

from pruning.paths import ASSETS


@functools.cache
def terms() -> dict[str, str]:
    """All terms."""
    return yaml.safe_load((ASSETS / "glossary.yaml").read_text(encoding="utf-8"))


def popover(*names: str) -> None:
    """A small button that explains the terms of a page."""
    with st.popover("What do the words mean?", icon=":material/menu_book:"):
        for name in names:
            st.markdown(f"**{name}**: {terms()[name]}")
