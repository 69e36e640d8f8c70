"""What a run writes down of itself, as schemas: whatever else a file holds is damage, never a traceback."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from pruning.formatting import items_text, number
from pruning.measure.comparison import KnownPair, Number, Pair, Record, TaskRow, ZeroShot
from pruning.models.geometry import Geometry

Count = Annotated[int, Field(ge=0, lt=2**63)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Pid = Annotated[int, Field(ge=1, lt=2**31)]
Seconds = Annotated[float, Field(ge=0, lt=1e12)]  # since the epoch, or of work


class StoredConfig(Record):
    """`config.json`: the options of a run, and the versions of what ran."""

    config: dict[str, Any]
    versions: dict[str, str] = {}


class TextPart(Record):
    """One part of a domain's text: what names its documents and the blocks of token ids cut from them."""

    documents: str
    digest: str
    blocks: Count
    tokens: Count
    split: str = ""
    revision: str | None = None


class DomainSource(BaseModel):
    """A domain's text: what `describe_source` reads, and what the domain serves."""

    model_config = ConfigDict(frozen=True, extra="allow")

    calibration: TextPart | None = None
    heldout: TextPart | None = None

    @property
    def parts(self) -> dict[str, TextPart]:
        """What it serves, by name."""
        found = {"calibration": self.calibration, "heldout": self.heldout}
        return {name: part for name, part in found.items() if part is not None}


class Sources(RootModel[dict[str, DomainSource]]):
    """`sources.json`: by domain where its text came from and what it serves; see `blocks.describe_blocks`."""


class Inputs(Record):
    """`inputs.json`: what a run computes on, by names of the content; see `runs/inputs.py`.

    Attributes:
        weights: of the dense model.
        tokenizer: its files, chat templates with them.
        dtype: of the weights in memory, as torch names it.
        text: by domain, and within it `calibration` and `heldout`.
        tasks: by name what was asked and how it was scored.
    """

    weights: str
    tokenizer: str
    dtype: str
    text: dict[str, dict[str, TextPart]]
    tasks: dict[str, str] = {}


class Computation(Record):
    """What computed an iteration: the type of device, the dtype of the weights, and `versions`."""

    device: str
    dtype: str
    versions: dict[str, str] = {}

    def plain(self) -> dict[str, str]:
        """All of it by name."""
        return {"device": self.device, "dtype": self.dtype, **self.versions}


class StoredGeometry(Record):
    """`geometry.json`: shapes of the dense model as `Geometry` has them, or as version 0.2 had."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _check(self) -> StoredGeometry:
        try:
            _ = self.geometry
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no geometry: {error}") from None
        return self

    @property
    def geometry(self) -> Geometry:
        """The same as the engine has it."""
        return Geometry.from_dict(self.model_dump())


class TextMeasure(Record):
    """One model on the held-out text of one domain; see `perplexity.Perplexity`."""

    nll: Number
    tokens: Count
    seq_len: Count
    value: Number = Field(gt=0)
    bytes: Count = 0
    bits_per_byte: float | None = None
    blocks: tuple[Number, ...] = ()

    @property
    def losses(self) -> list[float]:
        """Nats a token of each block; empty in runs of earlier versions."""
        return [loss / (self.seq_len - 1) for loss in self.blocks]


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
        layers: widths of the model, which version 0.2 wrote and nothing reads.
        seconds: that it took.
        repairs: by site, where least squares was tried on tokens held out.
        files: checksums of the other files in its folder, by name; empty in runs of earlier versions.
        weights: names the dense model's weights; empty in runs of earlier versions.
        computed: by what; None in runs of earlier versions.
        mixture: by which the statistics were fused, where it is not the config's.
        rises: by domain the rise of the log-perplexity on text set aside, which moved the mixture.
    """

    number: int = Field(ge=0, le=999)
    target_ratio: Ratio
    ratio: Ratio
    parameters: Count
    perplexity: dict[str, TextMeasure]
    layers: tuple[dict[str, int], ...] = ()
    seconds: Seconds
    repairs: dict[str, Repaired] = {}
    files: dict[Annotated[str, Field(pattern=r"^[^/\\]{1,255}$")], str] = {}
    weights: str = ""
    computed: Computation | None = None
    mixture: dict[str, float] = {}
    rises: dict[str, Number] = {}


class Sizes(Record):
    """Parameters of both models."""

    dense: int = Field(ge=1, lt=2**63)
    pruned: Count


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
        weights: names the dense model's weights.
        heldout: names the blocks of tokens that the perplexities are of, by domain.
        device, dtype: that computed, several where the run was resumed elsewhere. Earlier versions recorded
            none of these four.
        notes: what to know of the numbers, in sentences.
    """

    run_id: str
    config: dict[str, Any]
    achieved_ratio: Ratio
    parameters: Sizes
    perplexity: dict[str, Pair]
    bits_per_byte: dict[str, KnownPair] = {}
    tokens: dict[str, Count] = {}
    iterations: tuple[Metrics, ...] = ()
    seconds: Seconds
    zero_shot: ZeroShot | None = None
    weights: str = ""
    heldout: dict[str, str] = {}
    device: str = ""
    dtype: str = ""
    notes: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Every measure in words: its name, dense, pruned, and the change."""
        size = self.parameters
        found = [
            ("parameters", f"{size.dense:,}", f"{size.pruned:,}", f"{size.pruned / size.dense - 1:+.1%}")
        ]
        for name, pair in self.perplexity.items():
            change = pair.change if math.isfinite(pair.ratio) else "-"
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


State = Literal[
    "queued",
    "starting",
    "running",
    "cancelling",
    "cancelled",
    "failed",
    "finished",
    "dead",
    "stalled",
    "damaged",
]


class Command(Record):
    """`command.json` of a job: what was started, and its process."""

    arguments: tuple[str, ...]
    pid: Pid
    pid_created: Seconds | None = None
    started: Seconds


class Status(Record):
    """Where a run stands.

    Attributes:
        state: as written, or as the reader finds: `dead` where the process ended without a word, `stalled`
            where it has been silent, `damaged` where a finished run lacks what it came to.
        message: why it failed.
        pid, pid_created: of its process.
        heartbeat, created, started, finished: seconds since the epoch.
        device: where it computes.
        ahead, waiting_for: how many runs come first on the device, and their ids.
        iteration, iterations: complete, and in all.
        stage, detail, done, total, current: what it is doing, and in which iteration.
        per_second, unit, eta: how fast, in what, and seconds left.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: State
    message: str = ""
    pid: Pid | None = None
    pid_created: Seconds | None = None
    heartbeat: Seconds = 0.0
    created: Seconds = 0.0
    started: Seconds | None = None
    finished: Seconds | None = None
    device: str | None = None
    ahead: Count = 0
    waiting_for: tuple[str, ...] = ()
    iteration: Count | None = None
    iterations: Count | None = None
    stage: str = "loading"
    detail: str = ""
    done: Count = 0
    total: Count = 0
    current: Count = 0
    per_second: Seconds | None = None
    unit: str = "tokens"
    eta: Seconds | None = None
    seconds: Seconds | None = None
