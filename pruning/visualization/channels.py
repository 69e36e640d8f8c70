"""One channel: in each domain, and through the iterations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pruning.visualization.style import COLOURS, GREY, MARK, Array, graph, style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def channel_domains_figure(
    variances: Mapping[str, float], means: Mapping[str, float], height: int = 260
) -> Figure:
    """Variance and size of the mean of one channel's input in each domain, on one logarithmic axis."""
    figure = graph().Figure()
    for name, values, symbol, colour in (
        ("variance", variances, "circle", COLOURS[0]),
        ("absolute mean", {k: abs(v) for k, v in means.items()}, "diamond-open", COLOURS[1]),
    ):
        figure.add_scatter(
            x=list(values.values()),
            y=list(values),
            mode="markers",
            name=name,
            marker={"size": 12, "symbol": symbol, "color": colour},
            hovertemplate=f"%{{y}}: {name} %{{x:.4g}}<extra></extra>",
        )
    figure.update_xaxes(type="log", title="value over the calibration tokens (log)")
    figure.update_yaxes(autorange="reversed")
    return style(figure, "Variance and mean of the channel by domain", height)


def channel_rank_figure(
    ranks: Mapping[int, tuple[int, int]], removed: int | None, height: int = 260
) -> Figure:
    """A channel's rank in its layer by iteration.

    Args:
        ranks: by iteration the rank, 1 for the highest score, and the number of remaining channels.
        removed: the iteration that removed it; None if it stays.
        height: in pixels.
    """
    figure = graph().Figure()
    numbers = list(ranks)
    figure.add_scatter(
        x=numbers,
        y=[width for _, width in ranks.values()],
        mode="lines",
        line={"color": GREY, "shape": "hv"},
        fill="tozeroy",
        fillcolor="rgba(128,128,128,0.12)",
        name="channels in the layer",
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
    state = f"removed in iteration {removed}" if removed else "not removed"
    return style(figure, f"Rank of the channel by iteration ({state})", height)


def layer_figure(row: Array, kept: Array, quantity: str, chosen: float) -> Figure:
    """Histogram of a quantity over the channels of one layer, with the selected one marked.

    Args:
        row: (C,) values, NaN where removed.
        kept: (C,) bool, the channels that the displayed mask keeps.
        quantity: what the values are.
        chosen: value of the selected channel, 0 where it is removed.
    """
    positive = np.isfinite(row) & (row > 0)
    logs = np.log10(row[positive])
    edges = np.histogram_bin_edges(logs, bins=60) if len(logs) else np.zeros(2)
    figure = graph().Figure()
    for name, part, colour in (("kept", kept[positive], COLOURS[0]), ("removed", ~kept[positive], GREY)):
        counts = np.histogram(logs[part], bins=edges)[0]
        figure.add_bar(
            x=((edges[:-1] + edges[1:]) / 2).astype(np.float32),
            y=counts.astype(np.float32),
            name=name,
            marker_color=colour,
            hovertemplate="near 10^%{x:.2f}: %{y:,} channels, " + name + "<extra></extra>",
        )
    figure.update_layout(bargap=0, barmode="stack")
    if chosen > 0:
        figure.add_vline(x=float(np.log10(chosen)), line_color=MARK, annotation_text="selected channel")
    figure.update_xaxes(title=f"log10 {quantity}")
    figure.update_yaxes(title="number of channels")
    return style(figure, f"Distribution over the channels of the layer: {quantity}", 300)
