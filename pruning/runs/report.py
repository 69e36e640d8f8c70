"""What runs came to: results, comparable runs, retention by capability, tidy tables. Needs no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.checksums import finite
from pruning.formatting import quoted
from pruning.measure.comparison import Accuracy, Pair, Rise, TaskRow
from pruning.measure.significance import quantile
from pruning.method.damage import foretell
from pruning.models.delta import Delta
from pruning.models.mask import Mask
from pruning.runs.run import ACTIVE, Run, dense_iteration
from pruning.runs.schema import DomainSource, Results
from pruning.text.sources import EMBEDDED_DOMAINS

if TYPE_CHECKING:
    import pandas as pd

    from pruning.models.folder import LoadedModel

# What a domain's text and a task ask of a model. Texts and tasks that are not named here form groups of
# their own.
CAPABILITIES: dict[str, tuple[str, ...]] = {
    "prose": ("wiki", "web", "prunescope_wiki", "prunescope_web", "prunescope_agreement"),
    "code": ("code", "prunescope_code"),
    "mathematics": ("math", "prunescope_arithmetic"),
    "questions": ("prunescope_answers", "arc_challenge", "arc_easy", "openbookqa", "boolq"),
    "common sense": ("hellaswag", "piqa", "winogrande"),
}
# Accuracy of guessing: one over the number of choices of a task's items.
CHANCE = {
    **dict.fromkeys(
        (f"prunescope_{name}" for name in ("wiki", "web", "code", "arithmetic", "answers")), 0.25
    ),
    **dict.fromkeys(("arc_challenge", "arc_easy", "hellaswag", "openbookqa"), 0.25),
    **dict.fromkeys(("prunescope_agreement", "piqa", "winogrande", "boolq"), 0.5),
}
# Columns of the tidy table that say what was measured; the others say what decided it.
MEASURED = ("name", "dense", "pruned", "delta", "standard_error", "p_value", "significant", "items", "limit")
OPTIONS = ("model", "method", "ratio", "iterations", "samples", "seq_len", "seed")


@dataclass(frozen=True)
class Retained:
    """What is left of a capability.

    Attributes:
        capability: its name.
        source: `text` (perplexity) or `tasks` (accuracy).
        value: pruned over dense so that 1 is no loss: the geometric mean over domains of dense over pruned
            perplexity, or the mean over tasks of pruned over dense accuracy.
        standard_error: of the tasks' mean, of the ratio with its pairing; None for text, and where it is not
            known.
        of: what it is the mean of.
        limit: only the first so many items of a task were asked; None for all.
    """

    capability: str
    source: str
    value: float
    standard_error: float | None
    of: tuple[str, ...]
    limit: int | None = None


def capability(name: str) -> str:
    """The group that a domain or a task belongs to; its own name where none is known."""
    return next((group for group, names in CAPABILITIES.items() if name in names), name)


def retention(results: Results) -> list[Retained]:
    """What is left of each capability after a run."""
    tasks = results.zero_shot.tasks if results.zero_shot else {}
    return retention_of(results.perplexity, tasks)


def retention_of(perplexity: Mapping[str, Pair], answers: Mapping[str, TaskRow]) -> list[Retained]:
    """What is left of each capability, from perplexities by domain and answers by task."""
    texts: dict[str, dict[str, float]] = {}
    for name, pair in perplexity.items():
        if name != "mean" and math.isfinite(pair.ratio):
            texts.setdefault(capability(name), {})[name] = 1 / pair.ratio
    tasks: dict[str, dict[str, tuple[TaskRow, Accuracy]]] = {}
    for name, row in answers.items():
        if (found := row.measure()[1]).dense:
            tasks.setdefault(capability(name), {})[name] = row, found
    kept = []
    for group in dict.fromkeys([*CAPABILITIES, *texts, *tasks]):
        if values := texts.get(group):
            mean = math.exp(math.fsum(math.log(v) for v in values.values()) / len(values))
            kept.append(Retained(group, "text", mean, None, tuple(values)))
        if rows := tasks.get(group):
            mean = math.fsum(found.pruned / found.dense for _, found in rows.values()) / len(rows)
            errors = [_ratio_error(found) for _, found in rows.values()]
            known = [error for error in errors if error is not None]
            error = math.hypot(*known) / len(rows) if len(known) == len(rows) else None
            limit = max((row.limit or 0 for row, _ in rows.values()), default=0) or None
            kept.append(Retained(group, "tasks", mean, error, tuple(rows), limit))
    return kept


def _ratio_error(row: Accuracy) -> float | None:
    """Standard error of pruned over dense accuracy; both are of the same items, so they vary together."""
    if row.dense_stderr is None or row.pruned_stderr is None or math.isinf(row.standard_error):
        return None
    dense, pruned, change = row.dense_stderr**2, row.pruned_stderr**2, row.standard_error**2
    ratio, covariance = row.pruned / row.dense, (dense + pruned - change) / 2
    return math.sqrt(max(pruned + ratio**2 * dense - 2 * ratio * covariance, 0.0)) / row.dense


# --- the tidy table --------------------------------------------------------------------------------------
def tidy(run: Run, options: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A finished run as rows of one measure each: `metric`, `name`, `dense`, `pruned`, what decided it.

    Args:
        run: finished.
        options: of its config that the rows tell beside those in `OPTIONS`.
    """
    results, config = run.results(), run.config
    assert results is not None
    named = dict.fromkeys((*OPTIONS, *options))
    common = {
        "run_id": run.id,
        **{name: _plain(getattr(config, name)) for name in named},
        "mixture": mixture_label(config.mixture, config.measured_domains),
        **{f"share_{name}": config.mixture.get(name, 0.0) for name in config.measured_domains},
        "achieved_ratio": results.achieved_ratio,
        "seconds": results.seconds,
    }
    rows: list[dict[str, Any]] = []
    for metric, pairs in (("perplexity", results.perplexity), ("bits_per_byte", results.bits_per_byte)):
        rows += [
            {**common, "metric": metric, "name": name, **finite(p.model_dump(include={"dense", "pruned"}))}
            for name, p in pairs.items()
        ]
    asked = results.zero_shot
    for name, row in {**asked.tasks, "average": asked.average}.items() if asked else ():
        for metric, found in row.measures.items():
            value = finite(found.model_dump(include=set(MEASURED)))
            counts = {"items": row.items, "limit": row.limit}
            rows.append({**common, "metric": metric, "name": name, **value, **counts})
    return rows


