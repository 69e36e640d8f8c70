import streamlit as st

from pruning import visualization as viz
from pruning.errors import PruningError
from pruning.models.geometry import KINDS, Site
from pruning.models.mask import chance_jaccard, jaccard
from pruning.words import size_text
from ui import masks, mixtures, state
from ui.glossary import popover

chosen = state.choice()
run = chosen.run
st.title("What would be cut?")
state.follow(run)
shape = run.geometry
if shape is None or state.statistics_iteration(chosen) is None:
    st.info("This run has no statistics yet. They appear here as soon as its first iteration is done.")
    st.stop()
dense = state.iteration(run, 1)  # statistics of the dense model: a preview is one cut of it
last = max(it.number for it in run.iterations())

PREVIEW, STORED = "one cut, with these choices", "the run's, after the iteration on view"
view = st.segmented_control(
    "Mask",
    [PREVIEW, STORED],
    default=PREVIEW,
    required=True,
    key="view",
    bind="query-params",
    persist_state="session",
)
live = view == PREVIEW
with st.expander(
    "Keep or cut by hand", icon=":material/push_pin:", expanded=bool(chosen.keep or chosen.remove)
):
    masks.pins(chosen)

try:
    config = chosen.config()
    mask = (
        state.preview(dense, config, shape)
        if live
        else state.iteration(run, min(chosen.iteration, last)).mask
    )
except PruningError as error:
    state.explain(error)
    st.stop()

pruned = mask.pruned
total = run.iterations()[0].metrics.parameters
cells = st.columns(4)
asked = f"asked for {chosen.ratio:.0%}" if live else f"after iteration {min(chosen.iteration, last)}"
cells[0].metric(
    "Pruning ratio", f"{mask.ratio:.2%}", asked, delta_color="off", delta_arrow="off", border=True
)
left = total - mask.removed_parameters
cells[1].metric(
    "Parameters",
    f"{left / 1e6:,.2f} M",
    f"-{size_text(2 * mask.removed_parameters)} in 16 bit",
    delta_color="inverse",
    border=True,
)
kv = [2 * g.cache_values for g in (shape, pruned)]
cells[2].metric(
    "KV cache a token (16 bit)", f"{kv[1]:,} B", f"{kv[1] - kv[0]:,} B", delta_color="inverse", border=True
)
flops = [2 * g.linear_parameters for g in (shape, pruned)]
cells[3].metric(
    "Layer FLOPs a token",
    f"{flops[1] / 1e6:,.1f} M",
    f"{flops[1] / flops[0] - 1:.0%}",
    delta_color="inverse",
    border=True,
)
if live:
    st.caption(
        "A preview: one cut with the dense model's statistics. A run in several iterations recalibrates in between and "
        "ends with another mask."
    )

play = last > 1 and not live and st.toggle("Play the iterations", key="play_masks", bind="query-params")
for kind, column in zip(KINDS, st.columns([2, 3]), strict=True):
    title = f"What stays: {viz.KIND_NAMES[kind]}"
    if play:
        bins = viz.animation_bins(len(shape.layers), last, 256)
        frames = {
            f"iteration {n}": viz.mask_map_data(state.iteration(run, n).mask, kind, bins)
            for n in range(1, last + 1)
        }
        figure = viz.animation_figure(frames, title, (0.0, 1.0))
    else:
        mark = None
        if chosen.site.kind == kind:
            unit = chosen.channel // shape.head_dim if kind == "attn" else chosen.channel
            mark = (chosen.site.layer, unit)
        figure = viz.mask_map_figure(viz.mask_map_data(mask, kind, 256), title, chosen=mark)
    column.plotly_chart(figure, alt=f"Retained {kind} units by layer", config=state.PLOT)
shares, sizes = st.columns([3, 2])
shares.plotly_chart(
    viz.retained_share_figure(viz.retained_share_data(mask), 1 - mask.ratio),
    alt="Share retained by layer and site",
    config=state.PLOT,
)
sizes.plotly_chart(
    viz.parameters_figure(viz.parameters_data(shape, mask), height=320),
    alt="Parameters by component",
    config=state.PLOT,
)

st.subheader("Compare with another choice")
other_name = st.selectbox(
    "The other mask", masks.names(chosen), key="other", bind="query-params", persist_state="session"
)
if other_name == mixtures.WRITTEN:
    mixtures.write(chosen)
try:
    other = masks.named(other_name, chosen, dense, shape)
except PruningError as error:
    state.explain(error)
    st.stop()

counts = dict.fromkeys(("both", "only this", "only the other", "neither"), 0)
for site in shape.sites:
    x, y = mask.channels(site), other.channels(site)
    for name, both in zip(counts, (x & y, x & ~y, ~x & y, ~x & ~y), strict=True):
        counts[name] += int(both.sum())
for column, (name, count) in zip(st.columns(4), counts.items(), strict=True):
    share = f"{count / sum(counts.values()):.0%}"
    column.metric(f"Channels kept by {name}", f"{count:,}", share, delta_color="off", delta_arrow="off")
for kind, column in zip(KINDS, st.columns([2, 3]), strict=True):
    data = viz.comparison_data(mask, other, kind, 256)
    column.plotly_chart(
        viz.comparison_figure(data, other_name),
        alt=f"Which of two masks keeps what: {kind}",
        config=state.PLOT,
    )
sites = [Site(layer, "mlp") for layer in range(len(shape.layers))]
overlap = [jaccard(mask, other, site) for site in sites]
chance = [chance_jaccard(mask, other, site) for site in sites]
st.caption(
    f"Where a column holds several channels it shows what most of them are. Overlap (Jaccard) of the MLP layers: "
    f"{min(overlap):.2f} to {max(overlap):.2f}; chance would give {min(chance):.2f} to {max(chance):.2f}."
)
popover("mask", "pruning ratio", "retained share", "kv_group", "mixture weights")
