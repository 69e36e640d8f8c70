"""What runs achieved: results tables, comparable runs, retention by capability, tidy frames. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pruning.checksums import finite
from pruning.formatting import items_text, number, plain, quoted
from pruning.measure.comparison import Accuracy, Measure, Pair, Rise, TaskRow
from pruning.measure.significance import quantile
from pruning.method.sensitivity import predict_divergence
from pruning.models.delta import Delta
from pruning.models.mask import Mask
from pruning.runs.run import ACTIVE, Run, dense_iteration
from pruning.runs.schema import DomainSource, Results
from pruning.text.sources import EMBEDDED_DOMAINS

if TYPE_CHECKING:
    import pandas as pd

    from pruning.models.folder import LoadedModel


# --- the results of one run --------------------------------------------------------------------------------
DIVERGENCE = "Divergence from the dense model (KL, nats per token)"
INTERVALS = (
    f"{DIVERGENCE}; changes of accuracy are in percentage points. ± and ranges in parentheses are 95% "
    "intervals, paired by item or by block of held-out text; ~ marks a change that is not significant."
)


class Row(NamedTuple):
    """One measure of the dense and the pruned model, as text."""

    measure: str
    dense: str
    pruned: str
    change: str


HEADER = Row("", "dense", "pruned", "change")


def results_sections(results: Results) -> dict[str, list[Row]]:
    """Rows of the results table in sections: size, divergence, perplexity, bits per byte, accuracy."""
    size, answers = results.parameters, results.zero_shot
    tasks = {**answers.tasks, "average of tasks": answers.average} if answers else {}
    return {
        "size": [
            Row("parameters", f"{size.dense:,}", f"{size.pruned:,}", f"{size.pruned / size.dense - 1:+.1%}")
        ],
        "divergence": [
            Row(f"divergence {name}", "0", number(rise.value, 3), f"± {number(rise.interval, 3)}")
            for name, rise in results.divergence.items()
        ],
        "perplexity": [
            Row(f"perplexity {name}", number(pair.dense), number(pair.pruned), pair.change)
            for name, pair in results.perplexity.items()
        ],
        "bits per byte": [
            Row(f"bits per byte {name}", f"{b.dense:.3f}", f"{b.pruned:.3f}", f"{b.pruned - b.dense:+.3f}")
            for name, b in results.bits_per_byte.items()
            if b.dense and b.pruned
        ],
        "accuracy": [
            _accuracy(name, task, metric) for name, task in tasks.items() for metric in task.measures
        ],
    }


def _accuracy(name: str, task: TaskRow, metric: str) -> Row:
    """Row of a task's accuracies with their paired difference in percentage points."""
    both = task.measures[metric]
    items = f" ({items_text(task.items, task.limit)})" if task.items else ""
    spread = "unknown" if math.isinf(both.interval) else f"{100 * both.interval:.1f}"
    change = f"{100 * both.delta:+.1f} ± {spread}{'' if both.significant else ' ~'}"
    return Row(f"{name}, {metric}{items}", f"{both.dense:.1%}", f"{both.pruned:.1%}", change)


def results_rows(results: Results) -> list[Row]:
    """All rows of the results table, without the header."""
    return [*chain.from_iterable(results_sections(results).values())]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown: the first column on the left, numbers on the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as HTML, its text escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


@dataclass(frozen=True, repr=False)
class Result:
    """A finished run with the pruned model in memory: what notebooks get.

    Attributes:
        run: folder of the run.
        loaded: the pruned model and its tokenizer.
        delta: difference between the pruned and the dense model.
        summary: the measured results.
    """

    run: Run
    loaded: LoadedModel
    delta: Delta
    summary: Results

    def __repr__(self) -> str:
        """The results table as plain text, between a headline and the folder of the run."""
        rows = [HEADER, *results_rows(self.summary)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(cell.rjust(width) if k else cell.ljust(width) for k, (cell, width) in enumerate(cells))
            for cells in (zip(row, widths, strict=True) for row in rows)
        )
        return "\n".join([self._headline, *lines, f"run {self.run.path}"])

    def _repr_html_(self) -> str:
        """The results table as Jupyter shows it."""
        return f"<p>{escape(self._headline)}</p>{html_table(HEADER, results_rows(self.summary))}"

    @property
    def _headline(self) -> str:
        config, results = self.run.config, self.summary
        return (
            f"{config.method}, {results.achieved_ratio:.1%} of {config.model} removed in "
            f"{config.iterations} iteration{'s' * (config.iterations > 1)}, {results.seconds:.0f} s"
        )

    @property
    def mask(self) -> Mask:
        """Channels kept of the dense model."""
        return self.delta.mask

    @property
    def perplexity(self) -> dict[str, Pair]:
        """Perplexities of both models by domain, and their `mean`."""
        return self.summary.perplexity


