"""Runs in their folder: what a run has written, its process, and the store of runs. Needs no torch.

    runs/<id>/config.json        the RunConfig and the versions of what ran
              status.json        state, progress, heartbeat; replaced whole
              events.jsonl       append-only
              log.txt            what the worker process printed
              geometry.json      shapes of the dense model
              sources.json       where the text of every domain came from, and what it serves
              inputs.json        names of what it computes on: weights, tokenizer, text, tasks
              iteration-NN/      metrics.json, mask, scores, norms, and moments by domain (.safetensors)
              model/             the pruned checkpoint
              results.json       what came of it
              .lock              held by the process that works on it

Files appear whole or not at all: they are written beside and renamed. Whatever a file holds, reading it gives
what was written or raises one sentence.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pruning.checksums import corrupt, read_bytes, read_json, read_record, stamp, with_checksum, write_json
from pruning.config import RunConfig
from pruning.errors import CorruptFileError, PruningError, RunError
from pruning.files import PRUNING_FILE, atomic_write, remove, writing
from pruning.models.folder import check_files
from pruning.models.geometry import Geometry
from pruning.paths import default_root, runs_option
from pruning.runs import permissions
from pruning.runs.folder import (
    RUN_LOG,
    StoredIteration,
    check_only_run_files,
    checkpoint_folders,
    log,
    log_store,
    read_log,
)
from pruning.runs.process import WORKER, process_lives, start, started_at, wake_or_kill
from pruning.runs.schema import (
    DomainSource,
    Inputs,
    Metrics,
    Results,
    Sources,
    Status,
    StoredConfig,
    StoredGeometry,
)
from pruning.versions import versions

INPUTS_FILE = "inputs.json"
ITERATION = re.compile(r"iteration-(\d{2,3})")


@lru_cache(maxsize=4096)
def _read_config(path: Path, _stamp: tuple[int, ...]) -> RunConfig:
    """A run's config; kept, since pages list all runs again and again and it takes milliseconds."""
    if (stored := read_record(path, StoredConfig)) is None:
        raise CorruptFileError(f"{str(path)!r} is gone.")
    try:
        # a run of version 0.1 had no choice of the tokens' weights
        return RunConfig.create(**{"token_weights": "equal", **stored.config})
    except PruningError as error:
        raise corrupt(path, str(error).rstrip(".")[:200]) from None
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        raise corrupt(path, "it holds no options of a run") from None


