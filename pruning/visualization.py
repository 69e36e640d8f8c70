"""The figures. Each has a function that gathers numpy arrays, `*_data`, and one that draws them, `*_figure`.

No torch is needed: everything is read from a run on disk or computed from its stored statistics.

    from pruning import visualization as viz
    run = RunStore().all()[0]
    viz.importance_figure(viz.importance_data(run.iterations()[1].scores, "mlp")).show()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pruning.config import RunConfig
from pruning.masks import Mask, chance_jaccard, dense_scales, jaccard, next_mask
from pruning.moments import Statistics
from pruning.results import Retained, axis_title, rise
from pruning.scores import score_sites
from pruning.sites import Geometry, Kind, Site

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pruning.runs import StoredIteration

Array = np.ndarray
Aggregate = Literal["max", "mean"]
MAX_BINS = 512  # columns of a heatmap: 64 layers of these are 128 KiB on the wire
MAX_SORTED = 4_000_000  # channels whose ranks are worth their time
MAX_POINTS = 30_000  # cells that can be chosen by a click, with five numbers for the hover: 0.7 MB
MAX_FRAMES = 250_000  # cells of all frames of an animation: 1 MB

# One palette for everything; readable on light and dark, and without red-green vision.
SEQUENTIAL, DIVERGING = "Cividis", "RdBu_r"
COLOURS = ("#2a78b5", "#e07b39", "#3f9b6f", "#b0518f", "#8c7a3d", "#5d6bb0", "#c2483d", "#4aa3a3")
KIND_COLOURS = {"attn": COLOURS[0], "mlp": COLOURS[1]}
KIND_NAMES = {"attn": "attention", "mlp": "MLP"}
GREY = "rgba(128,128,128,0.35)"
MARK = "#e8365d"  # the channel on view; seen on every colour of both scales


def style(figure: Figure, title: str, height: int = 360) -> Figure:
    """The look that all figures share: a title that says what to see, transparent paper, quiet grid."""
    figure.update_layout(
        title={"text": title, "x": 0, "xanchor": "left", "font": {"size": 15}},
        height=height,
        margin={"l": 60, "r": 20, "t": 56, "b": 84 if _has_legend(figure) else 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        colorway=COLOURS,
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(gridcolor=GREY, zeroline=False)
    figure.update_yaxes(gridcolor=GREY, zeroline=False)
    return figure


def _has_legend(figure: Figure) -> bool:
    if figure.layout.showlegend is False:
        return False
    named = [trace for trace in figure.data if trace.showlegend is not False and trace.type != "heatmap"]
    return len(named) > 1


def _graph() -> Any:
    import plotly.graph_objects

    return plotly.graph_objects


# --- channels of all layers ------------------------------------------------------------------------------


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
    rows = [np.asarray(values[site], np.float64) for site in sorted(values) if site.kind == kind]
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
    scale: Literal["log", "standardised", "linear"] = "log",
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
        scale: log10, standard deviations from the layer's mean, or the values themselves.
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
    if mask is not None and not ordered:
        kept = layer_matrix({site: mask.channels(site) for site in wanted}, kind)
    sorted_rows = -np.sort(-matrix, axis=1) if ordered or matrix.size <= MAX_SORTED else None  # NaN stay last
    rows = sorted_rows if ordered and sorted_rows is not None else matrix
    start, stop = (channels[0], channels[1] + 1) if channels else (0, matrix.shape[1])
    cells, first, last = binned(rows[:, start:stop], bins, aggregate)
    rank = None if sorted_rows is None or against is not None else _places(cells, sorted_rows)
    if kept is not None:
        kept = binned(kept[:, start:stop], bins, "mean")[0]
    name = {"log": f"log10 {what}", "standardised": f"{what}, standard deviations", "linear": what}[scale]
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
    )


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
    if scale == "standardised":
        mean, deviation = np.nanmean(matrix, axis=1, keepdims=True), np.nanstd(matrix, axis=1, keepdims=True)
        return (matrix - mean) / np.where(deviation > 0, deviation, 1.0)
    return matrix


def importance_figure(
    data: Heatmap,
    title: str = "",
    limits: tuple[float, float] | None = None,
    height: int = 360,
    choosable: bool = False,
    chosen: tuple[int, int] | None = None,
) -> Figure:
    """A heatmap of layers by channels; what is gone stays transparent.

    Args:
        data: from `importance_data` or `mask_map_data`.
        title: says what to see.
        limits: ends of the colour scale, to be the same over iterations; by default the 1st and 99th
            percentile of these values.
        height: in pixels.
        choosable: lays an invisible marker on every cell, because cells of a heatmap cannot be selected.
        chosen: layer and channel to mark.
    """
    go = _graph()
    low, high = limits or colour_limits([data])
    unit = "head channel" if data.kind == "attn" else "MLP channel"
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
            hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}<br>{data.what} %{{z:.3f}}<extra></extra>",
        )
    )
    if choosable and data.values.size <= MAX_POINTS:
        figure.update_traces(hoverinfo="skip", hovertemplate=None)
        figure.add_trace(_markers(data, unit))
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
        range=[data.rows[-1] + 0.5, data.rows[0] - 0.5], title="layer", dtick=max(1, len(data.values) // 12)
    )
    figure.update_xaxes(
        title=unit + (f", {data.last[0] - data.first[0] + 1} a column" if _is_binned(data) else "")
    )
    return style(figure, title or f"{data.what[:1].upper()}{data.what[1:]}: {KIND_NAMES[data.kind]}", height)


def _markers(data: Heatmap, unit: str) -> Any:
    """An invisible marker on every cell: what the pointer meets."""
    shape = data.values.shape
    x, y = np.broadcast_to(data.columns, shape), np.broadcast_to(data.rows[:, None], shape)
    parts = [np.broadcast_to(data.first, shape), np.broadcast_to(data.last, shape), data.values]
    template = (
        f"layer %{{y}}, {unit} %{{customdata[0]}} to %{{customdata[1]}}<br>{data.what} %{{customdata[2]:.3f}}"
    )
    for array, text in ((data.rank, "<br>rank {}"), (data.kept, "<br>{} retained")):
        if array is not None:
            form = ":.0%" if array is data.kept else ":,.0f"
            template += text.format(f"%{{customdata[{len(parts)}]{form}}}")
            parts.append(array)
    flat = [part.astype(np.float32).ravel() for part in parts]
    hidden = {"marker": {"opacity": 0}}
    return _graph().Scattergl(
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
    frames: Mapping[str, Heatmap], title: str, limits: tuple[float, float] | None = None, height: int = 400
) -> Figure:
    """Heatmaps of several iterations in one figure with a play button; colours mean the same in all.

    Args:
        frames: by name, in order; all of the same shape, together of at most `MAX_FRAMES` cells.
        title: says what to see.
        limits: ends of the colour scale; from all frames by default.
        height: in pixels.
    """
    go = _graph()
    limits = limits or colour_limits(list(frames.values()))
    figure = importance_figure(next(iter(frames.values())), title, limits, height)
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
            {"type": "buttons", "direction": "left", "x": 0, "y": -0.22, "yanchor": "top", "buttons": buttons}
        ],
        sliders=[
            {
                "x": 0.2,
                "len": 0.8,
                "y": -0.16,
                "yanchor": "top",
                "steps": steps,
                "currentvalue": {"prefix": ""},
            }
        ],
    )
    return figure.update_layout(margin={"b": 130})


def animation_bins(layers: int, frames: int, bins: int) -> int:
    """Columns at most so that all frames together stay within `MAX_FRAMES` cells."""
    return max(16, min(bins, MAX_FRAMES // max(layers * frames, 1)))


def _is_binned(data: Heatmap) -> bool:
    return bool((data.last > data.first).any())


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


# --- masks -----------------------------------------------------------------------------------------------


def mask_map_data(mask: Mask, kind: Kind, bins: int = MAX_BINS) -> Heatmap:
    """Share retained in each bin: heads of an attention site, channels of an MLP."""
    rows = {site: mask.retained[site].astype(np.float64) for site in mask.retained if site.kind == kind}
    cells, first, last = binned(layer_matrix(rows, kind), bins, "mean")
    return Heatmap(cells, first, last, kind, "share retained")


def mask_map_figure(
    data: Heatmap, title: str = "", height: int = 360, chosen: tuple[int, int] | None = None
) -> Figure:
    """What a mask keeps, layers by heads or channels; `chosen` marks a layer and a head or channel."""
    title = title or f"What stays: {KIND_NAMES[data.kind]}"
    figure = importance_figure(data, title, (0.0, 1.0), height, chosen=chosen)
    unit = "query head" if data.kind == "attn" else "MLP channel"
    figure.update_traces(
        selector={"type": "heatmap"},
        xgap=1 if len(data.first) <= 128 else 0,
        hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}<br>%{{z:.0%}} retained<extra></extra>",
    )
    figure.update_xaxes(title=unit)
    return figure


CATEGORIES = ("kept by neither", "kept only there", "kept only here", "kept by both")
CATEGORY_COLOURS = ("#d9dde3", "#e07b39", "#5d6bb0", "#2f6f8f")


def comparison_data(here: Mask, there: Mask, kind: Kind, bins: int = MAX_BINS) -> Heatmap:
    """Which of two masks keeps what: numbers of `CATEGORIES`, in a bin the most frequent one."""
    rows = {}
    for site in here.retained:
        if site.kind == kind:
            rows[site] = (2 * here.retained[site] + there.retained[site]).astype(np.float64)
    matrix = layer_matrix(rows, kind)
    counts = [binned((matrix == number).astype(np.float64), bins, "mean") for number in range(4)]
    cells = np.stack([found for found, _, _ in counts]).argmax(axis=0).astype(np.float32)
    _, first, last = counts[0]
    return Heatmap(cells, first, last, kind, "kept by")


def comparison_figure(data: Heatmap, other: str, title: str = "", height: int = 320) -> Figure:
    """The map of two masks in four colours.

    Args:
        data: from `comparison_data`.
        other: name of the mask that is there, not here.
        title: says what to see.
        height: in pixels.
    """
    figure = importance_figure(
        data, title or f"Where the two differ: {KIND_NAMES[data.kind]}", (-0.5, 3.5), height
    )
    stops = [(i + edge) / 4 for i in range(4) for edge in (0, 1)]
    colours = [colour for colour in CATEGORY_COLOURS for _ in (0, 1)]
    unit = "query head" if data.kind == "attn" else "MLP channel"
    names = ["neither", f"only {other}", "only this", "both"]
    figure.update_traces(
        colorscale=list(zip(stops, colours, strict=True)),
        colorbar={"tickvals": [0, 1, 2, 3], "ticktext": names, "title": {"text": "kept by"}, "thickness": 12},
        xgap=1 if len(data.first) <= 128 else 0,
        hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}: %{{customdata}}<extra></extra>",
        customdata=np.asarray(names, dtype=object)[data.values.astype(int)]
        if data.values.size <= 4096
        else None,
    )
    if data.values.size > 4096:
        figure.update_traces(hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}<extra></extra>")
    figure.update_xaxes(title=unit)
    return figure


def retained_share_data(mask: Mask) -> dict[Kind, Array]:
    """Share (L,) of each layer's heads and channels that a mask retains."""
    layers = range(len(mask.geometry.layers))
    kinds: tuple[Kind, ...] = ("attn", "mlp")
    return {kind: np.array([mask.retained[Site(layer, kind)].mean() for layer in layers]) for kind in kinds}


