"""Helpers of the Importance page: channel quantities, comparisons, and the details of one channel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.engine.budget import scores, site_stats
from pruning.method.scores import fluctuation
from pruning.models.geometry import Site
from pruning.runs.folder import StoredIteration
from pruning.runs.run import Run
from ui import mixtures, state, stored

Array = np.ndarray
Values = dict[Site, Array]
BINS = 256  # columns of a heatmap of all layers


DECISIVE = "score relative to the cut"  # what the method of the sidebar ranks by, see `cut`
FACTORS = "variance x squared norm = score"  # three panels, of which the third is the product
QUANTITIES: dict[str, Callable[[StoredIteration, RunConfig, Mapping[str, float]], Values]] = {
    "fluctuation score": lambda it, c, w: scores(it.statistics, it.norms, c.replace(score="fluctuation"), w),
    "input variance": lambda it, c, w: {
        site: stats.variance for site, stats in site_stats(it.statistics, None, c, w).items()
    },
    "root mean square": lambda it, c, w: {
        site: np.sqrt(stats.mean_square) for site, stats in site_stats(it.statistics, None, c, w).items()
    },
    "weight norm": lambda it, c, w: {site: norms.norm for site, norms in it.norms.items()},
    "pruning score of this run": lambda it, c, w: stored.scores(it, c, w),
}


def values(it: StoredIteration, quantity: str, config: RunConfig, weights: Mapping[str, float]) -> Values:
    """A quantity of every channel, (C,) by site, NaN for removed channels."""
    return QUANTITIES[quantity](it, config, weights)


def cut(chosen: state.Choice, it: StoredIteration, weights: Mapping[str, float]) -> viz.Cut:
    """The cut that the settings of the sidebar make with an iteration's statistics and a mixture.

    Raises:
        ConfigError: the ratio cannot be reached, or pins contradict each other.
    """
    config = dataclasses.replace(chosen, mixture=dict(weights)).config()
    first, before = stored.iteration(chosen.run, 1), stored.iteration(chosen.run, it.number - 1)
    return _cut(str(it.path), stored.stamp(it), config.model_dump_json(), it, first, before, config)


@st.cache_resource(max_entries=8, show_spinner=False)
def _cut(
    path: str,
    stamp: int,
    key: str,
    _it: StoredIteration,
    _first: StoredIteration,
    _before: StoredIteration,
    _config: RunConfig,
) -> viz.Cut:
    scores = stored.scores(_it, _config, _config.mixture)
    dense = scores if _it.number == 1 else stored.scores(_first, _config, _config.mixture)
    return viz.cut_data(scores, dense, _before.mask, _config, _first.curves)


def compared(
    run: Run, it: StoredIteration, what: str, weights: Mapping[str, float]
) -> tuple[StoredIteration, Mapping[str, float]] | None:
    """Iteration and mixture of one of `comparisons`; None for `nothing`."""
    if what == "nothing":
        return None
    if what.startswith("iteration "):
        return stored.iteration(run, int(what.split()[1])), weights
    return it, mixtures.named(what, run)


def comparisons(run: Run) -> list[str]:
    """Names of everything a quantity can be compared with."""
    numbers = [it.number for it in run.iterations() if it.number > 0]
    others = [f"iteration {number}" for number in numbers] if len(numbers) > 1 else []
    return ["nothing", *others, *mixtures.names(run)]


@st.cache_data(max_entries=64, show_spinner=False)
def limits(
    path: str, stamp: int, name: str, quantity: str, scale: viz.Scaling, aggregate: viz.Aggregate
) -> tuple[float, float]:
    """The ends of a colour scale, computed from the first and the last iteration with equal domain weights.

    A fixed scale makes colours comparable across iterations and while a slider moves.

    Args:
        path: folder of the run.
        stamp: number of iterations of the run, a part of the cache key.
        name: of the sites that are shown.
        quantity: one of `QUANTITIES`.
        scale, aggregate: of the heatmap.
    """
    run = Run(Path(path))
    numbers = [it.number for it in run.iterations() if it.number > 0]
    weights = mixtures.named(mixtures.EQUAL, run)
    view = viz.View(quantity, scale, aggregate=aggregate, bins=BINS)
    ends = [stored.iteration(run, number) for number in {numbers[0], numbers[-1]}]
    return viz.colour_limits(
        [viz.importance_data(values(it, quantity, run.config, weights), name, view) for it in ends]
    )


def columns(layers: tuple[int, int]) -> int:
    """Maximum number of heatmap columns: the fewer layers are shown, the more columns."""
    shown = layers[1] - layers[0] + 1
    if shown == 1:
        return 1 << 16
    return 4096 if shown <= 4 else BINS


def zoom(run: Run) -> tuple[tuple[int, int], dict[str, tuple[int, int]]]:
    """Controls for ranges of layers, and of channels by site; plotly resets its own zoom when the data change."""
    shape = run.geometry
    assert shape is not None
    depth = len(shape.layers)
    layers = (0, 0)
    if depth > 1:
        layers = st.slider("Layers", 0, depth - 1, (0, depth - 1), key="layers", bind="query-params")
    ranges = {}
    for name in viz.site_names(shape):
        last = max(shape.channels(site) for site in shape.sites if site.name == name) - 1
        title, key = f"{viz.site_style(name).label} channels", f"range_{name}"
        ranges[name] = st.slider(title, 0, last, (0, last), key=key, bind="query-params")
    st.caption(
        "One layer: one column per channel. Two to four layers: at most 4,096 columns of neighbouring channels. "
        f"More layers: at most {BINS} columns."
    )
    return layers, ranges


def choose(name: str, key: str) -> None:
    """Callback of a click on a heatmap cell: selects the channel with the cell's largest value on all pages."""
    event = st.session_state.get(key)  # a figure of a page that is being left has no state any more
    if event and (points := event.selection.points):
        data = points[0]["customdata"]
        peak = data["0"] if isinstance(data, Mapping) else data[0]
        select(Site(int(points[0]["y"]), name), int(peak))


