"""Architectures: all that differs from one family of models to the next, one object each.

To add one, add an entry to `ARCHITECTURES`. Whatever its layers compute beyond a plain pre-norm block with
gated SiLU stands in `beyond`, by name and in words: a format refuses what it does not list by these words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pruning.errors import ModelError
from pruning.models.geometry import Geometry, Kind, LayerShape
from pruning.registry import Registry

if TYPE_CHECKING:
    from torch.nn import Linear

CausalLM = Any  # a transformers PreTrainedModel, whose attributes are its architecture's own
# Channels that a config may name, of all layers: ten times those of a 405B model. Every page holds arrays of
# this size, so that a number with a few zeros too many would take the memory of the app's server.
CHANNELS = 100_000_000
ROLES = ("query", "key", "value", "output", "gate", "up", "down")


@dataclass(frozen=True)
class Architecture:
    """What transformers calls a model and its parts, and what sets its layers apart.

    Attributes:
        name: the first part of its class names, such as Qwen2 of Qwen2ForCausalLM.
        biases: by role of a projection whether it has a bias: yes, or the key of the config that says so.
            Roles that are left out have none.
        layers, norm: paths from the model to its decoder layers and to the norm behind them.
        attention, mlp, attention_norm, mlp_norm: attributes of a layer.
        query, key, value, output: attributes of its attention.
        gate, up, down: attributes of its MLP.
        beyond: what it computes that a Llama layer does not, by name and in words.
    """

    name: str
    biases: Mapping[str, bool | str] = field(default_factory=dict)
    layers: str = "model.layers"
    norm: str = "model.norm"
    attention: str = "self_attn"
    mlp: str = "mlp"
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    query: str = "q_proj"
    key: str = "k_proj"
    value: str = "v_proj"
    output: str = "o_proj"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    beyond: Mapping[str, str] = field(default_factory=dict)

    def has_bias(self, role: str, config: Mapping[str, Any]) -> bool:
        """Whether a projection of the dense model has a bias.

        Args:
            role: one of `ROLES`.
            config: as in `config.json`.
        """
        said = self.biases.get(role, False)
        return bool(config.get(said)) if isinstance(said, str) else said

    def projection_weight(self, layer: int, kind: Kind) -> str:
        """The name of the weight of a site's output projection among the model's parameters."""
        part = f"{self.attention}.{self.output}" if kind == "attn" else f"{self.mlp}.{self.down}"
        return f"{self.layers}.{layer}.{part}.weight"

    def geometry(self, config: Mapping[str, Any]) -> Geometry:
        """The dense model's geometry, from the content of its `config.json`.

        Raises:
            KeyError, TypeError, ValueError, ZeroDivisionError: the config lacks a width, or it is no width.
        """
        heads = config["num_attention_heads"]
        kv_heads = config.get("num_key_value_heads") or heads
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        if config["num_hidden_layers"] * (heads * head_dim + config["intermediate_size"]) > CHANNELS:
            raise ValueError("more channels than any model has")
        shape = {"kv_heads": kv_heads, "group": heads // kv_heads, "channels": config["intermediate_size"]}
        return Geometry.from_dict(
            {
                "hidden_size": config["hidden_size"],
                "head_dim": head_dim,
                "layers": [shape] * config["num_hidden_layers"],
                "query_bias": self.has_bias("query", config),
                "key_value_bias": self.has_bias("key", config),
                "gate_up_bias": self.has_bias("gate", config),
            }
        )

    def differences(self, config: Mapping[str, Any]) -> dict[str, str]:
        """What a model computes that a plain Llama layer does not: names, for formats to allow, and words.

        Args:
            config: as in `config.json`.
        """
        found = dict(self.beyond)
        activation = config.get("hidden_act") or "silu"
        if activation not in ("silu", "swish"):
            found[f"activation:{activation}"] = f"the activation {activation!r}"
        if sliding_window(config):
            found["window"] = "a sliding window"
        rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rotary.get("rope_type", rotary.get("type", "default"))
        if kind != "default":
            found[f"rope:{kind}"] = f"a rotary embedding of type {kind!r}"
        for key, neutral in NEUTRAL.items():
            value = config.get(key, rotary.get(key))
            if value is not None and value != neutral:
                found[key] = f"{key} {value!r}"
        return found


# What configs of other families scale, cap or leave out, with the value that means nothing is changed.
NEUTRAL: dict[str, float] = {
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": 1.0,
    "logits_scaling": 1.0,
    "logit_scale": 1.0,
    "scale_emb": 1.0,
    "scale_depth": 1.0,
    "partial_rotary_factor": 1.0,
    "final_logit_softcapping": 0.0,
    "attn_logit_softcapping": 0.0,
}


def sliding_window(config: Mapping[str, Any]) -> bool:
    """Whether attention looks back over a window shorter than the context."""
    window = (config.get("sliding_window") or 0) if config.get("use_sliding_window", True) else 0
    return 0 < window < (config.get("max_position_embeddings") or 0)


# By `config.model_type`.
ARCHITECTURES: Registry[Architecture] = Registry("architecture")
ARCHITECTURES.add(Architecture("Qwen2", dict.fromkeys(("query", "key", "value"), True)), "qwen2")
ARCHITECTURES.add(
    Architecture(
        "Qwen3",
        dict.fromkeys(("query", "key", "value", "output"), "attention_bias"),
        beyond={"query_key_norms": "norms of queries and keys"},
    ),
    "qwen3",
)
_LLAMA_BIASES = dict.fromkeys(("query", "key", "value", "output"), "attention_bias") | dict.fromkeys(
    ("gate", "up", "down"), "mlp_bias"
)
ARCHITECTURES.add(Architecture("Llama", _LLAMA_BIASES), "llama")
ARCHITECTURES.add(Architecture("Mistral"), "mistral")
# Pruned models of equal widths are exported to it.
ARCHITECTURES.add(Architecture("SeedOss", _LLAMA_BIASES | {"output": "attention_out_bias"}), "seed_oss")


def supported(model_type: object) -> Architecture:
    """The architecture of a model type.

    Raises:
        ModelError: it is not supported.
    """
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise ModelError(
            f"models of type {str(model_type)[:60]!r} are not supported: supported are "
            f"{', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[model_type]


# --- live models ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerView:
    """The parts of one live decoder layer, by role.

    Attributes:
        layer, attention, mlp: modules.
        attention_norm, mlp_norm: what the residual stream passes before each.
        query, key, value, output, gate, up, down: projections.
    """

    layer: Any
    attention: Any
    mlp: Any
    attention_norm: Any
    mlp_norm: Any
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    gate: Linear
    up: Linear
    down: Linear

    def projection(self, kind: Kind) -> Linear:
        """The output projection whose input the site is: weight (d_model, C)."""
        return self.output if kind == "attn" else self.down

    def norm(self, kind: Kind) -> Any:
        """The norm whose input is the residual stream that the site's output is added to."""
        return self.attention_norm if kind == "attn" else self.mlp_norm


