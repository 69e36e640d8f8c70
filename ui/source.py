"""The line above every page: the displayed run, and the run that will replace it."""

from __future__ import annotations

import numpy as np
import streamlit as st

from pruning import visualization as viz
from pruning.formatting import plain, quoted
from pruning.runs.folder import layers_so_far
from pruning.runs.run import Run
from ui import models, settings, state, view_state


def _requested() -> str | None:
    """The run that a link or a button names; read once."""
    name = st.session_state.pop("next_run", None)
    if "run" not in st.session_state:
        name = name or st.query_params.get("run")
    return name


def displayed() -> tuple[Run, list[Run]]:
    """The run that the pages show, and all runs that can be chosen, newest first."""
    requested = _completed() or _requested()
    kept = (requested, st.session_state.get("run"))
    runs = {
        run.id: run
        for run in state.all_runs()
        if run.config.experiment is None or run.id in kept or state.label(run) in kept
    }
    if not runs:
        st.error("There is no run to show. Create one with `python -m pruning prune`.")
        st.stop()
    labels = {state.label(run): name for name, run in runs.items()}
    if requested in runs:
        # an id is no option of the widget: Streamlit takes it out of the address
        st.session_state.address = ["run"]
    requested = labels.get(requested or "", requested)
    if requested in runs:
        st.session_state.run = requested
    elif requested:
        st.session_state.missing_run = requested
    if st.session_state.get("run") not in runs:
        st.session_state.run = state.shipped()[0].id if state.shipped() else next(iter(runs))
    return runs[st.session_state.run], list(runs.values())


def draw(run: Run, runs: list[Run]) -> None:
    """Name the displayed run, offer the others, and show the progress of a new one.

    Args:
        run: that is displayed.
        runs: that can be chosen.
    """
    by_id = {other.id: other for other in runs}
    # the shipped run first: the default of a link without a run must not depend on which run is the newest
    names = sorted(by_id, key=lambda name: name != state.shipped()[0].id)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="source"):
        with st.popover(
            plain(_title(run)), type="tertiary", icon=":material/database:", key="source-popover"
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
        awaited = _progress()
    if awaited is not None:
        _layers_done(awaited)
    if missing := st.session_state.get("missing_run"):
        left, right = st.columns([5, 1], vertical_alignment="center")
        left.warning(
            f"The link names the run {plain(quoted(missing))}, which is not in this store: it was deleted, or belongs to "
            f"another machine. The pages show {plain(state.label(run))} instead."
        )
        right.button("OK", on_click=lambda: st.session_state.pop("missing_run", None), width="stretch")


def _title(run: Run) -> str:
    if not state.has_statistics(run):
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


# --- the run that will be displayed ------------------------------------------------------------------------


def _completed() -> str | None:
    """The id of the awaited run, once it has statistics; until then the pages keep the old one."""
    widgets = st.session_state
    awaited = widgets.get("follow") or st.query_params.get("follow")
    if not awaited:
        return None
    run = next((run for run in state.store().all() if run.id == awaited), None)
    if run is not None and not state.has_statistics(run) and run.active:
        widgets.follow = st.query_params["follow"] = awaited
        return None
    widgets.pop("follow", None)
    st.query_params.pop("follow", None)
    return awaited if run is not None and state.has_statistics(run) else None


def _progress() -> Run | None:
    """Show the state of the awaited run, updated every other second; returns the run."""
    awaited = st.session_state.get("follow")
    run = next((run for run in state.store().all() if run.id == awaited), None)
    if run is None:
        return None

    @st.fragment(run_every=2.0)
    def watch() -> None:
        if state.has_statistics(run) or not run.active:
            st.rerun()
        status = run.status()
        where = "waits for its turn" if status.state == "queued" else status.stage or status.state
        done = f" {status.done / status.total:.0%}" if status.total and status.state != "queued" else ""
        st.markdown(
            f":material/hourglass_top: New run **{plain(state.label(run))}**: {plain(where)}{done}. "
            "The pages show the run on the left until it has statistics."
        )

    watch()
    return run


def _layers_done(run: Run) -> None:
    """A heatmap of the layers that a run without complete statistics has calibrated, updated as they come."""

    @st.fragment(run_every=2.0)
    def draw() -> None:
        scores, shape = layers_so_far(run.path), run.geometry
        if not scores or shape is None:
            return
        blank = {site: np.full(shape.channels(site), np.nan) for site in shape.sites}
        name = view_state.default_name(shape)
        view = viz.View("score", "log per layer", bins=256)
        done = len({site.layer for site in scores})
        title = f"{models.title(run.config.model)}, {viz.site_style(name).units}: {done} of {len(shape.layers)} layers done"
        st.plotly_chart(
            viz.importance_figure(viz.importance_data(blank | scores, name, view), title, (-1.0, 1.0), 300),
            alt=title,
            config=state.PLOT,
            key=f"layers-done-{done}",
        )

    draw()


def copy(run: Run, names: list[str]) -> None:
    """Callback: the settings of a run in the sidebar."""
    widgets, config = st.session_state, run.config
    widgets.locked = widgets.held = []
    for name in names:
        widgets[f"w_{name}"] = round(100 * config.mixture.get(name, 0))
    settings.copy(config, widgets)
