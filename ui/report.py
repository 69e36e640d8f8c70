"""What a run comes to: a row of the table, and a report in one file."""

from __future__ import annotations

import html as escape
import json
from typing import Any

from pruning import visualization as viz
from pruning.runs import Run


def row(run: Run, label: str) -> dict[str, Any]:
    """A run as a row: what it was, and its perplexities over those of the dense model."""
    results = run.results()
    values = results["perplexity"]
    return {
        "run": label,
        "method": run.config.method,
        "ratio": results["achieved_ratio"],
        "K": run.config.iterations,
        "parameters": results["parameters"]["pruned"],
        **{n: v["pruned"] / v["dense"] if v["pruned"] else None for n, v in values.items()},
        "seconds": results["seconds"],
    }


def html(run: Run) -> str:
    """A report with its figures in it, readable anywhere without a network."""
    results, iterations = run.results(), run.iterations()
    mask = iterations[-1].mask
    figures = [
        viz.perplexity_figure(viz.perplexity_data(iterations)),
        viz.retained_share_figure(viz.retained_share_data(mask), 1 - mask.ratio),
        viz.mask_map_figure(viz.mask_map_data(mask, "mlp")),
        viz.mask_map_figure(viz.mask_map_data(mask, "attn")),
    ]
    if accuracies := results.get("zero_shot"):
        figures.append(viz.accuracy_figure(accuracies["tasks"]))
    parts = [
        figure.to_html(full_html=False, include_plotlyjs="inline" if number == 0 else False)
        for number, figure in enumerate(figures)
    ]
    lines = [
        f"<tr><td>{escape.escape(name)}</td><td>{v['dense']:.2f}</td><td>{v['pruned']:.2f}</td>"
        f"<td>x {v['pruned'] / v['dense']:.2f}</td></tr>"
        for name, v in results["perplexity"].items()
        if v["pruned"]
    ]
    config = escape.escape(json.dumps(results["config"], indent=1))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape.escape(run.id)}</title>
<style>body{{font:16px system-ui;max-width:1000px;margin:2em auto;padding:0 1em}}td,th{{padding:.2em .8em;text-align:right}}
td:first-child{{text-align:left}}pre{{background:#f3f5f8;padding:1em;overflow:auto}}</style>
<h1>{escape.escape(run.config.model)}, {results["achieved_ratio"]:.1%} removed by {escape.escape(run.config.method)}</h1>
<p>{results["parameters"]["dense"]:,} parameters before, {results["parameters"]["pruned"]:,} after;
{results["seconds"]:.1f} s.</p>
<table><tr><th>perplexity</th><th>dense</th><th>pruned</th><th>change</th></tr>{"".join(lines)}</table>
{"".join(parts)}<h2>Config</h2><pre>{config}</pre></html>"""
