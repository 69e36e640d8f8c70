"""Folders that `save_to_disk` of Hugging Face's `datasets` wrote: which files of them are the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pruning.formatting import listed, quoted
from pruning.paths import exists
from pruning.text.files import Unreadable
from pruning.text.hub import Split

_BROKEN = "is a saved dataset that is broken: copy it or save it again"
_HELDOUT = ("test", "validation")  # splits that are held-out text, the first that a dataset has


def choose_split(path: Path, split: Split) -> tuple[Path, bool]:
    """The folder to read for a split, and whether it is a split of its own.

    Args:
        path: a file or folder; one that is no saved `DatasetDict` is returned as it is.
        split: that is wanted.

    Raises:
        Unreadable: the dataset has no `train`, or its record is broken.
    """
    if not exists(path / "dataset_dict.json"):
        return path, False
    splits = _read(path / "dataset_dict.json", "splits")
    if "train" not in splits:
        raise Unreadable(
            f"is a saved dataset with the splits {listed(splits)} and no 'train': name the folder of one "
            "split"
        )
    heldout = next((name for name in _HELDOUT if name in splits), None)
    return path / ("train" if split == "calibration" or heldout is None else heldout), heldout is not None


def saved_files(path: Path) -> list[Path] | None:
    """The Arrow files of a saved `Dataset` in their order; None where a folder is none.

    Raises:
        Unreadable: one of them is missing, or the record of them is broken.
    """
    if not all(exists(path / name) for name in ("state.json", "dataset_info.json")):
        return None
    names = [
        file.get("filename") if isinstance(file, dict) else None
        for file in _read(path / "state.json", "_data_files")
    ]
    files = [path / Path(str(name)).name for name in names]
    for file in files:
        if not file.is_file():
            raise Unreadable(f"is a saved dataset without its file {quoted(file.name)}: copy all of it")
    return files


def _read(file: Path, key: str) -> list[Any]:
    try:
        content = json.loads(file.read_bytes())[key]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        raise Unreadable(_BROKEN) from None
    if not isinstance(content, list) or not content:
        raise Unreadable(_BROKEN)
    return content
