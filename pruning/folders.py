"""A folder written as a whole: beside its place first, then moved there. What is not ours is safe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pruning.config import RunError

PRUNING_FILE = "pruning.json"  # marks a checkpoint of this project and holds its geometry
EXPORT_FILE = "prunescope.json"  # marks an export that other programs load, and says where it comes from
_SUFFIXES = {".safetensors", ".json", ".gguf", ".jinja", ".model", ".py", ".txt"}
_FOLDERS = {"additional_chat_templates"}


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


@contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """Gives a new folder to write into; it takes its place when the block ends without an error.

    Args:
        folder: where it is to be. Made if it is not there; replaced as a whole if it is empty, or an earlier
            export or checkpoint with nothing else in it.

    Raises:
        RunError: it must not be replaced, or cannot be written.
    """
    target = Path(folder).expanduser().resolve()
    try:
        if reason := _reason_to_keep(target):
            raise RunError(f"the folder {str(target)!r} cannot be written: it {reason}: name a new one.")
        temporary, old = (target.with_name(f".{target.name}.{end}") for end in ("tmp", "old"))
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
            temporary.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise RunError(f"{str(target)!r} cannot be written: {error.strerror or error}.") from None
    except SafetensorError as error:  # what a full disk looks like from its side
        raise RunError(f"the weights cannot be written to {str(target)!r}: {error}.") from None
