"""What a run writes down of itself: `metrics.json` of an iteration, `results.json`, `status.json`."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ConfigDict

from pruning.measure.comparison import KnownPair, Number, Pair, Record, TaskRow, ZeroShot
from pruning.models.geometry import LayerShape
from pruning.words import items_text, number


class TextMeasure(Record):
    """One model on the held-out text of one domain; see `perplexity.Perplexity`."""

    nll: Number
    tokens: int
    seq_len: int
    value: Number
    bytes: int = 0
    bits_per_byte: float | None = None


class Repaired(Record):
    """How least squares was judged at a site; see `compensation.Repair`."""

    ridge: float | None = None
    error: dict[str, Number]


class Metrics(Record):
    """The numbers of an iteration.

    Attributes:
        number: 0 for the dense model.
        target_ratio, ratio: to reach in it, and achieved.
        parameters: of the model after it.
        perplexity: by domain, of the model after it.
        layers: widths of the model after it.
        seconds: that it took.
        repairs: by site, where least squares was tried on tokens held out.
    """

    number: int
    target_ratio: float
    ratio: float
    parameters: int
    perplexity: dict[str, TextMeasure]
    layers: tuple[LayerShape, ...] = ()
    seconds: float
    repairs: dict[str, Repaired] = {}


class Sizes(Record):
    """Parameters of both models."""

    dense: int
    pruned: int


class Results(Record):
    """What came of a run.

    Attributes:
        config: the run's, as JSON.
        achieved_ratio: share of the layers' linear parameters that were removed.
        perplexity: by domain, and their geometric mean as `mean`.
        bits_per_byte: by domain.
        tokens: predicted, by domain.
        iterations: without the dense model.
        seconds: of the whole run.
        zero_shot: where tasks were asked.
    """

    run_id: str
    config: dict[str, Any]
    achieved_ratio: float
    parameters: Sizes
    perplexity: dict[str, Pair]
    bits_per_byte: dict[str, KnownPair] = {}
    tokens: dict[str, int] = {}
    iterations: tuple[Metrics, ...] = ()
    seconds: float
    zero_shot: ZeroShot | None = None

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Every measure in words: its name, dense, pruned, and the change."""
        size = self.parameters
        found = [
            ("parameters", f"{size.dense:,}", f"{size.pruned:,}", f"{size.pruned / size.dense - 1:+.1%}")
        ]
        for name, pair in self.perplexity.items():
            change = f"x {pair.ratio:.2f}" if math.isfinite(pair.ratio) else "-"
            found.append((f"perplexity {name}", number(pair.dense), number(pair.pruned), change))
        if asked := self.zero_shot:
            for name, row in {**asked.tasks, "average of tasks": asked.average}.items():
                found.append(_accuracy_row(name, row))
        return found

    @property
    def mean(self) -> Pair | None:
        """The geometric mean of the perplexities; None where none was measured."""
        return self.perplexity.get("mean")


def _accuracy_row(name: str, row: TaskRow) -> tuple[str, str, str, str]:
    """Accuracies and the paired difference in points; a tilde where it may be noise."""
    metric, found = row.measure()
    named = name if metric == "acc" else f"{name}, {metric}"
    if row.limit or not name.startswith("average"):
        named += f" ({items_text(row.items, row.limit)})"
    spread = "unknown" if math.isinf(found.interval) else f"{100 * found.interval:.1f}"
    change = f"{100 * found.delta:+.1f} ± {spread}{'' if found.significant else ' ~'}"
    return named, f"{100 * found.dense:.1f}%", f"{100 * found.pruned:.1f}%", change


class Status(Record):
    """Where a run stands.

    Attributes:
        state: queued, starting, running, cancelling, cancelled, failed, finished; as the reader finds, `dead`
            where the process ended without a word and `stalled` where it has been silent.
        message: why it failed.
        pid, pid_created: of its process.
        heartbeat, created, started, finished: seconds since the epoch.
        device: where it computes.
        ahead: runs that come first on the device.
        iteration, iterations: complete, and in all.
        stage, detail, done, total, current: what it is doing, and in which iteration.
        per_second, unit, eta: how fast, in what, and seconds left.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: str
    message: str = ""
    pid: int | None = None
    pid_created: float | None = None
    heartbeat: float = 0.0
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    device: str | None = None
    ahead: int = 0
    iteration: int | None = None
    iterations: int | None = None
    stage: str = "loading"
    detail: str = ""
    done: int = 0
    total: int = 0
    current: int = 0
    per_second: float | None = None
    unit: str = "tokens"
    eta: float | None = None
    seconds: float | None = None
