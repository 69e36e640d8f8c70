"""What a run is told to do: `RunConfig`.

A `RunConfig` is validated once, frozen, written into the run as `config.json`, and is enough to repeat it:

    RunConfig(method="iterative", ratio=0.5, mixture={"wiki": 0.5, "code": 0.5})
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pruning.errors import ConfigError
from pruning.formatting import clipped, quoted
from pruning.limits import SAMPLES, TOKENS, check_names, check_words, normalise_mixture
from pruning.method.allocation import ALLOCATIONS
from pruning.method.compensation import COMPENSATIONS
from pruning.method.moments import Fusion, TokenWeights
from pruning.method.normalise import NORMALISERS
from pruning.method.presets import METHODS
from pruning.method.schedules import SCHEDULES
from pruning.method.scores import SCORES
from pruning.method.units import AttentionUnit, UnitScore
from pruning.models.loading import Dtype
from pruning.options import read_options
from pruning.registry import Registry
from pruning.text.sources import EMBEDDED_DOMAINS


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
        description="domain mixture: weight of each domain, normalised to a sum of 1; auto tunes it",
    )
    adapt_mixture: bool = Field(
        False,
        description="move the mixture after each iteration towards the domains that lost most",
    )
    domains: dict[str, str] = Field(
        default={}, description="source of a domain's text: embedded, a path, FILE:COLUMN, or hub:NAME"
    )
    samples: int = Field(32, ge=1, le=SAMPLES, description="calibration blocks per domain")
    seq_len: int = Field(256, ge=2, le=TOKENS, description="tokens per block")
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
        "soft_share",
        description="how scores are made comparable across layers and modules; auto tries the rules on text "
        "that is set aside, and takes the one with the least divergence from the dense model",
    )
    attention_weight: float = Field(
        1.0, gt=0, le=1000, description="factor of the normalised scores of attention heads, against channels"
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
        "attention and MLP that removes the lowest total score (equal), or by measured sensitivity "
        "(measured)",
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
    round_to: int = Field(
        1,
        ge=1,
        le=TOKENS,
        description="multiple to which MLP widths are rounded; llama.cpp runs faster with 64",
    )
    min_attention_units: int = Field(
        1, ge=1, le=TOKENS, description="minimum number of attention units kept in every layer"
    )
    min_mlp_share: float = Field(
        0.02, gt=0, le=1, description="minimum share of MLP channels kept in every layer"
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
        "on the kept channels (least_squares), or nothing (none)",
    )
    sequential: bool = Field(
        False, description="collect each layer's statistics anew once the layers before it are pruned"
    )

    eval_blocks: int | None = Field(
        64,
        ge=0,
        le=TOKENS,
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
        None, ge=1, le=TOKENS, description="maximum number of items evaluated per task, the first ones"
    )
    save_model: bool = Field(True, description="store the pruned checkpoint in the run folder")
    seed: int = Field(
        0, ge=0, lt=2**63, description="random seed of the text sampling and of the random score"
    )
    device: str = Field("auto", description="compute device: auto, cpu, cuda, cuda:1 or mps")
    dtype: Dtype = Field(
        "auto", description="precision of the weights; auto: float32 on a CPU, the checkpoint's own elsewhere"
    )
    trust_remote_code: bool = Field(
        False, description="run the Python code of the model's folder, where its tokenizer is such code"
    )
    name: str = Field("", max_length=60, description="what to call the run")
    tags: tuple[str, ...] = Field((), description="words to find the run by, separated by commas")
    parent: str | None = Field(None, description="id of the run that this run was derived from")
    experiment: str | None = Field(None, description="name of the experiment that this run belongs to")

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if data.get("mixture") in ("auto", {"auto": 1.0}) and "auto" not in (data.get("domains") or ()):
            others = {name: value for name, value in data.items() if name != "mixture"}
            equal = dict.fromkeys([*EMBEDDED_DOMAINS, *(data.get("domains") or ())], 1.0)
            data = {"mixture": equal, **others, "adapt_mixture": True}
        return {**METHODS[METHODS.check(data.get("method", "iterative"))], **data}

    @field_validator("*")
    @classmethod
    def _check_words(cls, value: Any, info: ValidationInfo) -> Any:
        words = (*value, *value.values()) if isinstance(value, dict) else value
        check_words(str(info.field_name), words if isinstance(words, tuple) else (words,))
        return value

    @field_validator("domains")
    @classmethod
    def _check_names(cls, domains: dict[str, str]) -> dict[str, str]:
        check_names(domains)
        return domains

    @field_validator("mixture")
    @classmethod
    def _normalise_mixture(cls, mixture: dict[str, float]) -> dict[str, float]:
        check_names(mixture)
        return normalise_mixture(mixture)

    @model_validator(mode="after")
    def _check_domains(self) -> RunConfig:
        if self.samples * self.seq_len > TOKENS:
            raise ValueError(
                f"{self.samples:,} blocks of {self.seq_len:,} tokens are more than {TOKENS:,} tokens: "
                "give fewer --calibration-blocks or a shorter --seq-len"
            )
        for name in self.mixture:
            if name not in self.domains and name not in EMBEDDED_DOMAINS:
                names = ", ".join((*EMBEDDED_DOMAINS, *self.domains))
                raise ValueError(
                    f"unknown domain {name!r}: known are {names}; name its text with --domain {name}=PATH"
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
            where = clipped(".".join(str(part) for part in first["loc"]), 80)
            if first["type"] == "extra_forbidden":
                raise ConfigError(
                    f"unknown option {quoted(where)}: known are {', '.join(cls.model_fields)}."
                ) from None
            message = first["msg"].removeprefix("Value error, ")
            prefix = (
                f"{where} is {quoted(first['input'])}: " if where and first["type"] != "value_error" else ""
            )
            raise ConfigError(
                f"{prefix}{message[:1].lower() + message[1:] if prefix else message}."
            ) from None

    @classmethod
    def read(cls, path: str | Path) -> RunConfig:
        """The config of a JSON or YAML file, such as the `config.json` of a run.

        Raises:
            ConfigError: the file cannot be read or does not hold a config.
        """
        data = read_options(path, "config")
        if isinstance(data.get("config"), dict):  # a run's own config.json
            # a run of version 0.1, which had no choice of it
            data = {"token_weights": "equal", **data["config"]}
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
