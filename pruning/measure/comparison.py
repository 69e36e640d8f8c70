"""Measures of a dense and a pruned model side by side, as they are kept: typed, and read without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pruning.measure.significance import interval


class Record(BaseModel):
    """A record on disk; what a later version adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _infinite(value: Any) -> Any:
    """JSON knows no infinity: null stands for a number that overflowed, or an error that is not known."""
    return math.inf if value is None else value


def mean_perplexity(values: Mapping[str, float]) -> float:
    """The geometric mean over domains: every domain counts alike, however long its text."""
    return math.exp(math.fsum(math.log(value) for value in values.values()) / len(values))


Number = Annotated[float, BeforeValidator(_infinite)]


class Pair(Record):
    """One measure of both models, positive, infinite where it overflowed."""

    dense: Number = Field(gt=0)
    pruned: Number = Field(gt=0)

    @property
    def ratio(self) -> float:
        """Pruned over dense; infinite where either overflowed."""
        return self.pruned / self.dense if math.isfinite(self.dense) and self.dense else math.inf


class KnownPair(Record):
    """One measure of both models, None where it is not known."""

    dense: float | None = None
    pruned: float | None = None


class Accuracy(Record):
    """One accuracy of both models, between 0 and 1, on the same items.

    Attributes:
        dense_stderr, pruned_stderr: standard errors; None where they were not kept.
        delta: pruned minus dense.
        standard_error: of the paired difference; infinite where one item was asked.
        p_value: how likely so large a difference is by chance; None where it was not computed.
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
        items: how many were asked.
        limit: only the first so many of more were asked; None for all.
        version: of the task and of the harness.
        digest: names what was asked and how it was scored; empty in runs of earlier versions.
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
        """By name of the measure."""
        found = {"acc": self.acc, "acc_norm": self.acc_norm}
        return {name: value for name, value in found.items() if value is not None}

    def measure(self, metric: str = "acc") -> tuple[str, Accuracy]:
        """A measure, or the one that the task has instead, and which it is."""
        name = metric if metric in self.measures else next(iter(self.measures))
        return name, self.measures[name]


class ZeroShot(Record):
    """Both models on all tasks of a run.

    Attributes:
        tasks: by name.
        average: the plain mean over tasks, as in the paper, with the items of all and the limit of any. A
            task enters the average of a measure that it lacks with the one that it has.
    """

    tasks: dict[str, TaskRow]
    average: TaskRow
