"""The vocabulary in which a family of models is declared, and all that follows from a declaration.

A family is one file in `pruning/models/families`. It declares its prunable sites as coupled slices: the rows
that produce a site's channels, and the projection that consumes them. Geometry, costs, cutting, the names and
shapes of tensors, weight norms and hooks follow from the slices by loops. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pruning.models.geometry import DEEPEST, Geometry, Site, SiteShape

if TYPE_CHECKING:
    from torch import Tensor

CausalLM = Any  # a transformers PreTrainedModel, whose attributes are its family's own
Config = Mapping[str, Any]  # the content of a `config.json`
Per = Literal["entries", "groups"]

# --- sites as coupled slices -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heads:
    """The unit of attention: query heads that share key-value heads. Attributes are config keys."""

    heads: str = "num_attention_heads"
    kv_heads: str = "num_key_value_heads"
    head_dim: str = "head_dim"

    def size(self, config: Config) -> tuple[int, int, int]:
        """Groups, entries of a group, and channels of an entry."""
        heads = config[self.heads]
        kv_heads = config.get(self.kv_heads) or heads
        if heads % kv_heads:
            raise ValueError(f"{heads} heads on {kv_heads} key-value heads")
        return kv_heads, heads // kv_heads, config.get(self.head_dim) or config["hidden_size"] // heads

    @property
    def keys(self) -> tuple[str, str]:
        """The config keys for the number of entries and of groups."""
        return self.heads, self.kv_heads


@dataclass(frozen=True)
class Channels:
    """The unit of an MLP: single channels. The attribute is a config key."""

    width: str = "intermediate_size"

    def size(self, config: Config) -> tuple[int, int, int]:
        """Groups, entries of a group, and channels of an entry."""
        return config[self.width], 1, 1

    @property
    def keys(self) -> tuple[str, str]:
        """The config keys for the number of entries and of groups."""
        return self.width, self.width


@dataclass(frozen=True)
class Part:
    """Rows of a projection that produce the channels of a site.

    Attributes:
        role: query, key, value, gate or up.
        per: whether the rows belong to entries of the site, or to groups.
    """

    role: str
    per: Per = "entries"

    def rows(self, shape: SiteShape) -> int:
        """The number of rows of the part."""
        return (shape.entries if self.per == "entries" else shape.groups) * shape.width


@dataclass(frozen=True)
class Projection:
    """A linear layer.

    Attributes:
        path: the path from a decoder layer to the projection, such as `self_attn.q_proj`.
        parts: the parts that its rows fall into, one after another; a fused projection has several, and a
            consumer, whose rows are the residual stream, none.
        bias: whether the dense model's projection has a bias: yes, no, or the config key that says so.
    """

    path: str
    parts: tuple[Part, ...] = ()
    bias: bool | str = False

    def has_bias(self, config: Config) -> bool:
        """Whether the projection of the dense model has a bias."""
        return bool(config.get(self.bias)) if isinstance(self.bias, str) else self.bias

    def rows(self, shape: SiteShape) -> int:
        """The number of rows of a producer."""
        return sum(part.rows(shape) for part in self.parts)


QUERY, KEY, VALUE = Part("query"), Part("key", "groups"), Part("value", "groups")
GATE, UP = Part("gate"), Part("up")


def plain(weight: Tensor) -> Tensor:
    """The gain of a norm that multiplies by its weight."""
    return weight.float()


def one_plus(weight: Tensor) -> Tensor:
    """The gain of a norm that multiplies by one plus its weight."""
    return 1 + weight.float()


@dataclass(frozen=True)
class SiteSpec:
    """A site in every decoder layer: channels that are removed in units, with all rows and columns of a unit.

    Attributes:
        name: the name of the site.
        unit: the kind of its entries.
        producers: the projections whose rows make the channels.
        consumer: the projection whose columns read the channels.
        role: the role of the consumer: output or down.
        residual: path to the module whose input is the stream that the consumer's output is added to: the
            norm before the producers, or their own module where there is no such norm.
        post_norm: path to the norm that the consumer's output passes first; empty where there is none.
        gain: the factor of the post-norm, from its weight.
        attributes: by path of a module's attribute the size of the site that it holds; that of a `config` is
            set in a copy of it.
        prunable: whether the channels can be removed; otherwise the site only counts towards the parameters.
    """

    name: str
    unit: Heads | Channels
    producers: tuple[Projection, ...]
    consumer: Projection
    role: str
    residual: str
    post_norm: str = ""
    gain: Callable[[Tensor], Tensor] = plain
    attributes: Mapping[str, Literal["entries", "groups", "group"]] = field(default_factory=dict)
    prunable: bool = True

    def shape(self, config: Config) -> SiteShape:
        """The shape of the site in a dense model."""
        return self.with_costs(*self.unit.size(config), config)

    def with_costs(self, groups: int, group: int, width: int, config: Config) -> SiteShape:
        """A shape with its costs in rows of the producers, with biases, and columns of the consumer."""
        hidden = config["hidden_size"]
        costs = {"entries": width * hidden, "groups": 0}
        for producer in self.producers:
            for part in producer.parts:
                costs[part.per] += width * (hidden + producer.has_bias(config))
        return SiteShape(groups, group, width, costs["entries"], costs["groups"])

    def config(self, shape: SiteShape) -> dict[str, int]:
        """The config keys for a shape of the site."""
        return dict(zip(self.unit.keys, (shape.entries, shape.groups), strict=True))

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The producers, and the consumer."""
        return *self.producers, self.consumer