def select(site: Site, channel: int) -> None:
    """Callback: select a channel on all pages."""
    widgets = st.session_state
    widgets.site, widgets.layer, widgets.channel = site.name, site.layer, channel


def massive(scores: Mapping[Site, Array]) -> None:
    """Name the channels that exceed their layer by far, each a button that opens it."""
    channels = viz.massive(scores)
    if not channels:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Massive channels**, score over the layer's median:", width="content")
        for site, channel, factor in channels:
            label = f"layer {site.layer} {viz.site_style(site.name).label} {channel}: {factor:,.0f}x"
            st.button(label, type="tertiary", on_click=select, args=(site, channel))


# --- details of one channel ---------------------------------------------------------------------------------


def _entry(it: StoredIteration, chosen: state.Choice) -> str:
    """The unit that the selected channel belongs to, such as `query head 3`; empty where a unit is a channel."""
    shape, unit = it.geometry.shape(chosen.site), viz.site_style(chosen.site.name).unit
    return f"{unit} {chosen.channel // shape.width}" if shape.has_heads else ""


def _verdict(cut: viz.Cut | None, chosen: state.Choice, entry: str) -> str:
    """Whether the cut of the sidebar's settings removes the channel, and how far its score is from the cut."""
    if cut is None:
        return ""
    away = cut.distance[chosen.site][chosen.channel]
    by = f"{abs(away):.2f} {'above' if away > 0 else 'below'} the cut"
    if cut.reach.logarithmic:
        factor = 10.0**away
        by = f"{factor:,.{2 if factor < 10 else 0}f} times the cut"
    fate = "stays" if cut.mask.channels(chosen.site)[chosen.channel] else "is removed"
    return f"{f'Its {entry}' if entry else 'It'} scores **{by}** at {chosen.ratio:.0%} and **{fate}**."


def card(run: Run, it: StoredIteration, chosen: state.Choice, cut: viz.Cut | None) -> None:
    """Details of the selected channel: the score formula with its numbers, domains and ranks.

    Args:
        run: that is displayed.
        it: the selected iteration.
        chosen: the settings.
        cut: that they make; None where they make none.
    """
    site, channel, config = chosen.site, chosen.channel, run.config
    moments = {name: parts[site] for name, parts in it.statistics.moments.items()}
    removed = next((i.number for i in run.iterations() if not i.mask.channels(site)[channel]), None)
    entry = _entry(it, chosen)
    label = viz.site_style(site.name).label
    st.subheader(f"Layer {site.layer}, {label} channel {channel:,}{f', {entry}' if entry else ''}")
    settings = config.replace(worst_domain=chosen.worst_domain)
    fused = site_stats(it.statistics, {site: it.norms[site]}, settings, chosen.mixture)[site]
    score = fluctuation(fused)
    if np.isnan(score[channel]):
        st.info(
            f"This channel was removed in iteration {removed}. Select an earlier iteration to see its statistics."
        )
    else:
        norm = fused.norm[channel]
        count = int((~np.isnan(score)).sum())
        rank = int((score > score[channel]).sum()) + 1
        last = run.iterations()[-1].number
        fate = f"removed in iteration **{removed}**." if removed else f"kept after iteration **{last}**."
        left, right = st.columns([3, 2], vertical_alignment="center")
        left.latex(
            rf"S = \mathrm{{var}} \cdot \lVert W_{{:,{channel}}} \rVert^2 = "
            rf"{fused.variance[channel]:.3g} \cdot {norm:.3g}^2 = {fused.variance[channel] * norm**2:.3g}"
        )
        right.markdown(
            f"Rank **{rank:,}** of {count:,} remaining channels in this layer. {_verdict(cut, chosen, entry)} "
            f"In this run: {fate}"
        )
        left, right = st.columns(2)
        left.plotly_chart(
            viz.channel_domains_figure(
                {name: float(part.variance[channel]) for name, part in moments.items()},
                {name: float(part.mean[channel]) for name, part in moments.items()},
            ),
            alt="Variance and mean of this channel's activation by domain",
            config=state.PLOT,
        )
        right.plotly_chart(
            viz.channel_rank_figure(ranks(chosen), removed),
            alt="Rank of this channel by iteration",
            config=state.PLOT,
        )
        with st.expander("Statistics by domain"):
            st.dataframe(
                [
                    {
                        "domain": name,
                        "mean": float(part.mean[channel]),
                        "variance": float(part.variance[channel]),
                        "weight": chosen.mixture.get(name, 0.0),
                    }
                    for name, part in moments.items()
                ],
                hide_index=True,
                column_config={
                    "mean": st.column_config.NumberColumn(format="%.4g"),
                    "variance": st.column_config.NumberColumn(format="%.4g"),
                    "weight": st.column_config.NumberColumn(format="percent"),
                },
            )


def ranks(chosen: state.Choice) -> dict[int, tuple[int, int]]:
    """By iteration, until the channel is removed: its rank in its layer, and the number of remaining channels."""
    by_iteration = {}
    site, config = chosen.site, chosen.run.config.replace(worst_domain=chosen.worst_domain)
    for it in chosen.run.iterations():
        if it.number == 0:
            continue
        norms = {site: it.norms_of(site)}
        score = fluctuation(site_stats(it.statistics_of(site), norms, config, chosen.mixture)[site])
        if np.isnan(score[chosen.channel]):
            break
        rank = int((score > score[chosen.channel]).sum()) + 1
        by_iteration[it.number] = rank, int((~np.isnan(score)).sum())
    return by_iteration
