"""GGUF files as models: described from their header, and read once into a plain folder in the cache.

A file with keys that are not supported is refused by their name (`gguf_keys`). One with other
widths in each layer, such as our own exports, is unpacked as a checkpoint of this project.
"""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from pruning.checksums import cache_path, digests, read_cached, read_json, verify, write_cached, write_json
from pruning.errors import ModelError, RunError
from pruning.files import PRUNING_FILE, atomic_write
from pruning.formatting import size_text
from pruning.models.gguf_file import GGUFFile, read_gguf
from pruning.models.gguf_model import GGUFModel, Parameter, read_model, token_id
from pruning.models.gguf_tokenizer import read_tokenizer
from pruning.paths import cache_folder
from pruning.progress import announced, log
from pruning.versions import versions

# Of what is made from a file: an entry of the cache that an earlier one made is not read.
READER_VERSION = 3
CHECKSUMS = "checksums.json"  # of the files of an unpacked model
EXACT_PARAMETERS = 2_000_000_000  # dequantised to float32 up to here, to float16 beyond: memory and disk
PROGRESS_SECONDS = 2.0  # between two lines of the log


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, by its name."""
    return path.suffix.lower() == ".gguf" and path.is_file()


@dataclass(frozen=True)
class Header:
    """The summary of a GGUF file.

    Attributes:
        config: the content of `config.json`.
        geometry: the widths of every layer as `Geometry.to_dict` writes them; None where they follow from the
            config alone.
        parameters: the number of parameters of the whole model.
        quantised: whether weights have fewer than 16 bits.
        digest: the checksum of the file.
    """

    config: dict[str, Any]
    geometry: dict[str, Any] | None
    parameters: int
    quantised: bool
    digest: str


def header(file: Path) -> Header:
    """The header of a file, without torch; cached, since all of the file is read for its checksum.

    Raises:
        ModelError: it is no GGUF file, or holds something that is not supported.
    """
    entry = cache_path(f"gguf-{READER_VERSION}", [file])
    if (content := read_cached(entry, Header)) is None:
        with announced(f"reading {file.name} ({size_text(file.stat().st_size)})"):
            content = _read_header(read_gguf(file))
        write_cached(entry, content)
    return content


def _read_header(file: GGUFFile) -> Header:
    model = read_model(file)
    with file.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return Header(
        config=model.config,
        geometry=model.geometry.to_dict() if model.pruned else None,
        parameters=sum(math.prod(parameter.shape) for parameter in model.parameters),
        quantised=any(tensor.type not in ("F32", "F16", "BF16") for tensor in file.tensors.values()),
        digest=digest,
    )


def unpack_dir(file: Path) -> Path:
    """The folder in the cache for the unpacked model of a file."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem)[:60]
    return cache_folder() / "models" / f"{stem}-{header(file).digest[:12]}-{READER_VERSION}"


def unpack(file: Path) -> Path:
    """The folder of a GGUF file's model as transformers lays it out, written into the cache the first time.

    Raises:
        ModelError: the file is broken, or holds what is not supported; the sentence names it.
    """
    folder = unpack_dir(file)
    if folder in _temporary:
        return Path(_temporary[folder].name) / folder.name
    with announced(f"checking the unpacked weights of {file.name}"):
        if _intact(folder):
            return folder
    try:
        return _unpack(file, folder)
    except (OSError, SafetensorError, RunError) as error:  # without the cache it takes time, and works
        temporary = tempfile.TemporaryDirectory(prefix="prunescope-")
        try:
            unpacked = _unpack(file, Path(temporary.name) / folder.name)
        except (OSError, SafetensorError, RunError):
            reason = str(getattr(error, "strerror", None) or error)
            raise ModelError(
                f"{str(file)!r} cannot be unpacked into {str(folder.parent)!r} ({reason}): free some space "
                "there or make it writable, or set PRUNESCOPE_CACHE to another folder."
            ) from None
        _temporary[folder] = temporary
        return unpacked


# Models of a cache that cannot be written, unpacked for as long as this process lives.
_temporary: dict[Path, tempfile.TemporaryDirectory] = {}