def attention(
    *producers: Projection,
    output: Projection = Projection("self_attn.o_proj"),  # noqa: B008 - frozen
    residual: str = "input_layernorm",
    **options: Any,
) -> SiteSpec:
    """The site `attn`: the input of attention's output projection, in heads."""
    attributes = {"self_attn.num_key_value_groups": "group"}
    options = {"unit": Heads(), "attributes": attributes, **options}
    return SiteSpec("attn", producers=producers, consumer=output, role="output", residual=residual, **options)


def mlp(
    *producers: Projection,
    down: Projection = Projection("mlp.down_proj"),  # noqa: B008 - frozen
    residual: str = "post_attention_layernorm",
    **options: Any,
) -> SiteSpec:
    """The site `mlp`: the input of the MLP's down projection, in channels."""
    options = {"unit": Channels(), "attributes": {"mlp.intermediate_size": "entries"}, **options}
    return SiteSpec("mlp", producers=producers, consumer=down, role="down", residual=residual, **options)


def qkv(bias: bool | str = False) -> tuple[Projection, ...]:
    """Separate projections of queries, keys and values, as in Llama."""
    names = (("q_proj", QUERY), ("k_proj", KEY), ("v_proj", VALUE))
    return tuple(Projection(f"self_attn.{name}", (part,), bias) for name, part in names)


def gate_up(bias: bool | str = False) -> tuple[Projection, ...]:
    """Separate projections of gate and up, as in Llama."""
    return Projection("mlp.gate_proj", (GATE,), bias), Projection("mlp.up_proj", (UP,), bias)


