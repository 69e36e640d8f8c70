"""The sidebar: the settings shared by all pages, kept in the URL.

`app.py` draws it on every run of the script, so that the widgets keep their values on all pages.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pruning import visualization as viz
from pruning.config import METHODS, RunConfig, choices
from pruning.models.geometry import Kind, Site
from pruning.runs.run import Run
from ui import state
from ui.navigation import remember

ROUNDINGS = (1, 8, 16, 32, 64, 128, 256)
PINS = "LAYER, LAYER.attn, LAYER.mlp.FIRST-LAST"


def draw(page: str) -> None:
    """Draw the sidebar.

    Args:
        page: title of the current page.
    """
    remember()
    with st.sidebar:
        run = _run_on_view()
        st.slider("Pruning ratio", 0, 90, 50, 1, format="%d%%", key="ratio", bind="query-params")
        st.selectbox("Method", list(METHODS), key="method", bind="query-params")
        names = state.domain_names(run)
        _weights(names)
        left, right = st.columns(2)
        left.button(
            "Equal", on_click=_equal, args=(names,), width="stretch", help="Give all domains the same weight"
        )
        right.button(
            "Reset",
            on_click=_reset,
            args=(names,),
            width="stretch",
            help="Reset all settings to their defaults",
        )
        st.button(
            "Copy settings of this run",
            on_click=_as_in,
            args=(run, names),
            width="stretch",
            help="Set pruning ratio, method, domain mixture and pruning options to those of the displayed run",
        )
        _details(page)
        _place(run)


def _run_on_view() -> Run:
    asked = st.session_state.pop("next_run", None)
    if "run" not in st.session_state:
        asked = asked or st.query_params.get("run")
    on_view = st.session_state.get("run")
    named = (asked, on_view)
    runs = {
        run.id: run
        for run in state.all_runs()
        if run.config.experiment is None or run.id in named or state.label(run) in named
    }
    if not runs:
        st.error("There is no run to show. Create one with `python -m pruning prune`.")
        st.stop()
    # the demo run first: the default of a link without a run must not depend on which run is the newest
    names = sorted(runs, key=lambda name: name != state.shipped()[0].id)
    if asked in runs:
        st.session_state.run = asked
    st.selectbox(
        "Displayed run",
        names,
        format_func=lambda name: state.label(runs[name]),
        key="run",
        bind="query-params",
        help="The pages show the statistics of this run.",
    )
    run = runs[st.session_state.run]
    shape = run.geometry
    words = f"{len(shape.layers)} layers, hidden size {shape.hidden_size:,}" if shape else "not loaded yet"
    st.caption(f"Model: {Path(run.config.model).name}, {words}")
    return run


def _weights(names: list[str]) -> None:
    st.markdown("**Domain mixture**")
    rows = st.container()
    held = _locks(names)
    words = {}
    for name in names:
        left, right = rows.columns([2, 3], vertical_alignment="bottom", gap="small")
        words[name] = left.empty()
        right.slider(
            name,
            0,
            100,
            50,
            key=f"w_{name}",
            bind="query-params",
            disabled=name in held,
            label_visibility="collapsed",
        )
    shares = state.mixture(names)
    for name, place in words.items():
        lock = ":material/lock: " if name in held else ""
        place.markdown(f"{lock}{name} **{shares.get(name, 0):.0%}**")
    if not shares:
        st.warning("All weights are zero: all domains get equal weights until one is raised.")


def _locks(names: list[str]) -> list[str]:
    """The control that locks domain shares; returns the locked domains."""
    if len(names) < 2:
        return []
    held = st.pills(
        "Lock domain shares",
        names,
        selection_mode="multi",
        key="locked",
        bind="query-params",
        on_change=_rebase,
        args=(names,),
        help="A locked share stays fixed; the other domains divide the remainder.",
    )
    st.session_state["held"] = held
    return held


def _details(page: str) -> None:
    """Pruning options: drawn on every page so that the URL keeps them, expanded on the Masks page."""
    fields = RunConfig.model_fields
    with st.expander("Pruning options", icon=":material/tune:", expanded=page == "Masks"):
        st.selectbox(
            "Allocation",
            [state.AS_METHOD, *(choices("allocation") or ())],
            key="allocation",
            bind="query-params",
            help=fields["allocation"].description,
        )
        st.selectbox(
            "Attention unit",
            (choices("attention_unit") or ()),
            key="unit",
            bind="query-params",
            help=fields["attention_unit"].description,
        )
        st.selectbox(
            "Round MLP widths to",
            ROUNDINGS,
            key="round_to",
            bind="query-params",
            help="The retained MLP channels of every layer are a multiple of this. Matrix kernels often run faster at "
            "multiples of 64 or 128.",
        )
        for key, title in (("keep", "Always keep"), ("remove", "Remove first")):
            st.multiselect(
                title,
                st.session_state.get(key, []),
                key=key,
                accept_new_options=True,
                placeholder="none",
                bind="query-params",
                help=f"Format: {PINS}. It can also be set on the Masks page.",
            )


def _place(run: Run) -> None:
    """The selected iteration and channel, the same on all pages."""
    shape = run.geometry
    if shape is None:
        return
    st.markdown("**Selected iteration and channel**")
    if run.config.iterations > 1:
        st.slider(
            "Iteration",
            1,
            run.config.iterations,
            1,
            key="iteration",
            bind="query-params",
            help="The pages show the statistics collected in this iteration and the mask after it. Use the arrow keys to "
            "step.",
        )
    kind: Kind = st.radio("Module", ("mlp", "attn"), horizontal=True, key="site", bind="query-params")
    left, right = st.columns([2, 3])
    layer = left.number_input("Layer", 0, len(shape.layers) - 1, key="layer", bind="query-params")
    # one limit for both sites: Streamlit resets a widget whose limits change
    widest = max(shape.channels(site) for site in shape.sites)
    right.number_input("Channel", 0, widest - 1, key="channel", bind="query-params")
    width = shape.channels(Site(int(layer), kind))
    st.caption(f"{width:,} {viz.KIND_NAMES[kind]} channels in this layer")


# --- button callbacks ------------------------------------------------------------------------------------


def _rebase(names: list[str]) -> None:
    """Set the weights to the current shares before a lock is set or lifted, so that no share changes."""
    for name, share in state.mixture(names).items():
        st.session_state[f"w_{name}"] = round(100 * share)


def _equal(names: list[str]) -> None:
    for name in names:
        if name not in st.session_state.get("held", []):
            st.session_state[f"w_{name}"] = 50


def _reset(names: list[str]) -> None:
    chosen = st.session_state
    chosen.locked = chosen.held = []
    _equal(names)
    chosen.ratio, chosen.method = 50, "iterative"
    chosen.allocation, chosen.unit, chosen.round_to = (
        state.AS_METHOD,
        RunConfig.model_fields["attention_unit"].default,
        1,
    )
    chosen.keep, chosen.remove = [], []
    chosen.site, chosen.layer, chosen.channel = "mlp", 0, 0
    if "iteration" in chosen:
        chosen.iteration = 1


def _as_in(run: Run, names: list[str]) -> None:
    chosen, config = st.session_state, run.config
    chosen.locked = chosen.held = []
    for name in names:
        chosen[f"w_{name}"] = round(100 * config.mixture.get(name, 0))
    chosen.ratio, chosen.method = round(100 * config.ratio), config.method
    own = METHODS[config.method].get("allocation", RunConfig.model_fields["allocation"].default)
    chosen.allocation = state.AS_METHOD if config.allocation == own else config.allocation
    chosen.unit = config.attention_unit
    chosen.round_to = config.round_to if config.round_to in ROUNDINGS else 1
    chosen.keep, chosen.remove = [*config.keep], [*config.remove]
