"""Results kept on disk as JSON, by a key that holds all they depend on."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)


def read_cached(file: Path, kind: type[T]) -> T | None:
    """What was kept in a file; None where there is nothing, or something else."""
    try:
        return kind(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_cached(file: Path, result: DataclassInstance) -> None:
    """Keep a dataclass of plain values; a cache that cannot be written costs time, not the run."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(result)), encoding="utf-8")
        temporary.replace(file)
