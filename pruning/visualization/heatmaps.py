"""Heatmaps of layers by channels: binned for the screen, with ranks, clickable, and animated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from pruning.formatting import sentence
from pruning.models.geometry import Site
from pruning.models.mask import Mask
from pruning.visualization.style import (
    DIVERGING,
    MARK,
    MAX_BINS,
    MAX_FRAMES,
    MAX_POINTS,
    MAX_SORTED,
    REMOVED,
    SEQUENTIAL,
    Aggregate,
    Array,
    graph,
    site_style,
    style,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Scaling = Literal["log", "log per layer", "standardised", "linear"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
SCALED = {
    "log": "log10 {}",
    "log per layer": "log10 {} over layer mean",
    "standardised": "{} (z-score)",
    "linear": "{}",
}


@dataclass(frozen=True)
class View:
    """How a heatmap shows a value of each channel.

    Attributes:
        what: name of the values.
        scale: log10; log10 over the layer's geometric mean, so that no layer hides the others and the
            logarithms of factors still sum to that of their product; standard deviations from the layer's
            mean; or the values themselves.
        ordered: each layer sorted by value, the largest first, rather than by position.
        aggregate: what a bin of channels shows.
        bins: columns at most.
        channels, layers: the first and the last that are shown; None for all.
    """

    what: str = "fluctuation score"
    scale: Scaling = "log"
    ordered: bool = False
    aggregate: Aggregate = "max"
    bins: int = MAX_BINS
    channels: tuple[int, int] | None = None
    layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class Heatmap:
    """Layers by channels, binned for the screen.

    Attributes:
        values: (L, B) float32; NaN where all channels of a bin are removed.
        first, last: (B,) the first and last channel of each bin.
        name: of the sites whose channels are shown.
        what: what the values are, for the colour bar.
        rows: (L,) numbers of the layers.
        diverging: whether zero is the middle of the scale.
        rank: (L, B) rank of the value among the channels of its layer, 1 for the largest; for the hover.
        kept: (L, B) share of the bin's channels that a mask keeps; for the hover.
        ordered: whether each layer is sorted, so that columns are ranks rather than channels.
        peak: (L, B) the channel of each bin that has its largest value, which a click opens.
    """

    values: Array
    first: Array
    last: Array
    name: str
    what: str
    rows: Array
    diverging: bool = False
    rank: Array | None = None
    kept: Array | None = None
    ordered: bool = False
    peak: Array | None = None

    @property
    def unit(self) -> str:
        """What a column counts."""
        return "sorted position" if self.ordered else f"{site_style(self.name).label} channel"

    @property
    def is_binned(self) -> bool:
        """Whether a column has more than one channel."""
        return bool((self.last > self.first).any())

    @property
    def columns(self) -> Array:
        """(B,) float32 middle of each bin."""
        return ((self.first + self.last) / 2).astype(np.float32)


def height_of(layers: int, least: int = 360) -> int:
    """Pixels for a figure of so many rows: all layers can be told apart, and it fits a screen."""
    return min(max(least, 140 + 12 * layers), 760)


def sites_of(values: Mapping[Site, Any], name: str) -> list[Site]:
    """Sites of a name by layer; a layer may have none."""
    return sorted(site for site in values if site.name == name)


def layer_matrix(values: Mapping[Site, Array], sites: Sequence[Site]) -> Array:
    """(L, C) float64 of sites of different layers; NaN fills layers that have fewer channels."""
    rows = [np.asarray(values[site], np.float64) for site in sites]
    width = max(len(row) for row in rows)
    return np.stack([np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows])


def binned(matrix: Array, bins: int = MAX_BINS, aggregate: Aggregate = "max") -> tuple[Array, Array, Array]:
    """Neighbouring channels in one column each, so that any width fits the screen.

    Args:
        matrix: (L, C) with NaN where a layer has no such channel.
        bins: columns at most.
        aggregate: what a bin shows of its channels.

    Returns:
        (L, B) float32, NaN where a bin is empty, and the first and last channel (B,) of each bin.
    """
    layers, channels = matrix.shape
    edges = np.linspace(0, channels, min(bins, channels) + 1).astype(int)
    is_value = ~np.isnan(matrix)
    count = np.add.reduceat(is_value, edges[:-1], axis=1, dtype=np.int64)
    if aggregate == "max":
        cells = np.maximum.reduceat(np.where(is_value, matrix, -np.inf), edges[:-1], axis=1)
    else:
        cells = np.add.reduceat(np.where(is_value, matrix, 0.0), edges[:-1], axis=1) / np.maximum(count, 1)
    return np.where(count > 0, cells, np.nan).astype(np.float32), edges[:-1], edges[1:] - 1


def importance_data(
    values: Mapping[Site, Array],
    name: str,
    view: View = View(),  # noqa: B008 -- frozen
    against: Mapping[Site, Array] | None = None,
    mask: Mask | None = None,
) -> Heatmap:
    """Layers by channels of a score, a variance or any other value per channel.

    Args:
        values: by site (C,) with NaN for removed channels.
        name: of the sites that are shown.
        view: scale, order and section.
        against: values of another iteration, domain or mixture to subtract, on the same scale.
        mask: tells which channels are kept, for the hover.
    """
    top, bottom = view.layers or (0, max(site.layer for site in values))
    sites = [site for site in sites_of(values, name) if top <= site.layer <= bottom]
    matrix = _scaled(layer_matrix(values, sites), view.scale)
    if against is not None:
        matrix = matrix - _scaled(layer_matrix(against, sites), view.scale)
    matrix, channels = _arranged(matrix, view.ordered)
    first, last = view.channels or (0, matrix.shape[1] - 1)
    section = np.s_[:, first : last + 1]
    cells, starts, ends = binned(matrix[section], view.bins, view.aggregate)
    kept = rank = None
    if mask is not None:
        channels_kept = layer_matrix({site: mask.channels(site) for site in sites}, sites)
        kept = binned(np.take_along_axis(channels_kept, channels, axis=1)[section], view.bins, "mean")[0]
    if against is None and (view.ordered or matrix.size <= MAX_SORTED):
        rank = _ranks(cells, matrix if view.ordered else -np.sort(-matrix, axis=1))
    what = SCALED[view.scale].format(view.what)
    return Heatmap(
        cells,
        starts + first,
        ends + first,
        name,
        what if against is None else f"difference of {what}",
        np.array([site.layer for site in sites]),
        against is not None or view.scale == "standardised",
        rank,
        kept,
        view.ordered,
        _peaks(matrix[section], channels[section], starts, ends),
    )


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


def _arranged(matrix: Array, ordered: bool) -> tuple[Array, Array]:
    """The values (L, C), each layer's largest first where they are ordered, and (L, C) their channels."""
    if not ordered:
        return matrix, np.broadcast_to(np.arange(matrix.shape[1]), matrix.shape)
    order = np.argsort(-matrix, axis=1)  # NaN stay last
    return np.take_along_axis(matrix, order, axis=1), order


