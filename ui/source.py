"""The line above every page: which run the pictures come from, and the run that will replace it."""

from __future__ import annotations

import numpy as np
import streamlit as st

from pruning import visualization as viz
from pruning.config import METHODS, RunConfig
from pruning.formatting import plain, quoted
from pruning.runs.folder import layers_so_far
from pruning.runs.run import Run
from ui import models, state

ROUNDINGS = (1, 8, 16, 32, 64, 128, 256)


def asked() -> str | None:
    """The run that a link, a button or a finished calibration asks for; read once."""
    wanted = st.session_state.pop("next_run", None)
    if "run" not in st.session_state:
        wanted = wanted or st.query_params.get("run")
    return wanted


def on_view() -> tuple[Run, list[Run]]:
    """The run that the pages show, and all runs that can be chosen, newest first."""
    wanted = _arrived() or asked()
    named = (wanted, st.session_state.get("run"))
    runs = {
        run.id: run
        for run in state.all_runs()
        if run.config.experiment is None or run.id in named or state.label(run) in named
    }
    if not runs:
        st.error("There is no run to show. Create one with `python -m pruning prune`.")
        st.stop()
    labels = {state.label(run): name for name, run in runs.items()}
    if wanted in runs:
        # an id is no option of the widget: Streamlit takes it out of the address
        st.session_state.address = ["run"]
    wanted = labels.get(wanted or "", wanted)
    if wanted in runs:
        st.session_state.run = wanted
    elif wanted:
        st.session_state.lost = wanted
    if st.session_state.get("run") not in runs:
        st.session_state.run = state.shipped()[0].id if state.shipped() else next(iter(runs))
    return runs[st.session_state.run], list(runs.values())


def draw(run: Run, runs: list[Run]) -> None:
    """Name the run, offer the others, and say what is at work.

    Args:
        run: on view.
        runs: that can be chosen.
    """
    by_id = {other.id: other for other in runs}
    # the shipped run first: the default of a link without a run must not depend on which run is the newest
    names = sorted(by_id, key=lambda name: name != state.shipped()[0].id)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="source"):
        with st.popover(
            plain(_words(run)), type="tertiary", icon=":material/database:", key="source-popover"
        ):
            st.selectbox(
                "Displayed run",
                names,
                format_func=lambda name: state.label(by_id[name]),
                key="run",
                bind="query-params",
                help="The pages show the statistics of this run.",
            )
            st.caption(plain(_details(run)))
            st.button(
                "Copy settings of this run",
                on_click=copy,
                args=(run, state.domain_names(run)),
                width="stretch",
                help="Set model, domain mixture, pruning ratio, method and pruning options to those of this run",
            )
        waited = _at_work(run)
    if waited is not None:
        _growing(waited)
    if lost := st.session_state.get("lost"):
        left, right = st.columns([5, 1], vertical_alignment="center")
        left.warning(
            f"The link names the run {plain(quoted(lost))}, which is not in this store: it was deleted, or belongs to "
            f"another machine. The pages show {plain(state.label(run))} instead."
        )
        right.button("Understood", on_click=lambda: st.session_state.pop("lost", None), width="stretch")


def _words(run: Run) -> str:
    if not state.looked(run):
        return f"{state.label(run)}: no statistics yet"
    return f"Statistics of {state.label(run)}, {tokens(run):,} tokens"


def tokens(run: Run) -> int:
    """Calibration tokens of an iteration."""
    return run.config.samples * run.config.seq_len * len(run.config.mixture)


def _details(run: Run) -> str:
    shape, config = run.geometry, run.config
    words = f"{len(shape.layers)} layers, hidden size {shape.hidden_size:,}" if shape else "not loaded yet"
    mixture = ", ".join(f"{name} {share:.0%}" for name, share in config.mixture.items())
    cut = f"method {config.method}, pruning ratio {config.ratio:.0%}, {config.iterations} iterations"
    return f"Model {config.model}: {words}. {'Statistics only' if not config.ratio else cut}. Calibrated on {mixture}."


# --- the run that will come on view ----------------------------------------------------------------------


def _arrived() -> str | None:
    """The id of the run waited for, once it has something to show; until then the pages keep the old one."""
    chosen = st.session_state
    waiting = chosen.get("follow") or st.query_params.get("follow")
    if not waiting:
        return None
    run = next((run for run in state.store().all() if run.id == waiting), None)
    if run is not None and not state.looked(run) and run.active:
        chosen.follow = st.query_params["follow"] = waiting
        return None
    chosen.pop("follow", None)
    st.query_params.pop("follow", None)
    return waiting if run is not None and state.looked(run) else None


def _at_work(on_view: Run) -> Run | None:
    """What the run waited for is doing, looked at every other second; returns it."""
    waiting = st.session_state.get("follow")
    run = next((run for run in state.store().all() if run.id == waiting), None)
    if run is None:
        return None

    @st.fragment(run_every=2.0)
    def watch() -> None:
        if state.looked(run) or not run.active:
            st.rerun()
        status = run.status()
        where = "waits for its turn" if status.state == "queued" else status.stage or status.state
        done = f" {status.done / status.total:.0%}" if status.total and status.state != "queued" else ""
        st.markdown(
            f":material/hourglass_top: New run **{plain(state.label(run))}**: {plain(where)}{done}. "
            "The pages show the run on the left until it has statistics.",
        )

    watch()
    return run


def _growing(run: Run) -> None:
    """The layers that are through of a run that has no statistics yet, drawn as they come."""

    @st.fragment(run_every=2.0)
    def draw() -> None:
        found, shape = layers_so_far(run.path), run.geometry
        if not found or shape is None:
            return
        blank = {site: np.full(shape.channels(site), np.nan) for site in shape.sites}
        data = viz.importance_data(blank | found, "mlp", what="score", scale="log per layer", bins=256)
        through = len({site.layer for site in found})
        title = f"{models.title(run.config.model)}, MLP channels: {through} of {len(shape.layers)} layers are through"
        st.plotly_chart(
            viz.importance_figure(data, title, (-1.0, 1.0), 300),
            alt=title,
            config=state.PLOT,
            key=f"growing-{through}",
        )

    draw()


def copy(run: Run, names: list[str]) -> None:
    """Callback: the settings of a run in the sidebar."""
    chosen, config = st.session_state, run.config
    chosen.locked = chosen.held = []
    for name in names:
        chosen[f"w_{name}"] = round(100 * config.mixture.get(name, 0))
    chosen.ratio, chosen.method = round(100 * config.ratio), config.method
    for name in ("allocation", "compensation"):
        own = METHODS[config.method].get(name, RunConfig.model_fields[name].default)
        value = getattr(config, name)
        chosen[name] = state.AS_METHOD if value == own else value
    chosen.worst = round(100 * config.worst_domain)
    chosen.unit = config.attention_unit
    chosen.round_to = config.round_to if config.round_to in ROUNDINGS else 1
    chosen.keep, chosen.remove = [*config.keep], [*config.remove]
