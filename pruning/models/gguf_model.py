"""The model in a GGUF file: its config, its widths by layer, and where each tensor goes. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pruning.models.architectures import ARCHITECTURES, CHANNELS, supported
from pruning.models.geometry import DEEPEST, WIDEST, Geometry, LayerShape
from pruning.models.gguf_file import GGUFFile
from pruning.models.gguf_keys import (
    NORMS,
    OUTSIDE,
    PROJECTIONS,
    QK_NORMS,
    SIZES,
    TYPES,
    WINDOW,
    check_keys,
    check_tensors,
    layer_tensor,
)
from pruning.models.gguf_rope import rope_parameters
from pruning.words import quoted

GATED, ROTATED = ("gate", "up"), ("query", "key")
SPECIAL = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model.

    Attributes:
        name: in transformers.
        tensor: in the file; None for a bias that the architecture has and the file has not: zeros.
        shape: of it.
        interleaved: whether rows lie as rotary pairs in the file.
    """

    name: str
    tensor: str | None
    shape: tuple[int, ...]
    interleaved: bool = False


@dataclass(frozen=True)
class GGUFModel:
    """What a GGUF file is as a model.

    Attributes:
        config: as `config.json` has it.
        geometry: widths of every layer.
        biased: by site whether its output projection has a bias.
        pruned: whether it is a model that the config alone does not describe.
        parameters: all of them.
    """

    config: dict[str, Any]
    geometry: Geometry
    biased: dict[str, bool]
    pruned: bool
    parameters: list[Parameter]


def read_model(file: GGUFFile) -> GGUFModel:
    """What a GGUF file is as a model.

    Raises:
        ModelError: it says or holds something that is not known here, lacks something, or contradicts itself.
    """
    name = file.metadata.get("general.architecture")
    if name not in TYPES if isinstance(name, str) else True:
        supported(name)  # says what is
        raise file.refusal(f"has the architecture {quoted(name, 60)}, and known are {', '.join(TYPES)}")
    prefix = str(name)
    check_keys(file, prefix)
    sizes = _sizes(file, prefix)
    check_tensors(file, prefix, len(sizes["layers"]))
    config, geometry = _config(file, prefix, sizes)
    architecture = ARCHITECTURES[config["model_type"]]
    biased = {
        str(site): architecture.has_bias(role := {"attn": "output", "mlp": "down"}[site.kind], config)
        or f"blk.{site.layer}.{_TENSORS[role]}.bias" in file.tensors
        for site in geometry.sites
    }
    pruned = geometry != architecture.geometry(config) or any(
        biased[str(site)] != architecture.has_bias({"attn": "output", "mlp": "down"}[site.kind], config)
        for site in geometry.sites
    )
    parameters = list(_parameters(file, prefix, config, geometry, biased))
    for parameter in parameters:
        stored = file.tensors.get(parameter.tensor or "")
        if parameter.tensor and stored is None:
            raise file.refusal(f"lacks {parameter.tensor!r}", "copy or download it again")
        if stored and stored.shape != parameter.shape:
            raise file.refusal(
                f"holds {stored.name!r} in the shape {stored.shape}, and {parameter.shape} by its sizes",
                "copy or download it again",
            )
    return GGUFModel(config, geometry, biased, pruned, parameters)


_TENSORS = {role: tensor for tensor, (_, role) in PROJECTIONS.items()}


