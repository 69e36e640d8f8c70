import csv
import io

import plotly.graph_objects as go
import streamlit as st

from pruning import visualization as viz
from pruning.config import PruningError
from ui import report, state
from ui.glossary import popover

st.title("What did it cost, what did it bring?")
runs = {run.id: run for run in state.all_runs() if run.results()}
if not runs:
    st.info("No run has finished yet. The Prune page makes one in half a minute.")
    st.stop()

rows = [report.row(run, state.label(run)) for run in runs.values()]
domains = list(dict.fromkeys(name for run in runs.values() for name in run.results()["perplexity"]))
st.dataframe(
    rows,
    hide_index=True,
    column_config={
        "ratio": st.column_config.NumberColumn(format="percent"),
        **{
            name: st.column_config.NumberColumn(f"{name} x", format="%.2f", help="perplexity over dense")
            for name in domains
        },
    },
)
st.caption(
    "Columns marked x: perplexity over that of the dense model, so 1.00 would be no loss. Click a head to sort."
)

chosen = st.multiselect(
    "Side by side",
    list(runs),
    default=[next(iter(runs))],
    format_func=lambda name: state.label(runs[name]),
    key="side",
    bind="query-params",
)
if not chosen:
    st.stop()
figure = go.Figure()
for name in chosen:
    values = runs[name].results()["perplexity"]
    figure.add_bar(
        name=state.label(runs[name]),
        x=list(values),
        y=[v["pruned"] / v["dense"] if v["pruned"] else None for v in values.values()],
        hovertemplate="%{x}: x %{y:.2f}<extra>" + state.label(runs[name]) + "</extra>",
    )
figure.add_hline(y=1, line_dash="dot", line_color="grey", annotation_text="dense")
figure.update_yaxes(title="perplexity over dense")
viz.style(figure, "Which domain pays")
st.plotly_chart(figure, alt="Perplexity over dense by domain and run", config={"displaylogo": False})

for name in chosen:
    run = runs[name]
    results = run.results()
    with st.expander(state.label(run), expanded=len(chosen) == 1):
        dense, pruned = results["parameters"]["dense"], results["parameters"]["pruned"]
        columns = st.columns(3)
        columns[0].metric("Parameters", f"{pruned:,}", f"{pruned - dense:,}", delta_color="inverse")
        columns[1].metric("Of the layers' linear parameters", f"{results['achieved_ratio']:.2%} removed")
        columns[2].metric("Seconds", f"{results['seconds']:.1f}")
        if accuracies := results.get("zero_shot"):
            st.plotly_chart(
                viz.accuracy_figure(accuracies["tasks"]),
                alt="Change of accuracy by task",
                config={"displaylogo": False},
            )
            if any(row["limit"] for row in accuracies["tasks"].values()):
                st.warning("Only the first items of each task were asked: a quick look, not for comparison.")
        else:
            st.caption("No zero-shot tasks were asked. Switch them on for a new run on the Prune page.")
        made = f"Made from {run.config.parent}. " if run.config.parent else ""
        st.caption(f"{made}Everything that decides it: {run.config.model_dump_json(exclude_defaults=True)}")
        buttons = st.columns(3)
        buttons[0].download_button(
            "Report (HTML)",
            lambda run=run: report.html(run),
            f"{run.id}.html",
            "text/html",
            key=f"html-{name}",
        )
        if run.path != state.DEMO_RUN and buttons[1].button("Delete", key=f"delete-{name}"):
            st.session_state.doomed = name
        if st.session_state.get("doomed") == name:
            st.warning("This cannot be undone.")
            if st.button("Yes, delete it", key=f"yes-{name}"):
                try:
                    state.store().delete(name)
                except PruningError as error:
                    state.explain(error)
                st.rerun()

table = io.StringIO()
writer = csv.DictWriter(table, rows[0].keys() | {"run"}, extrasaction="ignore")
writer.writeheader()
writer.writerows(rows)
st.download_button("All runs (CSV)", table.getvalue(), "prunescope-runs.csv", "text/csv")
popover("perplexity", "zero-shot", "dense", "pruning ratio")
