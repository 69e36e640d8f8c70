import streamlit as st

from pruning import visualization as viz
from pruning.engine.budget import warnings
from pruning.errors import PruningError
from pruning.formatting import sentence, size_text
from pruning.models.mask import chance_jaccard, jaccard
from ui import canvas, masks, mixtures, state, stored, view_state
from ui.glossary import popover

chosen = state.choice()
run = chosen.run
st.title("Masks")
state.follow(run)
shape = run.geometry
if shape is None or stored.statistics_iteration(chosen) is None:
    state.no_statistics(run)
dense = stored.iteration(run, 1)  # statistics of the dense model: the preview prunes it in one shot
last = max(it.number for it in run.iterations())

PREVIEW, STORED = "preview with current settings", "this run, after the selected iteration"
view = st.segmented_control(
    "Mask",
    [PREVIEW, STORED],
    default=PREVIEW,
    required=True,
    key="view",
    bind="query-params",
    persist_state="session",
    label_visibility="collapsed",
)
live = view == PREVIEW
if live:
    canvas.draw(chosen)
else:
    view_state.iteration(run)
with st.expander(
    "Keep or remove heads and channels",
    icon=":material/push_pin:",
    expanded=bool(chosen.keep or chosen.remove),
):
    view_state.channel(run)
    masks.pins(chosen)

try:
    config = chosen.config()
    mask = (
        stored.preview(dense, config, shape)
        if live
        else stored.iteration(run, min(chosen.iteration, last)).mask
    )
except PruningError as error:
    state.explain(error)
    st.stop()

pruned = mask.pruned
total = run.iterations()[0].metrics.parameters
removed = mask.removed_parameters
kv = [2 * g.cache_values for g in (shape, pruned)]
flops = [2 * g.linear_parameters for g in (shape, pruned)]
origin = f"target {chosen.ratio:.0%}" if live else f"after iteration {min(chosen.iteration, last)}"
for column, title, value, change, words in zip(
    st.columns(4),
    ("Pruning ratio", "Parameters", "KV cache per token (16 bit)", "Layer FLOPs per token"),
    (f"{mask.ratio:.2%}", f"{(total - removed) / 1e6:,.2f} M", f"{kv[1]:,} B", f"{flops[1] / 1e6:,.1f} M"),
    (1, removed, kv[0] - kv[1], flops[0] - flops[1]),
    (
        origin,
        f"{-removed / total:.0%}, {size_text(2 * removed)} less in 16 bit",
        f"{kv[1] / kv[0] - 1:.0%}, {kv[0] - kv[1]:,} B less",
        f"{flops[1] / flops[0] - 1:.0%}",
    ),
    strict=True,
):
    column.metric(
        title, value, words if change else "unchanged", delta_color="off", delta_arrow="off", border=True
    )
masks.cost(chosen, dense, mask)
if live:
    st.caption(
        "The pruning ratio counts the linear weights of the decoder layers; embeddings are never cut, so the share of all "
        "parameters is smaller. Preview: one-shot pruning with the dense model's statistics. A run with several iterations collects new statistics "
        "in each iteration, so its final mask can differ."
    )

for warning in warnings(mask, dense.scores, config):
    st.warning(sentence(warning))

play = last > 1 and not live and st.toggle("Animate the iterations", key="play_masks", bind="query-params")
names = viz.site_names(shape)
widths = [2, 3][: len(names)] if len(names) < 3 else len(names)
for name, column in zip(names, st.columns(widths), strict=True):
    title = viz.kept_title(name)
    if play:
        bins = viz.animation_bins(len(shape.layers), last, 256)
        frames = {
            f"iteration {n}": viz.mask_map_data(stored.iteration(run, n).mask, name, bins)
            for n in range(1, last + 1)
        }
        figure = viz.animation_figure(frames, title, (0.0, 1.0))
    else:
        mark = None
        if chosen.site.name == name:
            mark = (chosen.site.layer, chosen.channel // shape.shape(chosen.site).width)
        figure = viz.mask_map_figure(viz.mask_map_data(mask, name, 256), title, chosen=mark)
    column.plotly_chart(figure, alt=f"{title} by layer", config=state.PLOT)
shares, sizes = st.columns([3, 2])
shares.plotly_chart(
    viz.kept_share_figure(viz.kept_share_data(mask), 1 - mask.ratio / shape.prunable_share),
    alt="Share kept by layer and module",
    config=state.PLOT,
)
sizes.plotly_chart(
    viz.parameters_figure(viz.parameters_data(shape, mask), height=320),
    alt="Linear parameters of the decoder layers by module",
    config=state.PLOT,
)

st.subheader("Comparison with another mask")
other_name = st.selectbox(
    "Other mask", masks.names(chosen), key="other", bind="query-params", persist_state="session"
)
if other_name == mixtures.WRITTEN:
    mixtures.write(chosen)
try:
    other = masks.named(other_name, chosen, dense, shape)
    masks.prune_both(other_name, chosen)
except PruningError as error:
    state.explain(error)
    st.stop()

counts = dict.fromkeys(("both masks", "this mask only", "the other only", "neither mask"), 0)
for site in shape.sites:
    x, y = mask.channels(site), other.channels(site)
    for name, both in zip(counts, (x & y, x & ~y, ~x & y, ~x & ~y), strict=True):
        counts[name] += int(both.sum())
for column, (name, count) in zip(st.columns(4), counts.items(), strict=True):
    share = f"{count / sum(counts.values()):.0%}"
    column.metric(f"Channels in {name}", f"{count:,}", share, delta_color="off", delta_arrow="off")
for name, column in zip(names, st.columns(widths), strict=True):
    data = viz.comparison_data(mask, other, name, 256)
    column.plotly_chart(
        viz.comparison_figure(data, other_name),
        alt=f"{viz.site_style(name).units} kept by this mask, the other mask, both or neither",
        config=state.PLOT,
    )
name = view_state.default_name(shape)
sites = [site for site in shape.sites if site.name == name]
overlap = [jaccard(mask, other, site) for site in sites]
chance = [chance_jaccard(mask, other, site) for site in sites]
st.caption(
    f"A column of several channels shows their most frequent category. Overlap of the two masks in the "
    f"{viz.site_style(name).units} of a layer (Jaccard index): {min(overlap):.2f} to {max(overlap):.2f}; expected for random masks of the same sizes: "
    f"{min(chance):.2f} to {max(chance):.2f}."
)
popover("mask", "pruning ratio", "kept share", "attention unit", "domain mixture")