def _sizes(file: GGUFFile, prefix: str) -> dict[str, Any]:
    """Sizes by the config's name, and under `layers` a `LayerShape` for each."""

    def size(name: str, value: Any) -> int:
        if type(value) is not int or not 0 < value <= WIDEST:
            raise file.refusal(f"says {prefix}.{SIZES[name]} = {quoted(value)}, which is no size of a model")
        return value

    values: dict[str, Any] = {name: file.metadata.get(f"{prefix}.{key}") for name, key in SIZES.items()}
    if values["num_key_value_heads"] is None:
        values["num_key_value_heads"] = values["num_attention_heads"]
    for name, value in values.items():
        if value is None and name != "head_dim":
            raise file.refusal(f"lacks {prefix}.{SIZES[name]!s}", "copy or download it again")
    found: dict[str, Any] = {
        name: size(name, values[name])
        for name in ("hidden_size", "num_hidden_layers", "max_position_embeddings")
    }
    depth = found["num_hidden_layers"]
    widths: dict[str, list[int]] = {}
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        value = values[name]
        each = value if isinstance(value, list) else [value] * min(depth, DEEPEST)
        if len(each) != depth or (prefix != "deci" and any(width != each[0] for width in each)):
            raise file.refusal(
                f"says {prefix}.{SIZES[name]} = {quoted(value)}, and {depth} layers of "
                + ("as many widths" if prefix == "deci" else f"one width are known of {prefix}")
            )
        for layer, width in enumerate(each):
            if width == 0:
                raise file.refusal(
                    f"has {prefix}.{SIZES[name]} 0 in layer {layer}, and layers without are not known"
                )
            size(name, width)
        widths[name] = each
    for layer, (heads, shared) in enumerate(zip(*list(widths.values())[:2], strict=True)):
        if heads % shared:
            raise file.refusal(f"has {heads} query heads over {shared} key-value heads in layer {layer}")
    found["layers"] = [
        LayerShape(kv, heads // kv, mlp) for heads, kv, mlp in zip(*widths.values(), strict=True)
    ]
    if values["head_dim"] is None:
        if (
            len(set(widths["num_attention_heads"])) > 1
            or found["hidden_size"] % widths["num_attention_heads"][0]
        ):
            raise file.refusal(f"lacks {prefix}.{SIZES['head_dim']}", "copy or download it again")
        values["head_dim"] = found["hidden_size"] // widths["num_attention_heads"][0]
    dim = found["head_dim"] = size("head_dim", values["head_dim"])
    if sum(shape.heads * dim + shape.channels for shape in found["layers"]) > CHANNELS or dim % 2:
        raise file.refusal("has sizes that no model has", "copy or download it again")
    for key, wanted in (
        ("rope.dimension_count", (dim,)),
        ("attention.value_length", (dim,)),
        ("attention.scale", (0,)),
    ):
        value = file.metadata.get(f"{prefix}.{key}", wanted[0])
        scale = (
            key == "attention.scale"
            and isinstance(value, float)
            and math.isclose(value, dim**-0.5, rel_tol=1e-6)
        )
        if value not in wanted and not scale:
            raise file.refusal(f"says {prefix}.{key} = {quoted(value)} where heads have {dim} channels")
    return found


def _config(file: GGUFFile, prefix: str, sizes: dict[str, Any]) -> tuple[dict[str, Any], Geometry]:
    """The config of the dense model, and the geometry of the model itself."""
    shapes, hidden, dim = sizes["layers"], sizes["hidden_size"], sizes["head_dim"]
    epsilon = file.metadata.get(f"{prefix}.attention.layer_norm_rms_epsilon")
    if not isinstance(epsilon, float) or not 0 <= epsilon < 1:
        raise file.refusal(f"says {prefix}.attention.layer_norm_rms_epsilon = {quoted(epsilon)}")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise file.refusal("lacks 'token_embd.weight'", "copy or download it again")
    context = sizes["max_position_embeddings"]
    model_type, biases = _family(file, prefix, len(shapes))
    heads, kv_heads = shapes[0].heads, shapes[0].kv_heads
    if len(set(shapes)) > 1 or (
        model_type == "llama" and hidden % heads
    ):  # which transformers' Llama refuses
        # a pruned model, whose dense one is not on record: the heads that such a width usually has
        heads = hidden // dim if hidden % dim == 0 else 1
        kv_heads = max(shape.kv_heads for shape in shapes)
        kv_heads = kv_heads if heads % kv_heads == 0 else heads
    config: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "head_dim": dim,
        "intermediate_size": max(shape.channels for shape in shapes),
        "num_hidden_layers": len(shapes),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "rms_norm_eps": epsilon,
        "rope_parameters": rope_parameters(file, prefix, dim, context),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "hidden_act": "silu",
        **biases,
        **{name: token_id(file, key, embedding.shape[0]) for name, key in SPECIAL.items()},
    }
    if model_type == "seed_oss":
        config |= {"attention_dropout": 0.0, "residual_dropout": 0.0}
    architecture = ARCHITECTURES[model_type]
    geometry = Geometry(
        hidden,
        dim,
        tuple(shapes),
        query_bias=architecture.has_bias("query", config),
        key_value_bias=architecture.has_bias("key", config),
        gate_up_bias=architecture.has_bias("gate", config),
    )
    return config, geometry


