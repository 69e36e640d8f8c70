"""Writing files and folders as a whole: beside their place first, then renamed. What is not ours is safe."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from safetensors import SafetensorError

from pruning.errors import RunError
from pruning.paths import cache_folder

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import BaseModel

    T = TypeVar("T", bound=DataclassInstance)

PRUNING_FILE = "pruning.json"  # marks a checkpoint of this project and holds its geometry
EXPORT_FILE = "prunescope.json"  # marks an export that other programs load, and says where it comes from
_SUFFIXES = {".safetensors", ".json", ".gguf", ".jinja", ".model", ".py", ".txt"}
_FOLDERS = {"additional_chat_templates"}


# --- whole or not at all -----------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns the disk's refusals into one sentence.

    Raises:
        RunError: nothing can be written there, or the disk is full.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise RunError(
                f"the disk that holds {str(path)!r} is full: free some space and resume."
            ) from None
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{str(path)!r} cannot be written: {reason}.") from None


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` for a file or a folder; it takes that place when the block ends well.

    Whatever is there before is replaced; after an error it is still there, and nothing else.

    Raises:
        OSError: from the disk, as it comes.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _discard(temporary)
    try:
        yield temporary
        if path.is_dir():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            _discard(old)
            path.rename(old)
            temporary.rename(path)
            _discard(old)
        else:
            temporary.replace(path)
    finally:
        _discard(temporary)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """For caches: one that cannot be written, on a full disk say, costs time and not the run."""
    with contextlib.suppress(OSError, SafetensorError):
        yield


# --- JSON --------------------------------------------------------------------------------------------------


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file as a whole; infinities and NaN become null.

    Raises:
        RunError: it cannot be written.
    """
    with writing(path), whole(path) as temporary:
        temporary.write_text(json.dumps(finite(content), indent=1, allow_nan=False), encoding="utf-8")


def finite(content: Any) -> Any:
    """JSON content with null for infinities and NaN, which JSON does not know."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is missing or not whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


M = TypeVar("M", bound="BaseModel")


def read_record(path: Path, kind: type[M]) -> M | None:
    """A JSON file as a pydantic model; None where it is missing or something else."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


# --- results kept by what they depend on -------------------------------------------------------------------


def kept_for(kind: str, files: Iterable[Path]) -> Path:
    """Where what was found out about some files is kept; another place as soon as one of them changes.

    A file cannot be changed without a new time of change in the file system, so its bytes need not be read.
    """
    stats = [(str(file.resolve()), file.stat()) for file in files]
    stamp = repr([(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats])
    return cache_folder() / kind / f"{hashlib.blake2b(stamp.encode(), digest_size=16).hexdigest()}.json"


def read_cached(file: Path, kind: type[T]) -> T | None:
    """What was kept in a file; None where there is nothing, or something else."""
    try:
        return kind(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_cached(file: Path, result: DataclassInstance) -> None:
    """Keep a dataclass of plain values; a cache that cannot be written costs time, not the run."""
    with quietly():
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as temporary:
            temporary.write_text(json.dumps(asdict(result)), encoding="utf-8")


# --- folders of a person's choice --------------------------------------------------------------------------


def _reason_to_keep(folder: Path) -> str | None:
    """Why a folder must not be replaced, in words; None where it may be."""
    here = Path.cwd()
    if folder == here or folder in here.parents:
        return "is the folder you work in, or holds it"
    if not folder.exists():
        return None
    if not folder.is_dir():
        return "is a file"
    entries = sorted(folder.iterdir())
    if entries and not any((folder / mark).is_file() for mark in (PRUNING_FILE, EXPORT_FILE)):
        return f"holds {entries[0].name!r} and is no earlier export or checkpoint"
    for entry in entries:  # such as a README or a .git that somebody added to an export
        if entry.suffix not in _SUFFIXES and entry.name not in _FOLDERS:
            return f"holds {entry.name!r}, which is no part of an export"
    return None


@contextlib.contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """Gives a new folder to write into; it takes its place when the block ends without an error.

    Args:
        folder: where it is to be. Made if it is not there; replaced as a whole if it is empty, or an earlier
            export or checkpoint with nothing else in it.

    Raises:
        RunError: it must not be replaced, or cannot be written.
    """
    target = Path(folder).expanduser().resolve()
    with writing(target):
        if reason := _reason_to_keep(target):
            raise RunError(f"the folder {str(target)!r} cannot be written: it {reason}: name a new one.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as temporary:
            temporary.mkdir()
            yield temporary
