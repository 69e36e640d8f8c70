"""The model in a GGUF file: its config, its widths by layer, and where each tensor goes. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pruning.formatting import quoted
from pruning.models import gguf_keys as keys
from pruning.models import gguf_rope
from pruning.models.families import FAMILIES
from pruning.models.family import DECI, TENSORS, Config, Family, Gguf
from pruning.models.geometry import CHANNELS, DEEPEST, WIDEST, Geometry, SiteShape
from pruning.models.gguf_file import AGAIN, GGUFFile
from pruning.models.gguf_keys import ARCHITECTURES, check_keys

ROLES = {tensor: role for role, tensor in TENSORS.items()}
SPECIAL = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a model, and its tensors in a GGUF file.

    Attributes:
        name: the parameter's name in transformers.
        tensors: the names in the file, whose rows follow each other; none for a bias of zeros that the family
            has and the file has not.
        shapes: the shapes of the tensors, or of the zeros.
        interleaved: for each tensor, whether its rows lie as rotary pairs in the file.
        gain: the number that the file adds to every value.
    """

    name: str
    tensors: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    interleaved: tuple[bool, ...] = (False,)
    gain: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in transformers."""
        return sum(shape[0] for shape in self.shapes), *self.shapes[0][1:]


@dataclass(frozen=True)
class GGUFModel:
    """The model in a GGUF file.

    Attributes:
        config: the content of its `config.json`.
        geometry: the widths of every layer.
        head_dim: the number of channels of a head.
        biased: by site whether its output projection has a bias.
        pruned: whether the config alone does not describe the model.
        parameters: all of its parameters.
    """

    config: dict[str, Any]
    geometry: Geometry
    head_dim: int
    biased: dict[str, bool]
    pruned: bool
    parameters: list[Parameter]


def read_model(file: GGUFFile) -> GGUFModel:
    """The model in a GGUF file.

    Raises:
        ModelError: the file holds something that is not supported, lacks something, or contradicts itself.
    """
    prefix = file.metadata.get("general.architecture")
    if not isinstance(prefix, str) or prefix not in ARCHITECTURES:
        names = ", ".join(ARCHITECTURES)
        raise file.error(f"has the architecture {quoted(prefix, 60)}, and supported are {names}")
    check_keys(file, prefix)
    layout, _ = ARCHITECTURES[prefix]
    sizes = _sizes(file, prefix, layout.by_layer)
    config = _config(file, prefix, sizes)
    family = FAMILIES[config["model_type"]]
    layers = [[spec.shape({**config, **widths.config}) for spec in family.sites] for widths in sizes.layers]
    geometry = family.geometry_of(sizes.hidden, layers)
    own = {str(site): family.spec(site.name).consumer.has_bias(config) for site in geometry.sites}
    biased = {
        str(site): own[str(site)]
        or f"blk.{site.layer}.{TENSORS[family.spec(site.name).role]}.bias" in file.tensors
        for site in geometry.sites
    }
    stored = [_with_zeros(each, file) for each in parameters(family, layout, config, layers, biased)]
    unread = set(file.tensors)
    for parameter in stored:
        for name, shape in zip(parameter.tensors, parameter.shapes, strict=False):
            if (tensor := file.tensors.get(name)) is None:
                raise file.error(f"lacks {name!r}", AGAIN)
            if tensor.shape != shape:
                shapes = f"the shape {tensor.shape}, and {shape} by its sizes"
                raise file.error(f"holds {name!r} in {shapes}", AGAIN)
            unread.discard(name)
    if prefix in ("llama", "deci"):
        longrope = file.metadata.get(f"{prefix}.rope.scaling.type") == "longrope"
        unread -= {gguf_rope.LONG, gguf_rope.SHORT} if longrope else {gguf_rope.FREQS}
    if unread:
        raise file.error(f"holds the tensor {quoted(min(unread), 80)}, which is not supported")
    pruned = geometry != family.geometry(config) or biased != own
    return GGUFModel(config, geometry, sizes.head_dim, biased, pruned, stored)


def _with_zeros(parameter: Parameter, file: GGUFFile) -> Parameter:
    """The parameter; without tensors if it is a bias that the file does not have, which is zeros then."""
    absent = parameter.name.endswith(".bias") and not set(parameter.tensors) & file.tensors.keys()
    return replace(parameter, tensors=()) if absent else parameter


# --- sizes -------------------------------------------------------------------------------------------------


class Widths(NamedTuple):
    """Widths of a decoder layer: its query heads, key-value heads, and MLP channels."""

    heads: int
    kv_heads: int
    channels: int

    @property
    def config(self) -> dict[str, int]:
        """The keys of a config that say them."""
        names = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
        return dict(zip(names, self, strict=True))


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model: width of the residual stream, channels of a head, longest sequence, and layers."""

    hidden: int
    head_dim: int
    context: int
    layers: tuple[Widths, ...]


