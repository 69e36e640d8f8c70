"""The worked toy: three channels whose numbers one drags, with the arithmetic of the method beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

TITLE = "Three channels by hand"
FOLDER = Path(__file__).parent
HTML = """<div class="toy">
  <div class="head"><span>channel</span><span>activation of six tokens: drag</span><span>two weights</span>
    <span>its score</span></div>
  <div class="rows"></div>
  <div class="result" aria-live="polite"></div>
  <div class="buttons">
    <button data-set="start">Start again</button>
    <button data-set="constant">Make channel 1 large but constant</button>
    <button data-set="busy">Make channel 1 small but busy</button>
  </div>
</div>"""
X = [[1.8, 2.2, 2.0, 1.7, 2.3, 2.0], [-1.0, 1.2, -0.6, 0.9, -1.3, 0.8], [0.4, 0.1, -0.2, 0.5, 0.0, -0.2]]
W = [[0.9, 0.6], [0.8, -0.7], [2.2, 1.4]]
# What the buttons set: activations of three channels, their weights, and the channel that is removed.
PRESETS: dict[str, dict[str, Any]] = {
    "start": {"x": X, "w": W, "gone": 0},
    "constant": {"x": [[2.5] * 6, *X[1:]], "w": W, "gone": 0},
    "busy": {"x": [[0.5, -0.5, 0.6, -0.6, 0.4, -0.4], *X[1:]], "w": [[2.5, 2.0], *W[1:]], "gone": 0},
}


def draw() -> None:
    """The toy with its arithmetic."""
    st.markdown(
        "A projection adds up what its channels bring: each token's activation times the channel's weights. "
        "**Drag the points**, or focus one and press the arrow keys. Which channel has the lowest score, and what is lost "
        "when it is removed? Can you make a channel large, and yet the first to be removed?"
    )
    mount = st.components.v2.component(
        "prunescope-toy",
        html=HTML,
        css=(FOLDER / "toy.css").read_text(encoding="utf-8"),
        js=(FOLDER / "toy.js").read_text(encoding="utf-8"),
    )
    mount(data=PRESETS, key="toy")
    st.info(
        "**Remember.** The bias replaces the mean of a removed channel; what it cannot replace is the variance times "
        "the squared weight norm. That is the fluctuation score: prune the channels with the lowest scores.",
        icon=":material/bookmark:",
    )
