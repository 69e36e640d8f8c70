"""The live canvas: bars for mixture and ratio, and what they remove, redrawn in the browser during a drag.

The sliders of the sidebar remain the settings: when a bar is released, its value is written into them, and the page
follows. Keyboard and screen readers use these.
"""

from __future__ import annotations

import streamlit as st

from pruning.config import RunConfig
from pruning.errors import PruningError
from pruning.formatting import plain
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
        st.caption(
            f"No preview while dragging with {plain(what)}: the sliders of the sidebar redraw the page."
        )
        return
    run, dense = chosen.run, stored.iteration(chosen.run, 1)
    held = st.session_state.get("held", [])
    names = state.domain_names(run)
    data = _packed(str(run.path), stored.stamp(dense), config.score, config.seed, names, run, config)
    locked = [name in held for name in names]
    try:
        message = live.pack(data, config, dense.geometry, held=locked, plain_sliders=True)
    except PruningError:  # what is to be kept or removed cannot be read; the page says so as well
        return
    _canvas(key=KEY, data=message, on_released_change=_take)


@st.cache_resource(max_entries=4, show_spinner=False)
def _packed(
    path: str, stamp: int, score: str, seed: int, names: list[str], _run: Run, _config: RunConfig
) -> live.Live:
    return live.live_data(stored.iteration(_run, 1), _config, names)


def _take() -> None:
    """Callback: write the values at the end of a drag into the sliders of the sidebar."""
    if not (released := st.session_state[KEY].get("released")):
        return
    for name, percent in released["mixture"].items():
        if f"w_{name}" in st.session_state:
            st.session_state[f"w_{name}"] = min(max(int(percent), 0), 100)
    st.session_state.ratio = min(max(int(released["ratio"]), 0), 90)