def retained_share_figure(
    data: Mapping[Kind, Array], uniform: float, title: str = "", height: int = 320
) -> Figure:
    """Retained share by layer and site, with the share that every layer would keep if all were treated alike.

    Args:
        data: from `retained_share_data`.
        uniform: 1 minus the pruning ratio.
        title: says what to see.
        height: in pixels.
    """
    go = _graph()
    figure = go.Figure()
    for kind, shares in data.items():
        figure.add_bar(
            x=np.arange(len(shares)),
            y=shares,
            name=KIND_NAMES[kind],
            marker_color=KIND_COLOURS[kind],
            hovertemplate=f"layer %{{x}}, {KIND_NAMES[kind]}: %{{y:.1%}} retained<extra></extra>",
        )
    figure.add_hline(y=uniform, line_dash="dot", line_color="grey", annotation_text="the same everywhere")
    figure.update_xaxes(title="layer", dtick=max(1, len(next(iter(data.values()))) // 16))
    figure.update_yaxes(title="share retained", range=[0, 1.02], tickformat=".0%")
    return style(figure, title or "Some layers give more than others", height)


def parameters_data(geometry: Geometry, mask: Mask) -> dict[str, tuple[int, int]]:
    """Linear parameters of the decoder layers, dense and pruned, by site."""
    kinds: tuple[Kind, ...] = ("attn", "mlp")
    return {
        KIND_NAMES[kind]: (
            sum(geometry.parameters(s) for s in geometry.sites if s.kind == kind),
            sum(mask.pruned.parameters(s) for s in geometry.sites if s.kind == kind),
        )
        for kind in kinds
    }


def parameters_figure(data: Mapping[str, tuple[int, int]], title: str = "", height: int = 260) -> Figure:
    """Parameters before and after, by component.

    Args:
        data: by component dense and pruned, from `parameters_data`.
        title: says what to see.
        height: in pixels.
    """
    figure = _graph().Figure()
    for number, name in enumerate(("dense", "pruned")):
        figure.add_bar(
            y=list(data),
            x=[pair[number] for pair in data.values()],
            name=name,
            orientation="h",
            marker_color=(GREY, COLOURS[0])[number],
            hovertemplate=f"%{{y}}, {name}: %{{x:,}}<extra></extra>",
        )
    figure.update_layout(barmode="group")
    figure.update_xaxes(title="parameters")
    figure.update_yaxes(autorange="reversed")
    return style(figure, title or "Where the parameters go", height)


def tradeoff_figure(runs: Mapping[str, tuple[int, float, str]], height: int = 340) -> Figure:
    """Every run by what it removes and what that costs; a line joins those that no other run beats.

    Args:
        runs: by label the parameters left, the mean perplexity over the dense model's, and the method.
        height: in pixels.
    """
    figure = _graph().Figure()
    methods = list(dict.fromkeys(method for _, _, method in runs.values()))
    points = sorted({(left, cost) for left, cost, _ in runs.values()})
    front = [p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)]
    figure.add_scatter(
        x=[x for x, _ in front],
        y=[y for _, y in front],
        mode="lines",
        name="not beaten",
        line={"color": GREY, "dash": "dot"},
    )
    for number, method in enumerate(methods):
        rows = [(label, *value[:2]) for label, value in runs.items() if value[2] == method]
        figure.add_scatter(
            x=[x for _, x, _ in rows],
            y=[y for _, _, y in rows],
            mode="markers",
            name=method,
            marker={"size": 11, "color": COLOURS[number % len(COLOURS)]},
            customdata=[[label] for label, _, _ in rows],
            hovertemplate="%{customdata[0]}<br>%{x:,} parameters, perplexity x %{y:.2f}<extra></extra>",
        )
    figure.update_xaxes(title="parameters left")
    figure.update_yaxes(title="mean perplexity over dense", type="log", dtick="D2")
    return style(figure, "Smaller costs more: the best runs lie lower left", height)


# --- one channel -----------------------------------------------------------------------------------------


def channel_domains_figure(
    variances: Mapping[str, float], means: Mapping[str, float], height: int = 260
) -> Figure:
    """Variance and size of the mean of one channel's input in each domain, on one logarithmic axis."""
    figure = _graph().Figure()
    for name, values, symbol, colour in (
        ("variance", variances, "circle", COLOURS[0]),
        ("size of the mean", {k: abs(v) for k, v in means.items()}, "diamond-open", COLOURS[1]),
    ):
        figure.add_scatter(
            x=list(values.values()),
            y=list(values),
            mode="markers",
            name=name,
            marker={"size": 12, "symbol": symbol, "color": colour},
            hovertemplate=f"%{{y}}: {name} %{{x:.4g}}<extra></extra>",
        )
    figure.update_xaxes(type="log", title="of the channel's input")
    figure.update_yaxes(autorange="reversed")
    return style(figure, "Which domain makes it fluctuate", height)


def channel_rank_figure(
    ranks: Mapping[int, tuple[int, int]], removed: int | None, height: int = 260
) -> Figure:
    """A channel's place in its layer through the iterations.

    Args:
        ranks: by iteration the rank, 1 for the highest score, and how many channels were still there.
        removed: the iteration that removed it; None if it stays.
        height: in pixels.
    """
    figure = _graph().Figure()
    numbers = list(ranks)
    figure.add_scatter(
        x=numbers,
        y=[width for _, width in ranks.values()],
        mode="lines",
        line={"color": GREY, "shape": "hv"},
        fill="tozeroy",
        fillcolor="rgba(128,128,128,0.12)",
        name="channels still there",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=numbers,
        y=[rank for rank, _ in ranks.values()],
        mode="lines+markers",
        line_color=COLOURS[0],
        name="rank",
        hovertemplate="iteration %{x}: rank %{y:,}<extra></extra>",
    )
    figure.update_xaxes(title="iteration", dtick=1)
    figure.update_yaxes(title="rank in the layer", autorange="reversed")
    title = f"It went in iteration {removed}" if removed else "It stayed to the end"
    return style(figure, title, height)


# --- perplexity ------------------------------------------------------------------------------------------


def perplexity_data(iterations: Sequence[StoredIteration]) -> dict[str, tuple[Array, Array]]:
    """Iteration numbers and perplexities by domain, with their geometric mean as `mean`."""
    numbers = np.array([iteration.number for iteration in iterations])
    values = [
        {
            name: p["value"] if p["value"] is not None else np.inf
            for name, p in it.metrics["perplexity"].items()
        }
        for it in iterations
    ]
    names = list(values[0]) if values else []
    found = {name: (numbers, np.array([v[name] for v in values])) for name in names}
    if len(names) > 1:  # geometric, as everywhere
        found["mean"] = (numbers, np.exp(np.mean([np.log(series) for _, series in found.values()], axis=0)))
    return found


def perplexity_figure(data: Mapping[str, tuple[Array, Array]], title: str = "", height: int = 360) -> Figure:
    """Perplexity by iteration, a line a domain, the dense model at 0."""
    go = _graph()
    figure = go.Figure()
    for name, (numbers, values) in data.items():
        mean = name == "mean"
        figure.add_scatter(
            x=numbers,
            y=values,
            name=name,
            mode="lines+markers",
            line={"width": 3.5 if mean else 1.8, "dash": "dash" if mean else "solid"},
            hovertemplate=f"{name}, iteration %{{x}}: %{{y:.2f}}<extra></extra>",
        )
    figure.update_xaxes(title="iteration (0 is the dense model)", dtick=1)
    figure.update_yaxes(title="perplexity on held-out text (log)", type="log", dtick="D2")
    return style(figure, title or "What each cut costs, by domain", height)


# --- agreement of domains --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How far domains agree on what matters.

    Attributes:
        domains: names (D,).
        rank_correlation: (D, D) Spearman's rho of all channels' scores.
        overlap: by pair of domains (L,) Jaccard overlap of what each would retain alone.
        chance: by pair (L,) the overlap that random masks of the same sizes would have.
    """

    domains: list[str]
    rank_correlation: Array
    overlap: dict[tuple[str, str], Array]
    chance: dict[tuple[str, str], Array]


def agreement_data(
    statistics: Statistics,
    norms: Mapping[Site, tuple[Array, Array]],
    geometry: Geometry,
    config: RunConfig,
    kind: Kind = "mlp",
) -> Agreement:
    """Scores and masks of each domain alone, compared.

    Args:
        statistics: of the dense model.
        norms: of its weight columns.
        geometry: of the dense model.
        config: score, normaliser, ratio and the rest; its mixture gives the order of the domains only.
        kind: site on which channels are compared.
    """
    domains = sorted(statistics.moments, key=lambda name: [*config.mixture, name].index(name))
    scores, masks = {}, {}
    for name in domains:
        fused = statistics.fuse({name: 1.0}, config.fusion)
        scores[name] = score_sites(config.score, fused, norms, config.seed)
        scales = dense_scales(scores[name], config.square_attention)
        masks[name] = next_mask(scores[name], Mask.full(geometry), config.ratio, config, scales)
    ranks = np.stack([_ranks(scores[name], kind) for name in domains])
    pairs = [(a, b) for i, a in enumerate(domains) for b in domains[i + 1 :]]
    sites = [site for site in geometry.sites if site.kind == kind]
    return Agreement(
        domains,
        np.atleast_2d(np.corrcoef(ranks)),
        {(a, b): np.array([jaccard(masks[a], masks[b], s) for s in sites]) for a, b in pairs},
        {(a, b): np.array([chance_jaccard(masks[a], masks[b], s) for s in sites]) for a, b in pairs},
    )


def _ranks(scores: Mapping[Site, Array], kind: Kind) -> Array:
    """Ranks within each layer, one after another: layers differ in scale, not in the question asked."""
    return np.concatenate(
        [scores[s].argsort().argsort() / len(scores[s]) for s in sorted(scores) if s.kind == kind]
    )


def agreement_figure(data: Agreement, title: str = "", height: int = 360) -> Figure:
    """Rank correlation of every two domains."""
    go = _graph()
    figure = go.Figure(
        go.Heatmap(
            z=data.rank_correlation.astype(np.float32),
            x=data.domains,
            y=data.domains,
            zmin=-1,
            zmax=1,
            colorscale=DIVERGING,
            texttemplate="%{z:.2f}",
            colorbar={"title": {"text": "rank correlation", "side": "right"}, "thickness": 12},
            hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    return style(figure, title or "Do the domains rank channels alike?", height)


def overlap_figure(data: Agreement, title: str = "", height: int = 360) -> Figure:
    """Overlap of the domains' own masks by layer, with what chance would give."""
    go = _graph()
    figure = go.Figure()
    for number, (pair, values) in enumerate(data.overlap.items()):
        colour = COLOURS[number % len(COLOURS)]
        layers, name = np.arange(len(values)), " and ".join(pair)
        figure.add_scatter(
            x=layers,
            y=values,
            name=name,
            mode="lines+markers",
            line_color=colour,
            hovertemplate=f"{name}, layer %{{x}}: %{{y:.2f}}<extra></extra>",
        )
        figure.add_scatter(
            x=layers,
            y=data.chance[pair],
            line={"color": colour, "dash": "dot"},
            showlegend=False,
            hoverinfo="skip",
        )
    figure.update_xaxes(title="layer", dtick=1 if len(next(iter(data.overlap.values()), [])) < 24 else None)
    figure.update_yaxes(title="overlap (Jaccard); dotted: chance", range=[0, 1.02])
    return style(figure, title or "Where they disagree, the mixture matters", height)


def mixture_figure(shares: Mapping[str, float], height: int = 130) -> Figure:
    """Normalised mixture weights as one bar."""
    go = _graph()
    figure = go.Figure()
    for name, share in shares.items():
        figure.add_bar(
            x=[share],
            y=["share"],
            orientation="h",
            name=name,
            text=f"{name} {share:.0%}",
            textposition="inside",
            hovertemplate=f"{name}: {share:.1%}<extra></extra>",
        )
    figure.update_layout(barmode="stack", showlegend=False)
    style(figure, "Whose text decides, and by how much", height)
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    figure.update_yaxes(visible=False)
    return figure.update_layout(margin={"l": 10, "r": 10, "t": 40, "b": 28})


def accuracy_figure(tasks: Mapping[str, Mapping[str, Any]], metric: str = "acc", height: int = 340) -> Figure:
    """Change of zero-shot accuracy by task with the paired 95% interval; hollow where it may be noise.

    Args:
        tasks: `tasks` of `zeroshot.compare`.
        metric: `acc` or `acc_norm`.
        height: in pixels.
    """
    go = _graph()
    rows = sorted((row[metric]["delta"], name, row[metric]) for name, row in tasks.items() if metric in row)
    figure = go.Figure(
        go.Scatter(
            x=[100 * delta for delta, _, _ in rows],
            y=[name for _, name, _ in rows],
            error_x={"array": [196 * row["standard_error"] for _, _, row in rows], "thickness": 1.5},
            mode="markers",
            marker={
                "size": 11,
                "color": COLOURS[0],
                "symbol": ["circle" if row["significant"] else "circle-open" for _, _, row in rows],
            },
            customdata=[[100 * row["dense"], 100 * row["pruned"]] for _, _, row in rows],
            hovertemplate=(
                "%{y}: %{customdata[0]:.1f}% to %{customdata[1]:.1f}%, %{x:+.1f} points<extra></extra>"
            ),
        )
    )
    figure.add_vline(x=0, line_color="grey", line_dash="dot")
    figure.update_xaxes(title=f"change of {metric} in points, 95% interval; hollow: may be noise")
    return style(figure, "What the model can no longer do", height)


def experiment_figure(
    frame: Any, title: str, x: str | None, series: Sequence[str], metric: str = "perplexity"
) -> Figure:
    """A grid's means as lines over an option, or as bars, with every seed as a point.

    Args:
        frame: the tidy table of its runs.
        title: says what to see.
        x: the option along the axis; None draws a bar for each value of the first of `series`.
        series: options that tell lines or bars apart; those with one value only are left out.
        metric: perplexity, bits_per_byte, acc or acc_norm.
    """
    go = _graph()
    rows = rise(frame[frame["metric"] == metric])
    x = x or series[0]
    rows = rows[rows["value"].notna()]
    names = [name for name in dict.fromkeys((*series, "ratio")) if name != x and rows[name].nunique() > 1]
    label = (
        rows[names].apply(lambda row: ", ".join(map(_cell, names, row)), axis=1)
        if names
        else [""] * len(rows)
    )
    lines = rows[x].dtype.kind in "iuf"
    figure = go.Figure()
    for number, (name, group) in enumerate(rows.assign(label=label).groupby("label")):
        colour = COLOURS[number % len(COLOURS)]
        means = group.groupby(x)["value"].mean()
        shared = {
            "x": means.index,
            "y": means,
            "name": str(name),
            "legendgroup": str(name),
            "showlegend": bool(name),
        }
        if lines:
            figure.add_scatter(**shared, mode="lines", line_color=colour)
        else:
            figure.add_bar(**shared, marker_color=colour, opacity=0.6, offsetgroup=str(number))
        figure.add_scatter(
            x=group[x],
            y=group["value"],
            customdata=group[["seed"]],
            mode="markers",
            marker={"color": colour, "size": 7, "line": {"width": 1, "color": "white"}},
            legendgroup=str(name),
            showlegend=False,
            offsetgroup=None if lines else str(number),
            hovertemplate=f"{x} %{{x}}: %{{y:.3f}}, seed %{{customdata[0]}}<extra>{name}</extra>",
        )
    figure.update_layout(scattermode="overlay" if lines else "group", barmode="group")
    figure.update_xaxes(title=x)
    if lines and x == "samples":
        figure.update_xaxes(type="log", tickvals=sorted(set(rows[x])))
    figure.update_yaxes(title=axis_title(metric))
    return style(figure, title, 420)


def _cell(name: str, value: Any) -> str:
    if name == "ratio" or name.startswith("share_"):
        return f"{value:.0%}"
    return f"K = {value}" if name == "iterations" else str(value)


def retention_figure(runs: Mapping[str, Sequence[Retained]], height: int = 340) -> Figure:
    """What is left of each capability, pruned over dense, for one run or several.

    Args:
        runs: by label what `results.retention` gives.
        height: of the figure.
    """
    figure = _graph().Figure()
    for number, (label, found) in enumerate(runs.items()):
        for source, pattern in (("text", ""), ("tasks", "/")):
            rows = [row for row in found if row.source == source]
            if not rows:
                continue
            kept = "perplexity, dense over pruned" if source == "text" else "accuracy, pruned over dense"
            figure.add_bar(
                x=[row.capability for row in rows],
                y=[row.value for row in rows],
                error_y={
                    "array": [1.96 * (row.standard_error or 0) for row in rows],
                    "visible": source == "tasks",
                },
                name=f"{label}: {source}" if len(runs) > 1 else f"{source} ({kept})",
                marker={"color": COLOURS[number % len(COLOURS)], "pattern": {"shape": pattern}},
                customdata=[
                    [", ".join(row.of) + (f" (first {row.limit})" if row.limit else "")] for row in rows
                ],
                hovertemplate=f"%{{x}}: %{{y:.1%}} {kept}<br>%{{customdata[0]}}<extra>{label}</extra>",
            )
    figure.add_hline(y=1, line_dash="dot", line_color="grey", annotation_text="dense")
    figure.update_yaxes(title="pruned over dense", tickformat=".0%")
    return style(figure, "What the mixture bought, and what it cost", height)
