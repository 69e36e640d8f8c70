"""Structured logs, one JSON object a line: `events.jsonl` of a run, `log.jsonl` of a store."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from pruning.errors import RunError
from pruning.files import ignore_write_errors, writing
from pruning.sealed import finite, read_bytes

RUN_LOG, STORE_LOG = "events.jsonl", "log.jsonl"
STORE_LOG_BYTES = 5_000_000  # then it begins anew; the one before is kept


def log(folder: Path, event: str, **fields: Any) -> None:
    """Append an event to a run's log.

    Raises:
        RunError: it cannot be written.
    """
    with writing(folder):
        _append(folder / RUN_LOG, {"event": event, "time": time.time(), **fields})


def log_store(root: Path, event: str, **fields: Any) -> None:
    """Append an event to a store's log; a log that cannot be written stops nothing.

    The store may be a folder in which a person has a `log.jsonl` of another program: that is left alone.
    """
    file = root / STORE_LOG
    with ignore_write_errors():
        if not all(_is_ours(each) for each in (file, file.with_suffix(".old.jsonl"))):
            return
        if file.exists() and file.stat().st_size > STORE_LOG_BYTES:
            file.replace(file.with_suffix(".old.jsonl"))
        _append(file, {"event": event, "time": time.time(), "pid": os.getpid(), **fields})


def _is_ours(file: Path) -> bool:
    """Whether a store's log is none or begins as ours does."""
    events = read(file)
    return not file.exists() or bool(events and {"event", "time", "pid"} <= events[0].keys())


def _append(file: Path, line: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        if stream.tell() and not _ends_whole(file):  # a killed process left half a line
            stream.write("\n")
        stream.write(json.dumps(finite(line)) + "\n")


def _ends_whole(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def read(file: Path) -> list[dict[str, Any]]:
    """The events of a log; lines that are none are left out."""
    try:
        text = read_bytes(file, end=True) or b""
    except RunError:
        return []
    found = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            found.append(event)
    return found