@dataclass(frozen=True)
class StoredRun:
    """A run's folder."""

    path: Path

    @property
    def id(self) -> str:
        """Its name in the store."""
        return self.path.name

    @cached_property
    def config(self) -> RunConfig:
        """What it was told to do.

        Raises:
            RunError: its `config.json` is damaged or gone.
        """
        path = self.path / "config.json"
        try:
            return _read_config(path, stamp(path))
        except OSError:
            raise CorruptFileError(f"{str(path)!r} is gone.") from None

    @property
    def versions(self) -> dict[str, str]:
        """Versions of what was there when it was made; empty where that is not known."""
        with contextlib.suppress(RunError):
            stored = read_record(self.path / "config.json", StoredConfig)
            return stored.versions if stored else {}
        return {}

    @property
    def sources(self) -> dict[str, DomainSource]:
        """By domain where its text came from and what it serves; empty before it began, and where damaged."""
        with contextlib.suppress(RunError):
            stored = read_record(self.path / "sources.json", Sources)
            return stored.root if stored else {}
        return {}

    @property
    def inputs(self) -> Inputs | None:
        """What it computes on; None before it began, in a run of an earlier version, and where damaged."""
        with contextlib.suppress(RunError):
            return read_record(self.path / INPUTS_FILE, Inputs)
        return None

    @property
    def created(self) -> time.struct_time | None:
        """When, by its id; None where the id names no time."""
        try:
            return time.strptime(self.id[:15], "%Y%m%d-%H%M%S")
        except ValueError:
            return None

    @property
    def problem(self) -> str:
        """Why it cannot be listed among the others, in one sentence; empty where it can."""
        if self.created is None:
            return f"run {self.id!r} is broken: its name holds no date: rename its folder, or delete it."
        try:
            _ = self.config
        except PruningError as error:
            return (
                f"run {self.id!r} is broken: {str(error).rstrip('.')}: 'runs repair {self.named}' restores "
                f"it if it can, 'runs delete {self.named}' deletes it."
            )
        return ""

    @property
    def named(self) -> str:
        """What names it behind a command of `runs`: its id, and its folder where that is not the default."""
        return f"{self.id}{runs_option(self.path.parent)}"

    def last_words(self, characters: int = 2000) -> str:
        """The end of what the worker printed."""
        with contextlib.suppress(RunError):
            text = read_bytes(self.path / "log.txt", 4 * characters, end=True) or b""
            return text.decode(errors="replace")[-characters:].strip()
        return ""

    def results(self) -> Results | None:
        """`results.json`; None until the run is finished, and where it is damaged."""
        with contextlib.suppress(RunError):
            return read_record(self.path / "results.json", Results)
        return None

    @property
    def checkpoint(self) -> Path:
        """The folder of its pruned model.

        Raises:
            RunError: it has none.
        """
        folder = self.path / "model"
        if not folder.is_dir():
            if self.complete and not self.config.save_model:
                raise RunError(
                    f"run {self.id!r} was made without a checkpoint (save_model is off): name the model "
                    f"after its last iteration, {self.id}:{self.config.iterations}, which is written then."
                )
            raise RunError(
                f"run {self.id!r} has no model yet: wait until it has finished, or complete it with 'runs "
                f"resume {self.named}'."
            )
        return folder

    def events(self) -> list[dict[str, Any]]:
        """The events so far."""
        return read_log(self.path / RUN_LOG)

    @property
    def geometry(self) -> Geometry | None:
        """Of the dense model; None until the model was loaded once, and where the file is damaged."""
        with contextlib.suppress(RunError):
            stored = read_record(self.path / "geometry.json", StoredGeometry)
            return stored.geometry if stored else None
        return None

    def iterations(self) -> list[StoredIteration]:
        """The complete iterations in order, the dense model first, up to the first that is missing."""
        found: list[StoredIteration] = []
        if (shape := self.geometry) is None:
            return found
        for number, folder in sorted(self.iteration_folders().items()):
            try:
                metrics = read_record(folder / "metrics.json", Metrics)
            except RunError:
                break
            if metrics is None or metrics.number != number or number != len(found):
                break
            found.append(StoredIteration(number, folder, metrics, shape))
        return found

    def iteration_folders(self) -> dict[int, Path]:
        """What is there of iterations, whole or not, by number."""
        try:
            folders = list(self.path.iterdir())
        except OSError:  # deleted at this moment
            return {}
        return {int(match[1]): folder for folder in folders if (match := ITERATION.fullmatch(folder.name))}

    def written_status(self) -> Status:
        file = self.path / "status.json"
        try:
            status = read_record(file, Status)
        except RunError as error:
            return Status(state="failed", message=f"{str(error).rstrip('.')}: resume it or delete it.")
        return status or Status(state="failed", message="its status.json is gone: resume it or delete it.")

    def missing_files(self) -> str:
        """What a finished run lacks, as far as it shows without reading arrays; empty where it is whole."""
        try:
            if (results := read_record(self.path / "results.json", Results)) is None:
                return "its results.json is gone"
            if len(self.iterations()) <= self.config.iterations:
                return "an iteration of it is damaged or gone"
            if self.config.tasks and results.zero_shot is None:
                return "its tasks are not answered"
            if self.config.save_model and read_json(self.path / "model" / PRUNING_FILE) is None:
                return "its checkpoint is gone"
        except RunError as error:
            return str(error).rstrip(".")
        return ""

    @property
    def complete(self) -> bool:
        """Whether it has measured all that it was told to."""
        results = self.results()
        return results is not None and (not self.config.tasks or results.zero_shot is not None)

    def damage(self) -> list[str]:
        """What is damaged or gone of what it has written, in sentences; reads all of it."""
        found = []

        def look(what: Any) -> None:
            try:
                what()
            except PruningError as error:
                found.append(str(error))

        look(lambda: self.config)
        folders = self.iteration_folders()
        if folders and self.geometry is None:
            found.append(f"{str(self.path / 'geometry.json')!r} is damaged or gone.")
        whole = self.iterations()
        for iteration in whole:
            look(iteration.check)
        if len(folders) > len(whole) and self.geometry is not None:
            found.append(f"iteration {len(whole)} is damaged or gone.")
        if self.written_status().state == "finished":
            look(lambda: read_json(self.path / "sources.json"))
            look(lambda: read_record(self.path / INPUTS_FILE, Inputs))
            if (why := self.missing_files()) and not found:
                found.append(f"{why}.")
        for model in checkpoint_folders(self.path):
            look(partial(check_files, model))
        return found


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
        if status.state == "finished" and (why := self.missing_files()):
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
        wake_or_kill(status.pid, status.pid_created, silent=status.state == "stalled")

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
        log_store(self.path.parent, "launched", run=self.id, worker=worker.pid, waiting_for=ahead)


def runs_in(root: Path) -> list[Run]:
    """The runs of a folder that can be read, in no order."""
    return [run for run in folders_in(root) if not run.problem]


def folders_in(root: Path) -> list[Run]:
    """What is named as a run in a folder, whether or not it can be read."""
    try:
        return [Run(path) for path in root.iterdir() if RUN_ID.fullmatch(path.name) and path.is_dir()]
    except OSError:  # there is none yet, or it cannot be read
        return []


def dense_iteration(run: Run) -> StoredIteration:
    """The iteration whose statistics are those of the dense model.

    Raises:
        RunError: the run has none yet.
    """
    found = next((iteration for iteration in run.iterations() if iteration.number == 1), None)
    if found is None:
        raise RunError(f"run {run.id!r} has no statistics yet: wait for its first iteration, or resume it.")
    return found


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
                log(temporary, "created", config=with_checksum(told))  # from which `repair` restores it
                write_json(temporary / "status.json", {"state": "queued", "heartbeat": now, "created": now})
        log_store(self.root, "created", run=name)
        permissions.agree(permissions.permissions_for(config))  # whoever makes a run has named what it reads
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
