"""Layers by channels as numbers: binned for the screen, with ranks, and the ends of a colour scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from pruning.models.geometry import Kind, Site
from pruning.models.mask import Mask
from pruning.visualization.style import (
    MAX_BINS,
    MAX_FRAMES,
    MAX_SORTED,
    Aggregate,
    Array,
)

if TYPE_CHECKING:
    pass


Scaling = Literal["log", "log per layer", "standardised", "linear"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)


def height_of(layers: int, least: int = 360) -> int:
    """Pixels for a figure of so many rows: all layers can be told apart, and it fits a screen."""
    return min(max(least, 140 + 12 * layers), 760)


@dataclass(frozen=True)
class Heatmap:
    """Layers by channels, binned for the screen.

    Attributes:
        values: (L, B) float32; NaN where nothing is left.
        first, last: (B,) the first and last channel of each bin.
        kind: site of the channels.
        what: what the values are, for the colour bar.
        diverging: whether zero is the middle of the scale.
        layers: (L,) numbers of the layers shown; 0 to L - 1 when left out.
        rank: (L, B) place of the value among the channels of its layer, 1 for the largest; for the hover.
        kept: (L, B) share of the bin's channels that a mask retains; for the hover.
        ordered: whether each layer is sorted, so that columns are places rather than channels.
        peak: (L, B) the channel of each bin that has its largest value: what a click opens.
    """

    values: Array
    first: Array
    last: Array
    kind: Kind
    what: str
    diverging: bool = False
    layers: Array | None = None
    rank: Array | None = None
    kept: Array | None = None
    ordered: bool = False
    peak: Array | None = None

    @property
    def unit(self) -> str:
        """What a column counts."""
        if self.ordered:
            return "sorted position"
        return "attention channel" if self.kind == "attn" else "MLP channel"

    @property
    def binned(self) -> bool:
        """Whether a column holds more than one channel."""
        return bool((self.last > self.first).any())

    @property
    def rows(self) -> Array:
        """(L,) layer numbers."""
        return np.arange(len(self.values)) if self.layers is None else self.layers

    @property
    def columns(self) -> Array:
        """(B,) float32 middle of each bin."""
        return ((self.first + self.last) / 2).astype(np.float32)


def layer_matrix(values: Mapping[Site, Array], kind: Kind) -> Array:
    """(L, C) of one site in all layers; NaN fills layers that have fewer channels."""
    rows = [np.asarray(values[site], np.float64) for site in sorted(values) if site.name == kind]
    width = max(len(row) for row in rows)
    return np.stack([np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows])


def binned(matrix: Array, bins: int = MAX_BINS, aggregate: Aggregate = "max") -> tuple[Array, Array, Array]:
    """Neighbouring channels in one column each, so that any width fits the screen.

    Args:
        matrix: (L, C) with NaN for what is not there.
        bins: columns at most.
        aggregate: what a bin shows of its channels.

    Returns:
        (L, B) float32, NaN where a bin is empty, and the first and last channel (B,) of each bin.
    """
    layers, channels = matrix.shape
    edges = np.linspace(0, channels, min(bins, channels) + 1).astype(int)
    there = ~np.isnan(matrix)
    count = np.add.reduceat(there, edges[:-1], axis=1, dtype=np.int64)
    if aggregate == "max":
        found = np.maximum.reduceat(np.where(there, matrix, -np.inf), edges[:-1], axis=1)
    else:
        found = np.add.reduceat(np.where(there, matrix, 0.0), edges[:-1], axis=1) / np.maximum(count, 1)
    return np.where(count > 0, found, np.nan).astype(np.float32), edges[:-1], edges[1:] - 1


def importance_data(
    values: Mapping[Site, Array],
    kind: Kind,
    *,
    what: str = "fluctuation score",
    scale: Scaling = "log",
    ordered: bool = False,
    against: Mapping[Site, Array] | None = None,
    aggregate: Aggregate = "max",
    bins: int = MAX_BINS,
    channels: tuple[int, int] | None = None,
    layers: tuple[int, int] | None = None,
    mask: Mask | None = None,
) -> Heatmap:
    """Layers by channels of a score, a variance or any other value per channel.

    Args:
        values: by site (C,) with NaN for removed channels.
        kind: which site.
        what: name of the values.
        scale: log10; log10 over the layer's geometric mean, so that no layer hides the others and the
            logarithms of factors still sum to that of their product; standard deviations from the layer's
            mean; or the values themselves.
        ordered: each layer sorted by value, the largest first, rather than by position.
        against: values of another iteration, domain or mixture to subtract, on the same scale.
        aggregate: what a bin of channels shows.
        bins: columns at most.
        channels: only from the first to the last of these, both included.
        layers: only from the first to the last of these, both included.
        mask: says for the hover what is kept.
    """
    top, bottom = layers or (0, max(site.layer for site in values))
    wanted = {site: array for site, array in values.items() if top <= site.layer <= bottom}
    matrix = _scaled(layer_matrix(wanted, kind), scale)
    if against is not None:
        other = {site: array for site, array in against.items() if site in wanted}
        matrix = matrix - _scaled(layer_matrix(other, kind), scale)
    kept = None
    if mask is not None:
        kept = layer_matrix({site: mask.channels(site) for site in wanted}, kind)
    if ordered:
        order = np.argsort(-matrix, axis=1)  # NaN stay last
        matrix = np.take_along_axis(matrix, order, axis=1)
        kept = None if kept is None else np.take_along_axis(kept, order, axis=1)
    numbers = order if ordered else np.broadcast_to(np.arange(matrix.shape[1]), matrix.shape)
    sorted_rows = matrix if ordered else None
    if not ordered and matrix.size <= MAX_SORTED:
        sorted_rows = -np.sort(-matrix, axis=1)
    start, stop = (channels[0], channels[1] + 1) if channels else (0, matrix.shape[1])
    cells, first, last = binned(matrix[:, start:stop], bins, aggregate)
    peak = _peaks(matrix[:, start:stop], numbers[:, start:stop], first, last)
    rank = None if sorted_rows is None or against is not None else _places(cells, sorted_rows)
    if kept is not None:
        kept = binned(kept[:, start:stop], bins, "mean")[0]
    name = {
        "log": f"log10 {what}",
        "log per layer": f"log10 {what} over layer mean",
        "standardised": f"{what} (z-score)",
        "linear": what,
    }[scale]
    name = f"difference of {name}" if against is not None else name
    return Heatmap(
        cells,
        first + start,
        last + start,
        kind,
        name,
        against is not None or scale == "standardised",
        np.arange(top, bottom + 1),
        rank,
        kept,
        ordered,
        peak,
    )


def _peaks(matrix: Array, numbers: Array, first: Array, last: Array) -> Array:
    """(L, B) float32: the number of the largest value in each bin, NaN where nothing is left."""
    if (first == last).all():
        return np.where(np.isnan(matrix), np.nan, numbers).astype(np.float32)
    filled = np.where(np.isnan(matrix), -np.inf, matrix)
    top = np.repeat(np.maximum.reduceat(filled, first, axis=1), last - first + 1, axis=1)
    found = np.where((filled == top) & np.isfinite(filled), numbers, np.inf)
    lowest = np.minimum.reduceat(found, first, axis=1)
    return np.where(np.isfinite(lowest), lowest, np.nan).astype(np.float32)


def _places(cells: Array, ordered: Array) -> Array:
    """(L, B) float32: how many channels of the layer are larger than a cell's value, and one more."""
    rows = [
        np.searchsorted(
            -np.nan_to_num(row, nan=-np.inf), -cell.astype(np.float64) * (1 + 1e-6 * np.sign(cell))
        )
        for row, cell in zip(ordered, cells, strict=True)
    ]
    return np.where(np.isnan(cells), np.nan, np.stack(rows) + 1).astype(np.float32)


