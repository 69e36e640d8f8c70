import math

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.errors import PruningError
from pruning.formatting import seconds_text
from pruning.method.sensitivity import predict_divergence
from pruning.runs.jobs import job
from pruning.runs.preflight import sensitivity_seconds
from ui import expected, reach, state, stored, tasks, view_state
from ui.glossary import popover


def _time(config: RunConfig) -> str:
    """How long measuring takes on this machine, in words; empty where the model is not available."""
    try:
        return f", in about {seconds_text(sensitivity_seconds(config, state.store()))} on this machine"
    except PruningError:
        return ""


chosen = state.choice()
run = chosen.run
st.title("Sensitivity")
st.caption(
    "Which layers are sensitive to pruning? Each module of each layer is cut alone, at five sizes, and the model's "
    "predictions are compared with those of the dense model: Kullback-Leibler divergence in nats per token. Lower is better."
)
state.follow(run)
shape = run.geometry
if shape is None or stored.statistics_iteration(chosen) is None:
    state.no_statistics(run)
dense = stored.iteration(run, 1)
if not dense.curves:
    st.info(
        "Sensitivity was not measured in this run. With the allocation measured, a run measures it before it prunes. Here it "
        f"can be measured for the dense model of this run{_time(run.config)}."
    )
    task = job(state.store(), f"sensitivity-{run.id}")
    if task.state in ("none", "failed") and st.button("Measure sensitivity", icon=":material/straighten:"):
        tasks.start(task, ["sensitivity", run.id, *tasks.store_args(run)])
    tasks.working(task, "Measuring sensitivity", lambda _: st.rerun())
    st.stop()

try:
    config = chosen.config()
    mask = stored.preview(dense, config, shape)
except PruningError as error:
    state.explain(error)
    st.stop()

costs = {
    name: cost for name, cost in predict_divergence(dense.curves, mask).items() if name in chosen.mixture
}
st.subheader(f"Predicted for {mask.ratio:.0%} pruned with the current settings")
worst = max(costs, key=costs.__getitem__)
for column, (name, cost) in zip(st.columns(len(costs)), costs.items(), strict=True):
    column.metric(
        f"Worst: {name}" if name == worst and len(costs) > 1 else name,
        f"+{cost:.2f} nats",
        f"{math.exp(cost):.2f}x perplexity",
        delta_color="off",
        delta_arrow="off",
        border=True,
        help="Sum over the modules of what the mask cuts, read from their curves. Modules are treated as independent: large "
        "cuts cost more than this. The last figure shows how reliable it is.",
    )

reach.popover(chosen, run, mask, config)
view_state.layer(run)
MIXTURE = "the domain mixture"
of = st.segmented_control(
    "Sensitivity on", [MIXTURE, *costs], default=MIXTURE, required=True, key="damage_on", bind="query-params"
)
weights = chosen.mixture if of == MIXTURE else {of: 1.0}
data = viz.sensitivity_data(dense.curves, mask, weights, config.worst_domain if of == MIXTURE else 0.0)
st.plotly_chart(
    viz.sensitivity_figure(data, chosen.site.name, chosen.site.layer),
    alt="Divergence by the share of a layer's module that is cut, a line per layer",
    config=state.PLOT,
)
share = st.slider("Share cut", 10, 90, 50, 5, format="%d%%", key="damage_share", bind="query-params")
st.plotly_chart(
    viz.layer_sensitivity_figure(data, share / 100),
    alt="Divergence by layer and module at one share",
    config=state.PLOT,
)

if pairs := expected.pairs(state.all_runs(), True):
    st.plotly_chart(
        viz.prediction_figure(pairs),
        alt="Predicted against measured rise by run and domain",
        config=state.PLOT,
    )
popover("sensitivity", "module", "domain mixture", "pruning ratio")