def domain_use(source: DomainSource) -> str:
    """How a run uses the text of a domain; earlier versions recorded calibration text only."""
    if not source.parts:
        return "calibrated on"
    verbs = {"calibration": "calibrated on", "heldout": "measured on"}
    uses = [
        f"{verb} {part.blocks:,} block{'s' * (part.blocks != 1)}"
        for name, verb in verbs.items()
        if (part := source.parts.get(name))
    ]
    return ", ".join([*uses, *([] if source.calibration else ["not calibrated on"])])


def provenance(run: Run) -> list[str]:
    """Text, device and dtype behind the numbers of a run, and remarks on them, in lines."""
    lines = [
        f"domain {domain}: {quoted(run.config.domains.get(domain, 'embedded'))}, {domain_use(source)}"
        for domain, source in run.sources.items()
    ]
    if choice := run.choice:
        values = {name: f"{value:.3f}" for name, value in choice.divergences.items()}
        rivals = ", ".join(f"{name} {value}" for name, value in values.items() if name != choice.name)
        lines.append(
            f"normaliser chosen by trials on text set aside: {choice.name}, divergence {values[choice.name]} "
            f"nats per token from the dense model ({rivals})"
        )
    if (results := run.results()) and results.dtype:
        lines.append(f"computed in {results.dtype} on {results.device}")
    return [*lines, *(results.notes if results else ())]


def predicted_divergence(run: Run) -> dict[str, float]:
    """Divergence of the final mask by domain as the run's own curves predict it; empty without curves."""
    curves = dense_iteration(run).curves
    return predict_divergence(curves, run.iterations()[-1].mask) if curves else {}


# --- runs that can be compared -----------------------------------------------------------------------------
MEASURES: dict[Measure, str] = {"divergence": DIVERGENCE, "perplexity": "Perplexity"}
SAME = 1e-4  # largest relative difference of dense perplexities that count as the same model and text


@dataclass(frozen=True)
class MeasuredRun:
    """A run with its results."""

    run: Run
    results: Results

    @property
    def weights(self) -> str:
        """Fingerprint of the dense model; empty where it was not recorded."""
        return self.results.weights or next((it.weights for it in self.results.iterations if it.weights), "")

    @property
    def dtype(self) -> str:
        """Type of the weights while measuring; for a run of an earlier version the config's."""
        return self.results.dtype or self.run.config.dtype

    def values(self, measure: Measure) -> dict[str, float]:
        """A measure of the pruned model by domain, and its `mean`; empty where it was not measured."""
        if measure == "divergence":
            return {name: rise.value for name, rise in self.results.divergence.items()}
        return {name: pair.pruned for name, pair in self.results.perplexity.items()}

    def mean(self, measure: Measure = "perplexity") -> float:
        """The mean of a measure over the domains; infinite where it was not measured."""
        return self.values(measure).get("mean", math.inf)

    def rise(self, other: MeasuredRun, measure: Measure = "perplexity") -> Rise | None:
        """How much more it loses or diverges than another run of its group; None without a value by block."""
        before, after = (each.results.iterations[-1].perplexity for each in (other, self))
        pairs = [(before[name], after[name]) for name in self.results.domains]
        if measure == "divergence":
            return Rise.between([(a.divergence, b.divergence) for a, b in pairs])
        return Rise.between([(a.losses, b.losses) for a, b in pairs])

    def comparable(self, other: MeasuredRun) -> bool:
        """Whether both measure the same dense model on the same blocks.

        A run of an earlier version recorded neither weights nor text: its model's name and its dense
        perplexities identify them.
        """
        mine, theirs = self.results, other.results
        if self.run.config.seq_len != other.run.config.seq_len or mine.tokens != theirs.tokens:
            return False
        if self.weights and other.weights:
            if self.weights != other.weights:
                return False
        elif self.run.config.model != other.run.config.model:
            return False
        if mine.heldout and theirs.heldout:
            return mine.heldout == theirs.heldout and self.dtype == other.dtype
        pairs = [(pair.dense, theirs.perplexity[name].dense) for name, pair in mine.domains.items()]
        return all(a == b or math.isclose(a, b, rel_tol=SAME) for a, b in pairs)


