"""Files with checksums: they are written and verified here, so that no corrupt content is used.

A JSON record carries the checksum of its own content under `checksum`. Arrays carry theirs
among the metadata of a safetensors file. Other files are named, with the checksums of their bytes, by the
record that belongs to them.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pruning.errors import CorruptFileError, RunError
from pruning.files import atomic_write, ignore_write_errors, writing
from pruning.paths import cache_folder

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import BaseModel

    T = TypeVar("T", bound=DataclassInstance)

CHECKSUM_KEY = "checksum"
# The results of a run with the longest task lists take under 1 MB; a foreign file must not fill the memory.
RECORD_BYTES = 32_000_000
M = TypeVar("M", bound="BaseModel")


def key_of(content: str | bytes) -> str:
    """Digest of some content, 32 hexadecimal digits."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# --- JSON records ------------------------------------------------------------------------------------------


def finite(content: Any) -> Any:
    """JSON content with null for infinities and NaN, which JSON does not know."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content


def _checksum(content: dict[str, Any]) -> str:
    plain = {key: value for key, value in content.items() if key != CHECKSUM_KEY}
    return key_of(json.dumps(plain, sort_keys=True))


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the checksum of its content."""
    plain = json.loads(json.dumps(content))
    return {**plain, CHECKSUM_KEY: _checksum(plain)}


def to_json(content: Mapping[str, Any]) -> str:
    """A JSON record as text, with its checksum; infinities and NaN become null."""
    return json.dumps(with_checksum(finite(content)), indent=1)


def write_json(path: Path, content: Mapping[str, Any], durable: bool = True) -> None:
    """Replace a JSON record atomically.

    Args:
        path: file to write.
        content: JSON object; infinities and NaN become null.
        durable: see `files.atomic_write`.

    Raises:
        RunError: it cannot be written.
    """
    with writing(path), atomic_write(path, durable) as temporary:
        temporary.write_text(to_json(content), encoding="utf-8")


def read_json(path: Path, trusting: bool = True) -> dict[str, Any] | None:
    """The content of a JSON record; None where there is no such file.

    Args:
        path: file to read.
        trusting: whether to accept a record without a checksum, as from an earlier version or a person.

    Raises:
        CorruptFileError: it is no JSON object, or not the one that was written.
        RunError: it cannot be read.
    """
    if (text := read_bytes(path)) is None:
        return None
    try:
        content = json.loads(text)
        if b"\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()  # half a character cannot be shown
    except (ValueError, RecursionError):
        raise corrupt(path, "it is empty" if not text.strip() else "it is not JSON") from None
    if not isinstance(content, dict):
        raise corrupt(path, "it is no JSON object")
    return without_checksum(content, path, trusting)


def read_bytes(path: Path, most: int = RECORD_BYTES, end: bool = False) -> bytes | None:
    """The bytes of a file; None where there is none.

    Args:
        path: file to read.
        most: largest size.
        end: whether to read the last bytes of a longer file.

    Raises:
        CorruptFileError: it is longer, or a folder or a pipe.
        RunError: it cannot be read.
    """
    try:
        # without O_NONBLOCK a pipe would block the reader
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read: {error.strerror}.") from None
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        raise corrupt(path, "it is no file")
    with os.fdopen(handle, "rb") as stream:
        if about.st_size > most:
            if not end:
                raise corrupt(path, f"it has {about.st_size:,} bytes")
            stream.seek(-most, os.SEEK_END)
        return stream.read(most)


def without_checksum(content: dict[str, Any], path: Path, trusting: bool = True) -> dict[str, Any]:
    """A JSON object without its checksum, which is verified; see `read_json`."""
    checksum = content.pop(CHECKSUM_KEY, None)
    if checksum is None and trusting:
        return content
    try:
        is_intact = checksum == _checksum(content)
    except (ValueError, RecursionError):  # numbers of thousands of digits
        is_intact = False
    if not is_intact:
        raise corrupt(path, "its checksum does not fit")
    return content


