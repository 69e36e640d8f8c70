"""How far every channel is from the cut: the score by which a method ranks, over that at which it stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pruning.config import RunConfig
from pruning.engine.budget import Curves, dense_scales, rank, remove_units
from pruning.method.allocation import NEED_CURVES, score_by_sensitivity
from pruning.method.units import Units
from pruning.models.geometry import Site
from pruning.models.mask import Array, Mask
from pruning.visualization.heatmaps import Heatmap, View, importance_data, importance_figure, sites_of
from pruning.visualization.style import site_style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TICKS = {-0.477: "1/3", -0.301: "1/2", 0.0: "cut", 0.301: "2x", 0.477: "3x"}


class Reach(NamedTuple):
    """Range of the colour scale of distances to the cut, on pages and in the live canvas.

    Attributes:
        logarithmic: whether a distance is log10 of score over cut, else their difference in deviations.
        limit: distance at both ends of the scale.
        ends: the scores there, in words.
    """

    logarithmic: bool
    limit: float
    ends: tuple[str, str]


FACTORS = Reach(True, 0.5, ("a third of the cut", "three times the cut"))
DEVIATIONS = Reach(False, 1.0, ("a standard deviation below the cut", "a standard deviation above it"))


def colour_reach(config: RunConfig) -> Reach:
    """The colour scale for a config: standardised scores can be negative and have no logarithm."""
    return DEVIATIONS if config.normalise.startswith("zscore") else FACTORS


@dataclass(frozen=True)
class Cut:
    """What a method would remove next, and by how much every channel misses or clears it.

    Attributes:
        distance: by site (C,) log10 of a unit's score over the cut's, or their difference where scores can
            be negative; a channel has its unit's; NaN where it is removed.
        mask: what is kept after the cut.
        reach: of the colour scale.
    """

    distance: Mapping[Site, Array]
    mask: Mask
    reach: Reach

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the colour scale."""
        return -self.reach.limit, self.reach.limit


