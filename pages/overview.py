import streamlit as st

from pruning import visualization as viz
from pruning.errors import PruningError
from ui import state
from ui.glossary import popover

chosen = state.choice()
run = chosen.run
st.title("Which channels of a language model matter?")
st.markdown(
    "Text of several **domains** goes through a model; every **channel** is scored by how much it fluctuates and "
    "how strongly it is read; the least go, and it looks again. Move a slider on the left: whose text decides?"
)
state.follow(run)
iterations = run.iterations()
if not iterations:
    st.info("This run has nothing to show yet. The Prune page tells how far it is.")
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
                viz.importance_data(values, "mlp", bins=256), "Bright channels decide, dark ones can go"
            ),
            alt="Fluctuation score of MLP channels by layer, with the mixture on the left",
            config=state.PLOT,
        )
with right:
    st.subheader("Prune it yourself")
    st.write(
        f"Removes {chosen.ratio:.0%} of the demo model with the mixture on the left, in about half a minute. "
        "It goes on if you close this page."
    )
    if st.button("Prune the demo model", type="primary", icon=":material/content_cut:"):
        try:
            state.begin(chosen.for_demo().config())
        except PruningError as error:
            state.explain(error)
    st.page_link("pages/importance.py", label="See which channels matter", icon=":material/grid_on:")
    st.page_link("pages/masks.py", label="See what would be cut", icon=":material/filter_alt:")
    popover("channel", "domain", "fluctuation score", "iteration", "pruning ratio", "perplexity")
if means := viz.perplexity_data(iterations):
    title = f"{run.config.ratio:.0%} removed in {run.config.iterations} cuts: what each cost"
    st.plotly_chart(
        viz.perplexity_figure(means, title), alt="Perplexity by iteration and domain", config=state.PLOT
    )

st.subheader("Recent runs")
if broken := state.store().unreadable():
    st.caption(f"Not shown, for their config cannot be read: {', '.join(broken)}.")
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