def _plain(value: Any) -> Any:
    """An option as one cell."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items()) or "none"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else value


def table(runs: Sequence[Run], options: Sequence[str] = ()) -> pd.DataFrame:
    """The tidy table of finished runs; see `tidy`."""
    import pandas as pd

    return completed(pd.DataFrame([row for run in runs for row in tidy(run, options)]))


def completed(frame: pd.DataFrame) -> pd.DataFrame:
    """The tidy table with nothing left open that is known.

    A domain that a run did not name has no share in it, a perplexity that JSON could not hold is infinite,
    and a table without p values is judged by its standard errors. `calibration_tokens` are those of one
    iteration: what a comparison of methods should hold equal.
    """
    import numpy as np

    shares = [name for name in frame.columns if name.startswith("share_")]
    frame = frame.assign(**{name: frame[name].astype(float).fillna(0.0) for name in shares})
    for name in set(MEASURED) - set(frame.columns):
        frame[name] = np.nan
    sides = ["dense", "pruned"]
    frame[sides] = frame[sides].astype(float)
    is_text = frame["metric"] == "perplexity"
    frame.loc[is_text, sides] = frame.loc[is_text, sides].fillna(np.inf)
    judged = (frame["delta"].astype(float).abs() > quantile() * frame["standard_error"].astype(float)).astype(
        "boolean"
    )
    judged = judged.mask(frame["delta"].isna())
    frame["significant"] = frame["significant"].astype("boolean").fillna(judged)
    for name in frame.columns.difference(
        MEASURED
    ):  # an option that is a number in one run, a word in another
        if frame[name].map(type).nunique() > 1:
            frame[name] = frame[name].astype(str)
    domains = (frame[shares] > 0).sum(axis=1)
    return frame.assign(calibration_tokens=frame["samples"] * frame["seq_len"] * domains)


def retained(frame: pd.DataFrame) -> pd.DataFrame:
    """What each run of a tidy table kept: its rows' options with `capability`, `source` and `value`."""
    import pandas as pd

    decided = [name for name in frame.columns if name not in (*MEASURED, "metric")]
    found = []
    for _, rows in frame.groupby("run_id", sort=False):
        single = rows[~rows["name"].isin(["mean", "average"])]
        texts = single[single["metric"] == "perplexity"].to_dict("records")
        pairs = {row["name"]: Pair(dense=row["dense"], pruned=row["pruned"]) for row in texts}
        measures: dict[str, dict[str, Accuracy]] = {}
        for row in single[single["metric"].str.startswith("acc")].to_dict("records"):
            measures.setdefault(row["name"], {})[row["metric"]] = Accuracy(
                dense=row["dense"], pruned=row["pruned"], delta=row["delta"], standard_error=math.inf
            )
        tasks = {name: TaskRow.model_validate(found) for name, found in measures.items()}
        common = rows.iloc[0][decided].to_dict()
        found += [
            {**common, "capability": kept.capability, "source": kept.source, "value": kept.value}
            for kept in retention_of(pairs, tasks)
        ]
    return pd.DataFrame(found)


