"""The method in one picture, with a run's numbers in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pruning.runs.folder import StoredIteration
from pruning.runs.run import Run
from pruning.visualization.heatmaps import binned, layer_matrix, sites_of
from pruning.visualization.outcomes import perplexity_data
from pruning.visualization.style import COLOURS, SEQUENTIAL, Array

ROWS, COLUMNS = 12, 40  # cells of a thumbnail at most
INK, LINE = "#6f7a86", "#8d97a3"  # an image does not know the page's theme: these are read on light and dark


@dataclass(frozen=True)
class Pipeline:
    """What the picture tells of a run.

    Attributes:
        mixture: share of each domain.
        tokens: calibrated in one iteration.
        channels: scored in the dense model.
        scores: (R, B) log10 of the first iteration's MLP scores, layers downwards, in 0 to 1.
        kept: (R, B) share of the MLP channels that the last mask keeps.
        iterations: done.
        parameters: of the whole model, dense and now.
        perplexity: (K + 1,) mean over the domains by iteration, the dense model first; empty if not measured.
    """

    mixture: Mapping[str, float]
    tokens: int
    channels: int
    scores: Array
    kept: Array
    iterations: int
    parameters: tuple[int, int]
    perplexity: Array


def pipeline_data(run: Run, iterations: Sequence[StoredIteration]) -> Pipeline:
    """The numbers of a run that has its first iteration behind it.

    Args:
        run: any.
        iterations: its complete iterations, the dense model first.
    """
    config, shape = run.config, iterations[0].geometry
    first, last = iterations[1], iterations[-1]
    sites = sites_of(first.scores, "mlp")
    scores = np.log10(np.maximum(layer_matrix(first.scores, sites), 1e-30))
    low, high = np.percentile(scores, [1, 99])
    kept = layer_matrix({site: last.mask.channels(site) for site in sites}, sites)
    means = [values for _, values in perplexity_data(iterations).values()]
    return Pipeline(
        config.mixture,
        config.samples * config.seq_len * len(config.mixture),
        sum(shape.channels(site) for site in shape.sites),
        np.clip((_thumbnail(scores) - low) / max(high - low, 1e-9), 0, 1),
        _thumbnail(kept),
        last.number,
        (iterations[0].metrics.parameters, last.metrics.parameters),
        means[-1] if means else np.empty(0),  # the mean over domains stands last
    )


def _thumbnail(matrix: Array) -> Array:
    """At most `ROWS` x `COLUMNS` means of a matrix."""
    return binned(binned(matrix, COLUMNS, "mean")[0].T, ROWS, "mean")[0].T


def _steps(data: Pipeline) -> list[tuple[str, str, str]]:
    """Title, number and what the number is of each step."""
    dense, left = data.parameters
    series = data.perplexity
    removed = dense - left
    size = f"{removed / 1e9:,.2f} G" if removed >= 1e9 else f"{removed / 1e6:,.2f} M"
    count = len(data.mixture)
    return [
        (
            "Calibrate",
            f"{data.tokens:,}",
            f"tokens of {count} domains" if count > 1 else "tokens of one domain",
        ),
        ("Score", f"{data.channels:,}", "channels; bright: high score"),
        ("Prune", f"{1 - left / dense:.0%}", f"of parameters removed, {size}"),
        (
            "Evaluate",
            f"{series[0]:.1f} → {series[-1]:.1f}" if len(series) else "not measured",
            "mean perplexity",
        ),
    ]


def pipeline_words(data: Pipeline) -> str:
    """The picture for those who cannot see it."""
    steps = "; ".join(f"{title}: {number} {what}" for title, number, what in _steps(data))
    return f"{steps}; {data.iterations} iteration{'s' if data.iterations > 1 else ''}"


def pipeline_svg(data: Pipeline) -> str:
    """Four steps with arrows; it holds no text of a model's or a user's."""
    pictures = (
        _bar(list(data.mixture.values())),
        _cells(data.scores),
        _cells(data.kept),
        _line(data.perplexity) if len(data.perplexity) else "",
    )
    parts = [
        _card(260 * step, f"{step + 1}  {title}", picture, number, what)
        for step, ((title, number, what), picture) in enumerate(zip(_steps(data), pictures, strict=True))
    ]
    parts += [_arrow(f"M{260 * step + 229} 86h22m-7 -6l7 6l-7 6") for step in range(3)]
    if data.iterations > 1:
        parts.append(_arrow("M632 172v20h-260v-14m-6 7l6 -7l6 7"))
        parts.append(
            f'<text x="502" y="209" text-anchor="middle">repeated, {data.iterations} iterations in all</text>'
        )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1004 216" width="1004" height="216" '
        f'font-family="Source Sans Pro, Helvetica, Arial, sans-serif" font-size="14" fill="{INK}">'
        f"{''.join(parts)}</svg>"
    )


def _arrow(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="2"/>'


def _card(x: int, title: str, picture: str, number: str, what: str) -> str:
    return (
        f'<g transform="translate({x} 0)">'
        f'<rect x="1" y="1" width="222" height="171" rx="10" fill="none" stroke="{LINE}" opacity="0.6"/>'
        f'<text x="14" y="26" font-size="15" font-weight="600">{title}</text>'
        f'<g transform="translate(14 38)">{picture}</g>'
        f'<text x="14" y="132" font-size="25" font-weight="600" fill="{COLOURS[0]}">{number}</text>'
        f'<text x="14" y="156">{what}</text></g>'
    )


def _bar(shares: Sequence[float], width: float = 194, height: float = 62) -> str:
    edges = np.concatenate([[0.0], np.cumsum(shares)]) * width
    return "".join(
        f'<rect x="{edge:.1f}" y="14" width="{end - edge:.1f}" height="{height - 28}" '
        f'fill="{COLOURS[i % len(COLOURS)]}"/>'
        for i, (edge, end) in enumerate(zip(edges[:-1], edges[1:], strict=True))
    )


def _cells(values: Array, width: float = 194, height: float = 62) -> str:
    from plotly.colors import sample_colorscale

    rows, columns = values.shape
    colours = sample_colorscale(SEQUENTIAL, np.round(np.nan_to_num(values), 2).ravel().tolist())
    w, h = width / columns, height / rows
    # a little wider than the step, so that no seams show between cells
    return "".join(
        f'<rect x="{w * (i % columns):.1f}" y="{h * (i // columns):.1f}" width="{w + 0.4:.1f}" '
        f'height="{h + 0.4:.1f}" fill="{colour}"/>'
        for i, colour in enumerate(colours)
    )


def _line(values: Array, width: float = 194, height: float = 62) -> str:
    logs = np.log(np.where(np.isfinite(values), values, np.nan))
    span = np.nanmax(logs) - np.nanmin(logs) or 1.0
    x = np.linspace(6, width - 6, len(values)) if len(values) > 1 else np.array([6.0])
    y = height - 8 - (height - 16) * (logs - np.nanmin(logs)) / span
    points = [(a, b) for a, b in zip(x, y, strict=True) if np.isfinite(b)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{COLOURS[0]}"/>' for a, b in points)
    return f'<polyline points="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="2.5"/>{dots}'