def _sizes(file: GGUFFile, prefix: str, by_layer: bool) -> Sizes:
    """The sizes of a GGUF file's model, compared with each other.

    Args:
        file: a GGUF file.
        prefix: the architecture, with which the keys begin.
        by_layer: whether layers may differ in width.

    Raises:
        ModelError: one is missing, is no size, or contradicts another; or layers have no attention or no MLP.
    """

    def value(key: str, default: Any = None) -> Any:
        if (content := file.metadata.get(f"{prefix}.{key}", default)) is None:
            raise file.error(f"lacks {prefix}.{key}", AGAIN)
        return content

    def checked(key: str, number: Any) -> int:
        if type(number) is not int or not 0 < number <= WIDEST:
            raise file.error(f"says {prefix}.{key} = {quoted(number)}, which is no size of a model")
        return number

    def size(key: str, default: Any = None) -> int:
        return checked(key, value(key, default))

    def widths(key: str, default: Any = None) -> list[int]:
        """The width of each layer, from a list or from one number for all."""
        content = value(key, default)
        numbers = content if isinstance(content, list) else [content] * depth
        if len(numbers) != depth or (not by_layer and any(number != numbers[0] for number in numbers)):
            expected = "one width for each" if by_layer else "one width for all"
            raise file.value_error(f"{prefix}.{key}", f"and its {depth} layers need {expected}")
        if 0 in numbers:
            layer = numbers.index(0)
            raise file.error(f"says {prefix}.{key} = 0 of layer {layer}, and such layers are not supported")
        return [checked(key, number) for number in numbers]

    hidden, context = size(keys.HIDDEN), size(keys.CONTEXT)
    if (depth := size(keys.LAYERS)) > DEEPEST:
        raise file.value_error(f"{prefix}.{keys.LAYERS}", "and no model has as many")
    heads = widths(keys.HEADS)
    kv_heads, channels = widths(keys.KV_HEADS, heads), widths(keys.MLP)
    for layer, (queries, groups) in enumerate(zip(heads, kv_heads, strict=True)):
        if queries % groups:
            raise file.error(f"has {queries} query heads for {groups} key-value heads in layer {layer}")
    usual = hidden // heads[0] if len(set(heads)) == 1 and hidden % heads[0] == 0 else None
    head_dim = size(keys.HEAD_DIM, usual)
    if head_dim % 2 or sum(heads) * head_dim + sum(channels) > CHANNELS:
        raise file.error(f"has heads of {head_dim} channels and layers of sizes that no model has", AGAIN)
    for key in keys.IMPLIED:
        implied = file.metadata.get(f"{prefix}.{key}")
        fits = implied in (None, head_dim)
        if key == "attention.scale" and implied is not None:
            fits = isinstance(implied, float) and (
                implied == 0 or math.isclose(implied, head_dim**-0.5, rel_tol=1e-6)
            )
        if not fits:
            raise file.value_error(f"{prefix}.{key}", f"and its heads have {head_dim} channels")
    layers = tuple(Widths(*each) for each in zip(heads, kv_heads, channels, strict=True))
    return Sizes(hidden, head_dim, context, layers)


# --- the config --------------------------------------------------------------------------------------------


def _config(file: GGUFFile, prefix: str, sizes: Sizes) -> dict[str, Any]:
    """The config of the dense model."""
    hidden, layers = sizes.hidden, sizes.layers
    key = f"{prefix}.attention.layer_norm_rms_epsilon"
    epsilon = file.metadata.get(key)
    if not isinstance(epsilon, float) or not 0 <= epsilon < 1:
        raise file.value_error(key, "which is no small number")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise file.error("lacks the matrix 'token_embd.weight'", AGAIN)
    model_type, own = _model_type(file, prefix, sizes)
    family = FAMILIES[model_type]
    heads, kv_heads = layers[0].heads, layers[0].kv_heads
    if len(set(layers)) > 1 or (family.heads_divide and hidden % heads):
        # a pruned model, whose dense one is not on record: the heads that such a width usually has
        heads = hidden // sizes.head_dim if hidden % sizes.head_dim == 0 else 1
        kv_heads = max(layer.kv_heads for layer in layers)
        kv_heads = kv_heads if heads % kv_heads == 0 else heads
    config = {
        "model_type": model_type,
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "head_dim": sizes.head_dim,
        "intermediate_size": max(layer.channels for layer in layers),
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": sizes.context,
        "rms_norm_eps": epsilon,
        "rope_parameters": gguf_rope.rope_parameters(file, prefix, sizes.head_dim, sizes.context),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        family.activation: "silu",
        **own,
        **{name: token_id(file, key, embedding.shape[0]) for name, key in SPECIAL.items()},
    }
    metadata = {
        key.removeprefix(f"{prefix}."): value
        for key, value in file.metadata.items()
        if key.startswith(f"{prefix}.")
    }
    return config | dict(ARCHITECTURES[prefix][0].config(metadata, config))


