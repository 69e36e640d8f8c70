"""`status.json` of a run at work: what it is doing, how fast, and that it lives."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil

from pruning.errors import PruningError
from pruning.files import read_json, write_json
from pruning.runs.run import Run

if TYPE_CHECKING:
    from pruning.engine.events import Event
    from pruning.progress import Progress


CANCEL_GRACE_SECONDS = 8.0


class Reporter:
    """`status.json`, kept current by a thread, so that its heartbeat goes on while torch is busy."""

    def __init__(self, run: Run, exits: bool) -> None:
        self.run, self.exits = run, exits
        process = psutil.Process()
        self.fields: dict[str, Any] = read_json(run.path / "status.json") | {
            "state": "queued",
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

    def write(self, **fields: Any) -> None:
        """Change fields and write them at once."""
        with self._lock:
            self.fields |= fields
            write_json(self.run.path / "status.json", {**self.fields, "heartbeat": time.time()})

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
                self.write()
            except PruningError:
                continue  # a full disk stops the run where it matters
            if self.exits and asked_at and time.monotonic() - asked_at > CANCEL_GRACE_SECONDS:
                self.write(state="cancelled", finished=time.time())
                os._exit(0)  # complete iterations are on disk; whatever is computing cannot be asked to stop


class Meter:
    """Turns the engine's progress into fields of the status."""

    def __init__(self, run: Run, status: Reporter, iteration: int) -> None:
        self.run, self.status, self.iteration = run, status, iteration
        self.layers, self.stage, self.began = 1, "", time.monotonic()
        self.start: tuple[float, float] | None = None  # when the first step was told, and how far the run was

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        from pruning.engine.events import Iteration, Started
        from pruning.progress import Progress

        if isinstance(event, Started):
            self.layers = len(event.geometry.layers)
        elif isinstance(event, Iteration):
            self.iteration, self.stage = event.number, ""
        elif isinstance(event, Progress):
            if event.stage != self.stage:
                self.stage, self.began = event.stage, time.monotonic()
            now = time.monotonic()
            elapsed = max(now - self.began, 1e-6)
            asking = event.stage == "zero-shot"
            # calibration counts every token once a layer
            done = event.done / (self.layers if event.stage == "calibrate" else 1)
            self.status.note(
                stage=event.stage,
                detail=event.detail,
                done=event.done,
                total=event.total,
                current=min(self.iteration + 1, self.run.config.iterations),
                per_second=done / elapsed,
                unit="tasks" if asking else "tokens",
                eta=None if asking else self._left(now, event),
            )

    def _left(self, now: float, event: Progress) -> float | None:
        """Seconds left, from the tokens that passed the model and those that will; None at first."""
        config, complete = self.run.config, self.iteration
        calibrated = config.samples * config.seq_len * len(config.mixture)
        measured = (config.eval_blocks or 0) * config.seq_len * len(config.measured_domains)
        if config.eval_blocks is None:
            measured = calibrated
        total = measured + config.iterations * (calibrated + measured)
        share = event.done / max(event.total, 1)
        passed = 0.0 if complete < 0 else measured + complete * (calibrated + measured)
        if event.stage == "calibrate":
            passed += share * calibrated
        elif event.stage == "evaluate":
            passed += share * measured + (calibrated if complete >= 0 else 0)
        else:
            passed += calibrated
        if self.start is None:
            self.start = now, passed
        began, first = self.start
        return max(0.0, (now - began) * (total - passed) / (passed - first)) if passed > first else None
