"""Where on the pictures one looks: the iteration and the channel, the same on all pages that show them."""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pruning import visualization as viz
from pruning.models.geometry import KINDS, Geometry, Kind, Site
from pruning.runs.run import Run

KEPT: dict[str, Any] = {"bind": "query-params", "persist_state": "session"}


def seed() -> None:
    """Take over what a link says of the place, also on pages that do not draw these widgets."""
    for key in ("iteration", "layer", "channel", "site"):
        said = st.query_params.get(key, "")
        if key == "site" and said in KINDS:
            st.session_state.setdefault(key, said)
        elif key != "site" and said.isdecimal():
            st.session_state.setdefault(key, int(said))


def iteration(run: Run) -> None:
    """The slider over the iterations of a run; none where there is one."""
    last = run.config.iterations
    if last < 2:
        return
    _within("iteration", 1, last)
    st.slider(
        "Iteration",
        1,
        last,
        1,
        key="iteration",
        bind="query-params",
        persist_state="session",
        help="The statistics collected in this iteration and the mask after it. The arrow keys step.",
    )


def layer(run: Run) -> None:
    """The controls of the selected module and layer."""
    if run.geometry:
        _site(run.geometry, *st.columns([2, 2, 5], vertical_alignment="bottom")[:2])


def channel(run: Run) -> None:
    """The controls of the selected channel; a click on a heatmap sets them as well."""
    shape = run.geometry
    if shape is None:
        return
    # one limit for both modules: Streamlit resets a widget whose limits change
    widest = max(shape.channels(site) for site in shape.sites)
    _within("channel", 0, widest - 1)
    parts = st.columns([2, 2, 2, 3], vertical_alignment="bottom")
    site = _site(shape, *parts[:2])
    parts[2].number_input("Channel", 0, widest - 1, key="channel", **KEPT)
    parts[3].caption(f"{shape.channels(site):,} {viz.KIND_NAMES[site.name]} channels in this layer")


def _site(shape: Geometry, left: DeltaGenerator, right: DeltaGenerator) -> Site:
    _within("layer", 0, len(shape.layers) - 1)
    kind: Kind = left.segmented_control(
        "Module", ("mlp", "attn"), default="mlp", required=True, key="site", **KEPT
    )
    number = right.number_input("Layer", 0, len(shape.layers) - 1, key="layer", **KEPT)
    return Site(int(number), kind if kind in KINDS else "mlp")


def _within(key: str, low: int, high: int) -> None:
    """A value kept from a larger model is brought within the limits of this one."""
    if key in st.session_state:
        st.session_state[key] = min(max(int(st.session_state[key] or low), low), high)
