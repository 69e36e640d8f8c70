"""Reports of a finished run, as one HTML file or as Markdown."""

from __future__ import annotations

import html as escape
import json
import math

from pruning import visualization as viz
from pruning.measure.comparison import TaskRow
from pruning.runs.outcome import Results
from pruning.runs.results import retention
from pruning.runs.run import Run
from pruning.words import number, plain


def command(run: Run) -> str:
    """The command line that reproduces a run."""
    return f"python -m pruning prune --config {run.path / 'config.json'}"


def _rows(results: Results) -> list[tuple[str, str, str, str]]:
    """Rows of all metrics: name, dense, pruned, change."""
    rows = []
    for name, pair in results.perplexity.items():
        times = f"x {pair.ratio:.2f}" if math.isfinite(pair.ratio) else ""
        rows.append((f"perplexity, {name}", number(pair.dense), number(pair.pruned), times))
    for name, bits in results.bits_per_byte.items():
        if bits.dense and bits.pruned:
            change = f"{bits.pruned - bits.dense:+.3f}"
            rows.append((f"bits per byte, {name}", f"{bits.dense:.3f}", f"{bits.pruned:.3f}", change))
    asked = results.zero_shot
    for name, task in {**asked.tasks, "average of tasks": asked.average}.items() if asked else ():
        rows += [_accuracy_row(name, task, metric) for metric in task.measures]
    return rows


def _accuracy_row(name: str, task: TaskRow, metric: str) -> tuple[str, str, str, str]:
    found = task.measures[metric]
    asked = f"first {task.limit}" if task.limit else task.items or ""
    spread = f" ± {100 * found.interval:.1f}" if math.isfinite(found.interval) else ""
    change = f"{100 * found.delta:+.1f}{spread} percentage points"
    change += "" if found.significant else ", not significant"
    title = f"{name}, {metric}" + (f", {asked} items" if asked else "")
    return title, f"{100 * found.dense:.1f}%", f"{100 * found.pruned:.1f}%", change


def markdown(run: Run) -> str:
    """The report as Markdown."""
    results = run.results()
    assert results is not None
    parameters = results.parameters
    lines = [
        f"# {plain(run.config.model)}, pruning ratio {results.achieved_ratio:.1%}, method {run.config.method}",
        f"{parameters.dense:,} parameters dense, {parameters.pruned:,} pruned; run time {results.seconds:.1f} s.",
        "| | dense | pruned | change |\n|---|---:|---:|---:|\n"
        + "\n".join("| " + " | ".join(map(plain, row)) + " |" for row in _rows(results)),
        f"Reproduce the run with `{command(run)}`, or with this config:",
        f"```json\n{json.dumps(results.config, indent=1)}\n```",
    ]
    return "\n\n".join(lines) + "\n"


def html(run: Run) -> str:
    """The report as one HTML file with embedded figures; it needs no network."""
    results, iterations = run.results(), run.iterations()
    assert results is not None
    mask = iterations[-1].mask
    figures = [
        viz.perplexity_figure(viz.perplexity_data(iterations)),
        viz.retention_figure({"this run": retention(results)}),
        viz.retained_share_figure(viz.retained_share_data(mask), 1 - mask.ratio),
        viz.mask_map_figure(viz.mask_map_data(mask, "mlp")),
        viz.mask_map_figure(viz.mask_map_data(mask, "attn")),
    ]
    if results.zero_shot:
        figures.append(viz.accuracy_figure({"this run": results.zero_shot.tasks}))
    parts = [
        figure.to_html(full_html=False, include_plotlyjs="inline" if number == 0 else False)
        for number, figure in enumerate(figures)
    ]
    lines = [
        f"<tr>{''.join(f'<td>{escape.escape(cell)}</td>' for cell in row)}</tr>" for row in _rows(results)
    ]
    config = escape.escape(json.dumps(results.config, indent=1))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape.escape(run.id)}</title>
<style>body{{font:16px system-ui;max-width:1000px;margin:2em auto;padding:0 1em}}td,th{{padding:.2em .8em;text-align:right}}
td:first-child{{text-align:left}}pre{{background:#f3f5f8;padding:1em;overflow:auto}}</style>
<h1>{escape.escape(run.config.model)}, pruning ratio {results.achieved_ratio:.1%}, method {escape.escape(run.config.method)}</h1>
<p>{results.parameters.dense:,} parameters dense, {results.parameters.pruned:,} pruned;
run time {results.seconds:.1f} s.</p>
<table><tr><th></th><th>dense</th><th>pruned</th><th>change</th></tr>{"".join(lines)}</table>
{"".join(parts)}<h2>Reproduction</h2><pre>{escape.escape(command(run))}</pre><pre>{config}</pre></html>"""