# --- what is outside the sites -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """Scales and soft cap of a model's logits. Attributes are config keys, empty where the model has none.

    Attributes:
        softcap: the number c of c * tanh(logits / c).
        multiplier, divisor: the scales of the logits, applied before the soft cap.
    """

    softcap: str = ""
    multiplier: str = ""
    divisor: str = ""

    def apply(self, logits: Tensor, config: Any) -> Tensor:
        """The logits as the model itself gives them.

        Args:
            logits: the output of the output projection.
            config: the config as transformers has it.
        """
        if scale := getattr(config, self.multiplier, None) if self.multiplier else None:
            logits = logits * scale
        if scale := getattr(config, self.divisor, None) if self.divisor else None:
            logits = logits / scale
        if cap := getattr(config, self.softcap, None) if self.softcap else None:
            logits = cap * (logits / cap).tanh()
        return logits


NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
QUERY_KEY_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
# By role the name of a projection in a GGUF file, and its path from a decoder layer of Llama.
_PROJECTIONS = {
    "query": ("attn_q", "self_attn.q_proj"),
    "key": ("attn_k", "self_attn.k_proj"),
    "value": ("attn_v", "self_attn.v_proj"),
    "output": ("attn_output", "self_attn.o_proj"),
    "gate": ("ffn_gate", "mlp.gate_proj"),
    "up": ("ffn_up", "mlp.up_proj"),
    "down": ("ffn_down", "mlp.down_proj"),
}
TENSORS = {role: tensor for role, (tensor, _) in _PROJECTIONS.items()}
LLAMA_PATHS = {role: path for role, (_, path) in _PROJECTIONS.items()}


@dataclass(frozen=True)
class Gguf:
    """A family in llama.cpp.

    Attributes:
        architecture: the name of its architecture in a file.
        computes: the names of `Family.differences` that llama.cpp computes.
        by_layer: whether layers may differ in width.
        biases: whether every projection may have a bias.
        pairs: whether rows of queries and keys lie as rotary pairs, where transformers rotates halves.
        norms: by path from a decoder layer the name of a norm over the residual stream in the file.
        head_norms: the same for norms over the channels of a head.
        gain: the number added to the weight of every norm in the file.
        keys: further metadata keys, below the architecture's name, that `config` reads.
        metadata: the values of these keys, from the config of a live model.
        config: the config keys for these metadata keys, from the metadata by key below the architecture's
            name, and from the other keys of the config.
    """

    architecture: str
    computes: tuple[str, ...] = ()
    by_layer: bool = False
    biases: bool = False
    pairs: bool = False
    norms: Mapping[str, str] = field(default_factory=NORMS.copy)
    head_norms: Mapping[str, str] = field(default_factory=dict)
    gain: float = 0.0
    keys: tuple[str, ...] = ()
    metadata: Callable[[Any], Mapping[str, Any]] = lambda config: {}
    config: Callable[[Config, Config], Mapping[str, Any]] = lambda metadata, config: {}


# llama.cpp's one architecture with widths and biases by layer. It computes Llama's layers.
DECI = Gguf("deci", computes=("rope:linear", "rope:llama3"), by_layer=True, biases=True, pairs=True)

# Config keys of every family that say sizes and names, or change nothing in what a dense model computes.
COMMON_KEYS = {
    *("architectures", "model_type", "auto_map", "transformers_version", "dtype", "torch_dtype"),
    *("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings", "rms_norm_eps"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "tie_word_embeddings"),
    *("initializer_range", "use_cache", "pretraining_tp", "is_llama_config", "name_or_path"),
    *("attention_dropout", "residual_dropout", "resid_pdrop", "embd_pdrop"),  # of training
    *("output_attentions", "output_hidden_states", "return_dict", "is_encoder_decoder", "problem_type"),
    *("id2label", "label2id", "num_labels", "chunk_size_feed_forward", "per_layer_config"),
    *("output_bias", "allow_global_per_layer_attribute_access", "block_configs"),  # of this project's exports
}
_COMMON_PREFIXES = ("_", "unsloth", "transformers")
WINDOW_KEYS = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")
ROPE_KEYS = ("rope_theta", "rope_scaling", "rope_parameters", "original_max_position_embeddings")
# Keys of other families that scale, cap or leave out something, with the values that change nothing.
FOREIGN_KEYS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("embedding_multiplier", "residual_multiplier", "attention_multiplier"), (1.0,)),
    **dict.fromkeys(("logits_scaling", "logit_scale", "scale_emb", "scale_depth"), (1.0,)),
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct", "rope_pct"), (1.0,)),
    **dict.fromkeys(("final_logit_softcapping", "attn_logit_softcapping"), (0.0,)),
    **dict.fromkeys(("use_qk_norm", "alibi", "parallel_residual", "use_parallel_residual"), (False,)),
    **dict.fromkeys(("rope_interleaved", "tie_encoder_decoder", "moe_intermediate_size"), (False, 0)),
    **dict.fromkeys(("attention_scale", "query_pre_attn_scalar", "clip_qkv", "rotary_dim"), ()),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), (0, 1)),
    **dict.fromkeys(("attention_chunk_size", "sliding_window"), (0,)),
    **dict.fromkeys(("no_rope_layers", "layer_types"), ([],)),
    "norm_type": ("rmsnorm", "rms_norm", "RMSNorm"),
}


def has_window(config: Config) -> bool:
    """Whether attention looks back over a window shorter than the context."""
    window = (config.get("sliding_window") or 0) if config.get("use_sliding_window", True) else 0
    return 0 < window < (config.get("max_position_embeddings") or 0)


def rotary_embeddings(config: Config) -> list[Mapping[str, Any]]:
    """The parameters of each rotary embedding of a config: one, or one for each type of layer."""
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    nested = [value for value in rotary.values() if isinstance(value, Mapping)]
    return nested or [rotary]


def rope_type(rotary: Mapping[str, Any]) -> str:
    """The type of a rotary embedding, as transformers names it."""
    return str(rotary.get("rope_type", rotary.get("type", "default")))


# --- a family ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """The declaration of a family of models.

    Attributes:
        model_type: the value of `model_type` in a `config.json`.
        name: the name in messages, and the first part of transformers' class names.
        sites: the sites of every decoder layer, in the order in which it computes them.
        tiny: by name the configs of random models for the tests, as changes to their common sizes.
        layers, final_norm, embeddings: the paths from the model to these modules.
        head: scales and soft cap of the logits.
        activation: the config key of the MLP's activation.
        windowed: whether layers may look back over a window.
        nested_rope: whether every type of layer has a rotary embedding of its own.
        computes: by name and in words what its layers compute that Llama's do not.
        config: further config keys that change what is computed, each with its neutral value.
        gguf: the family in llama.cpp; None where that does not have it.
        as_llama: whether its layers are Llama's, but for `differences`, so that it may be written as Llama,
            SeedOss and DeciLM, whose projections may have biases.
        heads_divide: whether its config refuses a number of heads that does not divide the hidden size.
        classes: transformers' config, decoder and causal language model, where the name does not say them.
    """

    model_type: str
    name: str
    sites: tuple[SiteSpec, ...]
    tiny: Mapping[str, Mapping[str, Any]]
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    embeddings: str = "model.embed_tokens"
    head: Head = Head()  # noqa: RUF009 - frozen
    activation: str = "hidden_act"
    windowed: bool = False
    nested_rope: bool = False
    computes: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    gguf: Gguf | None = None
    as_llama: bool = False
    heads_divide: bool = False
    classes: tuple[str, str, str] = ("", "", "")

    @property
    def class_names(self) -> tuple[str, str, str]:
        """Transformers' names of the config, the decoder and the causal language model."""
        config, decoder, causal = self.classes
        return (
            config or f"{self.name}Config",
            decoder or f"{self.name}Model",
            causal or f"{self.name}ForCausalLM",
        )

    @property
    def keys(self) -> set[str]:
        """The config keys that the family declares, beside `COMMON_KEYS`."""
        units = {key for spec in self.sites for key in vars(spec.unit).values()}
        biases = {p.bias for spec in self.sites for p in spec.projections if isinstance(p.bias, str)}
        windows = WINDOW_KEYS if self.windowed else ()
        return {self.activation, *units, *biases, *ROPE_KEYS, *windows, *self.config}

    def spec(self, name: str) -> SiteSpec:
        """The declaration of a site."""
        return next(spec for spec in self.sites if spec.name == name)

    def weight_name(self, layer: int, name: str) -> str:
        """The name of the weight of a site's consumer among the model's parameters."""
        return f"{self.layers}.{layer}.{self.spec(name).consumer.path}.weight"

    def bias_name(self, site: Site) -> str:
        """The name of the bias of a site's consumer among the model's parameters."""
        return self.weight_name(site.layer, site.name).removesuffix("weight") + "bias"

    def has_biases(self, config: Config) -> bool:
        """Whether any projection of the dense model's layers has a bias."""
        return any(projection.has_bias(config) for spec in self.sites for projection in spec.projections)

    def head_dim(self, config: Config) -> int:
        """The number of channels of a head."""
        return next(spec.unit.size(config)[2] for spec in self.sites if isinstance(spec.unit, Heads))

    def layer_config(self, shapes: Mapping[str, SiteShape]) -> dict[str, int]:
        """The config keys for these shapes of a layer's prunable sites."""
        return {k: v for name, shape in shapes.items() for k, v in self.spec(name).config(shape).items()}

    def geometry(self, config: Config) -> Geometry:
        """The dense model's geometry, from the content of its `config.json`.

        Raises:
            KeyError, TypeError, ValueError, ZeroDivisionError: the config lacks a width, or it is no width.
        """
        depth = config["num_hidden_layers"]
        if not isinstance(depth, int) or not 0 < depth <= DEEPEST:
            raise ValueError("no number of layers that a model has")
        return self.geometry_of(config["hidden_size"], [[spec.shape(config) for spec in self.sites]] * depth)

    def geometry_of(self, hidden: int, layers: list[list[SiteShape]]) -> Geometry:
        """The geometry of layers with these shapes of all sites, prunable or not.

        Raises:
            ValueError: a shape has a size that no model has.
        """
        pairs = [list(zip(self.sites, shapes, strict=True)) for shapes in layers]
        others = [shape for layer in pairs for spec, shape in layer if not spec.prunable]
        fixed = sum(shape.parameters for shape in others), sum(shape.cache_values for shape in others)
        prunable = tuple({spec.name: shape for spec, shape in layer if spec.prunable} for layer in pairs)
        return Geometry(hidden, prunable, *fixed).checked()

    def weight_shapes(self, config: Config, geometry: Geometry) -> dict[str, tuple[int, int]]:
        """By name the shapes (rows, columns) of the embedding and the projections of all layers.

        Args:
            config: the content of a `config.json`.
            geometry: of the model, dense or pruned.
        """
        hidden = geometry.hidden_size
        shapes = {f"{self.embeddings}.weight": (config["vocab_size"], hidden)}
        for number, layer in enumerate(geometry.layers):
            for spec in self.sites:
                shape = layer[spec.name] if spec.prunable else spec.shape(config)
                for producer in spec.producers:
                    shapes[f"{self.layers}.{number}.{producer.path}.weight"] = producer.rows(shape), hidden
                shapes[f"{self.layers}.{number}.{spec.consumer.path}.weight"] = hidden, shape.channels
        return shapes

    def differences(self, config: Config) -> dict[str, str]:
        """By name and in words what a model computes and a plain Llama layer does not; formats allow names.

        A key that neither the family nor `COMMON_KEYS` declares is a difference by its name.

        Args:
            config: the content of a `config.json`.
        """
        features = dict(self.computes)
        activation = config.get(self.activation) or "silu"
        if activation not in ("silu", "swish"):
            features[f"activation:{activation}"] = f"the activation {activation!r}"
        if has_window(config):
            features["window"] = "a sliding window"
        for rotary in rotary_embeddings(config):
            if (kind := rope_type(rotary)) != "default":
                features[f"rope:{kind}"] = f"a rotary embedding of type {kind!r}"
            if (share := rotary.get("partial_rotary_factor")) not in (None, 1.0):
                features["partial_rotary_factor"] = f"partial_rotary_factor {share!r}"
        declared = (COMMON_KEYS | self.keys | set(WINDOW_KEYS)) - self.config.keys()
        for key, value in config.items():
            neutral = (None, False, [], {}, *FOREIGN_KEYS.get(key, ()), self.config.get(key))
            if key not in declared and not key.startswith(_COMMON_PREFIXES) and value not in neutral:
                features[key] = f"{key} {str(value)[:60]!r}"
        return features
