"""The folder that holds runs."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from pruning.config import RunConfig
from pruning.errors import RunError
from pruning.files import atomic_write, remove, writing
from pruning.paths import default_root, runs_option
from pruning.runs import trust
from pruning.runs.contents import check_only_run_files
from pruning.runs.log import log, log_store
from pruning.runs.run import Run, folders_in, runs_in
from pruning.sealed import sealed, write_json
from pruning.versions import versions


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
        path, now = self.root / name, time.time()
        told = {"config": config.model_dump(mode="json"), "versions": versions()}
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.mkdir()
                write_json(temporary / "config.json", told)
                log(temporary, "created", config=sealed(told))  # from which `repair` restores it
                write_json(temporary / "status.json", {"state": "queued", "heartbeat": now, "created": now})
        log_store(self.root, "created", run=name)
        trust.agree(trust.asks(config))  # whoever makes a run has named what it reads
        return Run(path)

    def get(self, run_id: str) -> Run:
        """A run by its id, or by a beginning that fits only one; one that is broken as well.

        Raises:
            RunError: there is none, or more than one.
        """
        runs = folders_in(self.root)
        found = [run for run in runs if run.id == run_id] or [
            run for run in runs if run_id and run.id.startswith(run_id)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise RunError(f"{run_id!r} fits {len(found)} runs: write more of the id.")
        raise RunError(
            f"there is no run {run_id!r} in {str(self.root)!r}: 'runs list{runs_option(self.root)}' shows "
            "all runs there."
        )

    def all(self) -> list[Run]:
        """All runs that can be read, the newest first."""
        return sorted(runs_in(self.root), key=_age, reverse=True)

    def broken(self) -> dict[str, str]:
        """Why runs cannot be listed, in a sentence, by id."""
        found = ((run.id, run.problem) for run in folders_in(self.root))
        return {name: why for name, why in sorted(found, reverse=True) if why}

    def delete(self, run_id: str) -> None:
        """Remove a run's folder; whoever reads it at this moment finds all of it or nothing.

        Raises:
            RunError: there is no such run, a process is at work on it, or its folder holds a file that is no
                part of a run.
        """
        run = self.get(run_id)
        if run.path.is_symlink():
            with writing(run.path):
                run.path.unlink()
            return
        with run.held(), writing(run.path):
            if run.worked_on:
                raise RunError(f"run {run.id!r} is being worked on: cancel it before deleting it.")
            check_only_run_files(run.path, run.path)
            remove(run.path)
        log_store(self.root, "deleted", run=run.id)


def _age(run: Run) -> tuple[str, int]:
    try:
        return run.id[:15], (run.path / "config.json").stat().st_mtime_ns
    except OSError:  # deleted at this moment
        return run.id[:15], 0
