import csv
import io
import math
from functools import partial
from pathlib import Path

import streamlit as st

from pruning import visualization as viz
from pruning.errors import PruningError
from pruning.runs.results import retention
from pruning.words import plain
from ui import report, results, state, tasks
from ui.glossary import popover
from ui.navigation import ensure_frame

ensure_frame()
st.title("Results")
grids = st.toggle("Include runs of experiments", key="grids", bind="query-params")
every = {run.id: run for run in state.all_runs()}
shown = [run for run in every.values() if run.config.ratio and (grids or run.config.experiment is None)]
runs = {run.id: (run, found) for run in shown if (found := run.results())}
if not runs:
    st.info("No run has finished yet. Start one on the Prune page; the demo model takes about half a minute.")
    st.stop()

rows = [results.row(run, found) for run, found in runs.values()]
results.table(runs, rows)
if len(runs) > 1:
    spots = {}
    for run, found in runs.values():
        spots[f"{Path(run.config.model).name}, dense"] = found.parameters.dense, 1.0, "dense"
        if found.mean and math.isfinite(found.mean.ratio):
            spots[state.label(run)] = found.parameters.pruned, found.mean.ratio, run.config.method
    st.plotly_chart(
        viz.tradeoff_figure(spots), alt="Runs by parameters and perplexity over dense", config=state.PLOT
    )

chosen = st.multiselect(
    "Runs to compare",
    list(runs),
    default=[next(iter(runs))],
    format_func=lambda name: state.label(runs[name][0]),
    key="side",
    bind="query-params",
)
if not chosen:
    st.stop()
beside = [runs[name] for name in chosen]
left, right = st.columns(2)
figure = viz.domain_cost_figure({state.label(run): found.perplexity for run, found in beside})
left.plotly_chart(figure, alt="Perplexity over dense by domain and run", config=state.PLOT)
right.plotly_chart(
    viz.retention_figure({state.label(run): retention(found) for run, found in beside}),
    alt="Retained performance by capability, pruned over dense",
    config=state.PLOT,
)

answers = {state.label(run): found.zero_shot.tasks for run, found in beside if found.zero_shot}
if len(answers) > 1:
    st.plotly_chart(
        viz.accuracy_figure(answers),
        alt="Change of zero-shot accuracy by task and run",
        config=state.PLOT,
        key="tasks-of-all",
    )

for name in chosen:
    run, found = runs[name]
    with st.expander(plain(state.label(run)), expanded=len(chosen) == 1):
        before, after = found.parameters.dense, found.parameters.pruned
        columns = st.columns(3)
        columns[0].metric("Parameters", f"{after:,}", f"{after - before:,}", delta_color="inverse")
        columns[1].metric("Pruning ratio", f"{found.achieved_ratio:.2%}")
        columns[2].metric("Run time", f"{found.seconds:.1f} s")
        tabs = st.tabs(["Accuracy", "Perplexity", "Text generation", "Export", "Speed", "Lineage"])
        with tabs[0]:
            results.accuracy(run, found)
        with tabs[1]:
            results.perplexity(run, found)
        try:
            checkpoint = run.checkpoint
            for tab, show in zip(tabs[2:5], (tasks.continuation, tasks.exports, tasks.speed), strict=True):
                with tab:
                    show(run, checkpoint)
        except PruningError as error:
            for tab in tabs[2:5]:
                with tab:
                    state.explain(error)
        with tabs[5]:
            results.origin(run, every)
        buttons = st.columns(3)
        for column, title, make, end, kind in (
            (buttons[0], "Report (HTML)", report.html, "html", "text/html"),
            (buttons[1], "Report (Markdown)", report.markdown, "md", "text/markdown"),
        ):
            column.download_button(
                title,
                partial(make, run),
                f"{run.id}.{end}",
                kind,
                key=f"{end}-{name}",
                on_click="ignore",
            )
        if run.path not in state.SHIPPED:
            with buttons[2]:
                state.delete_button(run, name)

sheet = io.StringIO()
writer = csv.DictWriter(sheet, dict.fromkeys(key for row in rows for key in row))
writer.writeheader()
writer.writerows(rows)
st.download_button("All runs (CSV)", sheet.getvalue(), "prunescope-runs.csv", "text/csv", on_click="ignore")
popover("perplexity", "zero-shot accuracy", "dense model", "pruning ratio")
