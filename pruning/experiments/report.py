"""The report of an experiment: tables and figures, and for comparison the paper's figures, marked as such."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.experiments.claims import claims, paper
from pruning.experiments.grid import Experiment, command, read
from pruning.formatting import plain
from pruning.measure.comparison import Rise
from pruning.measure.significance import interval
from pruning.outputs import output_file
from pruning.runs.report import DIVERGENCE, item_limits, retained, rise
from pruning.visualization import experiment_figure

if TYPE_CHECKING:
    import pandas as pd


REPORT_FILE, BEST_COLUMN = "report.md", "against the best"
RISE = (
    "`rise` is that of the mean log-perplexity over the dense model, `gap` the largest rise of a domain less "
    "the smallest."
)
NOISE = (
    "Within noise: less than the 95% interval of the difference, from the spread of the seeds and, for "
    "accuracies, from the number of items."
)
BEST = (
    "`against the best` is the change against the line of the same model, ratio and block length with the "
    "lowest mean, averaged over seeds, with its 95% interval over held-out text, paired by block."
)
TITLES = {
    "divergence": (DIVERGENCE, 1, 3),
    "perplexity": ("Perplexity", 1, 2),  # name, scale, digits
    "bits_per_byte": ("Bits per byte", 1, 3),
    "acc": ("Accuracy, %", 100, 1),
    "acc_norm": ("Normalised accuracy, %", 100, 1),
}


def report(target: Path, figures: bool = True) -> Path:
    """Write the report of an experiment as Markdown into the folder of its results.

    Args:
        target: folder of the results.
        figures: write SVG figures as well, which needs kaleido and a Chromium.

    Raises:
        ConfigError: the folder holds no results.
    """
    experiment, frame = read(target)
    text = markdown(experiment, frame)
    for number, metric in enumerate(metrics(frame) if figures else (), 1):
        figure = experiment_figure(
            frame, experiment.title, experiment.x, experiment.series, metric, experiment.of
        )
        with output_file(target / f"figure-{number}.svg") as temporary:
            figure.write_image(temporary, "svg", width=900, height=420)
        image = f"![{plain(figure.layout.title.text)}](figure-{number}.svg)"
        text = text.replace(f"<!-- figure {number} -->", image)
    with output_file(target / REPORT_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target / REPORT_FILE


def metrics(frame: pd.DataFrame) -> list[str]:
    """The measures of an experiment that have a figure."""
    return [name for name in ("divergence", "perplexity", "acc") if (frame["metric"] == name).any()]


def markdown(experiment: Experiment, frame: pd.DataFrame) -> str:
    """The text of the report, with a comment in the place of each figure."""
    parts = [
        f"# {plain(experiment.title)}",
        plain(experiment.about),
        _origin(experiment, frame),
        _budgets(frame),
    ]
    reference = paper()[experiment.paper] if experiment.paper else {}
    measures = metrics(frame)
    for number, metric in enumerate(measures, 1):
        parts += [f"<!-- figure {number} -->", summary(experiment, frame, metric)]
        if metric == reference.get("metric"):
            parts += _paper(reference)
        if metric == "acc":
            parts.append(changes(experiment, frame))
        related = {"perplexity": "bits_per_byte", "acc": "acc_norm"}.get(metric, "")
        if (frame["metric"] == related).any():
            parts.append(summary(experiment, frame, related))
    parts.append(_retention(experiment, frame))
    if reference and reference["metric"] not in measures:
        parts += _paper(reference)
    if rows := [f"| {' | '.join(claim)} |" for claim in claims(experiment, frame)]:
        header = ["| the paper says | these runs say | |", "|---|---|---|"]
        parts += ["## What the paper says, and what these runs say", "\n".join([*header, *rows]), NOISE]
    return "\n\n".join(filter(None, parts)) + "\n"


def _origin(experiment: Experiment, frame: pd.DataFrame) -> str:
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
    """The calibration tokens of the runs, with a warning where they differ."""
    tokens = sorted(set(frame["calibration_tokens"]))
    if len(tokens) == 1:
        return f"Every run was calibrated on {tokens[0]:,} tokens in each iteration."
    return (
        f"**The runs were not calibrated on the same amount of text**, but on {tokens[0]:,} to "
        f"{tokens[-1]:,} tokens in each iteration, as the column of calibration tokens says; "
        "samples are counted by domain."
    )


# --- tables ----------------------------------------------------------------------------------------------
def _fields(experiment: Experiment, frame: pd.DataFrame) -> list[str]:
    """The options that distinguish the lines of a table: all that vary but the seed."""
    always = [*experiment.series, experiment.x or "", "ratio"]
    names = [name for name in dict.fromkeys([*always, *experiment.varied, "model"]) if name in frame]
    names = [name for name in names if name in always or (name != "seed" and frame[name].nunique() > 1)]
    return [*(name for name in names if name not in ("seed", "seq_len")), "calibration_tokens"]


def _grid(
    experiment: Experiment,
    rows: pd.DataFrame,
    columns: dict[str, str],
    cell: Callable[[pd.DataFrame, str], str],
    first: Sequence[list[str]] = (),
) -> str:
    """A Markdown table of tidy rows, with a line for each combination of the options that vary.

    `cell` gives the text of a cell from the rows of its line and the key of its column in `columns`, whose
    values are titles; `first` has lines for the top, each a name and its cells.
    """
    fields = _fields(experiment, rows)
    heads = [name.replace("_", " ") if name == "calibration_tokens" else name for name in fields]
    lines = ["| " + " | ".join([*heads, *columns.values()]) + " |"]
    lines.append("|" + "---|" * len(fields) + "---:|" * len(columns))
    for name, *cells in first:
        lines.append(f"| {name} |" + " |" * (len(fields) - 1) + "".join(f" {value} |" for value in cells))
    for key, group in rows.groupby(fields, sort=True):
        cells = [_option(name, value) for name, value in zip(fields, key, strict=True)]
        lines.append("| " + " | ".join([*cells, *(cell(group, column) for column in columns)]) + " |")
    return "\n".join(lines)


def _option(name: str, value: Any) -> str:
    if name == "calibration_tokens":
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else plain(value)


def _spread(values: pd.Series, digits: int) -> str:
    """Mean and standard deviation over seeds; infinite if one of them is."""
    if not np.isfinite(values).all():
        return "infinite"
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def summary(experiment: Experiment, frame: pd.DataFrame, metric: str) -> str:
    """A Markdown table of one measure: a line for each cell of the grid, a column for each domain or task.

    Perplexities have columns of the rise and of its gap between domains as well, and measures of text one of
    the difference from the best line.
    """
    rows = frame[frame["metric"] == metric]
    title, scale, digits = TITLES[metric]
    several = rows["model"].nunique() > 1
    columns = {name: _column(rows, name) for name in dict.fromkeys(rows["name"])}
    dense = []
    for model, group in rows.groupby("model"):
        values = group.groupby("name")["dense"].first()
        cells = [_spread(scale * values[[name]], digits) if name in values else "" for name in columns]
        dense.append([f"dense {model}" if several else "dense", *cells])
    rises = {"rise": "rise", "gap": "gap"} if metric == "perplexity" and len(columns) > 2 else {}
    differences = _against_best(experiment, rows)
    more = rises | ({BEST_COLUMN: BEST_COLUMN} if any(differences.values()) else {})

    def cell(group: pd.DataFrame, name: str) -> str:
        if name == "rise":
            return _spread(rise(group)["value"], 3)
        if name == "gap":
            return _spread(rise(group, "each").groupby("run_id")["value"].agg(np.ptp), 3)
        if name == BEST_COLUMN:
            return differences[frozenset(group["run_id"])]
        return _spread(scale * group.loc[group["name"] == name, "pruned"], digits)

    table = _grid(experiment, rows, columns | more, cell, [[*line, *("" for _ in more)] for line in dense])
    notes = [*([RISE] if rises else []), *([BEST] if BEST_COLUMN in more else [])]
    return "\n\n".join([f"**{title}{_first(rows)}**", table, *notes])


def _against_best(experiment: Experiment, rows: pd.DataFrame) -> dict[frozenset[str], str]:
    """By the run ids of each line of a table, how much it lies above the best one; empty where unknown."""
    words: dict[frozenset[str], str] = {}
    if "blocks" not in rows:
        return words
    measure = rows["metric"].iloc[0]
    for _, comparable in rows.groupby(["model", "ratio", "seq_len"]):
        lines = [line for _, line in comparable.groupby(_fields(experiment, rows))]
        best = min(lines, key=lambda line: line.loc[line["name"] == "mean", "pruned"].mean())
        reference = _blocks(best)
        for line in lines:
            blocks = {} if line is best or set(line["seed"]) != set(best["seed"]) else _blocks(line)
            is_comparable = blocks.keys() == reference.keys()
            change = (
                Rise.between([(reference[name], blocks[name]) for name in blocks]) if is_comparable else None
            )
            words[frozenset(line["run_id"])] = change.text(measure) if change else ""
    return words


def _blocks(line: pd.DataFrame) -> dict[str, list[float]]:
    """By domain nats per token of every block, the mean over seeds; without those that were not recorded."""
    blocks: dict[str, list[float]] = {}
    for name, cells in line.groupby("name")["blocks"]:
        seeds = [[*map(float, str(cell).split())] for cell in cells.dropna()]
        if len(seeds) == len(cells) and len({*map(len, seeds)}) == 1:
            blocks[str(name)] = np.mean(seeds, axis=0).tolist()
    return blocks


def _first(rows: pd.DataFrame) -> str:
    limits = item_limits(rows)
    return f" (only the first {', '.join(map(str, limits))} items of each task)" if limits else ""


def _column(rows: pd.DataFrame, name: str) -> str:
    """A task with its number of items."""
    items = sorted({int(count) for count in rows.loc[rows["name"] == name, "items"].dropna()})
    return f"{name} ({' or '.join(map(str, items))} items)" if items else name


def changes(experiment: Experiment, frame: pd.DataFrame) -> str:
    """A Markdown table of the change of accuracy in points, with the 95% interval of the paired difference.

    Seeds share the items and do not narrow the interval; each is tested by itself, and a cell says so unless
    all of them are more than noise.
    """
    rows = frame[frame["metric"] == "acc"]

    def cell(group: pd.DataFrame, name: str) -> str:
        seeds = group[group["name"] == name]
        error = 100 * interval(seeds["standard_error"].mean())
        spread = f" ± {error:.1f}" if np.isfinite(error) else " ± unknown"
        significant = int(seeds["significant"].fillna(False).sum())
        noise = (
            f", more than noise in {significant} of {len(seeds)} seeds" if significant else ", within noise"
        )
        return f"{100 * seeds['delta'].mean():+.1f}{spread}{noise if significant < len(seeds) else ''}"

    title = f"**Change of accuracy in points, ± 95% of the paired difference over items{_first(rows)}**"
    return f"{title}\n\n{_grid(experiment, rows, {name: name for name in rows['name']}, cell)}"


def _retention(experiment: Experiment, frame: pd.DataFrame) -> str:
    """A Markdown table of the share of each capability that the pruned models retain."""
    rows = retained(frame)
    if rows.empty:
        return ""
    rows = rows.assign(column=rows["capability"] + ", " + rows["source"])

    def cell(group: pd.DataFrame, column: str) -> str:
        values = 100 * group.loc[group["column"] == column, "value"]
        return _spread(values, 0) + "%" if len(values) else ""

    title = (
        f"**Retained capability{_first(frame)}**: of text the dense perplexity over the pruned model's, of "
        "tasks the pruned model's accuracy over the dense one's"
    )
    return f"{title}\n\n{_grid(experiment, rows, {name: name for name in rows['column']}, cell)}"


def _paper(content: dict[str, Any]) -> list[str]:
    """A figure of the paper as a Markdown table, with its source."""
    table = [f"| *the paper's* | {' | '.join(content['columns'])} |"]
    table += ["|---|" + "---:|" * len(content["columns"])]
    table += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in content["rows"].items()]
    about = f"{content['about']} From {paper()['source']}. **These are the paper's figures, not ours.**"
    return [about, "\n".join(table)]
