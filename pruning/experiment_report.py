"""The report of an experiment: tables and figures, with the paper's beside them, marked as the paper's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.experiments import Experiment, read
from pruning.results import paper, rise
from pruning.runs import writing
from pruning.visualization import experiment_figure

if TYPE_CHECKING:
    import pandas as pd

REPORT_FILE = "report.md"


def claims(experiment: Experiment, frame: pd.DataFrame) -> Iterator[tuple[str, str, bool]]:
    """What the paper says, what these runs say, and whether they agree; at the largest ratio."""
    frame = frame[frame["ratio"] == frame["ratio"].max()]
    rows = rise(frame[frame["metric"] == "perplexity"])
    if experiment.paper == "main":
        accuracy = frame[(frame["metric"] == "acc") & (frame["name"] == "average")]
        if len(accuracy):
            means = (100 * accuracy.groupby("method")["pruned"].mean()).sort_values()
            order = ["wanda_sp", "flap", "iterative"]
            ours = ", ".join(f"{name} {value:.1f}%" for name, value in means.items())
            yield (
                "Average accuracy: Wanda-sp lowest, then FLAP, the iterative method highest.",
                ours,
                [name for name in means.index if name in order] == order,
            )
    elif experiment.paper == "domains":
        means = rows.groupby("mixture")["value"].mean().sort_values()
        ours = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
        yield "All domains together beat every single one.", f"rise {ours}", means.index[0] == "mixed"
        accuracy = frame[(frame["metric"] == "acc") & (frame["name"] == "average")]
        if len(accuracy):
            means = (100 * accuracy.groupby("mixture")["pruned"].mean()).sort_values(ascending=False)
            ours = ", ".join(f"{name} {value:.1f}%" for name, value in means.items())
            yield "So it is in average accuracy, by about 1.5 points.", ours, means.index[0] == "mixed"
    elif experiment.paper == "iterations":
        iterative = rows[rows["method"] == "iterative"]
        means = iterative.groupby("iterations")["value"].mean()
        ours = ", ".join(f"K = {k}: {value:.3f}" for k, value in means.items())
        first, settled = means[means.index.min()], means[means.index >= 4]
        early = means[(means.index >= 2) & (means.index <= 3)]
        if settled.empty or early.empty:
            return
        span = settled.max() - settled.min()
        yield "Perplexity falls with the iterations.", f"rise {ours}", bool(settled.mean() < first)
        yield (
            "It goes on falling up to 4 to 6 iterations, then settles.",
            f"from K = 4 on the rise stays within {span:.3f}; at K = 2 and 3 it is "
            + " and ".join(f"{v:.3f}" for v in early),
            bool(early.min() > settled.max()),
        )
    elif experiment.paper == "samples":
        few = rows[rows["samples"] == rows["samples"].min()].groupby("method")["pruned"].mean()
        if {"iterative", "flap"} <= set(few.index):
            ratio = few["flap"] / few["iterative"]
            yield (
                "With few samples FLAP's perplexity is more than three times the iterative method's.",
                f"{few['flap']:.1f} against {few['iterative']:.1f}: {ratio:.1f} times",
                bool(ratio > 3),
            )


def report(target: Path, figures: bool = True) -> Path:
    """Write the report of an experiment from its table, as Markdown with figures.

    Args:
        target: the experiment's folder.
        figures: also as SVG for the Markdown, which needs kaleido and a Chromium.

    Raises:
        ConfigError: the folder holds no results.
    """
    experiment, frame = read(target)
    drawn = [
        experiment_figure(frame, experiment.title, experiment.x, experiment.series, metric, experiment.of)
        for metric in metrics(frame)
    ]
    text = markdown(experiment, frame)
    if figures:
        for number, figure in enumerate(drawn, 1):
            figure.write_image(target / f"figure-{number}.svg", width=900, height=420)
            text = text.replace(
                f"<!-- figure {number} -->", f"![{figure.layout.title.text}](figure-{number}.svg)"
            )
    with writing(target):
        (target / REPORT_FILE).write_text(text, encoding="utf-8")
    return target / REPORT_FILE


def metrics(frame: pd.DataFrame) -> list[str]:
    """The measures an experiment has a figure of."""
    return [name for name in ("perplexity", "acc") if (frame["metric"] == name).any()]


def markdown(experiment: Experiment, frame: pd.DataFrame) -> str:
    """The report's text, with a mark where each figure goes."""
    lines = [f"# {experiment.title}", experiment.about]
    seconds = frame.drop_duplicates("run_id")["seconds"].sum()
    models, seeds = sorted(set(frame["model"])), sorted(set(frame["seed"]))
    lines.append(
        f"`python -m pruning experiment experiments/{experiment.name}.yaml`: "
        f"{frame['run_id'].nunique()} runs of {', '.join(models)}, "
        f"{seconds / 60:.0f} minutes of pruning and measuring, "
        f"seeds {', '.join(map(str, seeds))}. The figures are this project's own unless "
        "a table says otherwise; ± is the standard deviation over seeds."
    )
    for number, metric in enumerate(metrics(frame), 1):
        lines.append(f"<!-- figure {number} -->")
        lines.append(summary(experiment, frame, metric))
    if experiment.paper:
        lines += ["## What the paper reports", *_paper(experiment, frame, paper()[experiment.paper])]
    return "\n\n".join(filter(None, lines)) + "\n"


def summary(experiment: Experiment, frame: pd.DataFrame, metric: str) -> str:
    """A Markdown table of one measure: a line for each cell of the grid, a column for each domain or task."""
    rows = frame[frame["metric"] == metric]
    names = list(dict.fromkeys(rows["name"]))
    fields = [f for f in dict.fromkeys([*experiment.series, experiment.x or "", "ratio"]) if f]
    scale, digits = (100, 1) if metric.startswith("acc") else (1, 2)
    limits = sorted({int(v) for v in rows["limit"].dropna()}) if "limit" in rows else []
    title = {"perplexity": "Perplexity", "acc": "Accuracy, %", "acc_norm": "Normalised accuracy, %"}[metric]
    title += f" (only the first {', '.join(map(str, limits))} items of each task)" if limits else ""
    out = [f"**{title}**", ""]
    out.append("| " + " | ".join([*fields, *names]) + " |")
    out.append("|" + "---|" * len(fields) + "---:|" * len(names))
    dense = rows.groupby("name")["dense"].first()
    out.append(
        "| dense |" + " |" * (len(fields) - 1) + "".join(f" {scale * dense[n]:.{digits}f} |" for n in names)
    )
    for key, group in rows.groupby(fields, sort=True):
        cells = [
            f"{v:g}" if isinstance(v, float) else str(v) for v in (key if isinstance(key, tuple) else (key,))
        ]
        for name in names:
            values = scale * group[group["name"] == name]["pruned"]
            spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.{digits}f}{spread}")
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def _paper(experiment: Experiment, frame: pd.DataFrame, content: dict[str, Any]) -> list[str]:
    table = [
        f"| *the paper's* | {' | '.join(content['columns'])} |",
        "|---|" + "---:|" * len(content["columns"]),
    ]
    table += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in content["rows"].items()]
    lines = [f"{content['about']} From {paper()['source']}. **These are the paper's figures, not ours.**"]
    lines.append("\n".join(table))
    found = list(claims(experiment, frame))
    if found:
        rows = ["| the paper says | these runs say | |", "|---|---|---|"]
        rows += [
            f"| {said} | {ours} | {'agrees' if agrees else '**differs**'} |" for said, ours, agrees in found
        ]
        lines.append("\n".join(rows))
    return lines