def cut_data(
    scores: Mapping[Site, Array],
    dense: Mapping[Site, Array],
    mask: Mask,
    config: RunConfig,
    curves: Curves | None = None,
) -> Cut:
    """The cut that a config would make now, in one step.

    Args:
        scores: by site (C,) of the model as it is.
        dense: the same of the dense model, to which normalisers refer.
        mask: kept so far.
        config: score to ratio; a ratio that has been reached cuts nothing more.
        curves: by site what its cuts cost, where that was measured: an allocation may rank by it.

    Raises:
        ConfigError: the ratio cannot be reached, or pins contradict each other.
    """
    ratio = max(config.ratio, mask.ratio)
    scales = dense_scales(dense, config.square_attention)
    units, chosen = rank(scores, mask, ratio, config, scales, curves)
    if config.allocation in NEED_CURVES and curves:
        units = [score_by_sensitivity(unit) for unit in units]
        least = 1e-9 * max(float(unit.score.max()) for unit in units)
        units = [unit._replace(score=np.maximum(unit.score, least)) for unit in units]
    edges = _edges(units, chosen)
    positive = all((u.score > 0).all() for u in units) and all(edge > 0 for edge in edges)
    distance = {}
    for unit, edge in zip(units, edges, strict=True):
        away = np.log10(unit.score / edge) if positive else unit.score - edge
        entry = np.full(len(mask.kept[unit.site]), np.nan)
        inside = unit.members >= 0
        entry[unit.members[inside]] = np.broadcast_to(away[:, None], unit.members.shape)[inside]
        distance[unit.site] = np.repeat(entry, mask.geometry.channels(unit.site) // len(entry))
    return Cut(distance, remove_units(mask, units, chosen), FACTORS if positive else DEVIATIONS)


def _edges(units: list[Units], chosen: list[Array]) -> list[float]:
    """The score between what goes and what stays: one if a ranking of all units decided, else each site's."""
    ends = []
    for unit, goes in zip(units, chosen, strict=True):
        highest = unit.score[goes & ~unit.forced & ~unit.remainder].max(initial=-np.inf)
        lowest = unit.score[~goes & ~unit.protected].min(initial=np.inf)
        ends.append((float(highest), float(lowest)))
    below, above = max(highest for highest, _ in ends), min(lowest for _, lowest in ends)
    if below <= above and np.isfinite([below, above]).any():
        return [_between(below, above)] * len(units)
    return [
        _between(*pair) if np.isfinite(pair).any() else _between(-np.inf, float(unit.score.min()))
        for unit, pair in zip(units, ends, strict=True)
    ]


def _between(below: float, above: float) -> float:
    """A number above the highest score that goes and below the lowest that stays; either may be infinite."""
    if np.isinf(below):
        return float(np.nextafter(above, -np.inf))
    if np.isinf(above) or below >= above:
        return below
    middle = float(np.sqrt(below * above) if below > 0 else (below + above) / 2)
    return middle if middle < above else below


def cut_map(cut: Cut, name: str, view: View = View(), against: Cut | None = None) -> Heatmap:  # noqa: B008
    """Layers by channels of the distance to the cut.

    Args:
        cut: from `cut_data`.
        name: of the sites; where units have several channels, each unit of the mask is one column.
        view: order and section; what is shown and its scale are those of the cut.
        against: another cut to subtract.
    """
    sites = sites_of(cut.distance, name)
    entries = max(len(cut.mask.kept[site]) for site in sites)
    if entries < max(len(cut.distance[site]) for site in sites):
        view = replace(view, bins=entries)
    what = "score relative to the cut" if cut.reach.logarithmic else "score minus the cut"
    values = cut.distance
    if view.aggregate == "mean" and not view.ordered:
        # as far as the colours reach: one channel far off does not outweigh its neighbours
        values = {site: np.clip(row, *cut.limits) for site, row in values.items()}
    data = importance_data(
        values,
        name,
        replace(view, what=what, scale="linear"),
        against.distance if against else None,
        cut.mask,
    )
    return replace(data, diverging=True, rank=None, what=f"difference of {what} (log10)" if against else what)


def cut_title(cut: Cut, name: str, before: Mask) -> str:
    """A title that counts how many of the units that a mask keeps lie below the cut."""
    sites = sites_of(before.kept, name)
    count = sum(int(before.kept[site].sum()) for site in sites)
    kept = sum(int(cut.mask.kept[site].sum()) for site in sites)
    units = site_style(name).units
    if not all(before.kept[site].all() for site in sites):
        units = f"remaining {units}"
    if count == kept:
        return f"All {count:,} {units} lie above the cut and stay"
    return f"{count - kept:,} of {count:,} {units} lie below the cut (blue) and are removed"


def cut_figure(data: Heatmap, cut: Cut, title: str, **options: Any) -> Figure:
    """A heatmap whose colour scale has the cut in its middle; sorted layers get it as a line as well."""
    figure = importance_figure(data, title, cut.limits, **options)
    if cut.reach.logarithmic:
        bar = {"tickvals": list(TICKS), "ticktext": list(TICKS.values())}
        figure.update_traces(selector={"type": "heatmap"}, colorbar=bar)
        if options.get("choosable") and len(figure.data) > 1:  # the hover tells the factor, not its logarithm
            figure.data[1].customdata[:, 3 if data.is_binned else 1] = 10 ** data.values.ravel()
    if data.ordered:
        widths = [int(cut.mask.channels(Site(int(layer), data.name)).sum()) for layer in data.rows]
        figure.add_scatter(
            x=np.repeat(np.array(widths, np.float32) - 0.5, 2),
            y=np.stack([data.rows - 0.5, data.rows + 0.5], axis=1).ravel().astype(np.float32),
            mode="lines",
            line={"color": "black", "width": 2},
            hoverinfo="skip",
            showlegend=False,
        )
    return figure


def massive(
    values: Mapping[Site, Array], times: float = 1000.0, most: int = 6
) -> list[tuple[Site, int, float]]:
    """Channels that exceed the median of their layer by far, the farthest first: site, channel, factor.

    Args:
        values: by site (C,), NaN where a channel is removed.
        times: the least factor.
        most: how many at most.
    """
    channels = []
    for site, row in values.items():
        positive = row[np.isfinite(row) & (row > 0)]
        if not len(positive):
            continue
        factor = np.nan_to_num(row) / np.median(positive)
        channels += [(site, int(at), float(factor[at])) for at in np.flatnonzero(factor > times)]
    return sorted(channels, key=lambda channel: -channel[2])[:most]
