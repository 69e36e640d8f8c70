"""Atomic writing of files and folders: under a temporary name beside the target, then renamed.

`atomic_write` replaces any target. Paths that a person names for output go through `outputs`, which replaces
only what this program wrote.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from safetensors import SafetensorError

from pruning.errors import FULL, RunError
from pruning.formatting import quoted

PRUNING_FILE = "pruning.json"  # record of a checkpoint of this project, with its geometry
EXPORT_FILE = "prunescope.json"  # record of an export that other programs load, with its origin


# Leftovers of `atomic_write` in a killed process: half written (new) or about to be replaced (old). The names
# are long because `sweep` deletes them, in folders of persons as well.
_LEFTOVER = re.compile(r"\.(.+)\.(\d+)\.prunescope-(new|old)")
# A younger leftover may belong to a process on another machine or in another container.
LEFTOVER_SECONDS = 3600.0
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_swept: set[Path] = set()


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns errors of the disk into one sentence.

    Raises:
        RunError: the path cannot be written, or the disk is full.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number, message = getattr(error, "errno", None), str(error)
        if number in FULL or "No space left" in message or "quota exceeded" in message:
            raise RunError(
                f"the disk that holds {quoted(path)} is full: free some space, then try again."
            ) from None
        reason = str(getattr(error, "strerror", None) or message).rstrip(".")
        out = ": make it writable, or name another folder" if number in _CLOSED else ""
        raise RunError(f"{quoted(path)} cannot be written: {reason}{out}.") from None


@contextlib.contextmanager
def atomic_write(path: Path, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path for a file or a folder, which replaces the target when the block ends well.

    After an error the former target is unchanged.

    Args:
        path: the target.
        durable: whether it must outlive a power cut, which takes time: a rename may reach the disk before the
            renamed bytes do.

    Raises:
        OSError: an error of the disk.
    """
    if path.parent not in _swept:
        _swept.add(path.parent)
        sweep(path.parent, LEFTOVER_SECONDS)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.prunescope-new")
    _discard(temporary)
    try:
        yield temporary
        if durable:
            _sync(temporary)
        if path.is_dir():
            old = path.with_name(f".{path.name}.{os.getpid()}.prunescope-old")
            _discard(old)
            path.rename(old)
            temporary.rename(path)
            _discard(old)
        else:
            temporary.replace(path)
        if durable:
            _sync(path.parent, deep=False)
    finally:
        _discard(temporary)


def remove(path: Path) -> None:
    """Delete a folder or a file so that a reader sees all of it or nothing.

    Raises:
        OSError: an error of the disk.
    """
    doomed = path.with_name(f".{path.name}.{os.getpid()}.prunescope-new")
    _discard(doomed)
    with contextlib.suppress(FileNotFoundError):
        path.rename(doomed)
    _discard(doomed)


def restore(path: Path) -> None:
    """Put back a folder that a killed process was about to replace, if there is no new one."""
    with contextlib.suppress(OSError):
        for entry in path.parent.iterdir() if not path.exists() else ():
            match = _LEFTOVER.fullmatch(entry.name)
            if match and match[1] == path.name and match[3] == "old" and not psutil.pid_exists(int(match[2])):
                entry.rename(path)
                return


def sweep(folder: Path, seconds: float = 0.0) -> None:
    """Delete half-written leftovers of killed processes, and put back what they were about to replace.

    Args:
        folder: folder of the targets of `atomic_write`.
        seconds: leftovers that are younger or belong to a living process stay; with 0 none stays, for a
            caller that holds the folder.
    """
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if not (match := _LEFTOVER.fullmatch(path.name)):
                continue
            young = time.time() - path.lstat().st_mtime < seconds
            if seconds and (young or psutil.pid_exists(int(match[2]))):
                continue
            if match[3] == "old" and not (folder / match[1]).exists():
                path.rename(folder / match[1])
            elif match[3] == "new" or not seconds or not path.is_dir():
                _discard(path)  # but not a replaced folder, which may be a person's


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path, deep: bool = True) -> None:
    """Wait until a file, or a folder with all of its content, is on the disk."""
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        return
    if path.is_dir() and deep:
        for inner in path.iterdir():
            _sync(inner)
    if path.is_dir() and os.name == "nt":  # folders have no handles there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def ignore_write_errors() -> Iterator[None]:
    """Ignores errors of the disk, for caches: one that cannot be written costs time and not the run."""
    with contextlib.suppress(OSError, SafetensorError):
        yield
