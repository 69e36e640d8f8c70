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
from pruning.method.moments import Fusion, TokenWeights
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
        "token_weights": "equal",
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
        "token_weights": "equal",
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

    model: str = Field("demo", description="the model: demo, smollm2, a folder or GGUF file, or a Hub id")
    method: Annotated[str, METHODS] = Field("iterative", description="preset of the options below")
    ratio: float = Field(
        0.5, ge=0, lt=1, description="pruning ratio: share of the decoder layers' linear parameters to remove"
    )

    # Calibration text
    mixture: dict[str, float] = Field(
        default=dict.fromkeys(EMBEDDED_DOMAINS, 1.0),
        description="domain mixture: weight of each domain, normalised to a sum of 1",
    )
    domains: dict[str, str] = Field(
        default={}, description="source of a domain's text: embedded, a path, or hub:NAME"
    )
    samples: int = Field(32, ge=1, description="calibration blocks per domain")
    seq_len: int = Field(256, ge=2, description="tokens per block")
    token_weights: TokenWeights = Field(
        "residual",
        description="weight of a token in the statistics: equal, or the inverse mean square of the residual "
        "stream that the module's output is added to",
    )
    fusion: Fusion = Field(
        "within",
        description="variance of the mixture: the mean of the domains' variances (within), or that plus the "
        "variance of their means (total)",
    )
    worst_domain: float = Field(
        0.0, ge=0, le=1, description="blend of fused variance (0) and largest variance of any domain (1)"
    )

    # What is cut
    score: Annotated[str, SCORES] = Field("fluctuation", description="score that ranks the channels")
    square_attention: bool = Field(
        False, description="square the scores of attention channels before normalisation, as FLAP's code does"
    )
    normalise: Annotated[str, NORMALISERS] = Field(
        "soft_share", description="how scores are made comparable across layers and modules"
    )
    unit_score: UnitScore = Field(
        "per_parameter",
        description="score of a unit: the sum over its channels per parameter (per_parameter), or the mean "
        "over its channels (mean)",
    )
    allocation: Annotated[str, ALLOCATIONS] = Field(
        "global",
        description="how pruning is distributed over layers: one ranking of all units (global), the same "
        "ratio in every layer and module (uniform), equal widths in all layers, with the split between "
        "attention and MLP that removes the lowest total score (equal), or by measured damage (measured)",
    )
    attention_unit: AttentionUnit = Field(
        "kv_group",
        description="what is removed together in attention: a key-value head with all its query heads "
        "(kv_group), or one query head of every key-value head (query_head)",
    )
    keep: tuple[str, ...] = Field(
        (),
        description="heads and channels never to remove: LAYER[.attn|.mlp[.FIRST-LAST]], such as 3.attn.0-1",
    )
    remove: tuple[str, ...] = Field(
        (), description="heads and channels to remove first, in the same notation"
    )
    round_to: int = Field(1, ge=1, description="multiple to which MLP widths are rounded")
    min_attention_units: int = Field(
        1, ge=1, description="minimum number of attention units retained in every layer"
    )
    min_mlp_share: float = Field(
        0.02, gt=0, le=1, description="minimum share of MLP channels retained in every layer"
    )

    # How
    iterations: int = Field(
        5, ge=1, le=100, description="pruning iterations, each with newly collected statistics"
    )
    schedule: Annotated[str, SCHEDULES] = Field(
        "linear", description="growth of the pruning ratio over the iterations"
    )
    compensation: Annotated[str, COMPENSATIONS] = Field(
        "bias",
        description="what makes up for removed channels: their mean output (bias), that and ridge regression "
        "on the retained channels (least_squares), or nothing (none)",
    )
    sequential: bool = Field(
        False, description="collect each layer's statistics anew once the layers before it are pruned"
    )

    eval_blocks: int | None = Field(
        64,
        ge=0,
        description="held-out blocks per domain for perplexity: 0 skips it, all (null in a file) uses every "
        "block",
    )
    tasks: tuple[str, ...] = Field(
        (), description="zero-shot tasks to evaluate, separated by commas: demo, paper, or lm-eval task names"
    )
    task_data: str | None = Field(None, description="folder with local copies of the task data")
    task_folder: str | None = Field(
        None, description="folder with additional lm-eval task definitions (YAML)"
    )
    task_limit: int | None = Field(
        None, ge=1, description="maximum number of items evaluated per task, the first ones"
    )
    save_model: bool = Field(True, description="store the pruned checkpoint in the run folder")
    seed: int = Field(
        0, ge=0, lt=2**63, description="random seed of the text sampling and of the random score"
    )
    device: str = Field("auto", description="compute device: auto, cpu, cuda, cuda:1 or mps")
    dtype: Dtype = Field(
        "auto", description="precision of the weights; auto: float32 on a CPU, the checkpoint's own elsewhere"
    )
    parent: str | None = Field(None, description="id of the run that this run was derived from")
    experiment: str | None = Field(None, description="name of the experiment that this run belongs to")

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
            # a run of version 0.1, which had no choice of it
            data = {"token_weights": "equal", **data["config"]}
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
