"""The report of an experiment: tables and figures, with the paper's beside them, marked as the paper's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.experiments.claims import claims
from pruning.experiments.grid import Experiment, command, read
from pruning.experiments.paper import paper
from pruning.formatting import plain
from pruning.measure.significance import interval
from pruning.outputs import output_file
from pruning.runs.report import item_limits, retained
from pruning.visualization import experiment_figure

if TYPE_CHECKING:
    import pandas as pd


REPORT_FILE = "report.md"
NOISE_MEANS = (
    "Within noise: less than the 95% interval of the difference, from the spread of the seeds and, for "
    "accuracies, from the number of items."
)
TITLES = {
    "perplexity": ("Perplexity", 1, 2),  # name, scale, digits
    "bits_per_byte": ("Bits per byte", 1, 3),
    "acc": ("Accuracy, %", 100, 1),
    "acc_norm": ("Normalised accuracy, %", 100, 1),
}


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
            with output_file(target / f"figure-{number}.svg") as temporary:
                figure.write_image(temporary, "svg", width=900, height=420)
            text = text.replace(
                f"<!-- figure {number} -->", f"![{plain(figure.layout.title.text)}](figure-{number}.svg)"
            )
    with output_file(target / REPORT_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target / REPORT_FILE


def metrics(frame: pd.DataFrame) -> list[str]:
    """The measures an experiment has a figure of."""
    return [name for name in ("perplexity", "acc") if (frame["metric"] == name).any()]


def markdown(experiment: Experiment, frame: pd.DataFrame) -> str:
    """The report's text, with a mark where each figure goes."""
    lines = [
        f"# {plain(experiment.title)}",
        plain(experiment.about),
        _made(experiment, frame),
        _budgets(frame),
    ]
    beside = paper()[experiment.paper] if experiment.paper else {}
    shown = metrics(frame)
    for number, metric in enumerate(shown, 1):
        lines += [f"<!-- figure {number} -->", summary(experiment, frame, metric)]
        if metric == beside.get("metric"):
            lines += _paper(beside)
        if metric == "acc":
            lines.append(changes(experiment, frame))
        for more in {"perplexity": ("bits_per_byte",), "acc": ("acc_norm",)}[metric]:
            if (frame["metric"] == more).any():
                lines.append(summary(experiment, frame, more))
    lines.append(_retention(experiment, frame))
    if beside and beside["metric"] not in shown:
        lines += _paper(beside)
    if experiment.paper and (found := list(claims(experiment, frame))):
        rows = ["| the paper says | these runs say | |", "|---|---|---|"]
        rows += [f"| {' | '.join(claim)} |" for claim in found]
        lines += ["## What the paper says, and what these runs say", "\n".join(rows), NOISE_MEANS]
    return "\n\n".join(filter(None, lines)) + "\n"


def _made(experiment: Experiment, frame: pd.DataFrame) -> str:
    seconds = frame.drop_duplicates("run_id")["seconds"].sum()
    models, seeds = sorted(set(frame["model"])), sorted(set(frame["seed"]))
    return (
        f"`{command(experiment)}`: "
        f"{frame['run_id'].nunique()} runs of {plain(', '.join(models))}, "
        f"{seconds / 60:.0f} minutes of pruning and measuring, "
        f"seeds {', '.join(map(str, seeds))}. The figures are this project's own unless "
        "a table says otherwise; ± is the standard deviation over seeds."
    )


def _budgets(frame: pd.DataFrame) -> str:
    """Whether all runs were calibrated on as much text."""
    tokens = sorted(set(frame["calibration_tokens"]))
    if len(tokens) == 1:
        return f"Every run was calibrated on {tokens[0]:,} tokens in each iteration."
    return (
        "**The runs were not calibrated on the same amount of text:** samples are counted by domain, so one "
        f"domain alone has fewer tokens than several. They had {tokens[0]:,} to {tokens[-1]:,} in each "
        "iteration, as the column of calibration tokens says."
    )


# --- tables ----------------------------------------------------------------------------------------------
def _fields(experiment: Experiment, frame: pd.DataFrame) -> list[str]:
    """The options that tell the lines of a table apart: all that vary but the seed."""
    named = dict.fromkeys([*experiment.series, experiment.x or "", "ratio", *experiment.varied, "model"])
    shown = [name for name in named if name in frame and name not in ("seed", "seq_len")]
    must = (*experiment.series, experiment.x, "ratio")
    return [name for name in shown if name in must or frame[name].nunique() > 1] + ["calibration_tokens"]


