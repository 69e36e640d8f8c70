"""What masks keep, how two of them differ, and where the parameters go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pruning.models.geometry import Geometry, Kind, Site
from pruning.models.mask import Mask
from pruning.visualization.heatmap_figures import importance_figure
from pruning.visualization.heatmaps import Heatmap, binned, layer_matrix
from pruning.visualization.style import (
    COLOURS,
    GREY,
    KIND_COLOURS,
    KIND_NAMES,
    MAX_BINS,
    MAX_POINTS,
    Array,
    graph,
    level,
    style,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def mask_map_data(mask: Mask, kind: Kind, bins: int = MAX_BINS) -> Heatmap:
    """Share retained in each bin: heads of an attention site, channels of an MLP."""
    rows = {site: mask.retained[site].astype(np.float64) for site in mask.retained if site.name == kind}
    cells, first, last = binned(layer_matrix(rows, kind), bins, "mean")
    return Heatmap(cells, first, last, kind, "share retained")


def mask_map_figure(
    data: Heatmap, title: str = "", height: int | None = None, chosen: tuple[int, int] | None = None
) -> Figure:
    """What a mask keeps, layers by heads or channels; `chosen` marks a layer and a head or channel."""
    title = title or ("Retained query heads" if data.kind == "attn" else "Retained MLP channels")
    figure = importance_figure(data, title, (0.0, 1.0), height, chosen=chosen)
    unit = "query head" if data.kind == "attn" else "MLP channel"
    figure.update_traces(
        selector={"type": "heatmap"},
        xgap=1 if len(data.first) <= 128 else 0,
        hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}<br>%{{z:.0%}} retained<extra></extra>",
    )
    figure.update_xaxes(title=unit)
    return figure


CATEGORIES = (
    "retained by neither mask",
    "retained by the other mask only",
    "retained by this mask only",
    "retained by both masks",
)
# what neither retains is near the background of both themes
CATEGORY_COLOURS = ("rgba(128, 138, 150, 0.3)", "#e07b39", "#5d6bb0", "#2f6f8f")


def comparison_data(here: Mask, there: Mask, kind: Kind, bins: int = MAX_BINS) -> Heatmap:
    """Which of two masks keeps what: numbers of `CATEGORIES`, in a bin the most frequent one."""
    rows = {}
    for site in here.retained:
        if site.name == kind:
            rows[site] = (2 * here.retained[site] + there.retained[site]).astype(np.float64)
    matrix = layer_matrix(rows, kind)
    counts = [binned((matrix == number).astype(np.float64), bins, "mean") for number in range(4)]
    cells = np.stack([found for found, _, _ in counts]).argmax(axis=0).astype(np.float32)
    _, first, last = counts[0]
    return Heatmap(cells, first, last, kind, "retained by")


def comparison_figure(data: Heatmap, other: str, title: str = "", height: int | None = None) -> Figure:
    """The map of two masks in four colours.

    Args:
        data: from `comparison_data`.
        other: name of the mask that is there, not here.
        title: says what to see.
        height: in pixels.
    """
    figure = importance_figure(
        data, title or f"Comparison of the two masks: {KIND_NAMES[data.kind]}", (-0.5, 3.5), height
    )
    stops = [(i + edge) / 4 for i in range(4) for edge in (0, 1)]
    colours = [colour for colour in CATEGORY_COLOURS for _ in (0, 1)]
    unit = "query head" if data.kind == "attn" else "MLP channel"
    names = ["neither mask", f"the other mask only ({other})", "this mask only", "both masks"]
    figure.update_traces(
        colorscale=list(zip(stops, colours, strict=True)),
        colorbar={
            "tickvals": [0, 1, 2, 3],
            "ticktext": ["neither", "other only", "this only", "both"],
            "title": {"text": "retained by"},
            "thickness": 12,
        },
        xgap=1 if len(data.first) <= 128 else 0,
        hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}<br>retained by %{{customdata}}<extra></extra>",
        customdata=np.asarray(names, dtype=object)[data.values.astype(int)]
        if data.values.size <= MAX_POINTS
        else None,
    )
    if data.values.size > MAX_POINTS:
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
    go = graph()
    figure = go.Figure()
    for kind, shares in data.items():
        figure.add_bar(
            x=np.arange(len(shares)),
            y=shares,
            name=KIND_NAMES[kind],
            marker_color=KIND_COLOURS[kind],
            hovertemplate=f"layer %{{x}}, {KIND_NAMES[kind]}: %{{y:.1%}} retained<extra></extra>",
        )
    level(figure, uniform, "uniform pruning")
    figure.update_xaxes(title="layer", dtick=max(1, -(-len(next(iter(data.values()))) // 12)))
    figure.update_yaxes(title="share retained", range=[0, 1.02], tickformat=".0%")
    return style(figure, title or "Share retained by layer", height)


def parameters_data(geometry: Geometry, mask: Mask) -> dict[str, tuple[int, int]]:
    """Linear parameters of the decoder layers, dense and pruned, by site."""
    kinds: tuple[Kind, ...] = ("attn", "mlp")
    return {
        KIND_NAMES[kind]: (
            sum(geometry.parameters(s) for s in geometry.sites if s.name == kind),
            sum(mask.pruned.parameters(s) for s in geometry.sites if s.name == kind),
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
    figure = graph().Figure()
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
    return style(figure, title or "Linear parameters of the decoder layers", height)
