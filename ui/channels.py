"""Helpers of the Importance page: channel quantities, comparisons, and the details of one channel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.engine.budget import scores, site_stats
from pruning.method.scores import fluctuation
from pruning.models.geometry import KINDS, Kind, Site
from pruning.runs.folder import StoredIteration
from pruning.runs.run import Run
from ui import mixtures, state, stored

Array = np.ndarray
Values = dict[Site, Array]
BINS = 256  # columns of a heatmap of all layers


DECIDES = "score relative to the cut"  # of `cut`: what the method of the sidebar ranks by
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
    found = [stored.scores(each, _config, _config.mixture) for each in {_it.number: _it, 1: _first}.values()]
    return viz.cut_data(found[0], found[-1], _before.mask, _config, _first.curves)


def compared(
    run: Run, it: StoredIteration, what: str, quantity: str, config: RunConfig, weights: Mapping[str, float]
) -> Values | None:
    """The values to subtract for one of `comparisons`; None for `nothing`."""
    if what == "nothing":
        return None
    if what.startswith("iteration "):
        return values(stored.iteration(run, int(what.split()[1])), quantity, config, weights)
    return values(it, quantity, config, mixtures.named(what, run))


def compared_cut(chosen: state.Choice, it: StoredIteration, what: str) -> viz.Cut | None:
    """The cut to subtract for one of `comparisons`; None for `nothing`."""
    if what == "nothing":
        return None
    if what.startswith("iteration "):
        return cut(chosen, stored.iteration(chosen.run, int(what.split()[1])), chosen.mixture)
    return cut(chosen, it, mixtures.named(what, chosen.run))


def comparisons(run: Run) -> list[str]:
    """Names of everything a quantity can be compared with."""
    numbers = [it.number for it in run.iterations() if it.number > 0]
    others = [f"iteration {number}" for number in numbers] if len(numbers) > 1 else []
    return ["nothing", *others, *mixtures.names(run)]


@st.cache_data(max_entries=64, show_spinner=False)
def limits(
    path: str, stamp: int, quantity: str, scale: str, aggregate: str
) -> dict[Kind, tuple[float, float]]:
    """One colour scale per site, computed from the first and the last iteration with equal domain weights.

    A fixed scale makes colours comparable across iterations and while a slider moves.

    Args:
        path: folder of the run.
        stamp: number of iterations of the run, a part of the cache key.
        quantity, scale, aggregate: what the heatmap shows.
    """
    run = Run(Path(path))
    numbers = [it.number for it in run.iterations() if it.number > 0]
    weights = mixtures.named(mixtures.EQUAL, run)
    found = [
        values(stored.iteration(run, n), quantity, run.config, weights) for n in {numbers[0], numbers[-1]}
    ]
    settings: dict[str, Any] = {"what": quantity, "scale": scale, "aggregate": aggregate, "bins": BINS}
    return {
        kind: viz.colour_limits([viz.importance_data(each, kind, **settings) for each in found])
        for kind in KINDS
    }


def columns(layers: tuple[int, int]) -> int:
    """Maximum number of heatmap columns: the fewer layers are shown, the more columns."""
    shown = layers[1] - layers[0] + 1
    if shown == 1:
        return 1 << 16
    return 4096 if shown <= 4 else BINS


def zoom(run: Run) -> tuple[tuple[int, int], dict[Kind, tuple[int, int]]]:
    """Controls for ranges of layers and channels; plotly resets its own zoom when the data change."""
    shape = run.geometry
    assert shape is not None
    depth = len(shape.layers)
    widths = {kind: max(shape.channels(s) for s in shape.sites if s.name == kind) for kind in KINDS}
    layers = (0, 0)
    if depth > 1:
        layers = st.slider("Layers", 0, depth - 1, (0, depth - 1), key="layers", bind="query-params")
    ranges = {
        kind: st.slider(
            f"{viz.KIND_NAMES[kind]} channels",
            0,
            widths[kind] - 1,
            (0, widths[kind] - 1),
            key=f"range_{kind}",
            bind="query-params",
        )
        for kind in KINDS
    }
    st.caption(
        "One layer: one column per channel. Two to four layers: at most 4,096 columns of neighbouring channels. "
        f"More layers: at most {BINS} columns."
    )
    return layers, ranges


def choose(kind: Kind, key: str) -> None:
    """Callback of a click on a heatmap cell: selects the channel with the cell's largest value on all pages."""
    picked = st.session_state.get(key)  # a figure of a page that is being left has no state any more
    if picked and (points := picked.selection.points):
        found = points[0]["customdata"]
        peak = found["0"] if isinstance(found, Mapping) else found[0]
        select(Site(int(points[0]["y"]), kind), int(peak))


