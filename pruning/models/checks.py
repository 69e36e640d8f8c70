"""Checks of a model folder before its weights are read. Needs no torch."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.errors import ModelError
from pruning.formatting import quoted
from pruning.models.families import FAMILIES
from pruning.models.family import FOREIGN_KEYS, has_window, rotary_embeddings
from pruning.models.geometry import Geometry
from pruning.models.tensors import check_file, read_object, stored_tensors, weight_files

HEAD = "lm_head.weight"
ADAPTER = "adapter_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
INTEGER_KEYS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "max_position_embeddings"),
)
# Endings of the class names whose weights are those of a causal language model.
_CAUSAL = ("ForCausalLM", "Model")


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse what is no plain causal language model.

    Args:
        config: as in `config.json`.

    Raises:
        ModelError: it is quantised, has another head, or something else where a number belongs.
    """
    quantisation = config.get("quantization_config") or config.get("compression_config")
    if quantisation:
        quantisation = quantisation if isinstance(quantisation, dict) else {}
        kind = quantisation.get("quant_method") or quantisation.get("format") or "of an unnamed kind"
        bits = f", {quantisation['bits']} bits" if isinstance(quantisation.get("bits"), int) else ""
        raise ModelError(
            f"the model is quantised ({quoted(kind, 40)}{bits}), and pruning needs its weights as numbers: "
            "give the model that it was quantised from, or a GGUF file of it."
        )
    for name, least in {**dict.fromkeys(INTEGER_KEYS, 1), "sliding_window": 0}.items():
        value = config.get(name)
        if value is not None and (type(value) is not int or value < least):
            raise ModelError(
                f"the model's config has {name} {quoted(value)}, which is to be a whole number from {least} "
                "up: copy the model's own config again."
            )
    for name in ("rope_scaling", "rope_parameters"):
        if config.get(name) is not None and not isinstance(config[name], dict):
            raise ModelError(
                f"the model's config has {name} {quoted(config[name])}, which is to be an object: copy the "
                "model's own config again."
            )
    _check_computed(config)
    classes = config.get("architectures")
    if isinstance(classes, list) and classes and not any(str(name).endswith(_CAUSAL) for name in classes):
        raise ModelError(
            f"the model is a {quoted(classes[0], 60)}, and only causal language models are pruned: give the "
            "language model that it was made from."
        )


def _check_computed(config: Mapping[str, Any]) -> None:
    """Refuse what a config asks for and its family does not compute: transformers would pass over it.

    Raises:
        ModelError: a key that changes what is computed has a value that is not neutral.
    """
    model_type = str(config.get("model_type")).removeprefix("pruned_")
    if model_type not in FAMILIES:  # which is refused by that name
        return
    family = FAMILIES[model_type]
    embeddings = rotary_embeddings(config)
    parameters = config.get("rope_parameters") or config.get("rope_scaling")
    nested = embeddings != [parameters or {}]
    if (nested and not family.nested_rope) or any(
        rotary.get("factor") and not {"rope_type", "type"} & rotary.keys() for rotary in embeddings
    ):
        raise ModelError(
            f"the model's config has the rotary embedding {quoted(parameters)}, without a rope_type that "
            "holds for all layers: copy the model's own config again."
        )
    for key, neutral in FOREIGN_KEYS.items():
        value = config.get(key, embeddings[0].get(key))
        if key in family.keys or value is None or value in neutral:
            continue
        if key == "layer_types" and isinstance(value, list) and value == ["full_attention"] * len(value):
            continue
        if key == "sliding_window" and not has_window(config):
            continue
        raise ModelError(
            f"the model's config has {key} {quoted(value)}, which models of type {quoted(model_type)} do not "
            "compute: give the model with the config and the model type that it was trained with."
        )


def check_adapter(path: Path) -> None:
    """Refuse an adapter, which stands for another model than the folder's own weights.

    Raises:
        ModelError: the folder holds one.
    """
    if not (path / ADAPTER).exists():
        return
    base = read_object(path / ADAPTER).get("base_model_name_or_path")
    of = f" of {quoted(base)}" if isinstance(base, str) and base else ""
    if weight_files(path):
        raise ModelError(
            f"the folder {quoted(path)} holds an adapter{of} beside its weights: remove {ADAPTER} if "
            "the adapter is merged into them, or merge it (merge_and_unload of peft)."
        )
    raise ModelError(
        f"the folder {quoted(path)} holds an adapter{of} and no model: merge it into that model "
        "(merge_and_unload of peft), and give the folder of the result."
    )