def token_id(file: GGUFFile, name: str, vocabulary: int) -> int | None:
    """The id of a special token; None where the file names none.

    Raises:
        ModelError: it is no token of the vocabulary.
    """
    key = f"tokenizer.ggml.{name}_token_id"
    value = file.metadata.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < vocabulary):
        raise file.refusal(f"says {key} = {quoted(value)}, and its vocabulary has {vocabulary:,} tokens")
    return value


def _family(file: GGUFFile, prefix: str, layers: int) -> tuple[str, dict[str, Any]]:
    """The model type with the biases and the window that a file has, and the keys of its config for them.

    A bias that the type has and the file has not is made zeros. One on an output projection that the type has
    not goes on record with the widths.
    """
    layer_names = [layer_tensor(name) for name in file.tensors]
    biases = [(part[0], PROJECTIONS[part[1]][1]) for part in layer_names if part and part[2] == "bias"]
    first = {role: f"blk.{layer}.{_TENSORS[role]}.bias" for layer, role in reversed(biases)}
    count = {role: len({layer for layer, r in biases if r == role}) for role in first}
    attention, gated = bool(first.keys() - {"output", "down", *GATED}), bool(first.keys() & set(GATED))
    window = file.metadata.get(f"{prefix}.{WINDOW}", 0)
    if type(window) is not int or window < 0:
        raise file.refusal(f"says {prefix}.{WINDOW} = {quoted(window)}, which is no number of tokens")
    if 0 < window < file.metadata[f"{prefix}.context_length"]:
        if prefix.startswith("qwen"):
            raise file.refusal(f"says {prefix}.{WINDOW} = {window}, which is not known of {prefix}")
        if attention or gated:
            role = next(role for role in first if role not in ("output", "down"))
            raise file.refusal(
                f"says {prefix}.{WINDOW} = {window} and holds {first[role]!r}, and no model has both"
            )
        return "mistral", {"sliding_window": window}
    if prefix == "qwen3":
        if gated:
            raise file.refusal(
                f"holds {next(first[r] for r in GATED if r in first)!r}, and qwen3 has no such bias"
            )
        return "qwen3", {"attention_bias": attention}
    all_output = count.get("output", 0) == layers
    if prefix == "qwen2" and not gated:
        return "qwen2", {}
    if attention and not all_output:
        if gated:
            return "seed_oss", {"attention_bias": True, "attention_out_bias": False, "mlp_bias": True}
        return "qwen2", {}
    if attention and "down" in first and not gated:  # a pruned Qwen2, of which every projection was repaired
        return "qwen2", {}
    return "llama", {"attention_bias": attention, "mlp_bias": gated}


def _parameters(
    file: GGUFFile, prefix: str, config: dict[str, Any], geometry: Geometry, biased: dict[str, bool]
) -> Iterator[Parameter]:
    hidden, dim = geometry.hidden_size, geometry.head_dim
    for tensor, name in OUTSIDE.items():
        if tensor != "output.weight" or not config["tie_word_embeddings"]:
            shape = (hidden,) if tensor == "output_norm.weight" else (config["vocab_size"], hidden)
            yield Parameter(name, tensor, shape)
    architecture = ARCHITECTURES[config["model_type"]]
    for number, layer in enumerate(geometry.layers):
        inside, block = f"model.layers.{number}", f"blk.{number}"
        for tensor, name in NORMS.items():
            yield Parameter(f"{inside}.{name}.weight", f"{block}.{tensor}.weight", (hidden,))
        for tensor, name in QK_NORMS.items() if prefix == "qwen3" else ():
            yield Parameter(f"{inside}.{name}.weight", f"{block}.{tensor}.weight", (dim,))
        rows = dict.fromkeys(("key", "value"), layer.kv_heads * dim) | dict.fromkeys(GATED, layer.channels)
        rows |= {"query": layer.heads * dim}
        columns = {"output": layer.heads * dim, "down": layer.channels}
        sites = {"output": biased[f"{number}.attn"], "down": biased[f"{number}.mlp"]}
        for tensor, (name, role) in PROJECTIONS.items():
            shape = (rows.get(role, hidden), columns.get(role, hidden))
            pairs = role in ROTATED and not prefix.startswith("qwen")
            yield Parameter(f"{inside}.{name}.weight", f"{block}.{tensor}.weight", shape, pairs)
            if sites.get(role, architecture.has_bias(role, config)):
                stored = f"{block}.{tensor}.bias"
                yield Parameter(
                    f"{inside}.{name}.bias", stored if stored in file.tensors else None, shape[:1], pairs
                )
