"""The model in a GGUF file: its config, its widths by layer, and where each tensor goes. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pruning.formatting import quoted
from pruning.models.architectures import ARCHITECTURES, supported
from pruning.models.geometry import Geometry
from pruning.models.gguf_file import GGUFFile
from pruning.models.gguf_keys import (
    NORMS,
    OUTSIDE,
    PROJECTIONS,
    QK_NORMS,
    TYPES,
    WINDOW,
    check_keys,
    check_tensors,
    layer_tensor,
)
from pruning.models.gguf_rope import rope_parameters
from pruning.models.gguf_sizes import AGAIN, Sizes, read_sizes

GATED, ROTATED = ("gate", "up"), ("query", "key")
OUTPUTS = {"attn": "output", "mlp": "down"}  # roles of the output projections by the kind of site
_TENSORS = {role: tensor for tensor, (_, role) in PROJECTIONS.items()}
SPECIAL = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}


def bias_name(layer: int, role: str) -> str:
    """The file's name of the bias of a projection."""
    return f"blk.{layer}.{_TENSORS[role]}.bias"


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
        ModelError: it says or holds something that is not supported, lacks something, or contradicts itself.
    """
    prefix = file.metadata.get("general.architecture")
    if not isinstance(prefix, str) or prefix not in TYPES:
        supported(prefix)  # says what is
        raise file.refusal(f"has the architecture {quoted(prefix, 60)}, and supported are {', '.join(TYPES)}")
    check_keys(file, prefix)
    sizes = read_sizes(file, prefix)
    check_tensors(file, prefix, len(sizes.layers))
    config = _config(file, prefix, sizes)
    architecture = ARCHITECTURES[config["model_type"]]
    geometry = Geometry(
        sizes.hidden,
        sizes.head_dim,
        sizes.layers,
        query_bias=architecture.has_bias("query", config),
        key_value_bias=architecture.has_bias("key", config),
        gate_up_bias=architecture.has_bias("gate", config),
    )
    own = {site: architecture.has_bias(OUTPUTS[site.name], config) for site in geometry.sites}
    biased = {
        str(site): own[site] or bias_name(site.layer, OUTPUTS[site.name]) in file.tensors
        for site in geometry.sites
    }
    pruned = geometry != architecture.geometry(config) or list(biased.values()) != list(own.values())
    parameters = list(_parameters(file, prefix, config, geometry, biased))
    for parameter in parameters:
        if parameter.tensor is None:
            continue
        if (stored := file.tensors.get(parameter.tensor)) is None:
            raise file.refusal(f"lacks {parameter.tensor!r}", AGAIN)
        if stored.shape != parameter.shape:
            by_sizes = f"and {parameter.shape} by its sizes"
            raise file.refusal(f"holds {stored.name!r} in the shape {stored.shape}, {by_sizes}", AGAIN)
    return GGUFModel(config, geometry, biased, pruned, parameters)


def _config(file: GGUFFile, prefix: str, sizes: Sizes) -> dict[str, Any]:
    """The config of the dense model."""
    hidden, shapes = sizes.hidden, sizes.layers
    epsilon = file.metadata.get(f"{prefix}.attention.layer_norm_rms_epsilon")
    if not isinstance(epsilon, float) or not 0 <= epsilon < 1:
        raise file.refusal(
            f"says {prefix}.attention.layer_norm_rms_epsilon = {quoted(epsilon)}, which is no small number",
            AGAIN,
        )
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise file.refusal("lacks the matrix 'token_embd.weight'", AGAIN)
    model_type, own = _family(file, prefix, sizes)
    heads, kv_heads = shapes[0].heads, shapes[0].kv_heads
    if len(set(shapes)) > 1 or (
        model_type == "llama" and hidden % heads
    ):  # which transformers' Llama refuses
        # a pruned model, whose dense one is not on record: the heads that such a width usually has
        heads = hidden // sizes.head_dim if hidden % sizes.head_dim == 0 else 1
        kv_heads = max(shape.kv_heads for shape in shapes)
        kv_heads = kv_heads if heads % kv_heads == 0 else heads
    return {
        "model_type": model_type,
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "head_dim": sizes.head_dim,
        "intermediate_size": max(shape.channels for shape in shapes),
        "num_hidden_layers": len(shapes),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": sizes.context,
        "rms_norm_eps": epsilon,
        "rope_parameters": rope_parameters(file, prefix, sizes.head_dim, sizes.context),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "hidden_act": "silu",
        **own,
        **{name: token_id(file, key, embedding.shape[0]) for name, key in SPECIAL.items()},
    }


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


def _family(file: GGUFFile, prefix: str, sizes: Sizes) -> tuple[str, dict[str, Any]]:
    """The model type with the biases and the window that a file has, and the keys of its config for them.

    A bias that the type has and the file has not is made zeros. One on an output projection that the type has
    not goes on record with the widths.
    """
    biases: dict[str, list[str]] = {}  # names of tensors by role
    for name in file.tensors:
        if (part := layer_tensor(name)) and part[2] == "bias":
            biases.setdefault(PROJECTIONS[part[1]][1], []).append(name)
    inputs = [*(biases.get(role, [""])[0] for role in ("query", "key", "value", *GATED))]
    attention, gated = any(inputs[:3]), any(inputs[3:])
    first = next(filter(None, inputs), "")
    window = file.metadata.get(f"{prefix}.{WINDOW}", 0)
    if type(window) is not int or window < 0:
        raise file.refusal(f"says {prefix}.{WINDOW} = {quoted(window)}, which is no number of tokens")
    if 0 < window < sizes.context:
        beside = f" and holds {first!r}" if first else ""
        if first or prefix.startswith("qwen"):
            raise file.refusal(f"says {prefix}.{WINDOW} = {window}{beside}, which no supported model has")
        return "mistral", {"sliding_window": window}
    if prefix == "qwen3":
        if gated:
            raise file.refusal(
                f"holds the tensor {next(filter(None, inputs[3:]))!r}, which qwen3 does not have"
            )
        return "qwen3", {"attention_bias": attention}
    outputs = len(biases.get("output", [])) == len(sizes.layers)
    if gated and (prefix == "qwen2" or (attention and not outputs)):
        present = {"attention_bias": attention, "attention_out_bias": False, "mlp_bias": True}
        return "seed_oss", present | {"attention_dropout": 0.0, "residual_dropout": 0.0}
    # with all biases but those of gate and up, it is a Qwen2 whose every output projection was repaired
    if prefix == "qwen2" or (attention and not gated and (not outputs or "down" in biases)):
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
                stored = bias_name(number, role)
                yield Parameter(
                    f"{inside}.{name}.bias", stored if stored in file.tensors else None, shape[:1], pairs
                )
