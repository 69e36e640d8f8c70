import csv
import io
from functools import partial
from pathlib import Path

import streamlit as st

from pruning.errors import PruningError
from pruning.formatting import plain, quoted, seconds_text
from pruning.runs.report import count_reasons, groups
from pruning.visualization import report
from ui import comparison, details, results, sizes, state, tasks
from ui.glossary import popover

on_view = state.choice().run
st.title("Results")
every = {run.id: run for run in state.all_runs()}
grids = st.session_state.get("grids", st.query_params.get("grids") == "true")
shown = [run for run in every.values() if run.config.ratio and (grids or run.config.experiment is None)]
runs = {run.id: (run, measured) for run in shown if (measured := run.results())}
if not on_view.config.ratio:
    st.info(
        f"{plain(state.label(on_view))} took statistics only: nothing was pruned, so it has no results of its own. The Importance "
        "and Masks pages show what it measured; the Prune page prunes its model."
    )
if not runs:
    st.info("No run has finished yet. Start one on the Prune page.")
    st.stop()

labels = {state.label(run): name for name, (run, _) in runs.items()}
linked = [labels.get(name, name) for name in st.query_params.get_all("side")]
if "side" not in st.session_state and any(name in runs for name in linked):
    st.session_state.side = [name for name in linked if name in runs]  # a link may name a run by its id
for name in linked:
    if name not in runs:
        st.warning(
            f"The link names the run {plain(quoted(name))}, which has no results in this store: it was deleted, is unfinished, or is on "
            "another machine."
        )
chosen = st.multiselect(
    "Runs",
    list(runs),
    default=[on_view.id if on_view.id in runs else next(iter(runs))],
    format_func=lambda name: state.label(runs[name][0]),
    key="side",
    bind="query-params",
    help="One run: what it kept and saved. Several: settings that differ, and the outcome.",
)
beside = [runs[name] for name in chosen]
if len(beside) == 1:
    results.lead(*beside[0])
    comparison.figures(beside)
elif beside:
    comparison.compare(beside)
for name in chosen:
    run, measured = runs[name]
    with st.expander(f"Details of {plain(state.label(run))}", expanded=len(chosen) == 1):
        st.caption(
            f"{measured.parameters.dense:,} parameters before, {measured.parameters.pruned:,} after: pruning ratio "
            f"{measured.achieved_ratio:.2%} of the decoder layers' linear weights. Run time {seconds_text(measured.seconds)}."
        )
        checkpoint: Path | PruningError | None
        try:
            checkpoint = sizes.checkpoint(run)
        except PruningError as error:
            checkpoint = error
        titles = ["Accuracy", "Perplexity", "Text generation", "Export", "Speed", "Lineage"]
        tabs = st.tabs(titles, key=f"tab-{name}", on_change="rerun")
        with tabs[0]:
            details.accuracy(run, measured)
        with tabs[1]:
            details.text(run, measured)
        for tab, show in zip(tabs[2:5], (tasks.continuation, tasks.exports, tasks.speed), strict=True):
            with tab:
                try:
                    if isinstance(checkpoint, PruningError):
                        raise checkpoint
                    if checkpoint is None:
                        st.info("The model of this size is not written yet: press **Write this size** above.")
                    else:
                        show(run, checkpoint)
                except PruningError as error:
                    state.explain(error)
        with tabs[5]:
            details.origin(run, every)
        buttons = st.columns(3)
        for column, title, make, suffix in (
            (buttons[0], "HTML", report.html, "html"),
            (buttons[1], "Markdown", report.markdown, "md"),
        ):
            column.download_button(
                f"Report ({title})",
                partial(make, run),
                f"{run.id}.{suffix}",
                f"text/{title.lower()}",
                key=f"{suffix}-{name}",
                on_click="ignore",
            )
        if run.path not in state.SHIPPED:
            with buttons[2]:
                state.delete_button(name)

st.subheader("All runs")
st.toggle("Include runs of experiments", key="grids", bind="query-params")
comparison.sizes(list(runs.values()), beside[0][0] if beside else on_view)
rows = []
for heading, members in comparison.comparable(list(runs.values())):
    st.markdown(f"**{plain(heading)}**")
    results.table(part := [results.row(run, measured) for run, measured in members])
    rows += [{"measured": heading, **row} for row in part]
if unfinished := count_reasons(groups(run for run in shown if run.id not in runs)[1]):
    st.caption(f"Not in these tables: {unfinished}.")
sheet = io.StringIO()
writer = csv.DictWriter(sheet, dict.fromkeys(key for row in rows for key in row))
writer.writeheader()
writer.writerows(rows)
st.download_button("All runs (CSV)", sheet.getvalue(), "prunescope-runs.csv", "text/csv", on_click="ignore")
popover("divergence", "perplexity", "zero-shot accuracy", "dense model", "pruning ratio")
