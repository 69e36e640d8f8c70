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

# One palette for everything; readable on light and dark, and without red-green vision.
SEQUENTIAL, DIVERGING = "Cividis", "RdBu_r"
COLOURS = ("#2a78b5", "#e07b39", "#3f9b6f", "#b0518f", "#8c7a3d", "#5d6bb0", "#c2483d", "#4aa3a3")
KIND_COLOURS = {"attn": COLOURS[0], "mlp": COLOURS[1]}
KIND_NAMES = {"attn": "attention", "mlp": "MLP"}
GREY = "rgba(128,128,128,0.35)"


def style(figure: Figure, title: str, height: int = 360) -> Figure:
    """The look that all figures share: a title that says what to see, transparent paper, quiet grid."""
    figure.update_layout(
        title={"text": title, "x": 0, "xanchor": "left", "font": {"size": 15}},
        height=height,
        margin={"l": 60, "r": 20, "t": 56, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        colorway=COLOURS,
        legend={"orientation": "h", "y": -0.2, "x": 0},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(gridcolor=GREY, zeroline=False)
    figure.update_yaxes(gridcolor=GREY, zeroline=False)
    return figure


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
    """

    values: Array
    first: Array
    last: Array
    kind: Kind
    what: str
    diverging: bool = False


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
    """
    matrix = _scaled(layer_matrix(values, kind), scale)
    if against is not None:
        matrix = matrix - _scaled(layer_matrix(against, kind), scale)
    if ordered:
        matrix = -np.sort(-matrix, axis=1)  # NaN stay last
    start, stop = (channels[0], channels[1] + 1) if channels else (0, matrix.shape[1])
    cells, first, last = binned(matrix[:, start:stop], bins, aggregate)
    name = {"log": f"log10 {what}", "standardised": f"{what}, standard deviations", "linear": what}[scale]
    name = f"difference of {name}" if against is not None else name
    return Heatmap(
        cells, first + start, last + start, kind, name, against is not None or scale == "standardised"
    )


def _scaled(matrix: Array, scale: str) -> Array:
    if scale == "log":
        return np.log10(np.where(matrix > 0, matrix, np.nan))
    if scale == "standardised":
        mean, deviation = np.nanmean(matrix, axis=1, keepdims=True), np.nanstd(matrix, axis=1, keepdims=True)
        return (matrix - mean) / np.where(deviation > 0, deviation, 1.0)
    return matrix


def importance_figure(
    data: Heatmap, title: str = "", limits: tuple[float, float] | None = None, height: int = 360
) -> Figure:
    """A heatmap of layers by channels; what is gone stays transparent.

    Args:
        data: from `importance_data` or `mask_map_data`.
        title: says what to see.
        limits: ends of the colour scale, to be the same over iterations; by default the 1st and 99th
            percentile of these values.
        height: in pixels.
    """
    go = _graph()
    low, high = limits or colour_limits([data])
    unit = "head channel" if data.kind == "attn" else "MLP channel"
    figure = go.Figure(
        go.Heatmap(
            z=data.values,
            x=((data.first + data.last) / 2).astype(np.float32),
            zmin=low,
            zmax=high,
            colorscale=DIVERGING if data.diverging else SEQUENTIAL,
            colorbar={"title": {"text": data.what, "side": "right"}, "thickness": 12},
            hoverongaps=False,
            hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}<br>{data.what} %{{z:.3f}}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", title="layer", dtick=max(1, len(data.values) // 12))
    figure.update_xaxes(
        title=unit + (f", {data.last[0] - data.first[0] + 1} a column" if _is_binned(data) else "")
    )
    return style(figure, title or f"{data.what[:1].upper()}{data.what[1:]}: {KIND_NAMES[data.kind]}", height)


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


def mask_map_figure(data: Heatmap, title: str = "", height: int = 360) -> Figure:
    """What a mask keeps, layers by heads or channels."""
    figure = importance_figure(data, title or f"What stays: {KIND_NAMES[data.kind]}", (0.0, 1.0), height)
    unit = "query head" if data.kind == "attn" else "MLP channel"
    figure.update_traces(
        xgap=1 if len(data.first) <= 128 else 0,
        hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}<br>%{{z:.0%}} retained<extra></extra>",
    )
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