def _grid(
    experiment: Experiment,
    rows: pd.DataFrame,
    columns: dict[str, str],
    cell: Callable[[pd.DataFrame, str], str],
    first: Sequence[list[str]] = (),
) -> str:
    """A Markdown table with a line for each cell of the grid.

    Args:
        experiment: names the options.
        rows: of one measure.
        columns: titles, by the key that `cell` is called with.
        cell: of the rows of a line, and a column.
        first: lines on top, with the cells of `columns` after their name.
    """
    fields = _fields(experiment, rows)
    heads = [name.replace("_", " ") if name == "calibration_tokens" else name for name in fields]
    out = ["| " + " | ".join([*heads, *columns.values()]) + " |"]
    out.append("|" + "---|" * len(fields) + "---:|" * len(columns))
    for name, *cells in first:
        out.append(f"| {name} |" + " |" * (len(fields) - 1) + "".join(f" {value} |" for value in cells))
    for key, group in rows.groupby(fields, sort=True):
        cells = [_option(name, value) for name, value in zip(fields, key, strict=True)]
        out.append("| " + " | ".join([*cells, *(cell(group, column) for column in columns)]) + " |")
    return "\n".join(out)


def _option(name: str, value: Any) -> str:
    if name == "calibration_tokens":
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else plain(value)


def _spread(values: pd.Series, digits: int) -> str:
    """Mean and standard deviation over seeds; infinite where a seed is."""
    if np.isinf(values).any():
        return "infinite"
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def summary(experiment: Experiment, frame: pd.DataFrame, metric: str) -> str:
    """A Markdown table of one measure: a line for each cell of the grid, a column for each domain or task."""
    rows = frame[frame["metric"] == metric]
    title, scale, digits = TITLES[metric]
    several = rows["model"].nunique() > 1
    columns = {name: _column(rows, name) for name in dict.fromkeys(rows["name"])}
    dense = []
    for model, group in rows.groupby("model"):
        values = group.groupby("name")["dense"].first()
        cells = [_spread(scale * values[[name]], digits) if name in values else "" for name in columns]
        dense.append([f"dense {model}" if several else "dense", *cells])

    def cell(group: pd.DataFrame, name: str) -> str:
        return _spread(scale * group.loc[group["name"] == name, "pruned"], digits)

    return f"**{title}{_first(rows)}**\n\n" + _grid(experiment, rows, columns, cell, dense)


def _first(rows: pd.DataFrame) -> str:
    limits = item_limits(rows)
    return f" (only the first {', '.join(map(str, limits))} items of each task)" if limits else ""


def _column(rows: pd.DataFrame, name: str) -> str:
    """A task with its number of items."""
    items = sorted({int(count) for count in rows.loc[rows["name"] == name, "items"].dropna()})
    return f"{name} ({' or '.join(map(str, items))} items)" if items else name


def changes(experiment: Experiment, frame: pd.DataFrame) -> str:
    """A Markdown table of the change of accuracy in points, with the 95% interval of the paired difference.

    Every seed asks the same items, so seeds do not narrow the interval; each is tested on its own, and a cell
    says so unless all of them are more than noise.
    """
    rows = frame[frame["metric"] == "acc"]

    def cell(group: pd.DataFrame, name: str) -> str:
        found = group[group["name"] == name]
        error = 100 * interval(found["standard_error"].mean())
        spread = f" ± {error:.1f}" if np.isfinite(error) else " ± unknown"
        shown, seeds = int(found["significant"].fillna(False).sum()), len(found)
        noise = f", more than noise in {shown} of {seeds} seeds" if shown else ", within noise"
        return f"{100 * found['delta'].mean():+.1f}{spread}{noise if shown < seeds else ''}"

    title = f"**Change of accuracy in points, ± 95% of the paired difference over items{_first(rows)}**"
    return (
        title + "\n\n" + _grid(experiment, rows, {name: name for name in dict.fromkeys(rows["name"])}, cell)
    )


def _retention(experiment: Experiment, frame: pd.DataFrame) -> str:
    """A Markdown table of what is left of each capability."""
    rows = retained(frame)
    if rows.empty:
        return ""
    rows = rows.assign(column=rows["capability"] + ", " + rows["source"])

    def cell(group: pd.DataFrame, column: str) -> str:
        values = 100 * group.loc[group["column"] == column, "value"]
        return _spread(values, 0) + "%" if len(values) else ""

    title = (
        f"**What is left of each capability{_first(frame)}**: of text the dense perplexity over the pruned "
        "model's, of tasks the pruned model's accuracy over the dense one"
    )
    columns = {name: name for name in dict.fromkeys(rows["column"])}
    return title + "\n\n" + _grid(experiment, rows, columns, cell)


def _paper(content: dict[str, Any]) -> list[str]:
    """The paper's table, to stand beside ours."""
    table = [
        f"| *the paper's* | {' | '.join(content['columns'])} |",
        "|---|" + "---:|" * len(content["columns"]),
    ]
    table += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in content["rows"].items()]
    about = f"{content['about']} From {paper()['source']}. **These are the paper's figures, not ours.**"
    return [about, "\n".join(table)]
