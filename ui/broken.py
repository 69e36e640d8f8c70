"""Runs of the store that cannot be read: why, and what can be done about it."""

from __future__ import annotations

import streamlit as st

from pruning.errors import PruningError
from pruning.formatting import sentence
from pruning.runs.repair import repair
from ui import state


def show() -> None:
    """A warning for each broken run, with buttons that restore and delete it."""
    for name, why in state.store().broken().items():
        st.warning(sentence(why))
        left, right, _ = st.columns([1, 1, 4])
        if left.button("Repair", key=f"repair-{name}", icon=":material/build:", width="stretch"):
            try:
                run = state.store().get(name)
                with run.held():
                    repair(run)
            except PruningError as error:
                state.explain(error)
            else:
                st.rerun()
        with right:
            state.delete_button(name)
