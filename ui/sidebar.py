"""The frame of the app: what is chosen, always on the screen and in the URL.

`app.py` draws it on every run of the script, so that widgets keep their values on all pages.
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
    """Draw the choices.

    Args:
        page: title of the page that is shown.
    """
    remember()
    with st.sidebar:
        run = _run_on_view()
        st.slider("Pruning ratio", 0, 90, 50, 1, format="%d%%", key="ratio", bind="query-params")
        st.selectbox("Method", list(METHODS), key="method", bind="query-params")
        names = state.domain_names(run)
        _weights(names)
        left, right = st.columns(2)
        left.button("Equal", on_click=_equal, args=(names,), width="stretch", help="The same weight for all")
        right.button("Reset", on_click=_reset, args=(names,), width="stretch", help="All as it began")
        st.button(
            "As in the run on view",
            on_click=_as_in,
            args=(run, names),
            width="stretch",
            help="Ratio, method, mixture and the rest as that run had them",
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
        st.error("There is no run to show. `python -m pruning prune` makes one.")
        st.stop()
    # the demo run first: what a link leaves out must mean the same tomorrow, whatever is newest then
    names = sorted(runs, key=lambda name: name != state.DEMO_RUN.name)
    if asked in runs:
        st.session_state.run = asked
    st.selectbox(
        "Run on view",
        names,
        format_func=lambda name: state.label(runs[name]),
        key="run",
        bind="query-params",
        help="Its statistics are what the pages show.",
    )
    run = runs[st.session_state.run]
    shape = run.geometry
    words = f"{len(shape.layers)} layers, width {shape.hidden_size:,}" if shape else "not loaded yet"
    st.caption(f"Model: {Path(run.config.model).name}, {words}")
    return run


def _weights(names: list[str]) -> None:
    st.markdown("**Whose text decides**")
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
        st.warning("All weights are zero: every domain counts alike until one is raised.")


def _locks(names: list[str]) -> list[str]:
    """The control that locks shares; gives the domains that are locked."""
    if len(names) < 2:
        return []
    held = st.pills(
        "Lock the share of",
        names,
        selection_mode="multi",
        key="locked",
        bind="query-params",
        on_change=_rebase,
        args=(names,),
        help="It stays what it is; the others divide the rest.",
    )
    st.session_state["held"] = held
    return held


def _details(page: str) -> None:
    """How it is cut: drawn on every page, or the URL would forget it; open where it is the subject."""
    fields = RunConfig.model_fields
    with st.expander("How it is cut", icon=":material/tune:", expanded=page == "Masks"):
        st.selectbox(
            "Allocation",
            [state.AS_METHOD, *(choices("allocation") or ())],
            key="allocation",
            bind="query-params",
            help=fields["allocation"].description,
        )
        st.selectbox(
            "Unit of attention",
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
            help="Retained channels of a layer are a multiple of this: kernels like 64 or 128.",
        )
        for key, title in (("keep", "Kept, whatever the score"), ("remove", "Cut first")):
            st.multiselect(
                title,
                st.session_state.get(key, []),
                key=key,
                accept_new_options=True,
                placeholder="by hand",
                bind="query-params",
                help=f"Written as {PINS}; the Masks page writes it for you.",
            )


def _place(run: Run) -> None:
    """Iteration and channel on view: the same on all pages."""
    shape = run.geometry
    if shape is None:
        return
    st.markdown("**On view**")
    if run.config.iterations > 1:
        st.slider(
            "Iteration",
            1,
            run.config.iterations,
            1,
            key="iteration",
            bind="query-params",
            help="Its statistics, and the mask after it. The arrow keys walk.",
        )
    kind: Kind = st.radio("Site", ("mlp", "attn"), horizontal=True, key="site", bind="query-params")
    left, right = st.columns([2, 3])
    layer = left.number_input("Layer", 0, len(shape.layers) - 1, key="layer", bind="query-params")
    # one limit for both sites: a widget whose limits change forgets its value
    widest = max(shape.channels(site) for site in shape.sites)
    right.number_input("Channel", 0, widest - 1, key="channel", bind="query-params")
    width = shape.channels(Site(int(layer), kind))
    st.caption(f"{width:,} {viz.KIND_NAMES[kind]} channels in this layer")


# --- what buttons do -------------------------------------------------------------------------------------


def _rebase(names: list[str]) -> None:
    """Weights become the shares they meant before a lock was set or lifted, so that nothing jumps."""
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
