from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from pruning import visualization as viz
from pruning.models.geometry import KINDS
from pruning.words import sentence
from ui import channels, mixtures, place, state
from ui.glossary import popover

chosen = state.choice()
run, config = chosen.run, chosen.run.config
st.title("Channel importance")
state.follow(run)
shown = state.statistics_iteration(chosen)
if shown is None:
    st.info("This run has no statistics yet. They are available after its first iteration.")
    st.stop()

top = st.columns(5)
quantity = top[0].selectbox("Quantity", list(channels.QUANTITIES), key="quantity", bind="query-params")
scale = top[1].selectbox("Scale", viz.SCALINGS, key="scale", bind="query-params")
order = top[2].selectbox("Channel order", ["by position", "largest first"], key="order", bind="query-params")
compare = top[3].selectbox(
    "Compare with", channels.comparisons(run), key="against", bind="query-params", persist_state="session"
)
aggregate = top[4].selectbox("Value of a column", ["max", "mean"], key="aggregate", bind="query-params")
numbers = [it.number for it in run.iterations() if it.number > 0]
layers, ranges = channels.zoom(run)
left, right = st.columns([5, 1], vertical_alignment="center")
with left:
    place.iteration(run)
play = len(numbers) > 1 and right.toggle(
    "Play", key="play", bind="query-params", help="Animate the iterations"
)

if compare == mixtures.WRITTEN:
    mixtures.write(chosen)
values = channels.values(shown, quantity, config, chosen.mixture)
against = channels.compared(run, shown, compare, quantity, config, chosen.mixture)
titles = {"attn": "Attention channels", "mlp": "MLP channels"}
for kind, column in zip(KINDS, st.columns([2, 3]), strict=True):
    settings: dict[str, Any] = {
        "what": quantity,
        "scale": scale,
        "ordered": order == "largest first",
        "aggregate": aggregate,
        "channels": ranges[kind],
        "layers": layers,
        "bins": channels.columns(layers),
    }
    limits = None
    if against is None:
        limits = channels.limits(str(run.path), len(numbers), quantity, scale, aggregate)[kind]
    title = titles[kind] if against is None else f"{titles[kind]}: difference from {compare}"
    if play:
        settings["bins"] = viz.animation_bins(layers[1] - layers[0] + 1, len(numbers), settings["bins"])
        frames = {}
        for number in numbers:
            it = state.iteration(run, number)
            other = channels.compared(run, it, compare, quantity, config, chosen.mixture)
            mine = channels.values(it, quantity, config, chosen.mixture)
            frames[f"iteration {number}"] = viz.importance_data(mine, kind, against=other, **settings)
        column.plotly_chart(
            viz.animation_figure(frames, title, limits),
            alt=f"{quantity} of {kind} channels, animated",
            config=state.PLOT,
        )
        continue
    data = viz.importance_data(values, kind, against=against, mask=shown.mask, **settings)
    mark = (
        (chosen.site.layer, chosen.channel) if chosen.site.kind == kind and order == "by position" else None
    )
    figure = viz.importance_figure(
        data,
        title,
        limits,
        choosable=True,
        chosen=mark,
    )
    key = f"heatmap-{kind}"
    column.plotly_chart(
        figure,
        alt=f"{quantity} of {kind} channels by layer",
        config=state.PLOT,
        key=key,
        # a lambda would keep all of this page's arrays alive; a sorted position is no channel
        on_select=partial(channels.choose, kind, key) if order == "by position" else "ignore",
        selection_mode="points",
    )

st.caption(
    f"{sentence(quantity)} of the model at the start of iteration {shown.number}; channels removed earlier are blank. "
    "The colour scale spans the 1st to the 99th percentile; without a comparison it is the same for all iterations. Click "
    "a cell to select its channel (needs the order by position)."
)
place.channel(run)
channels.card(run, shown, chosen)
row = values[chosen.site]
kept = shown.mask.channels(chosen.site)
figure = viz.layer_figure(row, kept, quantity, np.nan_to_num(row)[chosen.channel])
st.plotly_chart(figure, alt=f"Histogram of {quantity} in layer {chosen.site.layer}", config=state.PLOT)
popover("channel", "module", "variance", "fluctuation score", "iteration", "domain mixture")
