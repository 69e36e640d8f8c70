"""Files and folders that a person names for output: those of other origin are never replaced.

A file is replaced only if the ledger in the cache has its checksum. A folder is replaced only if its record
(`pruning.json` of a checkpoint, `prunescope.json` of an export) lists its files with checksums; other files
and folders in it are preserved.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pruning.checksums import checksum_of, key_of, read_json, write_json
from pruning.errors import CorruptFileError, RunError
from pruning.files import EXPORT_FILE, atomic_write, ignore_write_errors, restore, writing
from pruning.formatting import quoted
from pruning.limits import check_words
from pruning.paths import cache_folder, expand

_ANOTHER = "name another file, or move this one away first"


def _absolute(path: str | Path) -> Path:
    """The absolute path of an output, from the working directory.

    Raises:
        RunError: no file can have this name.
    """
    try:
        check_words("the output", [str(path)])
    except ValueError as error:
        raise RunError(f"{error}.") from None
    return expand(str(path)).absolute()


# --- files -------------------------------------------------------------------------------------------------


def check_output_file(path: str | Path) -> Path:
    """The absolute path of a file that may be written.

    Args:
        path: path as a person gives it.

    Raises:
        RunError: it is a folder, or a file that this program did not write or that was changed since.
    """
    target = _absolute(path)
    with writing(path):
        target = target.resolve()
        if str(path).endswith((os.sep, "/")) or target.is_dir():
            raise RunError(f"{quoted(path)} names a folder, and a file is to be written: name a file in it.")
        if not target.parent.is_dir():
            raise RunError(
                f"{quoted(path)} cannot be written: there is no folder {quoted(target.parent)}: make it "
                "first, or name a file in another folder."
            )
        if not target.exists():
            return target
        if not target.is_file():
            raise RunError(f"{quoted(path)} is a device or a pipe, and is not replaced: {_ANOTHER}.")
        if checksum_of(target) not in _ledger(target):
            raise RunError(
                f"the file {quoted(path)} is not replaced: there is no record that this program wrote it, or "
                f"it was changed since: {_ANOTHER}."
            )
    return target


@contextlib.contextmanager
def output_file(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path; its file replaces the output when the block ends well.

    Args:
        path: path as a person gives it.

    Raises:
        RunError: see `check_output_file`; or an error of the disk.
    """
    target = check_output_file(path)
    with writing(path), atomic_write(target) as temporary:
        yield temporary
        check_output_file(path)  # again: the target may have changed meanwhile
        # both checksums: the process may be killed before or after the replacement
        checksums = [checksum_of(temporary), *([checksum_of(target)] if target.exists() else [])]
        _written[target] = checksums[:1]
        with ignore_write_errors(), contextlib.suppress(RunError):
            file = _ledger_file(target)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"path": str(target), "checksums": checksums}, durable=False)


def _ledger_file(target: Path) -> Path:
    return cache_folder() / "outputs" / f"{key_of(str(target))}.json"


# Checksums of this process's files by path, for a cache that cannot be written.
_written: dict[Path, list[str]] = {}


def _ledger(target: Path) -> list[str]:
    """Checksums of files that this program wrote to a path."""
    entry = {}
    with contextlib.suppress(RunError):
        entry = read_json(_ledger_file(target), trusting=False) or {}
    stored = [checksum for checksum in entry.get("checksums", ()) if isinstance(checksum, str)]
    return [*stored, *_written.get(target, ())]


# --- folders -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def output_folder(folder: str | Path, record: str) -> Iterator[Path]:
    """Gives a new folder, which replaces the output when the block ends without an error.

    Args:
        folder: path as a person gives it. The record of an existing folder lists the files that are
            replaced; all others are preserved.
        record: name of the record; the block writes it last, with the checksums of all files under `files`.

    Raises:
        RunError: the folder is of other origin, a file of it was changed, or an error of the disk.
    """
    target = _absolute(folder)
    with writing(target):
        target = target.resolve()
        restore(target)
        _foreign_entries(target, record)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            temporary.mkdir()
            yield temporary
            for entry in _foreign_entries(target, record):  # again: writing may have taken minutes
                _link(target / entry, temporary / entry)


def _foreign_entries(target: Path, record: str) -> list[Path]:
    """Paths within a folder that its replacement preserves; a folder with foreign files only is one path.

    Raises:
        RunError: the folder must not be replaced.
    """
    here = Path.cwd()
    if target == here or target in here.parents:
        raise _refusal(target, "is the folder you work in, or holds it")
    if not target.exists():
        return []
    if not target.is_dir():
        raise _refusal(target, "is a file")
    if not (content := sorted(target.iterdir())):
        return []
    if not (target / record).is_file():
        kind = "export" if record == EXPORT_FILE else "checkpoint"
        raise _refusal(target, f"holds {quoted(content[0].name)} and is no earlier {kind}")
    owned = _owned_files(target, record)
    folders = {parent for file in owned for parent in file.parents}
    entries: list[Path] = []
    for base, names, files in os.walk(target):
        inner = Path(base).relative_to(target)
        foreign = [
            name for name in names if (target / inner / name).is_symlink() or inner / name not in folders
        ]
        names[:] = [name for name in names if name not in foreign]
        entries += [inner / name for name in foreign]
        entries += [inner / name for name in files if inner / name not in owned]
    return sorted(entries)


def _owned_files(folder: Path, record: str) -> set[Path]:
    """Paths of the record and of the files that it lists, if none was changed."""
    try:
        content = read_json(folder / record, trusting=False) or {}
    except CorruptFileError:
        raise _refusal(folder, f"holds {quoted(record)}, which was changed") from None
    checksums = content.get("files")
    if not isinstance(checksums, dict):
        raise _refusal(folder, f"was written by an earlier version, whose {quoted(record)} lists no files")
    for name, checksum in checksums.items():
        if (folder / name).is_file() and checksum_of(folder / name) != checksum:
            raise _refusal(folder, f"holds {quoted(name)}, which was changed since it was written")
    return {Path(record), *map(Path, checksums)}


def _refusal(folder: Path, why: str) -> RunError:
    return RunError(f"the folder {quoted(folder)} is not replaced: it {why}: name a new folder.")


def _link(source: Path, target: Path) -> None:
    """Hard-link a file or a folder into a new one: nothing is copied, and a crash loses nothing.

    Raises:
        RunError: the target exists, or the disk has no links.
    """
    if target.exists() or target.is_symlink():
        raise RunError(
            f"{quoted(source)} is no part of the earlier export, and the new one has a file of this name: "
            "name a new folder."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)
    else:
        os.link(source, target, follow_symlinks=False)
