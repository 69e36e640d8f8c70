"""Sensitivity curves: what cuts of single sites cost, and where a mask stands on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pruning.method.sensitivity import Curve, divergence_at, hull
from pruning.models.geometry import Site
from pruning.models.mask import Mask
from pruning.visualization.heatmaps import sites_of
from pruning.visualization.style import COLOURS, GREY, Array, graph, log_ticks, site_style, style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Sensitivity(NamedTuple):
    """A site's curve, in shares of the site's parameters.

    Attributes:
        removed: (R,) share of the parameters.
        divergence: (R,) of the predictions, in nats per token.
        at: share that a mask removes.
        cost: predicted divergence there.
    """

    removed: Array
    divergence: Array
    at: float
    cost: float

    def predicted(self, share: float) -> float:
        """Divergence in nats per token where a share of the parameters is removed."""
        return float(divergence_at(self.removed, self.divergence, np.array([share]))[0])


def sensitivity_data(
    curves: Mapping[Site, Curve], mask: Mask, weights: Mapping[str, float], worst: float = 0.0
) -> dict[Site, Sensitivity]:
    """Curves of a mixture by site, and where a mask stands on them.

    Args:
        curves: of every site.
        mask: over the same dense model.
        weights: of the domains, with a sum of 1.
        worst: from the mean over the domains (0) to the domain that loses most (1).
    """
    sensitivities = {}
    for site, curve in curves.items():
        size, fused = mask.geometry.parameters(site), curve.fused(weights, worst)
        removed = size - mask.pruned.parameters(site)
        cost = float(divergence_at(curve.removed, fused, np.array([removed]))[0])
        sensitivities[site] = Sensitivity(curve.removed / size, fused, removed / size, cost)
    return sensitivities


def sensitivity_figure(
    data: Mapping[Site, Sensitivity], name: str, layer: int | None = None, height: int = 380
) -> Figure:
    """Divergence by the share of a module that is cut, a line per layer, with a dot where the mask stands.

    Args:
        data: from `sensitivity_data`.
        name: of the sites that are shown.
        layer: that stands out.
        height: in pixels.
    """
    figure, label, sites = graph().Figure(), site_style(name).label, sites_of(data, name)
    for site in sites:
        is_selected = site.layer == layer
        # where nothing is cut the divergence is 0, which has no logarithm
        x, y = (part[1:] for part in hull(data[site].removed, data[site].divergence))
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": COLOURS[1] if is_selected else GREY, "width": 3 if is_selected else 1},
            name=f"layer {site.layer}",
            showlegend=False,
            hovertemplate=f"layer {site.layer}: %{{x:.0%}} cut, %{{y:.3f}} nats<extra></extra>",
            zorder=2 if is_selected else 0,
        )
    figure.add_scatter(
        x=[data[site].at for site in sites],
        y=[data[site].cost for site in sites],
        mode="markers",
        marker={"color": site_style(name).colour, "size": 7},
        name="the mask of the current settings",
        customdata=[[site.layer] for site in sites],
        hovertemplate="layer %{customdata[0]}: the mask cuts %{x:.0%}, %{y:.3f} nats<extra></extra>",
        zorder=3,
    )
    figure.update_xaxes(title=f"share of the layer's {label} parameters cut", tickformat=".0%")
    figure.update_layout(showlegend=True)
    return _logarithmic(figure, f"Divergence when the {label} of one layer is cut alone", height)


def layer_sensitivity_figure(data: Mapping[Site, Sensitivity], share: float, height: int = 340) -> Figure:
    """Divergence by layer where a share of one module is cut, a bar for each of its modules."""
    figure = graph().Figure()
    for name in dict.fromkeys(site.name for site in data):
        sites, label = sites_of(data, name), site_style(name).label
        figure.add_bar(
            x=[site.layer for site in sites],
            y=[data[site].predicted(share) for site in sites],
            name=label,
            marker={"color": site_style(name).colour},
            hovertemplate=f"layer %{{x}}, {label}: %{{y:.3f}} nats<extra></extra>",
        )
    figure.update_xaxes(title="layer")
    return _logarithmic(figure, f"Divergence when {share:.0%} of one module is cut", height)


def _logarithmic(figure: Figure, title: str, height: int) -> Figure:
    figure.update_yaxes(title="nats per token (log)")
    log_ticks(figure.update_yaxes, np.concatenate([np.asarray(trace.y, float) for trace in figure.data]))
    return style(figure, title, height)


def prediction_figure(
    runs: Mapping[str, tuple[float, float]], height: int = 340, lost: bool = False
) -> Figure:
    """Predicted against measured rise of the log-perplexity, a dot for each run and domain.

    Args:
        runs: by label the predicted and the measured rise, in nats per token.
        height: in pixels.
        lost: whether the first number is the output variance lost, which has no unit in common with the rise.
    """
    figure = graph().Figure()
    figure.add_scatter(
        x=[x for x, _ in runs.values()],
        y=[y for _, y in runs.values()],
        mode="markers",
        marker={"color": COLOURS[0], "size": 9},
        customdata=[[label] for label in runs],
        hovertemplate="%{customdata[0]}<br>predicted %{x:.3f}, measured %{y:.3f}<extra></extra>",
        showlegend=False,
    )
    figure.update_yaxes(title="measured rise of the log-perplexity", rangemode="tozero")
    if lost:
        figure.update_xaxes(
            title="output variance lost, mean of modules", tickformat=".0%", rangemode="tozero"
        )
        return style(figure, "Output variance lost and measured rise, a dot for each run and domain", height)
    end = max((max(pair) for pair in runs.values()), default=1.0)
    figure.add_scatter(
        x=[0, end], y=[0, end], mode="lines", line={"color": GREY, "dash": "dot"}, name="as predicted"
    )
    figure.update_xaxes(title="predicted by the curves, nats per token", rangemode="tozero")
    return style(figure, "Predicted and measured, a dot for each run and domain", height)
