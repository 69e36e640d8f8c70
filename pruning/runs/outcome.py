"""What a run writes down of itself: `metrics.json` of an iteration, `results.json`, `status.json`."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from pruning.measure.comparison import KnownPair, Number, Pair, Record, ZeroShot
from pruning.models.geometry import LayerShape


class TextMeasure(Record):
    """One model on the held-out text of one domain; see `perplexity.Perplexity`."""

    nll: Number
    tokens: int
    seq_len: int
    value: Number
    bytes: int = 0
    bits_per_byte: float | None = None


class Metrics(Record):
    """The numbers of an iteration.

    Attributes:
        number: 0 for the dense model.
        target_ratio, ratio: to reach in it, and achieved.
        parameters: of the model after it.
        perplexity: by domain, of the model after it.
        layers: widths of the model after it.
        seconds: that it took.
    """

    number: int
    target_ratio: float
    ratio: float
    parameters: int
    perplexity: dict[str, TextMeasure]
    layers: tuple[LayerShape, ...] = ()
    seconds: float


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

    @property
    def mean(self) -> Pair | None:
        """The geometric mean of the perplexities; None where none was measured."""
        return self.perplexity.get("mean")


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
