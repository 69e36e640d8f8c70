"""What masks keep, how two of them differ, and where the parameters go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Mask
from pruning.visualization.heatmaps import Heatmap, binned, importance_figure, layer_matrix, sites_of
from pruning.visualization.style import (
    COLOURS,
    GREY,
    MAX_BINS,
    MAX_POINTS,
    Array,
    graph,
    level,
    site_names,
    site_style,
    style,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def mask_map_data(mask: Mask, name: str, bins: int = MAX_BINS) -> Heatmap:
    """Share kept in each bin of the mask's entries at the sites of a name, such as heads or channels."""
    sites = sites_of(mask.kept, name)
    cells, first, last = binned(layer_matrix(mask.kept, sites), bins, "mean")
    return Heatmap(cells, first, last, name, "share kept", _layers(sites))


def _layers(sites: Sequence[Site]) -> Array:
    return np.array([site.layer for site in sites])


def mask_map_figure(
    data: Heatmap, title: str = "", height: int | None = None, chosen: tuple[int, int] | None = None
) -> Figure:
    """What a mask keeps, layers by heads or channels; `chosen` marks a layer and a head or channel."""
    unit = site_style(data.name).unit
    figure = importance_figure(data, title or kept_title(data.name), (0.0, 1.0), height, chosen=chosen)
    figure.update_traces(
        selector={"type": "heatmap"},
        xgap=1 if len(data.first) <= 128 else 0,
        hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}<br>%{{z:.0%}} kept<extra></extra>",
    )
    figure.update_xaxes(title=unit)
    return figure


def kept_title(name: str) -> str:
    """Title of a map of the units that are kept at the sites of a name."""
    return f"Kept {site_style(name).units}"


CATEGORIES = (
    "kept by neither mask",
    "kept by the other mask only",
    "kept by this mask only",
    "kept by both masks",
)
# what neither keeps is near the background of both themes
CATEGORY_COLOURS = ("rgba(128, 138, 150, 0.3)", "#e07b39", "#5d6bb0", "#2f6f8f")


def comparison_data(mask: Mask, other: Mask, name: str, bins: int = MAX_BINS) -> Heatmap:
    """Which of two masks keeps what: numbers of `CATEGORIES`, in a bin the most frequent one."""
    sites = sites_of(mask.kept, name)
    matrix = layer_matrix({site: 2 * mask.kept[site] + other.kept[site] for site in sites}, sites)
    shares = [binned((matrix == number).astype(np.float64), bins, "mean") for number in range(4)]
    cells = np.stack([share for share, _, _ in shares]).argmax(axis=0).astype(np.float32)
    _, first, last = shares[0]
    return Heatmap(cells, first, last, name, "kept by", _layers(sites))


def comparison_figure(data: Heatmap, other: str, title: str = "", height: int | None = None) -> Figure:
    """The map of two masks in four colours.

    Args:
        data: from `comparison_data`.
        other: name of the other mask.
        title: says what to see.
        height: in pixels.
    """
    label, unit = site_style(data.name).label, site_style(data.name).unit
    figure = importance_figure(data, title or f"Comparison of the two masks: {label}", (-0.5, 3.5), height)
    stops = [(i + edge) / 4 for i in range(4) for edge in (0, 1)]
    colours = [colour for colour in CATEGORY_COLOURS for _ in (0, 1)]
    names = ["neither mask", f"the other mask only ({other})", "this mask only", "both masks"]
    figure.update_traces(
        colorscale=list(zip(stops, colours, strict=True)),
        colorbar={
            "tickvals": [0, 1, 2, 3],
            "ticktext": ["neither", "other only", "this only", "both"],
            "title": {"text": "kept by"},
            "thickness": 12,
        },
        xgap=1 if len(data.first) <= 128 else 0,
        hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}<br>kept by %{{customdata}}<extra></extra>",
        customdata=np.asarray(names, dtype=object)[data.values.astype(int)]
        if data.values.size <= MAX_POINTS
        else None,
    )
    if data.values.size > MAX_POINTS:
        figure.update_traces(hovertemplate=f"layer %{{y}}, {unit} near %{{x:.0f}}<extra></extra>")
    figure.update_xaxes(title=unit)
    return figure


def kept_share_data(mask: Mask) -> dict[str, dict[int, float]]:
    """Share of the heads or channels that a mask keeps, by name of the site and layer."""
    return {
        name: {site.layer: float(mask.kept[site].mean()) for site in sites_of(mask.kept, name)}
        for name in site_names(mask.geometry)
    }


def kept_share_figure(
    data: Mapping[str, Mapping[int, float]], uniform: float, title: str = "", height: int = 320
) -> Figure:
    """Kept share by layer and site, with the share that every layer would keep if all were treated alike.

    Args:
        data: from `kept_share_data`.
        uniform: that share.
        title: says what to see.
        height: in pixels.
    """
    figure = graph().Figure()
    for name, shares in data.items():
        label = site_style(name).label
        figure.add_bar(
            x=list(shares),
            y=list(shares.values()),
            name=label,
            marker_color=site_style(name).colour,
            hovertemplate=f"layer %{{x}}, {label}: %{{y:.1%}} kept<extra></extra>",
        )
    level(figure, uniform, "uniform pruning")
    figure.update_xaxes(title="layer", dtick=max(1, -(-max(map(len, data.values())) // 12)))
    figure.update_yaxes(title="share kept", range=[0, 1.02], tickformat=".0%")
    return style(figure, title or "Share kept by layer", height)


def parameters_data(geometry: Geometry, mask: Mask) -> dict[str, tuple[int, int]]:
    """Linear parameters of the decoder layers, dense and pruned, by module, and of those that stay whole."""
    sites = {name: sites_of(mask.kept, name) for name in site_names(geometry)}
    fixed = geometry.fixed_parameters
    return {
        **({"never cut": (fixed, fixed)} if fixed else {}),
        **{
            site_style(name).label: (
                sum(map(geometry.parameters, each)),
                sum(map(mask.pruned.parameters, each)),
            )
            for name, each in sites.items()
        },
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