@dataclass(frozen=True)
class Group:
    """Runs that can be compared, the best first.

    Attributes:
        members: sorted by divergence, or by perplexity where some did not measure it; see `ranked`.
        suffix: end of the heading that distinguishes the group from another with the same heading.
    """

    members: tuple[MeasuredRun, ...]
    suffix: str = ""

    @cached_property
    def newest(self) -> MeasuredRun:
        """The newest run with recorded text: its config gives the names."""
        return max(self.members, key=lambda member: (bool(member.results.heldout), member.run.id))

    @property
    def measures(self) -> list[Measure]:
        """The measures of its runs, first the one by which they rank; see `ranked`."""
        return _measures(self.members)

    def against_best(self, measure: Measure = "perplexity") -> dict[str, Rise]:
        """How much more each other run loses or diverges than the best one, by run id."""
        best, *others = self.members
        return {each.run.id: rise for each in others if (rise := each.rise(best, measure))}

    @property
    def blocks(self) -> dict[str, int]:
        """Number of held-out blocks by domain."""
        predicted = self.newest.run.config.seq_len - 1  # the first token of a block has no context
        return {name: tokens // predicted for name, tokens in self.newest.results.tokens.items()}

    @property
    def heading(self) -> str:
        """Model and protocol in words."""
        config, counts = self.newest.run.config, sorted({*self.blocks.values()})
        names = [f"{name}{_file(config.domains.get(name, 'embedded'))}" for name in self.blocks]
        blocks = f"{counts[0]} to {counts[-1]} blocks" if len(counts) > 1 else f"{counts[0]} blocks"
        blocks = "1 block" if counts == [1] else blocks
        domains = f"{len(names)} domains: {', '.join(names)}" if len(names) > 1 else f"domain {names[0]}"
        each = " each" if len(names) > 1 else ""
        precision = "" if self.newest.dtype == "auto" else f", {self.newest.dtype}"
        return (
            f"{Path(config.model).name}, {domains}; {blocks} of {config.seq_len} tokens{each}"
            f"{precision}{self.suffix}"
        )


def _file(source: str) -> str:
    """Suffix that distinguishes a domain's text from the embedded one of the same name."""
    if source == "embedded":
        return ""
    return f" ({quoted(source if source.startswith('hub:') else Path(source).name)})"


def _measures(members: Iterable[MeasuredRun]) -> list[Measure]:
    return [name for name in MEASURES if all(each.values(name) for each in members)]


def ranked(members: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """Comparable runs, the best first: by divergence where all have it, else by perplexity."""
    measures = _measures(members)
    return sorted(members, key=lambda each: each.mean(measures[0])) if measures else [*members]


def groups(runs: Iterable[Run]) -> tuple[list[Group], dict[str, str]]:
    """Groups of comparable runs, and the reason by id why a run is in none.

    Args:
        runs: in the order in which their groups are to come.
    """
    grouped: list[list[MeasuredRun]] = []
    left_out: dict[str, str] = {}
    members = []
    for run in runs:
        if why := _reason(run):
            left_out[run.id] = why
        elif results := run.results():
            members.append(MeasuredRun(run, results))
    # those that recorded what they measured first: the others are recognised by their numbers
    for each in sorted(members, key=lambda each: not each.results.heldout):
        mine = next((group for group in grouped if group[0].comparable(each)), None)
        if mine is None:
            grouped.append([each])
        else:
            mine.append(each)
    order = {each.run.id: position for position, each in enumerate(members)}
    grouped.sort(key=lambda group: min(order[each.run.id] for each in group))
    return _distinct([Group(tuple(ranked(group))) for group in grouped]), left_out


def _reason(run: Run) -> str:
    """Why a run cannot be compared, in a few words; empty where it can."""
    state, results = run.status().state, run.results()
    if state == "corrupt":
        return "corrupt"
    if results is None:
        return "still at work" if state in (*ACTIVE, "stalled") else "unfinished"
    return "" if results.perplexity else "without evaluation (--eval-blocks 0)"


def _distinct(grouped: Sequence[Group]) -> list[Group]:
    """The groups with distinct headings: digests of weights and text complete those that are equal."""
    headings = Counter(group.heading for group in grouped)
    return [
        Group(group.members, f"; {_digests(group.newest)}") if headings[group.heading] > 1 else group
        for group in grouped
    ]


def _digests(member: MeasuredRun) -> str:
    text = ", ".join(f"{name} {digest[:6]}" for name, digest in member.results.heldout.items())
    return f"weights {member.weights[:6] or 'not recorded'}, text {text or 'not recorded'}"


def count_reasons(left_out: Mapping[str, str]) -> str:
    """Number of runs left out for each reason, in a few words."""
    return ", ".join(f"{count} {why}" for why, count in Counter(left_out.values()).items())


# --- retention by capability -------------------------------------------------------------------------------
# Domains and tasks by capability; a text or task without an entry is a capability of its own.
CAPABILITIES: dict[str, tuple[str, ...]] = {
    "prose": ("wiki", "web", "prunescope_wiki", "prunescope_web", "prunescope_agreement"),
    "code": ("code", "prunescope_code"),
    "mathematics": ("math", "prunescope_arithmetic"),
    "questions": ("prunescope_answers", "arc_challenge", "arc_easy", "openbookqa", "boolq"),
    "common sense": ("hellaswag", "piqa", "winogrande"),
}
# Accuracy of guessing: one over the number of choices of a task's items.
CHANCE = {
    **{f"prunescope_{name}": 0.25 for name in ("wiki", "web", "code", "arithmetic", "answers")},
    **dict.fromkeys(("arc_challenge", "arc_easy", "hellaswag", "openbookqa"), 0.25),
    **dict.fromkeys(("prunescope_agreement", "piqa", "winogrande", "boolq"), 0.5),
}


@dataclass(frozen=True)
class Retained:
    """Retention of one capability.

    Attributes:
        capability: name of the capability.
        source: `text` (perplexity) or `tasks` (accuracy).
        value: pruned over dense, 1 for no loss: the geometric mean over domains of dense over pruned
            perplexity, or the mean over tasks of pruned over dense accuracy.
        standard_error: paired standard error of the tasks' mean; None for text, and where it is not known.
        of: names of the domains or tasks in the mean.
        limit: number of items to which a task was limited; None for all.
    """

    capability: str
    source: str
    value: float
    standard_error: float | None
    of: tuple[str, ...]
    limit: int | None = None


def capability(name: str) -> str:
    """The capability of a domain or a task; its own name where it has none."""
    return next((group for group, names in CAPABILITIES.items() if name in names), name)


def retention(results: Results) -> list[Retained]:
    """Retention of each capability in a run."""
    return retention_of(results.perplexity, results.zero_shot.tasks if results.zero_shot else {})


def retention_of(perplexity: Mapping[str, Pair], answers: Mapping[str, TaskRow]) -> list[Retained]:
    """Retention of each capability, from perplexities by domain and answers by task."""
    texts: dict[str, dict[str, float]] = {}
    for name, pair in perplexity.items():
        if name != "mean" and math.isfinite(pair.ratio):
            texts.setdefault(capability(name), {})[name] = 1 / pair.ratio
    tasks: dict[str, dict[str, tuple[TaskRow, Accuracy]]] = {}
    for name, task in answers.items():
        if (accuracy := task.measure()[1]).dense:
            tasks.setdefault(capability(name), {})[name] = task, accuracy
    rows = []
    for group in dict.fromkeys([*CAPABILITIES, *texts, *tasks]):
        if values := texts.get(group):
            mean = math.exp(math.fsum(math.log(v) for v in values.values()) / len(values))
            rows.append(Retained(group, "text", mean, None, tuple(values)))
        if measured := tasks.get(group):
            mean = math.fsum(accuracy.pruned / accuracy.dense for _, accuracy in measured.values())
            errors = [_ratio_error(accuracy) for _, accuracy in measured.values()]
            error = None if None in errors else math.hypot(*filter(None, errors)) / len(errors)
            limit = max(task.limit or 0 for task, _ in measured.values()) or None
            rows.append(Retained(group, "tasks", mean / len(errors), error, tuple(measured), limit))
    return rows


def _ratio_error(row: Accuracy) -> float | None:
    """Standard error of pruned over dense accuracy; both are of the same items, so they vary together."""
    if row.dense_stderr is None or row.pruned_stderr is None or math.isinf(row.standard_error):
        return None
    dense, pruned, change = row.dense_stderr**2, row.pruned_stderr**2, row.standard_error**2
    ratio, covariance = row.pruned / row.dense, (dense + pruned - change) / 2
    return math.sqrt(max(pruned + ratio**2 * dense - 2 * ratio * covariance, 0.0)) / row.dense


# --- tidy frames of many runs ------------------------------------------------------------------------------
# Columns that hold what was measured; all other columns are options and sizes of the run.
MEASURED = (
    *("name", "dense", "pruned", "delta", "standard_error", "p_value", "significant"),
    *("items", "limit", "blocks"),
)
OPTIONS = ("model", "method", "ratio", "iterations", "samples", "seq_len", "seed")


def tidy(run: Run, options: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A finished run as rows of one measure each: `metric`, `name`, `dense`, `pruned`, and its options.

    Args:
        run: a finished run.
        options: names of config fields to include beside `OPTIONS`.
    """
    results, config = run.results(), run.config
    assert results is not None
    common = {
        "run_id": run.id,
        **{name: _cell(getattr(config, name)) for name in dict.fromkeys((*OPTIONS, *options))},
        "mixture": mixture_label(config.mixture, config.measured_domains),
        **{f"share_{name}": config.mixture.get(name, 0.0) for name in config.measured_domains},
        "achieved_ratio": results.achieved_ratio,
        "seconds": results.seconds,
    }
    texts = results.iterations[-1].perplexity if results.iterations else {}
    rows: list[dict[str, Any]] = [
        {**common, "metric": "divergence", "name": name, "dense": 0.0}
        | finite({"pruned": rise.value, "standard_error": rise.standard_error})
        | {"blocks": _blocks(texts[name].divergence) if name in texts else None}
        for name, rise in results.divergence.items()
    ]
    for metric, pairs in (("perplexity", results.perplexity), ("bits_per_byte", results.bits_per_byte)):
        rows += [
            {**common, "metric": metric, "name": name, **finite(p.model_dump(include={"dense", "pruned"}))}
            | {"blocks": _blocks(texts[name].losses) if metric == "perplexity" and name in texts else None}
            for name, p in pairs.items()
        ]
    answers = results.zero_shot
    for name, task in {**answers.tasks, "average": answers.average}.items() if answers else ():
        for metric, accuracy in task.measures.items():
            values = finite(accuracy.model_dump(include=set(MEASURED)))
            counts = {"items": task.items, "limit": task.limit}
            rows.append({**common, "metric": metric, "name": name, **values, **counts})
    return rows


def _blocks(values: Iterable[float]) -> str | None:
    """Nats per token of every block as one cell."""
    return " ".join(f"{value:.6g}" for value in values) or None


def _cell(value: Any) -> Any:
    """An option as the value of one cell."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items()) or "none"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else value


def table(runs: Sequence[Run], options: Sequence[str] = ()) -> pd.DataFrame:
    """The tidy frame of finished runs; see `tidy`."""
    import pandas as pd

    return completed(pd.DataFrame([row for run in runs for row in tidy(run, options)]))


def completed(frame: pd.DataFrame) -> pd.DataFrame:
    """A tidy frame with its gaps filled.

    A domain that a run did not name has no share in it, a divergence or perplexity that JSON could not hold
    is infinite, and significance without p values follows from the standard errors. `calibration_tokens` are
    those of one iteration: a fair comparison of methods holds them equal.
    """
    import numpy as np

    shares = [name for name in frame.columns if name.startswith("share_")]
    frame = frame.assign(**{name: frame[name].astype(float).fillna(0.0) for name in shares})
    for name in set(MEASURED) - set(frame.columns):
        frame[name] = np.nan
    sides = ["dense", "pruned"]
    frame[sides] = frame[sides].astype(float)
    is_text = frame["metric"].isin(["divergence", "perplexity"])
    frame.loc[is_text, sides] = frame.loc[is_text, sides].fillna(np.inf)
    beyond_noise = frame["delta"].astype(float).abs() > quantile() * frame["standard_error"].astype(float)
    beyond_noise = beyond_noise.astype("boolean").mask(frame["delta"].isna())
    frame["significant"] = frame["significant"].astype("boolean").fillna(beyond_noise)
    for name in frame.columns.difference(MEASURED):
        if frame[name].map(type).nunique() > 1:  # a number in one run, a word in another
            frame[name] = frame[name].astype(str)
    domains = (frame[shares] > 0).sum(axis=1)
    return frame.assign(calibration_tokens=frame["samples"] * frame["seq_len"] * domains)


def retained(frame: pd.DataFrame) -> pd.DataFrame:
    """Retention of each run of a tidy frame: its options with `capability`, `source` and `value`."""
    import pandas as pd

    options = [name for name in frame.columns if name not in (*MEASURED, "metric")]
    retained_rows = []
    for _, rows in frame.groupby("run_id", sort=False):
        pairs: dict[str, Pair] = {}
        measures: dict[str, dict[str, Accuracy]] = {}
        for row in rows[~rows["name"].isin(["mean", "average"])].to_dict("records"):
            name, metric, sides = row["name"], row["metric"], {key: row[key] for key in ("dense", "pruned")}
            if metric == "perplexity":
                pairs[name] = Pair(**sides)
            elif metric.startswith("acc"):
                accuracy = Accuracy(**sides, delta=row["delta"], standard_error=math.inf)
                measures.setdefault(name, {})[metric] = accuracy
        tasks = {name: TaskRow.model_validate(measure) for name, measure in measures.items()}
        common = rows.iloc[0][options].to_dict()
        retained_rows += [
            {**common, "capability": each.capability, "source": each.source, "value": each.value}
            for each in retention_of(pairs, tasks)
        ]
    return pd.DataFrame(retained_rows)


def mixture_label(mixture: Mapping[str, float], domains: Sequence[str] = EMBEDDED_DOMAINS) -> str:
    """A mixture in a few words: `wiki`, `wiki + code`, its shares, or `mixed` for all domains alike."""
    if len(mixture) == 1:
        return next(iter(mixture))
    if max(mixture.values()) - min(mixture.values()) < 1e-9:
        return "mixed" if set(mixture) == set(domains) else " + ".join(mixture)
    return ", ".join(f"{name} {share:.2g}" for name, share in mixture.items())


def rise(frame: pd.DataFrame, of: str = "mean") -> pd.DataFrame:
    """Rows of one measure with the `value` that figures show.

    It is the divergence from the dense model, the rise of the log-perplexity over it, the pruned model's
    accuracy in percent, or its bits per byte.

    Args:
        frame: rows of one measure of the tidy frame.
        of: `mean` over domains or tasks, `each` of them, or the name of one.
    """
    import numpy as np

    metric = frame["metric"].iloc[0]
    total = "average" if metric.startswith("acc") else "mean"
    if of == "mean" and metric == "bits_per_byte":  # its table has no row of the mean
        keys = [column for column in frame.columns if column not in MEASURED]
        rows = frame.groupby(keys, dropna=False, as_index=False)[["dense", "pruned"]].mean()
    elif of == "each":
        rows = frame[frame["name"] != total].copy()
    else:
        rows = frame[frame["name"] == (total if of == "mean" else of)].copy()
    if metric == "perplexity":
        return rows.assign(value=np.log(rows["pruned"] / rows["dense"]))
    return rows.assign(value=rows["pruned"] * (100 if metric.startswith("acc") else 1))


def axis_title(metric: str, of: str = "mean", limits: Sequence[int] = ()) -> str:
    """Title of an axis of `rise`, with the item limits of the runs."""
    whose = {"mean": "mean ", "each": ""}.get(of, f"{of} ")
    if metric == "divergence":
        return f"{whose}{DIVERGENCE[0].lower()}{DIVERGENCE[1:]}"
    if metric == "perplexity":
        return f"rise of the {whose}log-perplexity"
    if metric == "bits_per_byte":
        return f"{whose}bits per byte"
    first = f" (first {', '.join(map(str, limits))} items)" if limits else ""
    return f"{'average ' if of == 'mean' else whose}{metric}, %{first}"


def item_limits(frame: pd.DataFrame) -> list[int]:
    """Item limits in a tidy frame, ascending."""
    return sorted({int(value) for value in frame["limit"].dropna()}) if "limit" in frame else []
