"""`status.json` of a run at work: what it is doing, how fast, and that it lives."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import psutil

from pruning.errors import PruningError
from pruning.runs.run import Run
from pruning.sealed import write_json

CANCEL_GRACE_SECONDS = 8.0


class Reporter:
    """`status.json`, kept current by a thread, so that its heartbeat goes on while torch is busy."""

    def __init__(self, run: Run, exits: bool) -> None:
        self.run, self.exits = run, exits
        process = psutil.Process()
        self.fields: dict[str, Any] = run.status().model_dump(exclude_defaults=True) | {
            "state": "queued",
            "message": "",
            "pid": process.pid,
            "pid_created": process.create_time(),
        }
        self.cancelled = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Reporter:
        self.write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def note(self, **fields: Any) -> None:
        """Change fields together; the next beat writes them."""
        with self._lock:
            self.fields |= fields

    def write(self, durable: bool = True, **fields: Any) -> None:
        """Change fields and write them at once; a beat need not outlive a power cut."""
        with self._lock:
            self.fields |= fields
            now = {**self.fields, "heartbeat": time.time()}
            write_json(self.run.path / "status.json", now, durable)

    @property
    def is_cancelled(self) -> bool:
        """Whether the run was asked to stop, by now and not only at the last beat."""
        return self.cancelled.is_set() or (self.run.path / "cancel").exists()

    def _beat(self) -> None:
        asked_at = None
        while not self._stop.wait(0.5):
            if (self.run.path / "cancel").exists():
                asked_at = asked_at or time.monotonic()
                self.cancelled.set()
                with self._lock:
                    if self.fields["state"] in ("queued", "starting", "running"):
                        self.fields["state"] = "cancelling"
            try:
                self.write(durable=False)
            except PruningError:
                continue  # a full disk stops the run where it matters
            if self.exits and asked_at and time.monotonic() - asked_at > CANCEL_GRACE_SECONDS:
                self.write(state="cancelled", finished=time.time())
                os._exit(0)  # complete iterations are on disk; whatever is computing cannot be asked to stop
