"""The mixture, and how far its domains agree on what matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pruning.config import RunConfig
from pruning.engine.budget import first_mask
from pruning.engine.budget import scores as channel_scores
from pruning.method.moments import DomainStatistics
from pruning.method.statistics import WeightNorms
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import chance_jaccard, jaccard
from pruning.visualization.heatmaps import sites_of
from pruning.visualization.style import DIVERGING, SEQUENTIAL, Array, graph, style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Agreement:
    """How far domains agree on what matters.

    Attributes:
        domains: names (D,).
        rank_correlation: (D, D) Spearman's rho of all channels' scores.
        overlap: by pair of domains (L,) Jaccard overlap of what each would keep alone.
        chance: by pair (L,) the overlap that random masks of the same sizes would have.
    """

    domains: list[str]
    rank_correlation: Array
    overlap: dict[tuple[str, str], Array]
    chance: dict[tuple[str, str], Array]


def agreement_data(
    statistics: DomainStatistics,
    norms: Mapping[Site, WeightNorms],
    geometry: Geometry,
    config: RunConfig,
    name: str = "mlp",
) -> Agreement:
    """Scores and masks of each domain alone, compared.

    Args:
        statistics: of the dense model.
        norms: of its weight columns.
        geometry: of the dense model.
        config: of the cuts; its mixture only gives the order of the domains.
        name: of the sites on which channels are compared.
    """
    domains = sorted(statistics.moments, key=lambda domain: [*config.mixture, domain].index(domain))
    scores, masks = {}, {}
    for domain in domains:
        scores[domain] = channel_scores(statistics, norms, config, {domain: 1.0})
        masks[domain] = first_mask(scores[domain], geometry, config)
    ranks = np.stack([_ranks(scores[domain], name) for domain in domains])
    pairs = [(a, b) for i, a in enumerate(domains) for b in domains[i + 1 :]]
    sites = [site for site in geometry.sites if site.name == name]
    return Agreement(
        domains,
        np.atleast_2d(np.corrcoef(ranks)),
        {(a, b): np.array([jaccard(masks[a], masks[b], s) for s in sites]) for a, b in pairs},
        {(a, b): np.array([chance_jaccard(masks[a], masks[b], s) for s in sites]) for a, b in pairs},
    )


def _ranks(scores: Mapping[Site, Array], name: str) -> Array:
    """Ranks within each layer, divided by its channels and joined: layers differ in scale."""
    return np.concatenate([scores[s].argsort().argsort() / len(scores[s]) for s in sites_of(scores, name)])


def agreement_figure(data: Agreement, title: str = "", height: int = 360) -> Figure:
    """Rank correlation of every two domains."""
    go = graph()
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
    return style(figure, title or "Rank correlation of channel scores", height)


def overlap_figure(data: Agreement, title: str = "", height: int = 360) -> Figure:
    """Overlap of the domains' own masks by layer, a row for each pair; last, what chance would give."""
    rows = {" and ".join(pair): values for pair, values in data.overlap.items()}
    rows["random masks"] = np.mean(list(data.chance.values()), axis=0)  # the pairs' own hardly differ
    figure = graph().Figure(
        graph().Heatmap(
            z=np.stack(list(rows.values())).astype(np.float32),
            y=list(rows),
            zmin=0,
            zmax=1,
            colorscale=SEQUENTIAL,
            ygap=2,
            colorbar={"title": {"text": "overlap (Jaccard index)", "side": "right"}, "thickness": 12},
            hovertemplate="%{y}, layer %{x}: %{z:.2f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="layer", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True)
    return style(figure, title or "Overlap of single-domain masks by layer", height)


def mixture_figure(shares: Mapping[str, float], height: int = 130) -> Figure:
    """Normalised mixture weights as one bar."""
    go = graph()
    figure = go.Figure()
    for name, share in shares.items():
        figure.add_bar(
            x=[share],
            y=["share"],
            orientation="h",
            name=name,
            text=f"{name} {share:.0%}",
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate=f"{name}: {share:.1%}<extra></extra>",
        )
    figure.update_layout(barmode="stack", showlegend=False)
    style(figure, "Domain mixture", height)
    figure.update_xaxes(range=[0, 1], tickformat=".0%", dtick=0.25)
    figure.update_yaxes(visible=False)
    return figure.update_layout(margin={"l": 14, "r": 20, "t": 40, "b": 28})