def mixture_label(mixture: Mapping[str, float], known: Sequence[str] = EMBEDDED_DOMAINS) -> str:
    """A mixture in a few words: `wiki`, `wiki + code`, its shares, or `mixed` for equal ones of all known."""
    if len(mixture) == 1:
        return next(iter(mixture))
    if max(mixture.values()) - min(mixture.values()) < 1e-9:
        return "mixed" if set(mixture) == set(known) else " + ".join(mixture)
    return ", ".join(f"{name} {share:.2g}" for name, share in mixture.items())


def rise(frame: pd.DataFrame, of: str = "mean") -> pd.DataFrame:
    """Rows of one measure with `value`: what the figures show.

    For perplexity the rise of the log-perplexity over the dense model, for accuracy the pruned model's in
    percent, for bits per byte the pruned model's.

    Args:
        frame: rows of one measure of the tidy table.
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
    """What `rise` measures, in words, with the limits of items that the runs had."""
    whose = {"mean": "mean ", "each": ""}.get(of, f"{of} ")
    if metric == "perplexity":
        return f"rise of the {whose}log-perplexity"
    if metric == "bits_per_byte":
        return f"{whose}bits per byte"
    first = f" (first {', '.join(map(str, limits))} items)" if limits else ""
    return f"{'average ' if of == 'mean' else whose}{metric}, %{first}"


def item_limits(frame: pd.DataFrame) -> list[int]:
    """The limits that the rows of a tidy table were measured with."""
    return sorted({int(value) for value in frame["limit"].dropna()}) if "limit" in frame else []


def domain_use(source: DomainSource) -> str:
    """What the text of a domain serves in a run; earlier versions recorded calibration text only."""
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
    """What text a run is calibrated and measured on, what computed it, and what to know of its numbers."""
    lines = [
        f"domain {domain}: {quoted(run.config.domains.get(domain, 'embedded'))}, {domain_use(source)}"
        for domain, source in run.sources.items()
    ]
    if (results := run.results()) and results.dtype:
        lines.append(f"computed in {results.dtype} on {results.device}")
    return [*lines, *(results.notes if results else ())]


SAME = 1e-4  # relative difference of dense perplexities that are of the same model and text, about


@dataclass(frozen=True)
class MeasuredRun:
    """A run with what it was measured by."""

    run: Run
    results: Results

    @property
    def perplexity(self) -> dict[str, Pair]:
        """By domain, without their mean."""
        return {name: pair for name, pair in self.results.perplexity.items() if name != "mean"}

    @property
    def weights(self) -> str:
        """Names the dense model's weights; empty where that was not recorded."""
        return self.results.weights or next((it.weights for it in self.results.iterations if it.weights), "")

    @property
    def dtype(self) -> str:
        """Of the weights while measuring; of an earlier version's run what its config says."""
        return self.results.dtype or self.run.config.dtype

    @property
    def mean(self) -> float:
        """Perplexity after pruning, over the domains."""
        return self.results.mean.pruned if self.results.mean else math.inf

    def rise(self, other: MeasuredRun) -> Rise | None:
        """How much more it loses than another run of its group; None where the blocks were not kept."""
        last = [results.iterations[-1].perplexity for results in (other.results, self.results)]
        before, after = last
        return Rise.between([(before[name].losses, after[name].losses) for name in self.perplexity])

    def comparable(self, other: MeasuredRun) -> bool:
        """Whether both measure the same dense model on the same blocks.

        Of an earlier version's run neither weights nor text are recorded: it is recognised by its model's
        name, and by the dense perplexities.
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
        pairs = [(pair.dense, other.perplexity[name].dense) for name, pair in self.perplexity.items()]
        return all(a == b or math.isclose(a, b, rel_tol=SAME) for a, b in pairs)


@dataclass(frozen=True)
class Group:
    """Runs that can be compared, the best first.

    Attributes:
        members: sorted by their perplexity after pruning.
        suffix: what tells it from another group whose heading would be the same.
    """

    members: tuple[MeasuredRun, ...]
    suffix: str = ""

    @cached_property
    def newest(self) -> MeasuredRun:
        """The run that was made last: its config gives the names."""
        return max(self.members, key=lambda member: (bool(member.results.heldout), member.run.id))

    @property
    def model(self) -> str:
        """Short name of the dense model."""
        return Path(self.newest.run.config.model).name

    @property
    def blocks(self) -> dict[str, int]:
        """Held-out blocks by domain."""
        predicted = self.newest.run.config.seq_len - 1  # of each block; its first token has no context
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
        return (
            f"{self.model}, {domains}; {blocks} of {config.seq_len} tokens{each}, {self.newest.dtype}"
            f"{self.suffix}"
        )


def _file(source: str) -> str:
    """What tells a domain's text from the embedded one of that name."""
    if source == "embedded":
        return ""
    return f" ({quoted(source if source.startswith('hub:') else Path(source).name)})"


