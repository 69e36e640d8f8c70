"""The files of a model folder that hold its weights, and the tensors in them, read without torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning.errors import ModelError
from pruning.formatting import quoted

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADER_BYTES = 100_000_000  # of a safetensors file; the format's own limit
JSON_BYTES = 100_000_000  # of a config or an index; that of a 671B model has 9 MB
_LFS = b"version https://git-lfs.github.com/spec/"
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # weights that are numbers as they stand


@dataclass(frozen=True)
class StoredTensor:
    """A stored tensor.

    Attributes:
        name: the name in the model.
        file: the file that holds it.
        begin, end: the offsets of its bytes in the file.
        dtype: the name that safetensors has for its type.
        shape: the shape.
    """

    name: str
    file: Path
    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether the weights are stored as floating-point numbers, and not packed."""
        return self.dtype in _BYTES


def check_file(file: Path) -> None:
    """Check that a file of a model folder exists, and that Git did not leave a pointer instead of it.

    Raises:
        OSError: it cannot be read.
        ModelError: it is missing, or is a pointer.
    """
    if file.exists():
        with file.open("rb") as stream:
            if stream.read(len(_LFS)) != _LFS:
                return
        problem = "is a Git LFS pointer and not the file itself: run 'git lfs pull'"
    elif file.is_symlink():
        target = quoted(file.readlink())
        problem = f"is a link to {target}, which is not there: download or copy the file itself"
    else:
        problem = "is not there: copy or download it again"
    raise ModelError(f"{quoted(file)} {problem}.")


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder.

    Raises:
        ModelError: the file is missing, or holds no JSON object.
    """
    try:
        check_file(file)
        if file.stat().st_size > JSON_BYTES:
            raise ModelError(f"{quoted(file)} has more than {JSON_BYTES / 1e6:.0f} MB: copy it again.")
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise ModelError(f"{quoted(file)} cannot be read as JSON: copy or download it again.") from None
    if not isinstance(content, dict):
        raise ModelError(f"{quoted(file)} holds no JSON object: copy or download it again.")
    return content


def weight_files(path: Path) -> list[Path]:
    """The files with the weights of a model, as transformers chooses them: no variants and no leftovers.

    Raises:
        ModelError: files are missing, or lie outside the folder.
    """
    if (path / WEIGHTS).exists() or (path / WEIGHTS).is_symlink():
        return [path / WEIGHTS]
    index = path / INDEX
    if not index.exists() and not index.is_symlink():
        if shards := sorted(path.glob("model-*-of-*.safetensors")):
            raise ModelError(
                f"the folder {quoted(path)} holds {quoted(shards[0].name)}, a part of a model, and no "
                f"{INDEX}: copy or download that as well."
            )
        return []
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{quoted(index)} names no files of weights: copy or download it again.")
    for name in dict.fromkeys(names.values()):
        if Path(name).name != name or name == ".." or "\0" in name:
            raise ModelError(
                f"{quoted(index)} names {quoted(name)}, which is not a file of its folder: copy or "
                "download it again."
            )
    return [path / name for name in sorted(set(names.values()))]


def stored_tensors(files: list[Path]) -> Iterator[StoredTensor]:
    """The tensors in safetensors files.

    Raises:
        ModelError: a file is missing or broken.
    """
    for file in files:
        try:
            check_file(file)
            yield from _header(file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ModelError(
                f"{quoted(file)} is no safetensors file, or only a part of one: copy or download it again."
            ) from None


def stored_type(path: Path) -> str | None:
    """The type of most weights of a model folder, as `export` names it: f32, f16 or bf16; else None."""
    names = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
    bytes_of: Counter[str] = Counter()
    for tensor in stored_tensors(weight_files(path)):
        bytes_of[tensor.dtype] += tensor.end - tensor.begin
    return names.get(max(bytes_of, key=bytes_of.__getitem__, default=""))


def _header(file: Path) -> list[StoredTensor]:
    file_size = file.stat().st_size
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if not 0 < size < min(file_size, HEADER_BYTES):
            raise ValueError
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    tensors = []
    for name, tensor in header.items():
        (begin, end), shape, dtype = tensor["data_offsets"], tensor["shape"], tensor["dtype"]
        if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
            raise ValueError
        if end > file_size - size - 8 or (
            dtype in _BYTES and end - begin != math.prod(shape) * _BYTES[dtype]
        ):
            raise ValueError
        tensors.append(StoredTensor(name, file, 8 + size + begin, 8 + size + end, str(dtype), tuple(shape)))
    return tensors


def weights_digest(path: Path) -> str:
    """The checksum of all stored tensors of a model folder, whatever files they are in.

    Raises:
        ModelError: a file is broken.
    """
    digest = hashlib.blake2b(digest_size=16)
    files = weight_files(path) or sorted(path.glob("*.safetensors"))  # no weights beside masks
    for tensor in sorted(stored_tensors(files), key=lambda tensor: tensor.name):
        digest.update(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}".encode())
        with tensor.file.open("rb") as stream:
            stream.seek(tensor.begin)
            digest.update(stream.read(tensor.end - tensor.begin))
    return digest.hexdigest()
