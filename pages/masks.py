import streamlit as st

from pruning import visualization as viz
from pruning.config import PruningError
from pruning.masks import jaccard
from pruning.sites import Site
from ui import state
from ui.glossary import popover

chosen = state.choice()
run = chosen.run
st.title("What would be cut?")
shown = state.statistics_iteration(chosen)
if shown is None:
    st.info("This run has no statistics yet. They appear here as soon as its first iteration is done.")
    st.stop()
shown = state.iteration(run, 1)  # the dense model's statistics: a preview is one cut of the dense model
shape = run.geometry

with st.expander(
    "Pin or cut by hand", icon=":material/push_pin:", expanded=bool(chosen.keep or chosen.remove)
):
    left, right = st.columns(2)
    form = "LAYER, LAYER.attn, LAYER.mlp or LAYER.mlp.FIRST-LAST, such as 3.attn.0-1"
    for column, key, title in ((left, "keep", "Keep, whatever the score"), (right, "remove", "Cut first")):
        column.multiselect(
            title, [], key=key, accept_new_options=True, help=form, placeholder=form, persist_state="session"
        )
    chosen = state.choice()

try:
    config = chosen.config()
    mask = state.preview(shown, config, shape)
except PruningError as error:
    state.explain(error)
    st.stop()

pruned = mask.pruned
total = run.iterations()[0].metrics["parameters"]
numbers = st.columns(4)
numbers[0].metric(
    "Pruning ratio", f"{mask.ratio:.2%}", f"asked for {chosen.ratio:.0%}", delta_color="off", border=True
)
numbers[1].metric(
    "Parameters",
    f"{(total - mask.removed_parameters) / 1e6:,.2f} M",
    f"-{mask.removed_parameters / total:.1%} of all",
    delta_color="off",
    border=True,
)
kv = [2 * sum(layer.kv_heads for layer in g.layers) * g.head_dim * 2 for g in (shape, pruned)]
numbers[2].metric(
    "KV cache a token (16 bit)", f"{kv[1]:,} B", f"{kv[1] - kv[0]:,} B", delta_color="inverse", border=True
)
flops = [2 * g.linear_parameters for g in (shape, pruned)]
numbers[3].metric(
    "Layer FLOPs a token",
    f"{flops[1] / 1e6:,.1f} M",
    f"{flops[1] / flops[0] - 1:.0%}",
    delta_color="inverse",
    border=True,
)
st.caption(
    "A preview: one cut with the dense model's statistics. A run in several iterations recalibrates in between and "
    "ends with another mask."
)
for kind, column in zip(("attn", "mlp"), st.columns([2, 3]), strict=True):
    figure = viz.mask_map_figure(viz.mask_map_data(mask, kind, 256))
    column.plotly_chart(figure, alt=f"Retained {kind} units by layer", config={"displaylogo": False})
shares = viz.retained_share_figure(viz.retained_share_data(mask), 1 - mask.ratio)
st.plotly_chart(shares, alt="Share retained by layer and site", config={"displaylogo": False})

st.subheader("Compare with another choice")
options = ["equal weights", *(f"{name} alone" for name in state.domain_names(run)), "this run's final mask"]
other_name = st.selectbox("The other mask", options, key="other", bind="query-params")
try:
    if other_name == "this run's final mask":
        other = run.iterations()[-1].mask
    else:
        name = other_name.removesuffix(" alone")
        weights = (
            {name: 1.0}
            if name in chosen.mixture or name in state.domain_names(run)
            else dict.fromkeys(state.domain_names(run), 1.0)
        )
        other = state.preview(shown, config.replace(mixture=weights), shape)
except PruningError as error:
    state.explain(error)
    st.stop()
counts = {"both": 0, "only this": 0, "only the other": 0, "none": 0}
for site in shape.sites:
    a, b = mask.channels(site), other.channels(site)
    for name, found in zip(counts, (a & b, a & ~b, ~a & b, ~a & ~b), strict=True):
        counts[name] += int(found.sum())
for column, (name, count) in zip(st.columns(4), counts.items(), strict=True):
    column.metric(
        f"Channels kept by {name}", f"{count:,}", f"{count / sum(counts.values()):.0%}", delta_color="off"
    )
difference = {
    site: mask.retained[site].astype(float) - other.retained[site].astype(float) for site in mask.retained
}
data = viz.importance_data(
    difference, "mlp", what="kept here minus kept there", scale="linear", aggregate="mean", bins=256
)
data = viz.Heatmap(data.values, data.first, data.last, "mlp", data.what, True)
figure = viz.importance_figure(data, f"MLP: red is kept only here, blue only by {other_name}", (-1.0, 1.0))
st.plotly_chart(figure, alt="Difference of two masks", config={"displaylogo": False})
overlap = [jaccard(mask, other, Site(layer, "mlp")) for layer in range(len(shape.layers))]
st.caption("Overlap (Jaccard) of the MLP by layer: " + ", ".join(f"{value:.2f}" for value in overlap))
popover("mask", "pruning ratio", "retained share", "kv_group", "mixture weights")
