"""The live canvas: bars for mixture and ratio, and what they remove, redrawn in the browser during a drag.

The sliders of the sidebar remain the settings: when a bar is let go, its value is written into them, and the page
follows. Keyboard and screen readers use these.
"""

from __future__ import annotations

import streamlit as st

from pruning.errors import PruningError
from pruning.runs.run import Run
from pruning.visualization import live
from ui import state, stored

KEY = "canvas"
_canvas = st.components.v2.component("prunescope_live", html=live.HTML, css=live.CSS, js=live.COMPONENT)


def draw(chosen: state.Choice) -> None:
    """The canvas over the dense model's statistics; nothing where the settings contradict each other.

    Args:
        chosen: the current settings; its run has statistics.
    """
    try:
        config = chosen.config()
    except PruningError:  # the page says so where it uses them
        return
    if what := live.unsupported(config):
        st.caption(f"No preview while dragging: the browser does not compute {what}. The sliders do.")
        return
    run, dense = chosen.run, stored.iteration(chosen.run, 1)
    held = st.session_state.get("held", [])
    names = state.domain_names(run)
    data = _packed(str(run.path), stored.stamp(dense), live.arrays_of(config), config.seed, names, run)
    try:
        message = live.pack(
            data, config, dense.geometry, held=[name in held for name in names], plain_sliders=True
        )
    except PruningError:  # what is to be kept or removed cannot be read; the page says so as well
        return
    _canvas(key=KEY, data=message, on_released_change=_take)


@st.cache_resource(max_entries=4, show_spinner=False)
def _packed(
    path: str, stamp: int, arrays: tuple[str, ...], seed: int, names: list[str], _run: Run
) -> live.Live:
    return live.live_data(stored.iteration(_run, 1), arrays, seed, names)


def _take() -> None:
    """Write what a drag ended with into the sliders of the sidebar."""
    if not (released := st.session_state[KEY].get("released")):
        return
    for name, percent in released["mixture"].items():
        if f"w_{name}" in st.session_state:
            st.session_state[f"w_{name}"] = min(max(int(percent), 0), 100)
    st.session_state.ratio = min(max(int(released["ratio"]), 0), 90)