def token_id(file: GGUFFile, name: str, vocabulary: int) -> int | None:
    """The id of a special token; None where the file names none.

    Raises:
        ModelError: it is no token of the vocabulary.
    """
    key = f"tokenizer.ggml.{name}_token_id"
    value = file.metadata.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < vocabulary):
        raise file.value_error(key, f"and its vocabulary has {vocabulary:,} tokens")
    return value


def _model_type(file: GGUFFile, prefix: str, sizes: Sizes) -> tuple[str, dict[str, Any]]:
    """The model type with the biases and the window that a file has, and the keys of its config for them.

    A bias that the type has and the file has not is made zeros. One on an output projection that the type has
    not goes on record with the widths.
    """
    biases: dict[str, list[str]] = {}  # names of tensors by role
    for name in file.tensors:
        tensor, _, kind = name.partition(".")[2].partition(".")[2].partition(".")
        if kind == "bias" and tensor in ROLES:
            biases.setdefault(ROLES[tensor], []).append(name)
    layout, model_type = ARCHITECTURES[prefix]
    if layout == FAMILIES[model_type].gguf and layout != DECI:  # no other family is written so
        projections = [p for spec in FAMILIES[model_type].sites for p in spec.producers]
        keyed = [(p.bias, p.parts) for p in projections if isinstance(p.bias, str)]
        return model_type, {key: any(part.role in biases for part in parts) for key, parts in keyed}
    inputs = [*(biases.get(role, [""])[0] for role in ("query", "key", "value", "gate", "up"))]
    attention, gated = any(inputs[:3]), any(inputs[3:])
    first = next(filter(None, inputs), "")
    key = f"{prefix}.{keys.WINDOW}"
    window = file.metadata.get(key, 0)
    if type(window) is not int or window < 0:
        raise file.value_error(key, "which is no number of tokens")
    if 0 < window < sizes.context:
        beside = f" and holds {first!r}" if first else ""
        if first or prefix == "qwen2":
            raise file.error(f"says {key} = {window}{beside}, which no supported model has")
        return "mistral", {"sliding_window": window}
    outputs = len(biases.get("output", [])) == len(sizes.layers)
    if gated and (prefix == "qwen2" or (attention and not outputs)):
        present = {"attention_bias": attention, "attention_out_bias": False, "mlp_bias": True}
        return "seed_oss", present | {"attention_dropout": 0.0, "residual_dropout": 0.0}
    # with all biases but those of gate and up, it is a Qwen2 whose every output projection was repaired
    if prefix == "qwen2" or (attention and not gated and (not outputs or "down" in biases)):
        return "qwen2", {}
    return "llama", {"attention_bias": attention, "mlp_bias": gated}


# --- tensors -----------------------------------------------------------------------------------------------


def parameters(
    family: Family,
    layout: Gguf,
    config: Config,
    layers: Sequence[Sequence[SiteShape]],
    biased: Mapping[str, bool],
) -> Iterator[Parameter]:
    """Every parameter of a model, with its tensors in a GGUF file.

    Args:
        family: of the model.
        layout: how the file has the family.
        config: content of the dense model's `config.json`.
        layers: by layer the shapes of all sites, prunable or not.
        biased: by prunable site, as `str` writes it, whether its output projection has a bias.
    """
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    yield Parameter(f"{family.embeddings}.weight", ("token_embd.weight",), ((vocabulary, hidden),))
    yield Parameter(f"{family.final_norm}.weight", ("output_norm.weight",), ((hidden,),), gain=layout.gain)
    if not config["tie_word_embeddings"]:
        yield Parameter("lm_head.weight", ("output.weight",), ((vocabulary, hidden),))
    for number, shapes in enumerate(layers):
        inside, block = f"{family.layers}.{number}", f"blk.{number}"
        for norms, width in ((layout.norms, hidden), (layout.head_norms, family.head_dim(config))):
            for path, tensor in norms.items():
                name, weight = f"{inside}.{path}.weight", f"{block}.{tensor}.weight"
                yield Parameter(name, (weight,), ((width,),), gain=layout.gain)
        for spec, shape in zip(family.sites, shapes, strict=True):
            for producer in spec.producers:
                rows = [part.rows(shape) for part in producer.parts]
                tensors = [f"{block}.{TENSORS[part.role]}" for part in producer.parts]
                pairs = tuple(layout.pairs and part.role in ("query", "key") for part in producer.parts)
                for kind, columns in (("weight", (hidden,)), ("bias", ())):
                    if kind == "weight" or producer.has_bias(config):
                        names = tuple(f"{tensor}.{kind}" for tensor in tensors)
                        each = tuple((n, *columns) for n in rows)
                        yield Parameter(f"{inside}.{producer.path}.{kind}", names, each, pairs)
            name, tensor = f"{inside}.{spec.consumer.path}", f"{block}.{TENSORS[spec.role]}"
            yield Parameter(f"{name}.weight", (f"{tensor}.weight",), ((hidden, shape.channels),))
            if biased.get(f"{number}.{spec.name}", spec.consumer.has_bias(config)):
                yield Parameter(f"{name}.bias", (f"{tensor}.bias",), ((hidden,),))
