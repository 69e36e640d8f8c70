"""How far every channel is from the cut: the score by which a method ranks, over that at which it stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.config import RunConfig
from pruning.engine.budget import Curves, dense_scales, rank, remove_units
from pruning.method.allocation import NEED_CURVES, score_by_sensitivity
from pruning.method.units import Units
from pruning.models.geometry import Kind, Site
from pruning.models.mask import Array, Mask
from pruning.visualization.heatmap_figures import importance_figure
from pruning.visualization.heatmaps import Heatmap, importance_data

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DECADES = 0.5  # the colour scale reaches from a third of the cut to three times it
DEVIATIONS = 1.0  # where scores are standardised
TICKS = {-0.477: "1/3", -0.301: "1/2", 0.0: "cut", 0.301: "2 x", 0.477: "3 x"}


@dataclass(frozen=True)
class Cut:
    """What a method would remove next, and by how much every channel misses or clears it.

    Attributes:
        distance: by site (C,) log10 of a unit's score over the cut's, or their difference where scores can
            be negative; a channel has its unit's; NaN where it is gone.
        mask: what is retained after the cut.
        logarithmic: whether the distance is a logarithm.
    """

    distance: Mapping[Site, Array]
    mask: Mask
    logarithmic: bool

    @property
    def limit(self) -> float:
        """End of the colour scale."""
        return DECADES if self.logarithmic else DEVIATIONS


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
        mask: retained so far.
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
        entry = np.full(len(mask.retained[unit.site]), np.nan)
        inside = unit.members >= 0
        entry[unit.members[inside]] = np.broadcast_to(away[:, None], unit.members.shape)[inside]
        distance[unit.site] = np.repeat(entry, mask.geometry.channels(unit.site) // len(entry))
    return Cut(distance, remove_units(mask, units, chosen), positive)


def _edges(units: list[Units], chosen: list[Array]) -> list[float]:
    """The score between what goes and what stays: one if a ranking of all units decided, else each site's."""
    below = [
        unit.score[gone & ~unit.forced & ~unit.remainder] for unit, gone in zip(units, chosen, strict=True)
    ]
    above = [unit.score[~gone & ~unit.protected] for unit, gone in zip(units, chosen, strict=True)]
    highest = max((float(part.max()) for part in below if len(part)), default=None)
    lowest = min((float(part.min()) for part in above if len(part)), default=None)
    if highest is None or lowest is None or highest <= lowest:
        low, high = [highest] if highest is not None else [], [lowest] if lowest is not None else []
        if low or high:
            return [_between(low, high)] * len(units)
    return [
        _between(
            [float(low.max())] if len(low) else [],
            [float(high.min())] if len(high) else [] if len(low) else [float(unit.score.min())],
        )
        for unit, low, high in zip(units, below, above, strict=True)
    ]


def _between(low: list[float], high: list[float]) -> float:
    """A number above what goes and below what stays, where there is either."""
    if not low:
        return float(np.nextafter(high[0], -np.inf))
    if not high or low[0] >= high[0]:
        return low[0]
    middle = float(np.sqrt(low[0] * high[0]) if low[0] > 0 else (low[0] + high[0]) / 2)
    return middle if middle < high[0] else low[0]


def cut_map(cut: Cut, kind: Kind, *, against: Cut | None = None, **settings: Any) -> Heatmap:
    """Layers by channels of the distance to the cut.

    Args:
        cut: from `cut_data`.
        kind: site of the channels; each head is one column.
        against: another cut to subtract.
        settings: of `importance_data`.
    """
    if kind == "attn":
        settings["bins"] = len(cut.mask.retained[Site(0, "attn")])
    what = "score relative to the cut" if cut.logarithmic else "score minus the cut"
    settings |= {"what": what, "scale": "linear"}
    other = against.distance if against else None
    values = cut.distance
    if settings.get("aggregate") == "mean" and not settings.get("ordered"):
        # as far as the colours reach: one channel far off does not outweigh its neighbours
        values = {site: np.clip(row, -cut.limit, cut.limit) for site, row in values.items()}
    data = importance_data(values, kind, **settings, against=other, mask=cut.mask)
    return replace(data, diverging=True, rank=None, what=f"difference of {what} (log10)" if other else what)


def cut_title(cut: Cut, kind: Kind, before: Mask) -> str:
    """What is to be seen, computed: how many of the channels that are left lie below the cut."""
    sites = [site for site in before.retained if site.name == kind]
    there = sum(int(before.retained[site].sum()) for site in sites)
    stay = sum(int(cut.mask.retained[site].sum()) for site in sites)
    unit = "query heads" if kind == "attn" else "MLP channels"
    if not all(before.retained[site].all() for site in sites):
        unit += " that are left"
    if there == stay:
        return f"All {there:,} {unit} lie above the cut and stay"
    return f"{there - stay:,} of {there:,} {unit} lie below the cut (blue) and go"


def cut_figure(data: Heatmap, cut: Cut, title: str, **options: Any) -> Figure:
    """A heatmap whose colour scale has the cut in its middle; sorted layers get it as a line as well."""
    figure = importance_figure(data, title, (-cut.limit, cut.limit), **options)
    if cut.logarithmic:
        bar = {"tickvals": list(TICKS), "ticktext": list(TICKS.values())}
        figure.update_traces(selector={"type": "heatmap"}, colorbar=bar)
        if options.get("choosable") and len(figure.data) > 1:  # the hover tells the factor, not its logarithm
            figure.data[1].customdata[:, 3 if data.binned else 1] = 10 ** data.values.ravel()
    if data.ordered:
        widths = [int(cut.mask.channels(Site(int(layer), data.kind)).sum()) for layer in data.rows]
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
        values: by site (C,), NaN where a channel is gone.
        times: the least factor.
        most: how many at most.
    """
    found = []
    for site, row in values.items():
        there = row[np.isfinite(row) & (row > 0)]
        if not len(there):
            continue
        factor = np.nan_to_num(row) / np.median(there)
        found += [(site, int(channel), float(factor[channel])) for channel in np.flatnonzero(factor > times)]
    return sorted(found, key=lambda item: -item[2])[:most]
