"""The folder that holds runs."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import time
from pathlib import Path

from pruning.config import RunConfig
from pruning.errors import PruningError, RunError
from pruning.files import write_json, writing
from pruning.paths import default_root
from pruning.runs import trust
from pruning.runs.run import Run
from pruning.versions import versions

RUN_ID = re.compile(r"\d{8}-\d{6}-[a-z0-9_]+-[0-9a-f]{4}")


class RunStore:
    """The folder that holds runs; `runs` in the working directory by default."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()

    def create(self, config: RunConfig) -> Run:
        """A new run, queued.

        Raises:
            RunError: the folder cannot be written.
        """
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{config.method}-{secrets.token_hex(2)}"
        path = self.root / name
        with writing(self.root):
            path.mkdir(parents=True)
        try:
            write_json(
                path / "config.json", {"config": config.model_dump(mode="json"), "versions": versions()}
            )
            write_json(
                path / "status.json", {"state": "queued", "heartbeat": time.time(), "created": time.time()}
            )
        except PruningError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        trust.agree(trust.asks(config))  # whoever makes a run has named what it reads
        return Run(path)

    def get(self, run_id: str) -> Run:
        """A run by its id, or by a beginning that fits only one.

        Raises:
            RunError: there is none, or more than one.
        """
        found = [run for run in self.all() if run.id == run_id] or [
            run for run in self.all() if run_id and run.id.startswith(run_id)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise RunError(f"{run_id!r} fits {len(found)} runs: write more of the id.")
        raise RunError(f"there is no run {run_id!r} in {str(self.root)!r}: 'runs list' shows those that are.")

    def all(self) -> list[Run]:
        """All runs that can be read, the newest first."""
        found = []
        for path in self._folders():
            # one that is broken must not take the others with it, and one may be deleted at this moment
            with contextlib.suppress(PruningError, OSError):
                run, stamp = Run(path), (path / "config.json").stat().st_mtime_ns
                assert run.config
                found.append((path.name[:15], stamp, run))
        return [run for *_, run in sorted(found, key=lambda entry: entry[:2], reverse=True)]

    def unreadable(self) -> list[str]:
        """Names of runs whose config is broken."""
        readable = {run.id for run in self.all()}
        return [path.name for path in self._folders() if path.name not in readable]

    def _folders(self) -> list[Path]:
        folders = self.root.iterdir() if self.root.is_dir() else ()
        return [path for path in folders if RUN_ID.fullmatch(path.name) and (path / "config.json").exists()]

    def delete(self, run_id: str) -> None:
        """Remove a run's folder.

        Raises:
            RunError: there is no such run, or a process is at work on it.
        """
        run = self.get(run_id)
        if run.worked_on:
            raise RunError(f"run {run.id!r} is being worked on: cancel it before deleting it.")
        with writing(run.path):
            shutil.rmtree(run.path)

    def ahead_of(self, run: Run) -> list[Run]:
        """Runs on the same device that come first: those at work, and those that have waited longer."""
        mine = run.status()
        turn = mine.created, run.id
        ahead = []
        for other in self.all():
            status = other.status()
            if other.id == run.id or other.device(status) != run.device(mine):
                continue
            waiting = status.state == "queued" and (status.created, other.id) < turn
            if status.state in ("starting", "running", "cancelling", "stalled") or waiting:
                ahead.append(other)
        return ahead