def read_record(path: Path, kind: type[M]) -> M | None:
    """A JSON record as a frozen pydantic model; None where there is no such file.

    Raises:
        CorruptFileError: it does not fit the model, or is not what was written.
        RunError: it cannot be read.
    """
    try:
        return _read_record(path, kind, stamp(path))
    except OSError:
        return _read_record.__wrapped__(path, kind, ())


def stamp(path: Path) -> tuple[int, ...]:
    """Size, times and inode of a file: they change whenever its bytes are replaced.

    Raises:
        OSError: there is no such file.
    """
    about = path.stat()
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


@lru_cache(maxsize=4096)  # pages read the records of all runs again and again
def _read_record(path: Path, kind: type[M], _stamp: tuple[int, ...]) -> M | None:
    content = read_json(path)
    if content is None:
        return None
    try:
        return kind.model_validate(content)
    except (ValidationError, ArithmeticError, RecursionError) as error:
        where = ""
        if isinstance(error, ValidationError):
            where = ".".join(str(part) for part in error.errors()[0]["loc"])[:60]
        raise corrupt(path, f"{where!r} is missing or wrong" if where else "its content is wrong") from None


def corrupt(path: Path, why: str) -> CorruptFileError:
    """The error for a file that is not what was written."""
    return CorruptFileError(f"{str(path)!r} is corrupt ({why}).")


# --- other files -------------------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    """The checksum of every file in a folder and below, by its path within it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): checksum_of(file) for file in files}


def checksum_of(file: Path) -> str:
    """The checksum of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@lru_cache(maxsize=4096)
def _cached_checksum(file: Path, _stamp: tuple[int, ...]) -> str:
    return checksum_of(file)


def verify(file: Path, expected: str | None) -> None:
    """Compare a file with its checksum; an unchanged file is read once in a process.

    Args:
        file: file to verify.
        expected: its checksum; None for a file that no record lists.

    Raises:
        CorruptFileError: it is missing, or not what was written.
        RunError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise corrupt(file, "it is no file")
        checksum = _cached_checksum(file, stamp(file))
    except (FileNotFoundError, NotADirectoryError):
        raise CorruptFileError(f"{str(file)!r} is missing.") from None
    except OSError as error:
        raise RunError(f"{str(file)!r} cannot be read: {error.strerror}.") from None
    if checksum != expected:
        raise corrupt(file, "its checksum does not fit")


# --- arrays ------------------------------------------------------------------------------------------------


def write_arrays(
    file: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays as one safetensors file, atomically, with a checksum of their own."""
    plain = dict(metadata or {})
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file, durable=False) as temporary:
        save_file(dict(arrays), temporary, metadata=plain | {CHECKSUM_KEY: _arrays_checksum(arrays, plain)})


def read_arrays(file: Path) -> dict[str, np.ndarray] | None:
    """The arrays that `write_arrays` wrote; None where there is no intact file."""
    try:
        with safe_open(file, framework="numpy") as content:
            metadata = content.metadata() or {}
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError):
        return None
    return arrays if metadata.pop(CHECKSUM_KEY, None) == _arrays_checksum(arrays, metadata) else None


def _arrays_checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """The checksum of arrays and metadata, independent of their order in the file."""
    digest = hashlib.blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


# --- cached results ----------------------------------------------------------------------------------------


def cache_path(kind: str, files: Iterable[Path]) -> Path:
    """Path of a cached result about some files; a change of one gives another path (see `stamp`)."""
    stamps = repr([(str(file.resolve()), *stamp(file)) for file in files])
    return cache_folder() / kind / f"{key_of(stamps)}.json"


def read_cached(file: Path, kind: type[T]) -> T | None:
    """A cached result; None where there is no intact one of that kind."""
    try:
        content = read_json(file, trusting=False)
        return None if content is None else kind(**content)
    except (RunError, TypeError):
        return None


def write_cached(file: Path, result: DataclassInstance) -> None:
    """Cache a dataclass of plain values; a cache that cannot be written costs time, not the run."""
    with ignore_write_errors():
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file, durable=False) as temporary:
            temporary.write_text(json.dumps(with_checksum(asdict(result))), encoding="utf-8")