def _unpack(file: Path, folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder, durable=False) as temporary:
        _convert(read_gguf(file), temporary)
        with announced("taking checksums of what was written"):
            write_json(temporary / CHECKSUMS, {"files": digests(temporary)})
    return folder


def _intact(folder: Path) -> bool:
    """Whether a folder holds an unpacked model, every byte of it as it was written."""
    try:
        record = read_json(folder / CHECKSUMS, trusting=False)
        for name, checksum in (record or {"files": {"config.json": ""}})["files"].items():
            verify(folder / name, checksum)
    except RunError:
        return False
    return True


def _convert(file: GGUFFile, folder: Path) -> None:
    """Write the model of a file into a folder, a pruned one with its record."""
    import torch
    from transformers import CONFIG_MAPPING

    from pruning.models.checkpoint import write_dense
    from pruning.models.source import InMemory
    from pruning.models.surgery import empty_model

    content = read_model(file)
    tokenizer = read_tokenizer(file, content.config["vocab_size"])
    keys = dict(content.config)
    config = CONFIG_MAPPING[keys.pop("model_type")].from_dict(keys)
    model = empty_model(config, content.geometry, content.biased)
    exact = sum(math.prod(parameter.shape) for parameter in content.parameters) <= EXACT_PARAMETERS
    dtype = np.float32 if exact else np.float16
    state = {name: torch.from_numpy(array) for name, array in _arrays(file, content, dtype)}
    tied = model.all_tied_weights_keys
    assert model.state_dict().keys() - tied.keys() == state.keys() - tied.keys()  # strict, but for tied ones
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.generation_config.eos_token_id = _end_tokens(file, content.config["vocab_size"])
    folder.mkdir()
    with announced(f"writing {size_text(sum(array.nbytes for array in state.values()))} of weights"):
        write_dense(InMemory(model), tokenizer, folder)
    if content.pruned:
        record = {"geometry": content.geometry.to_dict(), "biased": content.biased, "versions": versions()}
        write_json(folder / PRUNING_FILE, record)


def _arrays(file: GGUFFile, content: GGUFModel, dtype: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Every parameter by its name in transformers, with progress in the log."""
    total = sum(tensor.end - tensor.begin for tensor in file.tensors.values())
    done, logged = 0, time.monotonic()
    for parameter in content.parameters:
        yield parameter.name, _array(file, parameter, content.head_dim, dtype)
        done += sum(file.tensors[name].end - file.tensors[name].begin for name in parameter.tensors)
        if time.monotonic() - logged > PROGRESS_SECONDS:
            logged = time.monotonic()
            log.info("unpacking %s: %d%%", file.path.name, 100 * done // total)


def _array(file: GGUFFile, parameter: Parameter, head_dim: int, dtype: Any) -> np.ndarray:
    if not parameter.tensors:
        return np.zeros(parameter.shape, dtype)
    arrays = []
    for name, interleaved in zip(parameter.tensors, parameter.interleaved, strict=True):
        array = file.array(name)
        if dtype == np.float16 and not np.abs(array).max() <= np.finfo(dtype).max:
            raise file.error(f"holds values in {name!r} that float16 cannot hold")
        arrays.append(halves(array, head_dim) if interleaved else array)
    array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return np.array(
        array - parameter.gain if parameter.gain else array, dtype
    )  # a copy of the file's own bytes


def halves(array: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows (heads * head_dim, ...) of rotary pairs, as llama.cpp has them, as rows of rotary halves."""
    heads = array.reshape(-1, head_dim // 2, 2, *array.shape[1:])
    return heads.swapaxes(1, 2).reshape(array.shape)


def _end_tokens(file: GGUFFile, vocabulary: int) -> int | list[int] | None:
    """The tokens that end a generated text: of all, of a turn, and of a message."""
    ids = [token_id(file, name, vocabulary) for name in ("eos", "eot", "eom")]
    distinct = list(dict.fromkeys(index for index in ids if index is not None))
    return distinct if len(distinct) > 1 else next(iter(distinct), None)