def architecture(model: CausalLM) -> Architecture:
    """The architecture of a live model.

    Raises:
        ModelError: its type is not supported.
    """
    return supported(getattr(getattr(model, "config", None), "model_type", None))


def layer_views(model: CausalLM) -> list[LayerView]:
    """Every decoder layer of a model, in order.

    Raises:
        ModelError: its type is not supported, or its layers are not what that type's are.
    """
    names = architecture(model)
    try:
        return [_view(layer, names) for layer in model.get_submodule(names.layers)]
    except AttributeError as error:
        raise ModelError(
            f"{type(model).__name__} is not built as {names.name} models are ({error}): supported are causal "
            f"language models of type {', '.join(ARCHITECTURES)}."
        ) from None


def _view(layer: Any, names: Architecture) -> LayerView:
    attention, mlp = getattr(layer, names.attention), getattr(layer, names.mlp)
    return LayerView(
        layer=layer,
        attention=attention,
        mlp=mlp,
        attention_norm=getattr(layer, names.attention_norm),
        mlp_norm=getattr(layer, names.mlp_norm),
        **{role: getattr(attention, getattr(names, role)) for role in ROLES[:4]},
        **{role: getattr(mlp, getattr(names, role)) for role in ROLES[4:]},
    )


def geometry(model: CausalLM) -> Geometry:
    """The geometry of a live model, dense or pruned, read off its weights."""
    views = layer_views(model)
    head_dim = views[0].attention.head_dim
    return Geometry(
        hidden_size=model.config.hidden_size,
        head_dim=head_dim,
        layers=tuple(
            LayerShape(
                kv_heads=view.key.out_features // head_dim,
                group=view.query.out_features // view.key.out_features,
                channels=view.down.in_features,
            )
            for view in views
        ),
        query_bias=views[0].query.bias is not None,
        key_value_bias=views[0].key.bias is not None,
        gate_up_bias=views[0].gate.bias is not None,
    )


def parameter_count(model: CausalLM) -> int:
    """Parameters of a model, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
