"""What the pages look at: the selected iteration, site and channel, the same on all pages that show them."""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pruning import visualization as viz
from pruning.models.geometry import Geometry, Site
from pruning.runs.run import Run

DEFAULTS: dict[str, str | int] = {"iteration": 1, "site": "mlp", "layer": 0, "channel": 0}
BOUND: dict[str, Any] = {"bind": "query-params", "persist_state": "session"}


def seed() -> None:
    """Take over the selection of a link, also on pages that do not draw these widgets."""
    for key, default in DEFAULTS.items():
        text = st.query_params.get(key, "")
        if text if isinstance(default, str) else text.isdecimal():
            st.session_state.setdefault(key, type(default)(text))


def reset() -> None:
    """Set the selection to its defaults."""
    st.session_state.update(DEFAULTS)


def clamped(value: Any, low: int, high: int) -> int:
    """A whole number within limits, the nearest to a value; a link may name what another model has."""
    return min(max(int(value or 0), low), high)


def site(shape: Geometry | None) -> Site:
    """The selected site, or the nearest that the model has."""
    name, layer = st.session_state.get("site"), int(st.session_state.get("layer") or 0)
    if shape is None:
        return Site(0, "mlp")
    sites = [site for site in shape.sites if site.name == name]
    sites = sites or [site for site in shape.sites if site.name == default_name(shape)]
    return min(sites, key=lambda site: abs(site.layer - layer))


def default_name(shape: Geometry) -> str:
    """Name of the sites that are shown first."""
    names = viz.site_names(shape)
    return "mlp" if "mlp" in names else names[-1]


def iteration(run: Run) -> None:
    """The slider over the iterations of a run; none where there is one."""
    last = run.config.iterations
    if last < 2:
        return
    _limit("iteration", 1, last)
    st.slider(
        "Iteration",
        1,
        last,
        1,
        key="iteration",
        help="The statistics collected in this iteration and the mask after it. The arrow keys step.",
        **BOUND,
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
    # one limit for all modules: Streamlit resets a widget whose limits change
    widest = max(shape.channels(site) for site in shape.sites)
    _limit("channel", 0, widest - 1)
    columns = st.columns([2, 2, 2, 3], vertical_alignment="bottom")
    _site(shape, *columns[:2])
    columns[2].number_input("Channel", 0, widest - 1, key="channel", **BOUND)
    selected = site(shape)
    label = viz.site_style(selected.name).label
    columns[3].caption(f"{shape.channels(selected):,} {label} channels in layer {selected.layer}")


def module(shape: Geometry, container: Any = st, key: str = "site", **options: Any) -> str:
    """The control that chooses one of the modules of a layer; returns the name of its sites."""
    names = viz.site_names(shape)[::-1]
    if st.session_state.get(key) not in (None, *names):
        del st.session_state[key]
    name = container.segmented_control(
        "Module", names, default=default_name(shape), required=True, key=key, bind="query-params", **options
    )
    return str(name)


def _site(shape: Geometry, left: DeltaGenerator, right: DeltaGenerator) -> None:
    _limit("layer", 0, len(shape.layers) - 1)
    module(shape, left, persist_state="session")
    right.number_input("Layer", 0, len(shape.layers) - 1, key="layer", **BOUND)


def _limit(key: str, low: int, high: int) -> None:
    """Bring a value that was kept from a larger model within the limits of this one."""
    if key in st.session_state:
        st.session_state[key] = clamped(st.session_state[key], low, high)