def groups(runs: Iterable[Run]) -> tuple[list[Group], dict[str, str]]:
    """Runs by what can be compared, and why others cannot be compared with any, by id.

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
    return _distinct([Group(tuple(sorted(group, key=lambda each: each.mean))) for group in grouped]), left_out


def _reason(run: Run) -> str:
    """Why a run cannot be compared, in a few words; empty where it can."""
    status, results = run.status(), run.results()
    if status.state == "damaged":
        return "damaged"
    if results is None:
        return "unfinished" if status.state not in (*ACTIVE, "stalled") else "still at work"
    return "" if results.perplexity else "without evaluation (--eval-blocks 0)"


def _distinct(grouped: Sequence[Group]) -> list[Group]:
    """The groups, with headings that differ: by what names their weights and text where words do not."""
    headings = Counter(group.heading for group in grouped)
    return [
        Group(group.members, f"; {_names(group.newest)}") if headings[group.heading] > 1 else group
        for group in grouped
    ]


def _names(member: MeasuredRun) -> str:
    text = ", ".join(f"{name} {digest[:6]}" for name, digest in member.results.heldout.items())
    return f"weights {member.weights[:6] or 'not recorded'}, text {text or 'not recorded'}"


def count_reasons(left_out: dict[str, str]) -> str:
    """How many runs are left out and why, in a few words."""
    return ", ".join(f"{count} {why}" for why, count in Counter(left_out.values()).items())


def foretold(run: Run) -> dict[str, float]:
    """By domain what a run's own curves foretold of its final mask; empty where none were measured."""
    curves = dense_iteration(run).curves
    return foretell(curves, run.iterations()[-1].mask) if curves else {}


@dataclass(frozen=True, repr=False)
class Result:
    """A finished run, with the pruned model in memory.

    Attributes:
        run: its folder.
        loaded: the pruned model and its tokenizer.
        delta: what separates it from the dense model.
        summary: what came of it.
    """

    run: Run
    loaded: LoadedModel
    delta: Delta
    summary: Results

    def __repr__(self) -> str:
        """What it cost, in about ten lines."""
        config, results = self.run.config, self.summary
        lines = [
            f"{config.method}, {results.achieved_ratio:.1%} of {config.model} removed in "
            f"{config.iterations} iteration{'s' * (config.iterations > 1)}, {results.seconds:.0f} s"
        ]
        rows = [("", "dense", "pruned", "change"), *results.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for name, *cells in rows:
            values = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
            lines.append("  ".join((name.ljust(widths[0]), *values)))
        return "\n".join([*lines, f"run {self.run.path}"])

    def _repr_html_(self) -> str:
        """The same as a table, for Jupyter."""
        rows = [("", "dense", "pruned", "change"), *self.summary.rows()]
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
        title = escape(repr(self).splitlines()[0])
        return f"<p>{title}</p><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"

    @property
    def mask(self) -> Mask:
        """What is retained of the dense model."""
        return self.delta.mask

    @property
    def perplexity(self) -> dict[str, Pair]:
        """By domain and `mean`, each with `dense` and `pruned`."""
        return self.summary.perplexity
