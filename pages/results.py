import csv
import io

import plotly.graph_objects as go
import streamlit as st

from pruning import visualization as viz
from pruning.config import PruningError, RunError
from pruning.results import paper, retention
from ui import report, results, state
from ui.glossary import popover
from ui.navigation import ensure_frame

ensure_frame()
st.title("What did it cost, what did it bring?")
grids = st.toggle("Show the runs of experiments too", key="grids", bind="query-params")
every = {run.id: run for run in state.all_runs()}
runs = {
    name: run for name, run in every.items() if run.results() and (grids or run.config.experiment is None)
}
if not runs:
    st.info("No run has finished yet. The Prune page makes one in half a minute.")
    st.stop()

rows = [report.row(run, state.label(run)) for run in runs.values()]
domains = list(dict.fromkeys(name for run in runs.values() for name in run.results()["perplexity"]))
first = next(iter(runs.values())).results()["parameters"]["dense"]
same = all(run.results()["parameters"]["dense"] == first for run in runs.values())
dense = dict.fromkeys(rows[0]) | {"run": "dense", "method": "", "ratio": 0.0, "accuracy": 0.0}
dense |= {"parameters": first if same else None, **dict.fromkeys(domains, 1.0)}
points = st.column_config.NumberColumn(format="percent", help="change of the average zero-shot accuracy")
st.dataframe(
    [dense, *rows],
    hide_index=True,
    column_config={
        "ratio": st.column_config.NumberColumn(format="percent"),
        "parameters": st.column_config.NumberColumn(format="localized"),
        "accuracy": points,
        **{
            name: st.column_config.NumberColumn(f"{name} x", format="%.2f", help="perplexity over dense")
            for name in domains
        },
    },
)
st.caption(
    "Columns marked x: perplexity over that of the dense model, so 1.00 would be no loss. Accuracy is the change of the "
    "average over tasks. Click a head to sort."
)
if len(runs) > 1:
    spots = {}
    for run in runs.values():
        found = run.results()["perplexity"].get("mean")
        if found and found["pruned"]:
            value = found["pruned"] / found["dense"]
            spots[f"{state.label(run)} {run.id[-4:]}"] = (
                run.results()["parameters"]["pruned"],
                value,
                run.config.method,
            )
    st.plotly_chart(
        viz.tradeoff_figure(spots), alt="Runs by parameters left and perplexity over dense", config=state.PLOT
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
left, right = st.columns(2)
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
viz.style(figure, "Which domain pays", 340)
left.plotly_chart(figure, alt="Perplexity over dense by domain and run", config=state.PLOT)
right.plotly_chart(
    viz.retention_figure({state.label(runs[name]): retention(runs[name].results()) for name in chosen}),
    alt="What is left of each capability, pruned over dense",
    config=state.PLOT,
)

for name in chosen:
    run = runs[name]
    found = run.results()
    with st.expander(state.label(run), expanded=len(chosen) == 1):
        before, after = found["parameters"]["dense"], found["parameters"]["pruned"]
        columns = st.columns(3)
        columns[0].metric("Parameters", f"{after:,}", f"{after - before:,}", delta_color="inverse")
        columns[1].metric("Of the layers' linear parameters", f"{found['achieved_ratio']:.2%} removed")
        columns[2].metric("Seconds", f"{found['seconds']:.1f}")
        tabs = st.tabs(["Accuracy", "Perplexity", "Side by side", "Export", "Speed", "Where it came from"])
        with tabs[0]:
            if accuracies := found.get("zero_shot"):
                metric = st.segmented_control(
                    "Metric", ["acc", "acc_norm"], default="acc", required=True, key=f"metric-{name}"
                )
                st.plotly_chart(
                    viz.accuracy_figure(accuracies["tasks"], metric),
                    alt="Change of accuracy by task",
                    config=state.PLOT,
                    key=f"accuracy-{name}",
                )
                st.dataframe(
                    [
                        {
                            "task": task,
                            "items": f"first {row['limit']}" if row["limit"] else f"{row['items']}",
                            "dense": row[metric]["dense"],
                            "pruned": row[metric]["pruned"],
                            "change": row[metric]["delta"],
                            "±": 1.96 * row[metric]["standard_error"],
                            "more than noise": row[metric]["significant"],
                        }
                        for task, row in accuracies["tasks"].items()
                        if metric in row
                    ],
                    hide_index=True,
                    column_config={
                        key: st.column_config.NumberColumn(format="percent")
                        for key in ("dense", "pruned", "change", "±")
                    },
                )
                st.caption(
                    "Intervals are of the paired difference, item by item, at 95%; more than noise: McNemar's exact test at 5%."
                )
                if any(row["limit"] for row in accuracies["tasks"].values()):
                    st.warning(
                        "Only the first items of each task were asked: a quick look, not for comparison."
                    )
            else:
                st.caption("No zero-shot tasks were asked. Switch them on for a new run on the Prune page.")
            st.markdown("**The paper's figures, not ours**")
            table = paper()["main"]
            st.dataframe(
                [
                    {"the paper's": key, **dict(zip(table["columns"], values, strict=True))}
                    for key, values in table["rows"].items()
                ],
                hide_index=True,
            )
            st.caption(f"{table['about']} {paper()['source']}.")
        with tabs[1]:
            bits, tokens = found.get("bits_per_byte", {}), found.get("tokens", {})
            st.dataframe(
                [
                    {
                        "domain": domain,
                        "dense": value["dense"],
                        "pruned": value["pruned"],
                        "x": value["pruned"] / value["dense"] if value["pruned"] else None,
                        "bits per byte, dense": bits.get(domain, {}).get("dense"),
                        "bits per byte, pruned": bits.get(domain, {}).get("pruned"),
                        "tokens": tokens.get(domain),
                    }
                    for domain, value in found["perplexity"].items()
                ],
                hide_index=True,
                column_config={
                    key: st.column_config.NumberColumn(format="%.3f" if "byte" in key else "%.2f")
                    for key in ("dense", "pruned", "x", "bits per byte, dense", "bits per byte, pruned")
                },
            )
            st.caption(
                f"Held-out text in blocks of {run.config.seq_len} tokens. Bits per byte compare tokenizers."
            )
        try:
            checkpoint = run.checkpoint
        except RunError as error:
            checkpoint = None
            for tab in tabs[2:5]:
                tab.info(str(error)[:1].upper() + str(error)[1:])
        if checkpoint is not None:
            try:
                with tabs[2]:
                    results.continuation(run, checkpoint)
                with tabs[3]:
                    results.exports(run, checkpoint)
                with tabs[4]:
                    results.speed(run, checkpoint)
            except PruningError as error:
                state.explain(error)
        with tabs[5]:
            st.dataframe(
                results.lineage(run, every),
                hide_index=True,
                column_config={"mean perplexity": st.column_config.NumberColumn(format="%.2f")},
            )
            st.code(report.command(run), language="bash")
        buttons = st.columns(3)
        buttons[0].download_button(
            "Report (HTML)",
            lambda run=run: report.html(run),
            f"{run.id}.html",
            "text/html",
            key=f"html-{name}",
            on_click="ignore",
        )
        buttons[1].download_button(
            "Report (Markdown)",
            lambda run=run: report.markdown(run),
            f"{run.id}.md",
            "text/markdown",
            key=f"md-{name}",
            on_click="ignore",
        )
        if run.path != state.DEMO_RUN and buttons[2].button("Delete", key=f"delete-{name}"):
            st.session_state.doomed = name
        if st.session_state.get("doomed") == name:
            st.warning("This cannot be undone.")
            if st.button("Yes, delete it", key=f"yes-{name}"):
                try:
                    state.store().delete(name)
                except PruningError as error:
                    state.explain(error)
                st.rerun()

sheet = io.StringIO()
writer = csv.DictWriter(sheet, dict.fromkeys(key for row in rows for key in row))
writer.writeheader()
writer.writerows(rows)
st.download_button("All runs (CSV)", sheet.getvalue(), "prunescope-runs.csv", "text/csv", on_click="ignore")
popover("perplexity", "zero-shot", "dense", "pruning ratio")
