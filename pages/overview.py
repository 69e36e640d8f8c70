import streamlit as st

from pruning import visualization as viz
from pruning.errors import PruningError
from ui import broken, state
from ui.glossary import popover

chosen = state.choice()
run = chosen.run
st.title("Iterative structured pruning")
st.markdown(
    "Calibration text of several **domains** is passed through the model. Every **channel** gets a **fluctuation score**: "
    "the variance of its activation times the squared norm of its output weights. Each **iteration** removes the heads and "
    "channels with the lowest scores and then collects new statistics. The sliders on the left set the **domain mixture**, "
    "the weight of each domain in the scores."
)
state.follow(run)
iterations = run.iterations()
if not iterations:
    st.info("This run has no results yet. The Prune page shows its progress.")
    st.stop()

if len(iterations) > 1:
    pipeline = viz.pipeline_data(run, iterations)
    st.image(viz.pipeline_svg(pipeline), alt=viz.pipeline_words(pipeline), width="stretch")
left, right = st.columns([3, 2])
with left:
    if shown := state.statistics_iteration(chosen):
        values = state.scores(shown, run.config, chosen.mixture)
        st.plotly_chart(
            viz.importance_figure(
                viz.importance_data(
                    values, "mlp", what=f"{run.config.score} score", bins=256, scale="log per layer"
                ),
                f"MLP channels by layer: {run.config.score} score, iteration {shown.number}",
            ),
            alt="Scores of the MLP channels by layer, with the domain mixture on the left",
            config=state.PLOT,
        )
with right:
    st.subheader("New run")
    st.write(
        f"Prunes the demo model with a pruning ratio of {chosen.ratio:.0%} and the domain mixture on the left, in about "
        "half a minute. The run continues if you close this page."
    )
    if st.button("Prune the demo model", type="primary", icon=":material/content_cut:"):
        try:
            state.begin(chosen.for_demo().config())
        except PruningError as error:
            state.explain(error)
    st.page_link("pages/importance.py", label="Channel scores in detail", icon=":material/grid_on:")
    st.page_link("pages/masks.py", label="Mask preview", icon=":material/filter_alt:")
    popover("channel", "domain", "fluctuation score", "iteration", "pruning ratio", "perplexity")
if means := viz.perplexity_data(iterations):
    st.plotly_chart(viz.perplexity_figure(means), alt="Perplexity by iteration and domain", config=state.PLOT)

st.subheader("Recent runs")
broken.show()
rows = []
for item in state.all_runs(experiments=False)[:5]:
    found = results.mean if (results := item.results()) else None
    rows.append(
        {
            "run": state.label(item),
            "state": item.status().state,
            "ratio": item.config.ratio,
            "iterations": item.config.iterations,
            "dense": found.dense if found else None,
            "pruned": found.pruned if found else None,
        }
    )
st.dataframe(
    rows,
    hide_index=True,
    column_config={
        "ratio": st.column_config.NumberColumn(format="percent"),
        "dense": st.column_config.NumberColumn("perplexity dense", format="%.1f"),
        "pruned": st.column_config.NumberColumn("perplexity pruned", format="%.1f"),
    },
)
