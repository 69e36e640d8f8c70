import streamlit as st

from pruning import visualization as viz
from pruning.config import PruningError
from ui import state
from ui.glossary import popover

chosen = state.choice()
run = chosen.run
st.title("Which channels of a language model matter?")
st.markdown(
    "Prunescope sends text of several **domains** through a model, scores every **channel** by how much it "
    "fluctuates and how strongly it is read, removes the ones that matter least, and looks again. "
    "No retraining. Move a slider on the left, and see whose text decides."
)
iterations = run.iterations()
if not iterations:
    st.info("This run has nothing to show yet. The Prune page tells how far it is.")
    st.stop()

results = run.results()
shape = run.geometry
first, last = iterations[0].metrics, iterations[-1].metrics
config = run.config
means = viz.perplexity_data(iterations)
mean = means.get("mean") or next(iter(means.values()))
steps = st.columns(4)
steps[0].metric(
    "Tokens calibrated", f"{config.samples * config.seq_len * len(config.mixture):,}", border=True
)
steps[1].metric("Channels scored", f"{sum(shape.channels(s) for s in shape.sites):,}", border=True)
steps[2].metric(
    "Parameters",
    f"{last['parameters'] / 1e6:,.2f} M",
    f"{100 * (last['parameters'] / first['parameters'] - 1):.0f}% of {first['parameters'] / 1e6:,.2f} M",
    delta_color="off",
    border=True,
)
steps[3].metric(
    "Perplexity, mean",
    f"{mean[1][-1]:.1f}",
    f"{mean[1][-1] - mean[1][0]:+.1f} from {mean[1][0]:.1f}",
    delta_color="inverse",
    border=True,
)

left, right = st.columns([3, 2])
with left:
    figure = viz.perplexity_figure(
        means, f"{config.ratio:.0%} removed in {config.iterations} small cuts: what each cost"
    )
    st.plotly_chart(figure, alt="Perplexity by iteration and domain", config=state.PLOT)
with right:
    st.subheader("Prune it yourself")
    st.write(
        f"Removes {chosen.ratio:.0%} of the demo model with the mixture on the left, in about half a minute. "
        "It goes on if you close this page."
    )
    if st.button("Prune the demo model", type="primary", icon=":material/content_cut:"):
        try:
            new = state.store().create(chosen.config().replace(model="demo"))
            new.launch()
            st.session_state.watched = new.id
            st.switch_page("pages/prune.py")
        except PruningError as error:
            state.explain(error)
    popover("channel", "domain", "fluctuation score", "iteration", "pruning ratio", "perplexity")

st.subheader("Recent runs")
rows = []
for item in state.all_runs(experiments=False)[:5]:
    found = item.results().get("perplexity", {}).get("mean", {})
    rows.append(
        {
            "run": state.label(item),
            "state": item.status()["state"],
            "ratio": item.config.ratio,
            "iterations": item.config.iterations,
            "dense": found.get("dense"),
            "pruned": found.get("pruned"),
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
