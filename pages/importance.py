from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from pruning import visualization as viz
from pruning.errors import PruningError
from pruning.formatting import sentence
from pruning.models.geometry import KINDS, Kind
from ui import channels, mixtures, place, state, stored
from ui.glossary import popover

chosen = state.choice()
run = chosen.run
config = run.config.replace(worst_domain=chosen.worst_domain)
st.title("Channel importance")
st.caption(
    "Which channels matter, and why does one go? The settings on the left set the cut; on Masks it moves while you drag."
)
state.follow(run)
shown = stored.statistics_iteration(chosen)
if shown is None:
    state.no_statistics(run)

top = st.columns([4, 3, 4, 2], vertical_alignment="bottom")
offered = [channels.DECIDES, *channels.QUANTITIES, channels.FACTORS]
quantity = str(top[0].selectbox("Quantity", offered, key="quantity", bind="query-params"))
order = top[1].selectbox("Channel order", ["by position", "largest first"], key="order", bind="query-params")
compare = str(
    top[2].selectbox(
        "Compare with", channels.comparisons(run), key="against", bind="query-params", persist_state="session"
    )
)
decides = quantity == channels.DECIDES
with top[3].popover("View", icon=":material/zoom_in:", width="stretch"):
    scale: Any = st.selectbox(
        "Scale", viz.SCALINGS, key="scale", bind="query-params", disabled=decides, index=1
    )
    aggregate: Any = st.selectbox(
        "Value of a column of several channels", ["mean", "max"], key="aggregate", bind="query-params"
    )
    layers, ranges = channels.zoom(run)
if compare == mixtures.WRITTEN:
    mixtures.write(chosen)
numbers = [it.number for it in run.iterations() if it.number > 0]
left, right = st.columns([5, 1], vertical_alignment="center")
with left:
    place.iteration(run)
play = len(numbers) > 1 and right.toggle(
    "Play", key="play", bind="query-params", help="Animate the iterations"
)

cut: viz.Cut | None = None
try:
    cut = channels.cut(chosen, shown, chosen.mixture)
except PruningError as error:
    state.explain(error)
    if decides:
        st.stop()
settings: dict[str, Any] = {"ordered": order == "largest first", "aggregate": aggregate, "layers": layers}
settings["bins"] = channels.columns(layers)


def heatmap(it: Any, kind: Kind, what: str) -> viz.Heatmap:
    """Layers by channels of a quantity in an iteration, against what is chosen to compare with."""
    own = {**settings, "channels": ranges[kind]}
    if what == channels.DECIDES:
        other = channels.compared_cut(chosen, it, compare)
        return viz.cut_map(channels.cut(chosen, it, chosen.mixture), kind, against=other, **own)
    values = channels.values(it, what, config, chosen.mixture)
    against = channels.compared(run, it, compare, what, config, chosen.mixture)
    own |= {"what": what, "scale": scale, "against": against, "mask": it.mask}
    return viz.importance_data(values, kind, **own)


def draw(kind: Kind, what: str, title: str, data: viz.Heatmap, height: int | None = None) -> None:
    """A heatmap whose cells open the channel with their largest value."""
    mark = (chosen.site.layer, chosen.channel) if chosen.site.name == kind and not data.ordered else None
    options: dict[str, Any] = {"choosable": True, "chosen": mark, "height": height}
    if what == channels.DECIDES and compare == "nothing" and cut:
        figure = viz.cut_figure(data, cut, title, **options)
    else:
        limits = None
        if compare == "nothing":
            limits = channels.limits(str(run.path), len(numbers), what, scale, aggregate)[kind]
        figure = viz.importance_figure(data, title, limits, **options)
    key = f"heatmap-{kind}-{what}"
    st.plotly_chart(
        figure,
        alt=f"{what} of {kind} channels by layer",
        config=state.PLOT,
        key=key,
        # a lambda would keep all of this page's arrays alive
        on_select=partial(channels.choose, kind, key),
        selection_mode="points",
    )


before = stored.iteration(run, shown.number - 1).mask
titles = {"attn": "Attention channels", "mlp": "MLP channels"}
if compare != "nothing":
    titles = {kind: f"{title}: difference from {compare}" for kind, title in titles.items()}
elif decides and cut:
    titles = {kind: viz.cut_title(cut, kind, before) for kind in KINDS}
if quantity == channels.FACTORS:
    parts = ("input variance", "weight norm", "fluctuation score")
    scale = scale if scale.startswith("log") else "log"
    settings["bins"] = 128
    for column, what in zip(st.columns(3), parts, strict=True):
        with column:
            draw(chosen.site.name, what, sentence(what), heatmap(shown, chosen.site.name, what))
    st.caption(
        f"{viz.KIND_NAMES[chosen.site.name]} channels. For every channel, the first panel times the square of the second "
        "is the third: log10 score = log10 variance + 2 log10 norm. View sets one scale for all layers or one for each; "
        "the module is chosen below."
    )
else:
    for kind in KINDS[::-1]:
        if play:
            bins = viz.animation_bins(layers[1] - layers[0] + 1, len(numbers), settings["bins"])
            settings["bins"] = bins
            frames = {f"iteration {n}": heatmap(stored.iteration(run, n), kind, quantity) for n in numbers}
            limits = (-cut.limit, cut.limit) if decides and cut and compare == "nothing" else None
            st.plotly_chart(
                viz.animation_figure(frames, titles[kind] if compare != "nothing" else quantity, limits),
                alt=f"{quantity} of {kind} channels, animated",
                config=state.PLOT,
            )
            continue
        draw(kind, quantity, titles[kind], heatmap(shown, kind, quantity))

note = "Grey: removed in an earlier iteration. Click a cell to open the channel with its largest value."
if decides:
    shared = chosen.config().allocation not in ("uniform", "equal")
    where = (
        f"the score at which {chosen.ratio:.0%} is reached"
        if shared
        else "the score at which its layer is cut"
    )
    note = (
        f"The score by which method {chosen.method} ranks, over {where}: blue goes, red stays. "
        f"Statistics of the model at the start of iteration {shown.number}. {note}"
    )
st.caption(note)
channels.massive(channels.values(shown, "pruning score of this run", config, chosen.mixture))
place.channel(run)
channels.card(run, shown, chosen, cut)
layer_quantity = "fluctuation score" if quantity in (channels.DECIDES, channels.FACTORS) else quantity
row = channels.values(shown, layer_quantity, config, chosen.mixture)[chosen.site]
kept = (cut.mask if cut else shown.mask).channels(chosen.site)
figure = viz.layer_figure(row, kept, layer_quantity, np.nan_to_num(row)[chosen.channel])
st.plotly_chart(figure, alt=f"Histogram of {layer_quantity} in layer {chosen.site.layer}", config=state.PLOT)
popover("channel", "module", "variance", "fluctuation score", "iteration", "domain mixture")
