"""Jobs beside the runs: a command of the command line in its own process, with its answer in a file.

The app continues a prompt, exports a checkpoint or times a model in this way, and never holds a model itself.

    <runs>/jobs/<name>/command.json   arguments and process
                       output.json    standard output
                       log.txt        standard error
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from pruning.checksums import read_json, read_record, write_json
from pruning.errors import PruningError, RunError
from pruning.files import writing
from pruning.runs.folder import log_store
from pruning.runs.process import process_lives, start, started_at
from pruning.runs.run import RunStore
from pruning.runs.schema import Command

JOB_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,120}")


@dataclass(frozen=True)
class Job:
    """The folder of a job."""

    path: Path

    @property
    def _command(self) -> Command | None:
        """Arguments and process; None before the start, and where the file is corrupt."""
        with contextlib.suppress(PruningError):
            return read_record(self.path / "command.json", Command)
        return None

    @property
    def state(self) -> Literal["none", "running", "finished", "failed"]:
        """State of the job; `none` before its first start."""
        if (command := self._command) is None:
            return "none"
        if process_lives(command.pid, command.pid_created):
            return "running"
        return "finished" if self.output else "failed"

    @property
    def output(self) -> dict[str, Any]:
        """The JSON object that the command printed; empty until it is finished, and where it failed."""
        with contextlib.suppress(PruningError):
            content = read_json(self.path / "output.json") or {}
            return {} if "error" in content else content
        return {}

    @property
    def arguments(self) -> list[str]:
        """Arguments of the command."""
        return [*self._command.arguments] if self._command else []

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.time() - self._command.started if self._command else 0.0

    @property
    def problem(self) -> str:
        """The last line of the log: the command line's message about a mistake."""
        try:
            lines = (self.path / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "its process ended without a message: start it again."

    def start(self, arguments: Sequence[str]) -> None:
        """Run `python -m pruning ARGUMENTS --json` in a process that outlives the server.

        Raises:
            RunError: it is running already, or nothing can be written.
        """
        if self.state == "running":
            raise RunError("this task is running already: wait for it, or cancel it.")
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "command.json").unlink(missing_ok=True)
            with (self.path / "output.json").open("wb") as output, (self.path / "log.txt").open("wb") as log:
                process = start(["pruning", arguments[0], "--json", *arguments[1:]], output, log)
        command = Command(
            arguments=tuple(arguments),
            pid=process.pid,
            pid_created=started_at(process.pid),
            started=time.time(),
        )
        write_json(self.path / "command.json", command.model_dump())
        log_store(self.path.parent.parent, "job", job=self.path.name, arguments=list(arguments))

    def cancel(self) -> None:
        """Kill the process; its unfinished output is never taken for a result."""
        command = self._command
        if command and process_lives(command.pid, command.pid_created):
            psutil.Process(command.pid).kill()


def job(store: RunStore, name: str) -> Job:
    """A job by its name, started or not.

    Raises:
        RunError: the name cannot be one.
    """
    if not JOB_NAME.fullmatch(name):
        raise RunError(f"{name!r} cannot name a task: use small letters, digits, dots and dashes.")
    return Job(store.root / "jobs" / name)
