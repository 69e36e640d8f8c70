"""Which files of a run's folder are parts of a run, so that nothing else is deleted with them."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from pruning.errors import RunError
from pruning.files import EXPORT_FILE, PRUNING_FILE
from pruning.sealed import checksum_of, read_json
from pruning.words import quoted

CHECKPOINT = re.compile(r"model(-\d{2,3})?")
# Paths within a run's folder. What a tokenizer adds to a checkpoint or an export stands in their records.
_RUN_FILES = re.compile(
    r"(config|status|geometry|sources|inputs|results)\.json|events\.jsonl|log\.txt|cancel|\.lock"
    r"|layers/\d+\.safetensors"
    r"|iteration-\d{2,3}/((mask|biases|weights|scores|norms|moments-.+)\.safetensors|(metrics|damage)\.json)"
    r"|model(-\d{2,3})?/("  # a checkpoint whose record is damaged; else the record says what is a part of it
    r"(mask|biases|weights|model(-\d+-of-\d+)?)\.safetensors|model\.safetensors\.index\.json"
    r"|(config|generation_config|pruning|prunescope|vocab|added_tokens|special_tokens_map)\.json"
    r"|tokenizer[^/]*\.(json|model)|merges\.txt|chat_template\.jinja)"
    r"|(.*/)?\.[^/]*\.prunescope-(new|old)(/.*)?"  # half written
    r"|(.*/)?(\.DS_Store|Thumbs\.db|desktop\.ini)"  # which file managers leave
)


def checkpoint_folders(run: Path) -> list[Path]:
    """The checkpoints in a run's folder: of its end, and of its iterations."""
    return sorted(path for path in run.glob("model*") if CHECKPOINT.fullmatch(path.name) and path.is_dir())


def check_only_run_files(run: Path, folder: Path) -> None:
    """Whether a folder may be deleted.

    Args:
        run: the run's folder.
        folder: the same, or one within it.

    Raises:
        RunError: it holds a file that is no part of a run.
    """
    listed, recorded = _listed_files(run)
    for base, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        for name in sorted([*files, *links]):
            path = (Path(base) / name).relative_to(run).as_posix()
            file = Path(base) / name
            if path in listed:
                if checksum_of(file) != listed[path]:
                    why = "was changed since it was written"
                    raise RunError(f"nothing is deleted: {quoted(file)} {why}: move it away first.")
            elif not _RUN_FILES.fullmatch(path) or any(path.startswith(f"{folder}/") for folder in recorded):
                raise RunError(f"nothing is deleted: {quoted(file)} is no part of a run: move it away first.")


def _listed_files(run: Path) -> tuple[dict[str, str], set[str]]:
    """The files of a run's checkpoints and exports with their checksums, and folders with a record.

    Both as paths within the run. A record itself is listed with the checksum that it has.
    """
    files: dict[str, str] = {}
    folders: set[str] = set()
    for folder in (*checkpoint_folders(run), *run.glob("exports/*")):
        inner = folder.relative_to(run).as_posix()
        for record in (PRUNING_FILE, EXPORT_FILE):
            with contextlib.suppress(RunError):
                if content := read_json(folder / record, trusting=False):
                    folders.add(inner)
                    names = content.get("files")
                    files |= {f"{inner}/{name}": checksum for name, checksum in (names or {}).items()}
                    files[f"{inner}/{record}"] = checksum_of(folder / record)
    return files, folders
