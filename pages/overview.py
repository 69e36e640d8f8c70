import streamlit as st

from pruning import visualization as viz
from pruning.errors import PruningError
from ui import broken, channels, models, run_form, state, stored, view_state
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
    if shown := stored.statistics_iteration(chosen):
        try:
            cut = channels.cut(chosen, shown, chosen.mixture)
            name = view_state.default_name(shown.geometry)
            units = viz.site_style(name).units
            title = viz.cut_title(cut, name, stored.iteration(run, shown.number - 1).mask)
            data = viz.cut_map(cut, name, viz.View(bins=256, aggregate="mean"))
            st.plotly_chart(
                viz.cut_figure(data, cut, title),
                alt=f"Scores of the {units} by layer over the score at which the pruning ratio is reached",
                config=state.PLOT,
            )
            st.caption(
                f"A row is a layer, a column some {units}: blue ones score too low to stay when {chosen.ratio:.0%} of "
                "the layers' weights are removed, red ones stay. Mixture, ratio and method on the left redraw it."
            )
        except PruningError as error:
            state.explain(error)
with right:
    st.subheader("New run")
    model = st.session_state.get("model") or run.config.model
    offers = []
    try:
        offers = [(models.title(model), chosen.config().replace(model=model))]
    except PruningError as error:
        state.explain(error)
    if model != "demo":
        offers.append((models.title("demo"), chosen.for_demo().config()))
    for number, (name, config) in enumerate(offers):
        time = run_form.estimate(config)
        if st.button(
            f"Prune {name}" + (f", {time}" if time else ""),
            type="secondary" if number else "primary",
            icon=":material/content_cut:",
            width="stretch",
        ):
            try:
                state.begin(config)
            except PruningError as error:
                state.explain(error)
    st.caption(
        f"To a pruning ratio of {chosen.ratio:.0%} with the domain mixture on the left. The run continues if you close this "
        "page; the Prune page has all options."
    )
    st.page_link("pages/importance.py", label="Channel scores in detail", icon=":material/grid_on:")
    st.page_link("pages/masks.py", label="Mask preview", icon=":material/filter_alt:")
    popover("channel", "domain", "fluctuation score", "iteration", "pruning ratio", "perplexity")
if means := viz.perplexity_data(iterations):
    st.plotly_chart(viz.perplexity_figure(means), alt="Perplexity by iteration and domain", config=state.PLOT)

st.subheader("Recent runs")
broken.show()
rows = []
for item in state.all_runs(experiments=False)[:5]:
    results = item.results()
    mean, divergence = (results.mean, results.mean_divergence) if results else (None, None)
    rows.append(
        {
            "run": state.label(item),
            "state": item.status().state,
            "ratio": item.config.ratio,
            "iterations": item.config.iterations,
            "divergence": divergence.value if divergence else None,
            "dense": mean.dense if mean else None,
            "pruned": mean.pruned if mean else None,
        }
    )
st.dataframe(
    rows,
    hide_index=True,
    placeholder="",
    column_config={
        "ratio": st.column_config.NumberColumn(format="percent"),
        "divergence": st.column_config.NumberColumn(format="%.3f"),
        "dense": st.column_config.NumberColumn("perplexity dense", format="%.1f"),
        "pruned": st.column_config.NumberColumn("perplexity pruned", format="%.1f"),
    },
)
