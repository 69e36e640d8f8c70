"""Records of a run as pydantic schemas: a file that does not fit its schema is corrupt, never a traceback."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from pruning.measure.comparison import KnownPair, Number, Pair, Record, Rise, ZeroShot
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
    """One part of a domain's text: digests of its documents and of the blocks of token ids cut from them."""

    documents: str
    digest: str
    blocks: Count
    tokens: Count
    split: str = ""
    revision: str | None = None


class DomainSource(BaseModel):
    """Source of a domain's text as `describe_source` reads it, and the parts of the text that a run uses."""

    model_config = ConfigDict(frozen=True, extra="allow")

    calibration: TextPart | None = None
    heldout: TextPart | None = None

    @property
    def parts(self) -> dict[str, TextPart]:
        """Parts that the run uses, by name."""
        parts = {"calibration": self.calibration, "heldout": self.heldout}
        return {name: part for name, part in parts.items() if part is not None}


class Sources(RootModel[dict[str, DomainSource]]):
    """`sources.json`: source and use of each domain's text; see `blocks.describe_blocks`."""


class Inputs(Record):
    """`inputs.json`: digests of all that a run computes on; see `runs/inputs.py`.

    Attributes:
        weights: fingerprint of the dense model.
        tokenizer: digest of the tokenizer's files, chat templates included.
        dtype: type of the weights in memory, as torch names it.
        text: parts of each domain's text, `calibration` and `heldout`.
        tasks: digest of the questions and the scoring of each task.
    """

    weights: str
    tokenizer: str
    dtype: str
    text: dict[str, dict[str, TextPart]]
    tasks: dict[str, str] = {}


class Computation(Record):
    """Type of device, dtype of the weights and library versions that computed an iteration."""

    device: str
    dtype: str
    versions: dict[str, str] = {}

    def plain(self) -> dict[str, str]:
        """Device, dtype and versions as one flat mapping."""
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

    @cached_property
    def geometry(self) -> Geometry:
        """The shapes as the engine's type."""
        return Geometry.from_dict(self.model_dump())


class TextMeasure(Record):
    """Perplexity and divergence of one model on the text of one domain; see `perplexity.Perplexity`."""

    nll: Number
    tokens: Count
    seq_len: Count
    value: Number = Field(gt=0)
    bytes: Count = 0
    bits_per_byte: float | None = None
    blocks: tuple[Number, ...] = ()
    divergence: tuple[Number, ...] = ()

    @property
    def losses(self) -> list[float]:
        """Loss of each block in nats a token; empty in runs of earlier versions."""
        return [loss / (self.seq_len - 1) for loss in self.blocks]


class Repaired(Record):
    """Ridge and held-out error of least squares at a site; see `compensation.Repair`."""

    ridge: float | None = None
    error: dict[str, Number]


class StoredChoice(Record):
    """What `normalise auto` chose, and why; see `engine.choice.Choice`."""

    name: str
    options: dict[str, str | bool | float]
    divergences: dict[str, Number]


class Metrics(Record):
    """`metrics.json`: the numbers of an iteration.

    Attributes:
        number: number of the iteration, 0 for the dense model.
        target_ratio, ratio: pruning ratio to reach, and reached.
        parameters: number of parameters after the iteration.
        perplexity: held-out perplexity, and divergence from the dense model, by domain after the iteration.
        layers: widths of the decoder layers, which version 0.2 wrote and nothing reads.
        seconds: duration.
        repairs: by site, where least squares was tried on held-out tokens.
        files: checksums of the other files in the folder, by name; empty in runs of earlier versions.
        weights: fingerprint of the dense model; empty in runs of earlier versions.
        computed: device, dtype and versions; None in runs of earlier versions.
        mixture: weights of the domains in the statistics, where they are not the config's.
        rises: by domain the rise of the log-perplexity on validation text, which moved the mixture.
        choice: of the options that `normalise auto` stands for, in the first iteration.
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
    choice: StoredChoice | None = None

    @property
    def divergence(self) -> dict[str, Rise]:
        """Divergence from the dense model by domain, and their `mean`; empty where it was not measured."""
        return Rise.by_domain({name: text.divergence for name, text in self.perplexity.items()})


class Sizes(Record):
    """Number of parameters of the dense and the pruned model."""

    dense: int = Field(ge=1, lt=2**63)
    pruned: Count


class Results(Record):
    """`results.json`: the dense model against the pruned one.

    Attributes:
        config: config of the run, as JSON.
        achieved_ratio: removed share of the layers' linear parameters.
        divergence: from the dense model by domain, in nats per token, and their `mean`; empty in runs of
            earlier versions.
        perplexity: by domain, and their geometric mean as `mean`.
        bits_per_byte: by domain.
        tokens: number of predicted tokens by domain.
        iterations: metrics of all iterations but the dense model's.
        seconds: duration of the whole run.
        zero_shot: accuracies, where the run has tasks.
        weights: fingerprint of the dense model.
        heldout: digest of the held-out token blocks by domain.
        device, dtype: where it was computed; several where the run was resumed elsewhere. Earlier versions
            recorded none of these four.
        notes: remarks on the numbers, in sentences.
    """

    run_id: str
    config: dict[str, Any]
    achieved_ratio: Ratio
    parameters: Sizes
    divergence: dict[str, Rise] = {}
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

    @property
    def mean_divergence(self) -> Rise | None:
        """The mean divergence over the domains; None where it was not measured."""
        return self.divergence.get("mean")

    @property
    def mean(self) -> Pair | None:
        """The geometric mean of the perplexities; None where none was measured."""
        return self.perplexity.get("mean")

    @property
    def domains(self) -> dict[str, Pair]:
        """The perplexities of the domains, without their mean."""
        return {name: pair for name, pair in self.perplexity.items() if name != "mean"}

    @property
    def worst(self) -> tuple[str, float] | None:
        """The domain that lost most, and its perplexity over the dense model's; None without perplexities."""
        ratios = ((name, pair.ratio) for name, pair in self.domains.items())
        return max(ratios, key=lambda item: item[1], default=None)


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
    "corrupt",
]


class Command(Record):
    """`command.json` of a job: its arguments and its process."""

    arguments: tuple[str, ...]
    pid: Pid
    pid_created: Seconds | None = None
    started: Seconds


class Status(Record):
    """`status.json`: the state and the progress of a run.

    Attributes:
        state: as written, or as the reader finds it: `dead` where the process ended without a message,
            `stalled` where it has been silent, `corrupt` where a finished run lacks results.
        message: reason of a failure.
        pid, pid_created: number and start time of the process.
        heartbeat, created, started, finished: times in seconds since the epoch.
        device: device of the computation.
        ahead, waiting_for: number and ids of the runs that come first on the device.
        iteration, iterations: complete iterations, and all.
        stage, detail, done, total, current: progress of the stage at work, and its iteration.
        per_second, unit, eta: speed, its unit, and seconds to the end.
    """

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