def check_tokenizer(path: Path) -> None:
    """Check that a folder holds a tokenizer.

    Raises:
        ModelError: it does not, or one of its files is a link or a pointer to a missing file.
    """
    files = [path / name for name in (*TOKENIZER_FILES, "tokenizer_config.json")]
    for file in files:
        if file.exists() or file.is_symlink():
            check_file(file)
    if not any(file.exists() for file in files[:-1]):
        raise ModelError(
            f"the folder {quoted(path)} holds no tokenizer: copy the dense model's tokenizer.json and "
            "tokenizer_config.json into it."
        )
    if files[0].exists() or files[2].exists():
        return
    file = next(file for file in files if file.exists())
    package = "sentencepiece"
    if file.suffix == ".json":
        package = "mistral_common"
    elif _is_tiktoken(file):
        package = "tiktoken"
    if importlib.util.find_spec(package) is None:
        raise ModelError(
            f"the tokenizer {quoted(file)} is read by the package {package}, which is not installed: 'pip "
            f"install {package.replace('_', '-')}', or put the model's tokenizer.json beside it."
        )


def _is_tiktoken(file: Path) -> bool:
    """Whether a `tokenizer.model` is lines of base64 and numbers, and no model of SentencePiece's."""
    with file.open("rb") as stream:
        return re.match(rb"[A-Za-z0-9+/]+=* \d+\n", stream.read(1000)) is not None


def check_ids(path: Path, rows: int) -> None:
    """Check that every token of a folder's `tokenizer.json` has a row in the embedding.

    Special tokens are left out: transformers adds those that a model never had.

    Args:
        path: of the model.
        rows: of the embedding.

    Raises:
        ModelError: a token has no row, or the file is broken.
    """
    file = path / "tokenizer.json"
    if not file.exists():
        return
    content = read_object(file)
    try:
        vocabulary = content["model"]["vocab"]
        ids = (
            dict(vocabulary) if isinstance(vocabulary, dict) else {t[0]: i for i, t in enumerate(vocabulary)}
        )
        added = [token for token in content.get("added_tokens") or () if not token.get("special")]
        ids |= {token["content"]: token["id"] for token in added}
        token = max(ids, key=ids.__getitem__, default="")
        last = int(ids.get(token, -1))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise ModelError(f"{quoted(file)} is no tokenizer: copy or download it again.") from None
    if last >= rows:
        raise ModelError(
            f"the tokenizer in {quoted(file)} has ids up to {last:,} ({quoted(token, 40)}) and the embedding "
            f"{rows:,} rows: give the tokenizer that belongs to the model, or enlarge the embedding "
            "(resize_token_embeddings of transformers)."
        )


def count_dense(path: Path, config: Mapping[str, Any], geometry: Geometry) -> int:
    """The number of parameters of a dense model, after a check that its tensors are those of its config.

    Args:
        path: of the folder.
        config: the dense model's, with a supported model type.
        geometry: by the config.

    Raises:
        ModelError: a tensor is missing, packed, or of another shape.
    """
    family, tied = FAMILIES[config["model_type"]], bool(config.get("tie_word_embeddings"))
    inner = family.layers.partition(".")[0] + "."  # which a model without its head leaves out
    stored = {}
    for tensor in stored_tensors(weight_files(path)):
        headless = tensor.name.startswith((f"{family.layers}.".removeprefix(inner), "embed_tokens."))
        stored[inner * headless + tensor.name] = tensor
    shapes = family.weight_shapes(config, geometry)
    shapes[HEAD] = shapes[f"{family.embeddings}.weight"]
    for name, shape in shapes.items():
        if name not in stored and name == HEAD and tied:
            continue
        if name not in stored:
            raise ModelError(f"the weights in {quoted(path)} lack {name!r}: copy or download them again.")
        tensor = stored[name]
        subject = f"{name!r} in {quoted(tensor.file)}"
        if not tensor.plain:
            raise ModelError(
                f"{subject} is packed as {quoted(tensor.dtype, 40)}, and pruning needs weights as numbers: "
                "give the model that it was quantised from."
            )
        if tensor.shape != shape:
            raise ModelError(
                f"{subject} has the shape {tensor.shape}, and {shape} by the config: give the config that "
                "belongs to these weights."
            )
    total = sum(math.prod(tensor.shape) for tensor in stored.values())
    head = stored.get(HEAD)
    return total - (math.prod(head.shape) if tied and head else 0)
