"""Measures of a dense and a pruned model side by side: records that are stored, and read without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pruning.measure.significance import interval, standard_error


class Record(BaseModel):
    """Base class of records on disk; fields that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _infinite(value: Any) -> Any:
    """Read null as infinity, which JSON cannot hold: a number that overflowed, or an unknown error."""
    return math.inf if value is None else value


def mean_perplexity(values: Mapping[str, float]) -> float:
    """Geometric mean over domains: every domain counts alike, however long its text."""
    return math.exp(math.fsum(math.log(value) for value in values.values()) / len(values))


Measure = Literal["divergence", "perplexity"]
Number = Annotated[float, BeforeValidator(_infinite)]


class Rise(Record):
    """Rise of the loss, or of the divergence from the dense model, on the same text, paired by block.

    Attributes:
        value: mean rise in nats per token over blocks, and over domains if there are several.
        standard_error: standard error of the paired difference; infinite if a domain has one block.
        blocks: number of blocks that were compared in a domain, the smallest of all domains.
        degrees: degrees of freedom of the error, by Welch and Satterthwaite if there are several domains.
    """

    value: Number
    standard_error: Number
    blocks: int
    degrees: Number

    @classmethod
    def between(cls, domains: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Rise | None:
        """The rise from one model to another; None if blocks were not recorded or differ in number.

        Args:
            domains: for each domain, nats per token of every block under both models.
        """
        if not all(len(before) == len(after) for before, after in domains):
            return None
        return cls.over([[b - a for a, b in zip(*blocks, strict=True)] for blocks in domains])

    @classmethod
    def over(cls, rises: Sequence[Sequence[float]]) -> Rise | None:
        """The mean of the rises of every block, by domain; None if blocks were not recorded."""
        if not rises or not all(rises):
            return None
        errors = [standard_error(rise) for rise in rises]
        spread, degrees = math.hypot(*errors), math.inf
        if 0 < spread < math.inf:
            parts = (error**4 / (len(rise) - 1) for error, rise in zip(errors, rises, strict=True))
            degrees = spread**4 / math.fsum(parts)
        return cls(
            value=math.fsum(math.fsum(rise) / len(rise) for rise in rises) / len(rises),
            standard_error=spread / len(rises),
            blocks=min(map(len, rises)),
            degrees=degrees,
        )

    @classmethod
    def by_domain(cls, rises: Mapping[str, Sequence[float]]) -> dict[str, Rise]:
        """The mean over the blocks of each domain, and over domains as `mean`; without those not recorded."""
        means = {name: cls.over([blocks]) for name, blocks in rises.items()}
        means["mean"] = cls.over([*rises.values()])
        return {name: mean for name, mean in means.items() if mean}

    @property
    def interval(self) -> float:
        """Half the width of the confidence interval over held-out text; infinite if unknown."""
        return interval(self.standard_error, self.degrees)

    @property
    def is_noise(self) -> bool:
        """Whether the confidence interval contains 0."""
        return not abs(self.value) > self.interval

    @property
    def blocks_to_tell(self) -> int | None:
        """Number of blocks of a domain that would about show a difference of this size; None if unknown."""
        if not (math.isfinite(self.interval) and self.value):
            return None
        return math.ceil(self.blocks * (self.interval / self.value) ** 2)

    def text(self, measure: Measure) -> str:
        """The rise in nats, or the change of the perplexity, with its interval; or `within noise`."""
        if math.isinf(self.interval):
            return "unknown from one block"
        if self.is_noise:
            needed = self.blocks_to_tell
            return f"within noise{f' (about {needed:,} blocks would tell)' if needed else ''}"
        if measure == "divergence":
            low, high = self.value - self.interval, self.value + self.interval
            return f"{self.value:+.3f} ({low:+.3f} to {high:+.3f})"
        low, high = (100 * (end - 1) for end in self.range)
        return f"{100 * (_exp(self.value) - 1):+.1f}% ({low:+.1f} to {high:+.1f})"

    @property
    def range(self) -> tuple[float, float]:
        """Confidence interval of the ratio of the perplexities."""
        return _exp(self.value - self.interval), _exp(self.value + self.interval)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


class Pair(Record):
    """One positive measure of both models, infinite if it overflowed.

    Attributes:
        dense, pruned: the measure of each model.
        rise: rise of the logarithm of a perplexity, with its error; None if blocks were not recorded.
    """

    dense: Number = Field(gt=0)
    pruned: Number = Field(gt=0)
    rise: Rise | None = None

    @property
    def change(self) -> str:
        """Pruned over dense with its interval over held-out text; a tilde where it may be noise."""
        if math.isinf(self.ratio):
            return "-"
        if self.rise is None or math.isinf(self.rise.interval):
            return f"{self.ratio:.2f}x"
        low, high = self.rise.range
        return f"{self.ratio:.2f}x ({low:.2f} to {high:.2f}){' ~' if self.rise.is_noise else ''}"

    @property
    def ratio(self) -> float:
        """Pruned over dense; infinite if either overflowed."""
        return self.pruned / self.dense if math.isfinite(self.dense) and self.dense else math.inf


class KnownPair(Record):
    """One measure of both models, None if unknown."""

    dense: float | None = None
    pruned: float | None = None


class Accuracy(Record):
    """One accuracy of both models, between 0 and 1, on the same items.

    Attributes:
        dense_stderr, pruned_stderr: standard errors of each accuracy; None if they were not recorded.
        delta: pruned minus dense.
        standard_error: standard error of the paired difference; infinite for a single item.
        p_value: probability of so large a difference by chance; None if it was not computed.
        significant: whether the difference is more than noise, at `significance.LEVEL`.
    """

    dense: float
    pruned: float
    delta: float
    standard_error: Number
    dense_stderr: float | None = None
    pruned_stderr: float | None = None
    p_value: float | None = None
    significant: bool = False

    @property
    def interval(self) -> float:
        """Half the width of the confidence interval of the difference."""
        return interval(self.standard_error)


class TaskRow(Record):
    """Both models on one task, or on the average of tasks.

    Attributes:
        items: number of items that were asked.
        limit: `items` if these were only the first of more; None if they were all.
        version: versions of the task and of the harness.
        digest: hash of what was asked and how it was scored; empty in runs of earlier versions.
        acc, acc_norm: the measures that the task has.
    """

    items: int | None = None
    limit: int | None = None
    version: str | None = None
    digest: str = ""
    acc: Accuracy | None = None
    acc_norm: Accuracy | None = None

    @property
    def measures(self) -> dict[str, Accuracy]:
        """The accuracies that the task has, by name."""
        accuracies = {"acc": self.acc, "acc_norm": self.acc_norm}
        return {name: value for name, value in accuracies.items() if value is not None}

    def measure(self, metric: str = "acc") -> tuple[str, Accuracy]:
        """Name and value of a measure, or of the one that the task has instead."""
        name = metric if metric in self.measures else next(iter(self.measures))
        return name, self.measures[name]


class ZeroShot(Record):
    """Both models on all tasks of a run.

    Attributes:
        tasks: results by name of the task.
        average: the plain mean over tasks, as in the paper, with the items of all and the limit of any. A
            task enters the average of a measure that it lacks with the one that it has.
    """

    tasks: dict[str, TaskRow]
    average: TaskRow
