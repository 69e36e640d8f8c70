"""Reports of a finished run, as one HTML file or as Markdown."""

from __future__ import annotations

import json
import math
import struct
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import product
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from pruning.config import RunConfig
from pruning.engine.budget import site_stats
from pruning.formatting import number, plain, seconds_text
from pruning.models.geometry import Site
from pruning.outputs import check_output_file, output_file
from pruning.runs.folder import StoredIteration
from pruning.runs.report import HEADER, INTERVALS, html_table, markdown_table, provenance, results_rows
from pruning.runs.run import Run, dense_iteration
from pruning.runs.schema import Results
from pruning.visualization.heatmaps import View, animation_bins, colour_limits, importance_data
from pruning.visualization.live import CSS, HTML, SCRIPT, live_data, pack, source, unsupported
from pruning.visualization.outcomes import perplexity_data
from pruning.visualization.style import Array, site_names, site_style


def command(run: Run) -> str:
    """The command line that reproduces a run."""
    return f"python -m pruning prune --config {run.path / 'config.json'}"


def markdown(run: Run) -> str:
    """The report as Markdown."""
    results = run.results()
    assert results is not None
    parameters = results.parameters
    lines = [
        f"# {plain(run.config.model)}, pruning ratio {results.achieved_ratio:.1%}, "
        f"method {run.config.method}",
        f"{parameters.dense:,} parameters dense, {parameters.pruned:,} pruned; "
        f"run time {results.seconds:.1f} s.",
        markdown_table(HEADER, results_rows(results)),
        plain(INTERVALS),
        "\n".join(f"- {plain(line)}" for line in provenance(run)),
        f"Reproduce the run with `{command(run)}`, or with this config:",
        f"```json\n{json.dumps(results.config, indent=1)}\n```",
    ]
    return "\n\n".join(lines) + "\n"


# --- one HTML file -----------------------------------------------------------------------------------------
def html(run: Run) -> str:
    """The report as one HTML file that draws its figures itself and needs no network.

    Raises:
        RunError: the run has no statistics yet.
    """
    dense, iterations, results, config = dense_iteration(run), run.iterations(), run.results(), run.config
    title = f"{Path(config.model).name}, {config.ratio:.0%} pruned"
    live_part, statistics = f"<p>{escape(_NOT_LIVE)}</p>", b""
    if unsupported(config) is None:
        names = [name for name in config.measured_domains if name in dense.statistics.moments]
        data = live_data(dense, config, names)
        statistics = pack(data, config, dense.geometry)
        live_part = f'<p class="note">{escape(_LIVE)}</p>{HTML}'
    return Template(source("report.html")).substitute(
        title=escape(title if config.ratio else f"{config.model}, statistics"),
        summary=escape(_summary(run, results)),
        results=_table("Outcome", HEADER, results_rows(results), INTERVALS)
        if results and config.ratio
        else "",
        live=live_part,
        path=_path(iterations),
        command=escape(command(run)),
        config=escape(json.dumps(config.model_dump(mode="json"), indent=1)),
        css=CSS,
        script=SCRIPT + source("heatmaps.js"),
        statistics=_base64(statistics),
        maps=_base64(_maps(iterations[1:], config)),
    )


def write_html(run: Run, file: str | Path) -> int:
    """Write `html` into a file atomically; returns its size in bytes.

    Raises:
        RunError: the run has no statistics yet, or the file cannot be written; see `outputs`.
    """
    check_output_file(file)
    text = html(run)
    with output_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
        return temporary.stat().st_size


_LIVE = (
    "Drag a bar: your browser fuses, scores and cuts the dense model's statistics again, in one cut. A run "
    "of several iterations collects new statistics after each cut, so its mask can differ. Blue channels are "
    "removed, red ones kept; pale is near the cut."
)
_NOT_LIVE = "The browser does not compute the score, normaliser or allocation of this run."


def _base64(content: bytes) -> str:
    return b64encode(content).decode()


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    return f'<h2>{title}</h2><div class="scroll">{html_table(header, rows)}</div><p class="note">{note}</p>'


def _summary(run: Run, results: Results | None) -> str:
    config = run.config
    shares = ", ".join(f"{share:.0%} {name}" for name, share in config.mixture.items())
    words = f"{config.model}, method {config.method}, calibrated on {shares}. "
    if config.ratio == 0:
        return words + "This run collected statistics and removed nothing."
    if results is None:
        return words + "The run is not finished."
    size = results.parameters
    words += f"{size.dense:,} parameters became {size.pruned:,} ({size.pruned / size.dense - 1:+.1%})"
    if mean := results.mean_divergence:
        words += f"; the divergence from the dense model is {number(mean.value, 3)} nats per token"
    if results.mean and results.worst and math.isfinite(results.mean.ratio):
        domain, ratio = results.worst
        words += (
            f"; perplexity on held-out text rose to {results.mean.ratio:.2f} times the dense model's, "
            f"the most on {domain} ({ratio:.2f} times)"
        )
    notes = "".join(f" {note}" for note in results.notes)
    computed = f", in {results.dtype} on {results.device}" if results.dtype else ""
    return f"{words}. Run time {seconds_text(results.seconds)}{computed}.{notes}"


def _path(iterations: Sequence[StoredIteration]) -> str:
    """Mean divergence, and perplexity by domain, by iteration as a table."""
    data = perplexity_data(iterations)
    if not data or len(iterations) < 2:
        return ""
    rows = []
    for at, it in enumerate(iterations):
        mean = it.metrics.divergence.get("mean")
        cells = [number(mean.value, 3) if mean else "-", *(number(values[at]) for _, values in data.values())]
        rows.append((str(it.number), f"{it.metrics.ratio:.1%}", *cells))
    return _table(
        "Divergence and perplexity by iteration", ("iteration", "pruned", "divergence", *data), rows
    )


def _maps(iterations: Sequence[StoredIteration], config: RunConfig) -> bytes:
    """Heatmaps of all iterations as heatmaps.js reads them: a JSON object after its length, and bytes.

    Each cell is a byte: 0 for removed channels, 1 to 255 from the 1st to the 99th percentile.
    """
    quantities: dict[str, Callable[[StoredIteration], Mapping[Site, Array]]] = {
        f"{config.score.replace('_', ' ')} score": lambda it: it.scores,
        "input variance": lambda it: {
            site: stats.variance for site, stats in site_stats(it.statistics, None, config).items()
        },
        "weight norm": lambda it: {site: norms.norm for site, norms in it.norms.items()},
    }
    layers, modules = len(iterations[0].geometry.layers), site_names(iterations[0].geometry)
    bins = animation_bins(layers, len(quantities) * len(modules) * len(iterations), 256)
    frames: list[dict[str, Any]] = []
    body = b""
    for quantity, (values, name) in enumerate(product(quantities.values(), modules)):
        maps = [importance_data(values(it), name, View(bins=bins)) for it in iterations]
        low, high = colour_limits(maps)
        for iteration, heatmap in enumerate(maps):
            cells = np.clip((heatmap.values - low) / (high - low), 0, 1) * 254 + 1
            rows, columns = cells.shape
            size = {"layers": rows, "columns": columns, "channels": int(heatmap.last[-1]) + 1}
            scale = {"low": low, "high": high, "start": len(body)}
            frames.append({"quantity": quantity // len(modules), "iteration": iteration, **size, **scale})
            body += np.nan_to_num(cells).round().astype(np.uint8).tobytes()
    header = {
        "quantities": list(quantities),
        "iterations": [it.number for it in iterations],
        "kinds": [site_style(name).label for name in modules],
        "frames": frames,
    }
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + body