def _scaled(matrix: Array, scale: str) -> Array:
    if scale == "log":
        return np.log10(np.where(matrix > 0, matrix, np.nan))
    if scale == "log per layer":
        logs = np.log10(np.where(matrix > 0, matrix, np.nan))
        count = np.maximum(np.isfinite(logs).sum(axis=1, keepdims=True), 1)
        return logs - np.nansum(logs, axis=1, keepdims=True) / count
    if scale == "standardised":
        mean, deviation = np.nanmean(matrix, axis=1, keepdims=True), np.nanstd(matrix, axis=1, keepdims=True)
        return (matrix - mean) / np.where(deviation > 0, deviation, 1.0)
    return matrix


def animation_bins(layers: int, frames: int, bins: int) -> int:
    """Columns at most so that all frames together stay within `MAX_FRAMES` cells."""
    return max(16, min(bins, MAX_FRAMES // max(layers * frames, 1)))


def colour_limits(maps: Sequence[Heatmap]) -> tuple[float, float]:
    """Ends of a colour scale for several maps: 1st and 99th percentile, round zero if diverging."""
    values = np.concatenate([m.values[np.isfinite(m.values)] for m in maps])
    if not len(values):
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, [1, 99]))
    if maps[0].diverging:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    return (low, high) if high > low else (low, low + 1.0)
