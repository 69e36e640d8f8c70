"""Damage curves: what cuts of single sites cost, and where a mask stands on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pruning.method.sensitivity import Curve, divergence_at, hull
from pruning.models.geometry import Kind, Site
from pruning.models.mask import Mask
from pruning.visualization.style import (
    COLOURS,
    GREY,
    KIND_COLOURS,
    KIND_NAMES,
    Array,
    graph,
    log_ticks,
    style,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Damage(NamedTuple):
    """A site's curve, as a part of what the site has.

    Attributes:
        removed: (R,) share of the site's parameters.
        damage: (R,) in nats a token.
        at: share that a mask removes.
        cost: predicted damage there.
    """

    removed: Array
    damage: Array
    at: float
    cost: float


def damage_data(
    curves: Mapping[Site, Curve], mask: Mask, weights: Mapping[str, float], worst: float = 0.0
) -> dict[Site, Damage]:
    """Curves of a mixture by site, and where a mask stands on them.

    Args:
        curves: of every site.
        mask: over the same dense model.
        weights: of the domains, with a sum of 1.
        worst: from the mean over the domains (0) to the domain that loses most (1).
    """
    found = {}
    for site, curve in curves.items():
        size, fused = mask.geometry.parameters(site), curve.fused(weights, worst)
        gone = size - mask.pruned.parameters(site)
        cost = float(divergence_at(curve.removed, fused, np.array([gone]))[0])
        found[site] = Damage(curve.removed / size, fused, gone / size, cost)
    return found


def damage_curves_figure(
    data: Mapping[Site, Damage], kind: Kind, layer: int | None = None, height: int = 380
) -> Figure:
    """A line a layer: damage by the share of a module that is cut; a dot where the mask stands.

    Args:
        data: see `damage_data`.
        kind: module that is shown.
        layer: that stands out.
        height: in pixels.
    """
    figure = graph().Figure()
    for site, curve in data.items():
        if site.name != kind:
            continue
        chosen = site.layer == layer
        x, y = (
            part[1:] for part in hull(curve.removed, curve.damage)
        )  # nothing cut is no damage: no log of it
        words = f"layer {site.layer}: %{{x:.0%}} cut, %{{y:.3f}} nats<extra></extra>"
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": COLOURS[1] if chosen else GREY, "width": 3 if chosen else 1},
            name=f"layer {site.layer}",
            showlegend=False,
            hovertemplate=words,
            zorder=2 if chosen else 0,
        )
    shown = {site: curve for site, curve in data.items() if site.name == kind}
    figure.add_scatter(
        x=[curve.at for curve in shown.values()],
        y=[curve.cost for curve in shown.values()],
        mode="markers",
        marker={"color": KIND_COLOURS[kind], "size": 7},
        name="the mask of the current settings",
        customdata=[[site.layer] for site in shown],
        hovertemplate="layer %{customdata[0]}: the mask cuts %{x:.0%}, %{y:.3f} nats<extra></extra>",
        zorder=3,
    )
    figure.update_xaxes(title=f"share of the layer's {KIND_NAMES[kind]} parameters cut", tickformat=".0%")
    figure.update_yaxes(title="nats a token (log)")
    log_ticks(figure.update_yaxes, np.concatenate([np.asarray(trace.y, float) for trace in figure.data]))
    figure.update_layout(showlegend=True)
    return style(figure, f"What it costs to cut the {KIND_NAMES[kind]} of one layer alone", height)


def layer_damage_figure(data: Mapping[Site, Damage], share: float, height: int = 340) -> Figure:
    """A pair of bars a layer: damage where a share of its attention or of its MLP is cut."""
    figure = graph().Figure()
    for kind, colour in KIND_COLOURS.items():
        sites = [site for site in data if site.name == kind]
        values = [
            float(divergence_at(data[site].removed, data[site].damage, np.array([share]))[0])
            for site in sites
        ]
        figure.add_bar(
            x=[site.layer for site in sites],
            y=values,
            name=KIND_NAMES[kind],
            marker={"color": colour},
            hovertemplate=f"layer %{{x}}, {KIND_NAMES[kind]}: %{{y:.3f}} nats<extra></extra>",
        )
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="nats a token (log)")
    log_ticks(figure.update_yaxes, np.concatenate([np.asarray(trace.y, float) for trace in figure.data]))
    return style(figure, f"Damage where {share:.0%} of one module is cut", height)


def foretold_figure(runs: Mapping[str, tuple[float, float]], height: int = 340, lost: bool = False) -> Figure:
    """Foretold damage against the measured rise of the log-perplexity, a dot a run and domain.

    Args:
        runs: by label the foretold and the measured rise, in nats a token.
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
    figure.update_xaxes(title="predicted by the curves, nats a token", rangemode="tozero")
    return style(figure, "Predicted and measured, a dot for each run and domain", height)
