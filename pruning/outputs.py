"""Files and folders that a person names for output: what this program did not write is never replaced.

A file is replaced only if its checksum stands in the ledger, which lies in the cache. A folder is replaced
only if its record (`pruning.json` of a checkpoint, `prunescope.json` of an export) lists its files with
checksums; files and folders that a person has put beside them stay where they are.
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
    """A path as a person names it, from the working directory.

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
        path: as a person names it.

    Raises:
        RunError: a folder stands there, or a file that this program did not write or that was changed since.
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
    """Gives a path to write to; the file takes the place that a person named when the block ends well.

    Args:
        path: as a person names it.

    Raises:
        RunError: see `check_output_file`; or the disk refuses.
    """
    target = check_output_file(path)
    with writing(path), atomic_write(target) as temporary:
        yield temporary
        check_output_file(path)  # again: somebody may have written there meanwhile
        # both checksums: the process may be killed before or after the new file takes its place
        checksums = [checksum_of(temporary), *([checksum_of(target)] if target.exists() else [])]
        _written[target] = checksums[:1]
        with ignore_write_errors(), contextlib.suppress(RunError):
            file = _ledger_file(target)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"path": str(target), "checksums": checksums}, durable=False)


def _ledger_file(target: Path) -> Path:
    return cache_folder() / "outputs" / f"{key_of(str(target))}.json"


# What this process wrote, by path: a cache that cannot be written must not make its own files foreign to it.
_written: dict[Path, list[str]] = {}


def _ledger(target: Path) -> list[str]:
    """Checksums of what this program wrote to a path."""
    entry = {}
    with contextlib.suppress(RunError):
        entry = read_json(_ledger_file(target), trusting=False) or {}
    stored = [checksum for checksum in entry.get("checksums", ()) if isinstance(checksum, str)]
    return [*stored, *_written.get(target, ())]


# --- folders -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def output_folder(folder: str | Path, record: str) -> Iterator[Path]:
    """Gives a new folder to write into; it takes its place when the block ends without an error.

    Args:
        folder: as a person names it. Made if it is not there. If it is there, its record lists the files that
            are replaced; everything else in it stays.
        record: name of the record; the block writes it last, with the checksums of all files under `files`.

    Raises:
        RunError: it holds something else, a file of it was changed, or the disk refuses.
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
            for entry in _foreign_entries(target, record):  # as it is now: writing may have taken minutes
                _link(target / entry, temporary / entry)


def _unlisted_entries(folder: Path, record: str) -> list[Path]:
    """Files and folders that are no part of what a folder's record lists, as paths within the folder.

    Of a folder that holds only foreign files, the folder itself is named.

    Raises:
        RunError: the folder has no such record, or a file that the record lists was changed.
    """
    owned = _owned_files(folder, record)
    entries: list[Path] = []
    for base, folders, files in os.walk(folder):
        inner = Path(base).relative_to(folder)
        for name in [*folders]:
            entry = inner / name
            is_link = (folder / entry).is_symlink()
            if is_link or not any(entry in file.parents for file in owned):
                entries.append(entry)
                folders.remove(name)
        entries += [inner / name for name in files if inner / name not in owned]
    return sorted(entries)


def _foreign_entries(target: Path, record: str) -> list[Path]:
    """What stays of a folder that is to be replaced.

    Raises:
        RunError: it must not be replaced.
    """
    here = Path.cwd()
    if target == here or target in here.parents:
        raise RunError(_refusal(target, "is the folder you work in, or holds it"))
    if not target.exists():
        return []
    if not target.is_dir():
        raise RunError(_refusal(target, "is a file"))
    entries = sorted(target.iterdir())
    if entries and not (target / record).is_file():
        kind = "export" if record == EXPORT_FILE else "checkpoint"
        raise RunError(_refusal(target, f"holds {quoted(entries[0].name)} and is no earlier {kind}"))
    return _unlisted_entries(target, record) if entries else []


def _owned_files(folder: Path, record: str) -> set[Path]:
    file = folder / record
    try:
        content = read_json(file, trusting=False) or {}
    except CorruptFileError:
        raise RunError(_refusal(folder, f"holds {quoted(record)}, which was changed")) from None
    checksums = content.get("files")
    if not isinstance(checksums, dict):
        raise RunError(
            _refusal(folder, f"was written by an earlier version, whose {quoted(record)} lists no files")
        )
    for name, checksum in checksums.items():
        path = folder / name
        if path.is_file() and checksum_of(path) != checksum:
            raise RunError(_refusal(folder, f"holds {quoted(name)}, which was changed since it was written"))
    return {Path(record), *map(Path, checksums)}


def _refusal(folder: Path, why: str) -> str:
    return f"the folder {quoted(folder)} is not replaced: it {why}: name a new folder."


def _link(source: Path, target: Path) -> None:
    """Give a file or a folder a second place on the same disk: nothing is copied, and a crash loses nothing.

    Raises:
        RunError: something else was written there, or the disk knows no links.
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