def _peaks(matrix: Array, numbers: Array, first: Array, last: Array) -> Array:
    """(L, B) float32: the number of the largest value in each bin, NaN where all are removed."""
    if (first == last).all():
        return np.where(np.isnan(matrix), np.nan, numbers).astype(np.float32)
    filled = np.where(np.isnan(matrix), -np.inf, matrix)
    top = np.repeat(np.maximum.reduceat(filled, first, axis=1), last - first + 1, axis=1)
    numbered = np.where((filled == top) & np.isfinite(filled), numbers, np.inf)
    lowest = np.minimum.reduceat(numbered, first, axis=1)
    return np.where(np.isfinite(lowest), lowest, np.nan).astype(np.float32)


def _ranks(cells: Array, descending: Array) -> Array:
    """(L, B) float32: rank of each cell's value among the channels of its layer, 1 for the largest."""
    rows = [
        np.searchsorted(
            -np.nan_to_num(row, nan=-np.inf), -cell.astype(np.float64) * (1 + 1e-6 * np.sign(cell))
        )
        for row, cell in zip(descending, cells, strict=True)
    ]
    return np.where(np.isnan(cells), np.nan, np.stack(rows) + 1).astype(np.float32)


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


def importance_figure(
    data: Heatmap,
    title: str = "",
    limits: tuple[float, float] | None = None,
    height: int | None = None,
    choosable: bool = False,
    chosen: tuple[int, int] | None = None,
) -> Figure:
    """A heatmap of layers by channels; what is removed is grey.

    Args:
        data: from `importance_data` or `mask_map_data`.
        title: says what to see.
        limits: ends of the colour scale, to be the same over iterations; by default the 1st and 99th
            percentile of these values.
        height: in pixels; by the number of layers when left out.
        choosable: lays an invisible marker on every cell, because cells of a heatmap cannot be selected; it
            tells the rank and what is kept as well.
        chosen: layer and channel to mark.
    """
    go = graph()
    low, high = limits or colour_limits([data])
    near = f"layer %{{y}}, {data.unit} near %{{x:.0f}}"
    figure = go.Figure(
        go.Heatmap(
            z=data.values,
            x=data.columns,
            y=data.rows,
            zmin=low,
            zmax=high,
            colorscale=DIVERGING if data.diverging else SEQUENTIAL,
            colorbar={"title": {"text": data.what, "side": "right"}, "thickness": 12},
            hoverongaps=False,
            hovertemplate=f"{near}<br>{data.what} %{{z:.3f}}<extra></extra>",
        )
    )
    if choosable and data.values.size <= MAX_POINTS:
        figure.update_traces(hoverinfo="skip", hovertemplate=None)
        figure.add_trace(_markers(data))
    if chosen is not None and chosen[0] in data.rows and data.first[0] <= chosen[1] <= data.last[-1]:
        figure.add_scatter(
            x=[chosen[1]],
            y=[chosen[0]],
            mode="markers",
            marker={"symbol": "circle-open", "size": 15, "color": MARK, "line": {"width": 3}},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.update_yaxes(
        range=[data.rows[-1] + 0.5, data.rows[0] - 0.5],
        showgrid=False,
        title="layer",
        dtick=max(1, len(data.values) // 12),
    )
    figure.update_xaxes(
        range=[data.first[0] - 0.5, data.last[-1] + 0.5],
        showgrid=False,
        title=data.unit + (f", {data.last[0] - data.first[0] + 1} per column" if data.is_binned else ""),
    )
    style(
        figure,
        title or f"{sentence(data.what)}: {site_style(data.name).label}",
        height or height_of(len(data.values)),
    )
    # Streamlit's theme pads the axes: what is removed would frame the figure
    return figure.update_layout(plot_bgcolor=REMOVED, margin_pad=0)


def _markers(data: Heatmap) -> Any:
    """An invisible marker on every cell: what the pointer meets."""
    shape = data.values.shape
    x, y = np.broadcast_to(data.columns, shape), np.broadcast_to(data.rows[:, None], shape)
    # of the hover, first the channel that a click opens; each number counts where layers have 27,648 channels
    parts: list[Array] = [x if data.peak is None else data.peak]
    template = f"layer %{{y}}, {data.unit} %{{x}}"
    if data.is_binned:
        parts += [np.broadcast_to(data.first, shape), np.broadcast_to(data.last, shape)]
        template = f"layer %{{y}}, {data.unit}s %{{customdata[1]}} to %{{customdata[2]}}"
    if data.peak is not None and (data.is_binned or data.ordered):
        template += "<br>largest: channel %{customdata[0]}"
    for array, before, form, after in (
        (data.values, f"{data.what} ", ":.3f", ""),
        (data.rank, "rank ", ":,.0f", ""),
        (data.kept, "", ":.0%", " kept"),
    ):
        if array is not None:
            template += f"<br>{before}%{{customdata[{len(parts)}]{form}}}{after}"
            parts.append(array)
    flat = [part.astype(np.float32).ravel() for part in parts]
    hidden = {"marker": {"opacity": 0}}
    return graph().Scattergl(
        x=x.astype(np.float32).ravel(),
        y=y.astype(np.float32).ravel(),
        customdata=np.stack(flat, axis=1),
        mode="markers",
        marker={"symbol": "square", "size": 9, "opacity": 0},
        selected=hidden,
        unselected=hidden,
        hovertemplate=template + "<extra></extra>",
        showlegend=False,
    )


def animation_figure(
    frames: Mapping[str, Heatmap],
    title: str,
    limits: tuple[float, float] | None = None,
    height: int | None = None,
) -> Figure:
    """Heatmaps of several iterations in one figure with a play button; colours mean the same in all.

    Args:
        frames: by name, in order; all of the same shape, together of at most `MAX_FRAMES` cells.
        title: says what to see.
        limits: ends of the colour scale; from all frames by default.
        height: in pixels; by the number of layers when left out.
    """
    go = graph()
    limits = limits or colour_limits(list(frames.values()))
    first = next(iter(frames.values()))
    figure = importance_figure(first, title, limits, height or height_of(len(first.values), 430))
    figure.frames = [
        go.Frame(name=name, data=[go.Heatmap(z=data.values)], traces=[0]) for name, data in frames.items()
    ]
    still: dict[str, Any] = {"mode": "immediate", "transition": {"duration": 0}}
    play = {**still, "fromcurrent": True, "frame": {"duration": 900, "redraw": True}}
    once = {**still, "frame": {"duration": 0, "redraw": True}}
    buttons = [
        {"label": "Play", "method": "animate", "args": [None, play]},
        {"label": "Pause", "method": "animate", "args": [[None], once]},
    ]
    steps = [{"label": name, "method": "animate", "args": [[name], once]} for name in frames]
    figure.update_layout(
        updatemenus=[
            {"type": "buttons", "direction": "left", "x": 0, "y": -0.3, "yanchor": "top", "buttons": buttons}
        ],
        sliders=[
            {
                "x": 0.2,
                "len": 0.8,
                "y": -0.25,
                "yanchor": "top",
                "steps": steps,
                "currentvalue": {"prefix": ""},
            }
        ],
    )
    return figure.update_layout(margin={"b": 150})
