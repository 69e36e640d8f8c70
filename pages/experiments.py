import streamlit as st

from pruning import visualization as viz
from pruning.errors import ConfigError
from pruning.experiments.grid import SPEC_FILE, command, read
from pruning.experiments.report import REPORT_FILE, markdown
from pruning.formatting import plain, sentence
from pruning.paths import PROJECT
from pruning.runs.report import OPTIONS, axis_title
from ui import state
from ui.glossary import popover
from ui.navigation import ensure_frame

SHIPPED = PROJECT / "experiments" / "reports"
ensure_frame()
st.title("Experiments")
folders = [
    *sorted((state.store().root / "experiments").glob(f"*/{SPEC_FILE}")),
    *sorted(SHIPPED.glob(f"*/{SPEC_FILE}")),
]
experiments = {}
for file in folders:
    origin = "ships with the app" if file.is_relative_to(SHIPPED) else "yours"
    experiments[f"{file.parent.name}, {origin}"] = file.parent
if not experiments:
    st.info(
        "There are no experiment results. Create some with `python -m pruning experiment experiments/demo_iterations.yaml`."
    )
    st.stop()
name = st.selectbox("Experiment", list(experiments), key="experiment", bind="query-params")
try:
    experiment, frame = read(experiments[name])
except ConfigError as error:
    state.explain(error)
    st.stop()

st.markdown(f"**{plain(experiment.title)}.** {plain(experiment.about)}")
metrics = [
    m
    for m in ("divergence", "perplexity", "bits_per_byte", "acc", "acc_norm")
    if (frame["metric"] == m).any()
]
columns = [
    *OPTIONS,
    "mixture",
    *experiment.varied,
    *(column for column in frame if column.startswith("share_")),
]
varied = [
    name for name in dict.fromkeys(columns) if name in frame and name != "seed" and frame[name].nunique() > 1
]
parts = st.columns(4)
metric = parts[0].selectbox("Metric", metrics, key="measure", bind="query-params")
names = [
    name
    for name in dict.fromkeys(frame[frame["metric"] == metric]["name"])
    if name not in ("mean", "average")
]
whose = ["mean", "each", *names] if len(names) > 1 else ["mean"]
shown = experiment.of if experiment.of in whose else "mean"
of = parts[1].selectbox("Domain or task", whose, whose.index(shown), key=f"of-{experiment.name}-{metric}")
default = experiment.x or experiment.series[0]
axes = [default, *(column for column in varied if column != default)]
x = parts[2].selectbox("Horizontal axis", axes, key=f"along-{experiment.name}")
options = [column for column in varied if column != x and not column.startswith("share_")]


def averaged(apart: list[str]) -> list[str]:
    """Options over which a point of a line would be averaged if the runs were grouped by `apart` only."""
    groups = frame.groupby([*dict.fromkeys((x, *apart, "ratio"))])
    return [
        column for column in options if column not in (*apart, "ratio") and groups[column].nunique().max() > 1
    ]


chosen = [column for column in experiment.series if column in options]
while more := averaged(chosen):
    chosen.append(more[0])
series = parts[3].multiselect("Grouped by", options, chosen, key=f"series-{experiment.name}-{x}")
title = f"{sentence(axis_title(metric, of))} by {x}"
figure = viz.experiment_figure(frame, title, x, [*series], metric, of)
st.plotly_chart(figure, alt=f"{title}, one point per run", config=state.PLOT)
over = ", ".join(("seeds", *averaged(series)))
st.caption(f"Lines and bars are means over {over}; each point is one run.")
with st.expander("Report: tables, with the figures reported in the paper for comparison"):
    st.markdown(
        "\n".join(
            line for line in markdown(experiment, frame).splitlines() if not line.startswith(("# ", "<!--"))
        )
    )
buttons = st.columns(3)
buttons[0].download_button(
    "Table (CSV)", frame.to_csv(index=False), f"{experiment.name}.csv", "text/csv", on_click="ignore"
)
report = experiments[name] / REPORT_FILE
if report.exists():
    buttons[1].download_button(
        "Report (Markdown)",
        report.read_text(encoding="utf-8"),
        f"{experiment.name}.md",
        "text/markdown",
        on_click="ignore",
    )
st.code(command(experiment, experiments[name]), language="bash")
popover("iteration", "divergence", "perplexity", "zero-shot accuracy", "domain mixture")
