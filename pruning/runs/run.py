"""Runs and their processes: where one stands, launch, cancel, resume. Needs no torch."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pruning.errors import RunError
from pruning.files import writing
from pruning.runs import log
from pruning.runs.outcome import Status
from pruning.runs.processes import WORKER, process_lives, rouse, start, started_at
from pruning.runs.stored import StoredRun
from pruning.sealed import write_json

RUN_ID = re.compile(r"\d{8}-\d{6}-[a-z0-9_]+-[0-9a-f]{4}")
STALL_SECONDS = 30.0
ACTIVE = ("queued", "starting", "running", "cancelling")
AT_WORK = ("starting", "running", "cancelling", "stalled")
LETTING_GO_SECONDS = 3.0  # threads of a killed process may hold its files a moment longer than it is seen
HANDOVER_SECONDS = 15.0  # a worker waits so long for the process that starts it to let go of the run


@dataclass(frozen=True)
class Run(StoredRun):
    """A run's folder, and the process that works on it."""

    def status(self) -> Status:
        """`status.json`, with the state corrected where its process is gone or silent, or its results are."""
        status = self.written_status()
        if status.state == "finished" and (why := self.lacks()):
            return status.model_copy(update={"state": "damaged", "message": f"{why}: resume it."})
        if status.state not in ACTIVE:
            return status
        silent = abs(time.time() - status.heartbeat) > STALL_SECONDS  # a time to come is no sign of life
        if process_lives(status.pid, status.pid_created):
            return status.model_copy(update={"state": "stalled"}) if silent else status
        if status.pid or silent:
            if (self.path / "cancel").exists():
                return status.model_copy(update={"state": "cancelled", "message": ""})
            words = self.last_words() or "its process ended without a message: resume it."
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
        status = self.written_status()
        return status.state in ACTIVE and process_lives(status.pid, status.pid_created)

    @property
    def resumable(self) -> bool:
        """Whether there is something left to do, and nobody at it."""
        return self.status().state not in (*ACTIVE, "stalled", "finished")

    @contextlib.contextmanager
    def held(self, seconds: float = 0.0) -> Iterator[None]:
        """The run in the hands of this process alone.

        Args:
            seconds: how long to wait for another process to let go of it.

        Raises:
            RunError: another process holds it, or nothing can be written there.
        """
        lock = FileLock(self.path / ".lock")
        with writing(self.path):
            try:
                lock.acquire(timeout=seconds)
            except Timeout:
                raise RunError(
                    f"run {self.id!r} is being worked on by another process: cancel it first, or wait."
                ) from None
        try:
            yield
        finally:
            lock.release()

    def ahead(self) -> list[Run]:
        """Runs on the same device that come first: those at work, and those that have waited longer."""
        mine = self.status()
        turn, device = (mine.created, self.id), self.device(mine)
        found = []
        for other in runs_in(self.path.parent):
            status = other.status()
            same = {device, theirs := other.device(status)}
            if other.id == self.id or (len(same) > 1 and "auto" not in (device, theirs)):
                continue
            waiting = status.state == "queued" and (status.created, other.id) < turn
            if status.state in AT_WORK or waiting:
                found.append(other)
        return found

    def cancel(self) -> None:
        """Ask its process to stop; it does within seconds and leaves a run that can be resumed.

        A process that was suspended (Ctrl-Z, SIGSTOP) is woken to hear it; a worker that hangs is ended.
        """
        status = self.status()
        if status.state not in (*ACTIVE, "stalled"):
            return
        with writing(self.path):
            (self.path / "cancel").touch()
        rouse(status.pid, status.pid_created, silent=status.state == "stalled")

    def check_startable(self) -> None:
        """Clear the way for a worker.

        Raises:
            RunError: a process is at work on it already, or it has finished and all of it is whole.
        """
        if self.worked_on:
            raise RunError(
                f"run {self.id!r} is being worked on by another process: cancel it first, or wait."
            )
        if self.status().state == "finished" and not self.damage():
            config = str(self.path / "config.json")
            raise RunError(
                f"run {self.id!r} has finished: start another run from its config (prune --config "
                f"{config!r})."
            )
        _ = self.config
        with writing(self.path):
            (self.path / "cancel").unlink(missing_ok=True)

    def launch(self) -> None:
        """Start a worker process on it; one that was interrupted goes on after its last whole iteration.

        Raises:
            RunError: a process is at work on it already, or it has finished.
        """
        self.check_startable()
        with self.held(LETTING_GO_SECONDS):
            self.check_startable()  # again: another session may have been as quick
            now = time.time()
            fields = {"state": "queued", "heartbeat": now, "created": now, "device": self.status().device}
            write_json(self.path / "status.json", fields)
            ahead = [run.id for run in self.ahead()]
            with writing(self.path), (self.path / "log.txt").open("ab") as output:
                worker = start([WORKER, str(self.path.resolve())], output, output)
            fields |= {"ahead": len(ahead), "waiting_for": ahead, "pid": worker.pid}
            write_json(self.path / "status.json", fields | {"pid_created": started_at(worker.pid)})
        log.log_store(self.path.parent, "launched", run=self.id, worker=worker.pid, waiting_for=ahead)


def runs_in(root: Path) -> list[Run]:
    """The runs of a folder that can be read, in no order."""
    return [run for run in folders_in(root) if not run.problem]


def folders_in(root: Path) -> list[Run]:
    """What is named as a run in a folder, whether or not it can be read."""
    try:
        return [Run(path) for path in root.iterdir() if RUN_ID.fullmatch(path.name) and path.is_dir()]
    except OSError:  # there is none yet, or it cannot be read
        return []
