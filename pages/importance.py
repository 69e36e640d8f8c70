from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from pruning import visualization as viz
from pruning.errors import PruningError
from pruning.formatting import sentence
from pruning.runs.folder import StoredIteration
from ui import channels, mixtures, state, stored, view_state
from ui.glossary import popover

chosen = state.choice()
run = chosen.run
config = run.config.replace(worst_domain=chosen.worst_domain)
st.title("Channel importance")
st.caption(
    "Which channels matter, and why is one removed? The settings on the left set the cut; on Masks it moves while you drag."
)
state.follow(run)
shown = stored.statistics_iteration(chosen)
if shown is None:
    state.no_statistics(run)
names = viz.site_names(shown.geometry)

top = st.columns([4, 3, 4, 2], vertical_alignment="bottom")
offered = [channels.DECISIVE, *channels.QUANTITIES, channels.FACTORS]
quantity = str(top[0].selectbox("Quantity", offered, key="quantity", bind="query-params"))
order = top[1].selectbox("Channel order", ["by position", "largest first"], key="order", bind="query-params")
compare = str(
    top[2].selectbox(
        "Compare with", channels.comparisons(run), key="against", bind="query-params", persist_state="session"
    )
)
is_decisive = quantity == channels.DECISIVE
with top[3].popover("View", icon=":material/zoom_in:", width="stretch"):
    scale: Any = st.selectbox(
        "Scale", viz.SCALINGS, key="scale", bind="query-params", disabled=is_decisive, index=1
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
    view_state.iteration(run)
play = len(numbers) > 1 and right.toggle(
    "Play", key="play", bind="query-params", help="Animate the iterations"
)

cut: viz.Cut | None = None
try:
    cut = channels.cut(chosen, shown, chosen.mixture)
except PruningError as error:
    state.explain(error)
    if is_decisive:
        st.stop()
view = viz.View(
    scale=scale,
    ordered=order == "largest first",
    aggregate=aggregate,
    bins=channels.columns(layers),
    layers=layers,
)
if quantity == channels.FACTORS:
    view = replace(view, scale=scale if scale.startswith("log") else "log", bins=128)
elif play:
    view = replace(view, bins=viz.animation_bins(layers[1] - layers[0] + 1, len(numbers), view.bins))


def heatmap(it: StoredIteration, name: str, what: str) -> viz.Heatmap:
    """Layers by channels of a quantity in an iteration, minus that of the selected comparison."""
    section = replace(view, what=what, channels=ranges[name])
    other = channels.compared(run, it, compare, chosen.mixture)
    if what == channels.DECISIVE:
        against = channels.cut(chosen, *other) if other else None
        return viz.cut_map(channels.cut(chosen, it, chosen.mixture), name, section, against)
    values = channels.values(it, what, config, chosen.mixture)
    subtracted = channels.values(other[0], what, config, other[1]) if other else None
    return viz.importance_data(values, name, section, subtracted, it.mask)


def draw(name: str, what: str, title: str, data: viz.Heatmap) -> None:
    """A heatmap whose cells open the channel with their largest value."""
    mark = (chosen.site.layer, chosen.channel) if chosen.site.name == name and not data.ordered else None
    options: dict[str, Any] = {"choosable": True, "chosen": mark}
    if what == channels.DECISIVE and compare == "nothing" and cut:
        figure = viz.cut_figure(data, cut, title, **options)
    else:
        limits = None
        if compare == "nothing":
            limits = channels.limits(str(run.path), len(numbers), name, what, view.scale, view.aggregate)
        figure = viz.importance_figure(data, title, limits, **options)
    key = f"heatmap-{name}-{what}"
    st.plotly_chart(
        figure,
        alt=f"{what} of {viz.site_style(name).label} channels by layer",
        config=state.PLOT,
        key=key,
        # a lambda would keep all of this page's arrays alive
        on_select=partial(channels.choose, name, key),
        selection_mode="points",
    )


before = stored.iteration(run, shown.number - 1).mask
titles = {name: sentence(f"{viz.site_style(name).label} channels") for name in names}
if compare != "nothing":
    titles = {name: f"{title}: difference from {compare}" for name, title in titles.items()}
elif is_decisive and cut:
    titles = {name: viz.cut_title(cut, name, before) for name in names}
if quantity == channels.FACTORS:
    factors = ("input variance", "weight norm", "fluctuation score")
    for column, what in zip(st.columns(3), factors, strict=True):
        with column:
            draw(chosen.site.name, what, sentence(what), heatmap(shown, chosen.site.name, what))
    st.caption(
        f"{sentence(viz.site_style(chosen.site.name).label)} channels. For every channel, the first panel times the "
        "square of the second is the third: log10 score = log10 variance + 2 log10 norm. View sets one scale for all "
        "layers or one for each; the module is chosen below."
    )
elif play:
    for name in names[::-1]:
        frames = {f"iteration {n}": heatmap(stored.iteration(run, n), name, quantity) for n in numbers}
        ends = cut.limits if is_decisive and cut and compare == "nothing" else None
        st.plotly_chart(
            viz.animation_figure(frames, titles[name] if compare != "nothing" else quantity, ends),
            alt=f"{quantity} of {viz.site_style(name).label} channels, animated",
            config=state.PLOT,
        )
else:
    for name in names[::-1]:
        draw(name, quantity, titles[name], heatmap(shown, name, quantity))

note = "Grey: removed in an earlier iteration. Click a cell to open the channel with its largest value."
if is_decisive:
    shared = chosen.config().allocation not in ("uniform", "equal")
    where = (
        f"the score at which {chosen.ratio:.0%} is reached"
        if shared
        else "the score at which its layer is cut"
    )
    note = (
        f"The score by which method {chosen.method} ranks, over {where}: blue is removed, red stays. "
        f"Statistics of the model at the start of iteration {shown.number}. {note}"
    )
st.caption(note)
channels.massive(channels.values(shown, "pruning score of this run", config, chosen.mixture))
view_state.channel(run)
channels.card(run, shown, chosen, cut)
layer_quantity = "fluctuation score" if quantity in (channels.DECISIVE, channels.FACTORS) else quantity
row = channels.values(shown, layer_quantity, config, chosen.mixture)[chosen.site]
kept = (cut.mask if cut else shown.mask).channels(chosen.site)
figure = viz.layer_figure(row, kept, layer_quantity, np.nan_to_num(row)[chosen.channel])
st.plotly_chart(figure, alt=f"Histogram of {layer_quantity} in layer {chosen.site.layer}", config=state.PLOT)
popover("channel", "module", "variance", "fluctuation score", "iteration", "domain mixture")
