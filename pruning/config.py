"""What a run is told to do: `RunConfig` and the named methods.

A `RunConfig` is validated once, frozen, written into the run as `config.json`, and is enough to repeat it:

    RunConfig(method="iterative", ratio=0.5, mixture={"wiki": 0.5, "code": 0.5})
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pruning.errors import ConfigError
from pruning.method.allocation import ALLOCATIONS
from pruning.method.compensation import COMPENSATIONS
from pruning.method.moments import Fusion
from pruning.method.normalise import NORMALISERS
from pruning.method.schedules import SCHEDULES
from pruning.method.scores import SCORES
from pruning.method.units import AttentionUnit, UnitScore
from pruning.models.loading import Dtype
from pruning.registry import Registry
from pruning.text.sources import EMBEDDED_DOMAINS

# Every method is a point in the same space of options; what a preset leaves out keeps RunConfig's default.
METHODS: Registry[dict[str, Any]] = Registry("method")
# The paper (arXiv 2601.02674): prune a little, recalibrate on all domains, prune on.
METHODS.add({}, "iterative")
# FLAP (arXiv 2312.11983), WIFV with AL-AM: one shot, one domain, z-scores, squared attention scores.
METHODS.add(
    {
        "iterations": 1,
        "normalise": "zscore",
        "square_attention": True,
        "unit_score": "mean",
        "mixture": {"wiki": 1.0},
    },
    "flap",
)
# FLAP's structured Wanda: the same ratio everywhere, no compensation, calibrated on web text (C4).
METHODS.add(
    {
        "iterations": 1,
        "score": "wanda_sp",
        "allocation": "uniform",
        "compensation": "none",
        "mixture": {"web": 1.0},
    },
    "wanda_sp",
)
for _score in ("magnitude", "random"):
    METHODS.add({"iterations": 1, "score": _score, "allocation": "uniform", "compensation": "none"}, _score)


class RunConfig(BaseModel):
    """Everything a run needs. Fields not given come from the method's preset, then from the defaults here."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), validate_default=True)

    model: str = Field("demo", description="demo, a folder, or a Hugging Face hub id")
    method: Annotated[str, METHODS] = Field("iterative", description="a preset of the options below")
    ratio: float = Field(
        0.5, ge=0, lt=1, description="share of the decoder layers' linear parameters to remove"
    )

    # Whose text decides
    mixture: dict[str, float] = Field(
        default=dict.fromkeys(EMBEDDED_DOMAINS, 1.0), description="weight of each domain, normalised to 1"
    )
    domains: dict[str, str] = Field(
        default={}, description="where a domain's text comes from: embedded, a path, or hub:NAME"
    )
    samples: int = Field(32, ge=1, description="calibration blocks of each domain")
    seq_len: int = Field(256, ge=2, description="tokens of a block")
    fusion: Fusion = Field("within", description="variance within the domains, or total (between them too)")

    # What is cut
    score: Annotated[str, SCORES] = Field("fluctuation", description="how much a channel matters")
    square_attention: bool = Field(False, description="square attention scores first, as FLAP's code does")
    normalise: Annotated[str, NORMALISERS] = Field(
        "share", description="how scores of different sites become comparable"
    )
    unit_score: UnitScore = Field(
        "per_parameter", description="from channels to a unit: damage per parameter, or mean"
    )
    allocation: Annotated[str, ALLOCATIONS] = Field(
        "global",
        description="one ranking of all units; or equal widths in all layers, the same ratio for heads and "
        "channels (uniform) or the split that loses least (equal)",
    )
    attention_unit: AttentionUnit = Field(
        "kv_group", description="a key-value head with its query heads, or a query head of each"
    )
    keep: tuple[str, ...] = Field(
        (), description="never cut: LAYER[.attn|.mlp[.FIRST-LAST]], such as 3.attn.0-1"
    )
    remove: tuple[str, ...] = Field((), description="cut first, in the same notation")
    round_to: int = Field(1, ge=1, description="retained MLP channels of a layer are a multiple of this")
    min_attention_units: int = Field(1, ge=1, description="attention units that survive in every layer")
    min_mlp_share: float = Field(
        0.02, gt=0, le=1, description="share of MLP channels that survives in every layer"
    )

    # How
    iterations: int = Field(5, ge=1, le=100, description="cuts, with fresh statistics before each")
    schedule: Annotated[str, SCHEDULES] = Field(
        "linear", description="how the ratio grows over the iterations"
    )
    compensation: Annotated[str, COMPENSATIONS] = Field(
        "bias", description="put the mean of what goes into a bias, or not"
    )

    eval_blocks: int | None = Field(
        64, ge=0, description="held-out blocks of each domain for perplexity; none for all, 0 to skip"
    )
    tasks: tuple[str, ...] = Field(
        (), description="zero-shot tasks to measure: demo, paper, or names of lm-eval"
    )
    task_data: str | None = Field(None, description="folder with local copies of the tasks' data")
    task_folder: str | None = Field(None, description="folder with more tasks, as YAML of lm-eval")
    task_limit: int | None = Field(None, ge=1, description="only the first so many items of each task")
    save_model: bool = Field(True, description="keep the pruned checkpoint in the run")
    seed: int = Field(0, ge=0, lt=2**63, description="of the sampling of text, and of the random score")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Dtype = Field("auto", description="float32 on a CPU, the checkpoint's own elsewhere")
    parent: str | None = Field(None, description="the run that this one was made from")
    experiment: str | None = Field(None, description="the experiment that this run belongs to")

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {**METHODS[METHODS.check(data.get("method", "iterative"))], **data}

    @field_validator("mixture")
    @classmethod
    def _normalise_mixture(cls, mixture: dict[str, float]) -> dict[str, float]:
        for name, weight in mixture.items():
            if not math.isfinite(weight) or weight < 0:
                raise ValueError(f"the weight of domain {name!r} is {weight}: weights are numbers from 0 up")
        total = math.fsum(mixture.values())
        if not total > 0:
            raise ValueError("all domain weights are zero: give at least one domain a weight above 0")
        if abs(total - 1) < 1e-12:  # normalised already: dividing again would change the last digit
            total = 1.0
        return {name: weight / total for name, weight in mixture.items() if weight > 0}

    @model_validator(mode="after")
    def _check_domains(self) -> RunConfig:
        for name in self.mixture:
            if name not in self.domains and name not in EMBEDDED_DOMAINS:
                known = ", ".join((*EMBEDDED_DOMAINS, *self.domains))
                raise ValueError(
                    f"unknown domain {name!r}: known are {known}; name its text with --domain {name}=PATH"
                )
        return self

    @classmethod
    def create(cls, **options: Any) -> RunConfig:
        """A config from options, with pydantic's report turned into one sentence.

        Raises:
            ConfigError: an unknown option or a value out of its range.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise ConfigError(
                    f"unknown option {where!r}: known are {', '.join(cls.model_fields)}."
                ) from None
            message = first["msg"].removeprefix("Value error, ")
            prefix = f"{where} is {first['input']!r}: " if where and first["type"] != "value_error" else ""
            raise ConfigError(
                f"{prefix}{message[:1].lower() + message[1:] if prefix else message}."
            ) from None

    @classmethod
    def read(cls, path: str | Path) -> RunConfig:
        """The config of a JSON or YAML file, such as the `config.json` of a run.

        Raises:
            ConfigError: the file cannot be read or does not hold a config.
        """
        import yaml

        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))  # JSON is YAML
        except OSError as error:
            raise ConfigError(f"cannot read the config {str(path)!r}: {error.strerror}.") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise ConfigError(f"the config {str(path)!r} is neither JSON nor YAML.") from None
        if isinstance(data, dict) and isinstance(data.get("config"), dict):  # a run's own config.json
            data = data["config"]
        if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
            raise ConfigError(f"the config {str(path)!r} holds no options.")
        return cls.create(**data)

    def replace(self, **changes: Any) -> RunConfig:
        """The same config with some fields changed, validated again."""
        return RunConfig.create(**{**self.model_dump(), **changes})

    @property
    def measured_domains(self) -> tuple[str, ...]:
        """Domains whose held-out text is measured: those that are named, and with them the embedded four.

        A domain left out of the mixture is measured all the same: what it loses is what one wants to know.
        """
        names = dict.fromkeys([*self.mixture, *self.domains])
        if all(self.domains.get(name, "embedded") == "embedded" for name in names):
            names = dict.fromkeys([*EMBEDDED_DOMAINS, *names])
        return tuple(names)

    def ratio_at(self, iteration: int) -> float:
        """The ratio to have reached after iteration 1..K."""
        return SCHEDULES[self.schedule](iteration / self.iterations, self.ratio)


def choices(field: str) -> tuple[str, ...] | None:
    """The values that a field of `RunConfig` may have, where they are named; None where they are not."""
    info = RunConfig.model_fields[field]
    registry = next((part for part in info.metadata if isinstance(part, Registry)), None)
    if registry is not None:
        return tuple(registry)
    return get_args(info.annotation) if get_origin(info.annotation) is Literal else None


def parse_mixture(text: str) -> dict[str, float]:
    """`wiki=0.4,code=0.6` as a mixture; a name alone has weight 1.

    Raises:
        ConfigError: a weight that is no number, or a domain named twice.
    """
    mixture: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = part.partition("=")
        name = name.strip()
        if name in mixture:
            raise ConfigError(f"the mixture names domain {name!r} twice: give each domain once.")
        try:
            mixture[name] = float(weight) if weight else 1.0
        except ValueError:
            raise ConfigError(
                f"the weight {weight!r} of domain {name!r} is no number: write {name}=0.5."
            ) from None
    if not mixture:
        raise ConfigError("the mixture is empty: write it as wiki=0.5,code=0.5.")
    return mixture
