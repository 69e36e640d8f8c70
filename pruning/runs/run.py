"""Runs on disk: create, list, read, cancel, resume, delete. Readable without torch.

    runs/<id>/config.json        the RunConfig and the versions of what ran
              status.json        state, progress, heartbeat; replaced whole
              events.jsonl       append-only
              log.txt            what the worker process printed
              iteration-NN/      metrics.json, mask, scores, norms, and moments by domain (.safetensors)
              model/             the pruned checkpoint
              results.json       what came of it

Files appear whole or not at all: they are written beside and renamed.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pruning.config import RunConfig
from pruning.errors import RunError
from pruning.files import read_json, read_record, write_json, writing
from pruning.models.geometry import Geometry
from pruning.runs.iterations import StoredIteration
from pruning.runs.outcome import Metrics, Results, Status
from pruning.runs.processes import process_lives, start

ITERATION = re.compile(r"iteration-(\d{2,3})")
STALL_SECONDS = 30.0
ACTIVE = ("queued", "starting", "running", "cancelling")


@lru_cache(maxsize=4096)
def _read_config(path: Path, stamp: int) -> RunConfig:
    """A run's config; kept, since pages list all runs again and again and reading one takes milliseconds."""
    return RunConfig.read(path)


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    path: Path

    @property
    def id(self) -> str:
        """Its name in the store."""
        return self.path.name

    @cached_property
    def config(self) -> RunConfig:
        """What it was told to do."""
        path = self.path / "config.json"
        return _read_config(path, path.stat().st_mtime_ns if path.exists() else 0)

    def _stored_status(self) -> Status:
        file = self.path / "status.json"
        why = "its status.json is broken" if file.exists() else "it has no status"
        return read_record(file, Status) or Status(state="failed", message=f"{why}: resume it or delete it.")

    def status(self) -> Status:
        """`status.json`, with the state corrected where its process is gone or silent."""
        status = self._stored_status()
        if status.state not in ACTIVE:
            return status
        silent = time.time() - status.heartbeat > STALL_SECONDS
        if process_lives(status.pid, status.pid_created):
            return status.model_copy(update={"state": "stalled"}) if silent else status
        if status.pid or silent:
            words = self.last_words() or "its process ended without a word."
            return status.model_copy(update={"state": "dead", "message": words})
        return status

    def device(self, status: Status) -> str:
        """Where it computes: what its worker found `auto` to be, or what it was told."""
        return status.device or self.config.device

    @property
    def active(self) -> bool:
        """Whether a process is, or is about to be, at work on it."""
        return self.status().state in (*ACTIVE, "stalled")

    @property
    def worked_on(self) -> bool:
        """Whether a process has it in hand."""
        status = self._stored_status()
        return status.state in ACTIVE and process_lives(status.pid, status.pid_created)

    def last_words(self, characters: int = 2000) -> str:
        """The end of what the worker printed."""
        try:
            text = (self.path / "log.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return text[-characters:].strip()

    def results(self) -> Results | None:
        """`results.json`; None until the run is finished."""
        return read_record(self.path / "results.json", Results)

    @property
    def checkpoint(self) -> Path:
        """The folder of its pruned model.

        Raises:
            RunError: it has none.
        """
        folder = self.path / "model"
        if not folder.is_dir():
            raise RunError(f"run {self.id!r} kept no model: it is unfinished, or was told not to save it.")
        return folder

    def events(self) -> list[dict[str, Any]]:
        """The events so far."""
        try:
            lines = (self.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

    @property
    def geometry(self) -> Geometry | None:
        """Of the dense model; None until the model was loaded once."""
        data = read_json(self.path / "geometry.json")
        return Geometry.from_dict(data) if data else None

    def iterations(self) -> list[StoredIteration]:
        """The complete iterations in order, the dense model first."""
        shape = self.geometry
        if shape is None:
            return []
        found = []
        for folder in self.path.iterdir():
            if (match := ITERATION.fullmatch(folder.name)) and (
                metrics := read_record(folder / "metrics.json", Metrics)
            ):
                found.append(StoredIteration(int(match[1]), folder, metrics, shape))
        return sorted(found, key=lambda iteration: iteration.number)

    def cancel(self) -> None:
        """Ask its process to stop; it does within seconds and leaves a run that can be resumed."""
        if self.active:
            with writing(self.path):
                (self.path / "cancel").touch()

    def check_startable(self) -> None:
        """Clear the way for a worker.

        Raises:
            RunError: a process is at work on it already, or it has finished.
        """
        status = self.status()
        if status.state == "finished":
            raise RunError(f"run {self.id!r} has finished: start another from its config.")
        if self.worked_on:
            raise RunError(f"run {self.id!r} is being worked on: cancel it first, or wait.")
        (self.path / "cancel").unlink(missing_ok=True)

    def launch(self) -> None:
        """Start a worker process on it; one that was interrupted goes on after its last complete iteration.

        Raises:
            RunError: a process is at work on it already, or it has finished.
        """
        self.check_startable()
        now = time.time()
        known = {"device": self.status().device}
        write_json(self.path / "status.json", {"state": "queued", "heartbeat": now, "created": now, **known})
        with writing(self.path), (self.path / "log.txt").open("ab") as log:
            start(["pruning.runs.worker", str(self.path.resolve())], log, log)