def select(site: Site, channel: int) -> None:
    """Callback: put a channel on view."""
    chosen = st.session_state
    chosen.site, chosen.layer, chosen.channel = site.name, site.layer, channel


def massive(scores: Mapping[Site, Array]) -> None:
    """Name the channels that exceed their layer by far, each a button that opens it."""
    found = viz.massive(scores)
    if not found:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Massive channels**, score over the layer's median:", width="content")
        for site, channel, times in found:
            name = f"layer {site.layer} {viz.KIND_NAMES[site.name]} {channel}: {times:,.0f} x"
            st.button(name, type="tertiary", on_click=select, args=(site, channel))


# --- details of one channel ---------------------------------------------------------------------------------


def _verdict(found: viz.Cut | None, chosen: state.Choice) -> str:
    """Whether the cut of the sidebar's settings takes the channel, and by how much."""
    if found is None:
        return ""
    away, stays = (
        found.distance[chosen.site][chosen.channel],
        found.mask.channels(chosen.site)[chosen.channel],
    )
    unit = "Its head scores" if chosen.site.name == "attn" else "It scores"
    by = f"{abs(away):.2f} {'above' if away > 0 else 'below'} the cut"
    if found.logarithmic:
        factor = 10.0**away
        by = f"{factor:,.{2 if factor < 10 else 0}f} times the cut"
    return f"{unit} **{by}** at {chosen.ratio:.0%} and **{'stays' if stays else 'goes'}**."


def card(run: Run, it: StoredIteration, chosen: state.Choice, found: viz.Cut | None) -> None:
    """Details of the selected channel: the score formula with its numbers, domains and ranks.

    Args:
        run: on view.
        it: the iteration on view.
        chosen: the settings.
        found: the cut that they make; None where there is none.
    """
    site, channel, config = chosen.site, chosen.channel, run.config
    moments = {name: parts[site] for name, parts in it.statistics.moments.items()}
    removed = next((i.number for i in run.iterations() if not i.mask.channels(site)[channel]), None)
    shape = it.geometry.shape(site)
    head = f", head {channel // shape.width}" if shape.has_heads else ""
    st.subheader(f"Layer {site.layer}, {viz.KIND_NAMES[site.name]} channel {channel:,}{head}")
    settings = config.replace(worst_domain=chosen.worst_domain)
    fused = site_stats(it.statistics, {site: it.norms[site]}, settings, chosen.mixture)[site]
    score = fluctuation(fused)
    if np.isnan(score[channel]):
        st.info(
            f"This channel was removed in iteration {removed}. Select an earlier iteration to see its statistics."
        )
    else:
        norm = fused.norm[channel]
        there = ~np.isnan(score)
        rank = int((score[there] > score[channel]).sum()) + 1
        last = run.iterations()[-1].number
        fate = f"removed in iteration **{removed}**." if removed else f"retained after iteration **{last}**."
        left, right = st.columns([3, 2], vertical_alignment="center")
        left.latex(
            rf"S = \mathrm{{var}} \cdot \lVert W_{{:,{channel}}} \rVert^2 = "
            rf"{fused.variance[channel]:.3g} \cdot {norm:.3g}^2 = {fused.variance[channel] * norm**2:.3g}"
        )
        right.markdown(
            f"Rank **{rank:,}** of {int(there.sum()):,} channels left in this layer. {_verdict(found, chosen)} "
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
    """By iteration, until the channel is removed: its rank in its layer, and the number of channels left there."""
    found = {}
    site, config = chosen.site, chosen.run.config.replace(worst_domain=chosen.worst_domain)
    for it in chosen.run.iterations():
        if it.number == 0:
            continue
        norms = {site: it.norms_of(site)}
        score = fluctuation(site_stats(it.statistics_of(site), norms, config, chosen.mixture)[site])
        there = ~np.isnan(score)
        if not there[chosen.channel]:
            break
        found[it.number] = int((score[there] > score[chosen.channel]).sum()) + 1, int(there.sum())
    return found
