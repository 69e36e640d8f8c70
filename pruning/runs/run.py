"""A run: the records in its folder, the state of its process, and the store of all runs. Needs no torch.

    runs/<id>/config.json        RunConfig and versions
              status.json        state, progress, heartbeat; replaced as a whole
              events.jsonl       log of the run, append-only
              log.txt            output of the worker process
              geometry.json      shapes of the dense model
              sources.json       source and use of each domain's text
              inputs.json        digests of weights, tokenizer, text and tasks
              iteration-NN/      metrics.json, mask, scores, norms, and moments by domain (.safetensors)
              model/             pruned checkpoint
              results.json       dense against pruned
              .lock              held by the process that works on the run

Files appear whole or not at all: they are written beside and renamed. Whatever a file holds, reading it gives
what was written or raises one sentence.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel

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
    StoredChoice,
    StoredConfig,
    StoredGeometry,
)
from pruning.versions import versions

RUN_ID = re.compile(r"\d{8}-\d{6}-[a-z0-9_]+-[0-9a-f]{4}")
ITERATION = re.compile(r"iteration-(\d{2,3})")
INPUTS_FILE = "inputs.json"
STALL_SECONDS = 30.0
ACTIVE = ("queued", "starting", "running", "cancelling")
AT_WORK = ("starting", "running", "cancelling", "stalled")
RELEASE_SECONDS = 3.0  # threads of a killed process may hold its files a moment after its end shows
HANDOVER_SECONDS = 15.0  # how long a worker waits until the process that starts it releases the run
R = TypeVar("R", bound=BaseModel)


@lru_cache(maxsize=4096)
def _read_config(path: Path, _stamp: tuple[int, ...]) -> RunConfig:
    """A run's config; cached, since pages list all runs again and again and parsing takes milliseconds."""
    if (stored := read_record(path, StoredConfig)) is None:
        raise CorruptFileError(f"{str(path)!r} is missing.")
    try:
        # a run of version 0.1 had no choice of the tokens' weights
        return RunConfig.create(**{"token_weights": "equal", **stored.config})
    except PruningError as error:
        raise corrupt(path, str(error).rstrip(".")[:200]) from None
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        raise corrupt(path, "it holds no options of a run") from None


@dataclass(frozen=True)
class Run:
    """A run's folder, and the process that works on it."""

    path: Path

    # --- records -------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Name of the folder."""
        return self.path.name

    @cached_property
    def requested_config(self) -> RunConfig:
        """Options of the run as they were given.

        Raises:
            RunError: its `config.json` is corrupt or missing.
        """
        path = self.path / "config.json"
        try:
            return _read_config(path, stamp(path))
        except OSError:
            raise CorruptFileError(f"{str(path)!r} is missing.") from None

    @cached_property
    def config(self) -> RunConfig:
        """Options of the run, with those that `normalise auto` chose in its first iteration.

        Raises:
            RunError: its `config.json` is corrupt or missing.
        """
        config = self.requested_config
        if config.normalise == "auto" and (choice := self.choice):
            return config.replace(**choice.options)
        return config

    @property
    def choice(self) -> StoredChoice | None:
        """What `normalise auto` chose in the first iteration; None before it, and with another rule."""
        metrics = self._record("iteration-01/metrics.json", Metrics)
        return metrics.choice if metrics else None

    def _record(self, name: str, kind: type[R]) -> R | None:
        """A record of the folder; None where it is corrupt or not written yet."""
        with contextlib.suppress(RunError):
            return read_record(self.path / name, kind)
        return None

    @property
    def versions(self) -> dict[str, str]:
        """Library versions at the creation of the run; empty where they were not recorded."""
        stored = self._record("config.json", StoredConfig)
        return stored.versions if stored else {}

    @property
    def sources(self) -> dict[str, DomainSource]:
        """Source and use of each domain's text; empty before the run began, and where the file is corrupt."""
        stored = self._record("sources.json", Sources)
        return stored.root if stored else {}

    @property
    def inputs(self) -> Inputs | None:
        """Digests of the inputs; None before the run began, and in a run of an earlier version."""
        return self._record(INPUTS_FILE, Inputs)

    def results(self) -> Results | None:
        """`results.json`; None until the run is finished, and where it is corrupt."""
        return self._record("results.json", Results)

    @property
    def geometry(self) -> Geometry | None:
        """Shapes of the dense model; None until the model was loaded once, and where the file is corrupt."""
        stored = self._record("geometry.json", StoredGeometry)
        return stored.geometry if stored else None

    @property
    def created(self) -> time.struct_time | None:
        """Time of creation by the run's id; None where the id names no time."""
        try:
            return time.strptime(self.id[:15], "%Y%m%d-%H%M%S")
        except ValueError:
            return None

    @property
    def problem(self) -> str:
        """Why the run cannot be listed among the others, in one sentence; empty where it can."""
        if self.created is None:
            return f"run {self.id!r} is broken: its name holds no date: rename its folder, or delete it."
        try:
            _ = self.config
        except PruningError as error:
            return (
                f"run {self.id!r} is broken: {str(error).rstrip('.')}: 'runs repair {self.argument}' "
                f"restores it if it can, 'runs delete {self.argument}' deletes it."
            )
        return ""

    @property
    def argument(self) -> str:
        """Argument for this run in commands of `runs`: its id, and its store if that is not the default."""
        return f"{self.id}{runs_option(self.path.parent)}"

    def events(self) -> list[dict[str, Any]]:
        """Events of the run's log."""
        return read_log(self.path / RUN_LOG)

    def last_output(self, characters: int = 2000) -> str:
        """The end of the worker's output."""
        with contextlib.suppress(RunError):
            text = read_bytes(self.path / "log.txt", 4 * characters, end=True) or b""
            return text.decode(errors="replace")[-characters:].strip()
        return ""

    @property
    def checkpoint(self) -> Path:
        """Folder of the pruned model.

        Raises:
            RunError: it was not written.
        """
        folder = self.path / "model"
        if folder.is_dir():
            return folder
        if self.complete and not self.config.save_model:
            raise RunError(
                f"run {self.id!r} was made without a checkpoint (save_model is off): name the model "
                f"after its last iteration, {self.id}:{self.config.iterations}, which is written then."
            )
        raise RunError(
            f"run {self.id!r} has no model yet: wait until it has finished, or complete it with 'runs "
            f"resume {self.argument}'."
        )

    def iterations(self) -> list[StoredIteration]:
        """The complete iterations in order, the dense model first, up to the first that is missing."""
        iterations: list[StoredIteration] = []
        if (shape := self.geometry) is None:
            return iterations
        for number, folder in sorted(self.iteration_folders().items()):
            try:
                metrics = read_record(folder / "metrics.json", Metrics)
            except RunError:
                break
            if metrics is None or metrics.number != number or number != len(iterations):
                break
            iterations.append(StoredIteration(number, folder, metrics, shape))
        return iterations

    @property
    def last_iteration(self) -> int:
        """Number of the last complete iteration: 0 for the dense model, -1 before it."""
        return len(self.iterations()) - 1

    def iteration_folders(self) -> dict[int, Path]:
        """Folders of iterations by number, complete or not."""
        try:
            folders = list(self.path.iterdir())
        except OSError:  # deleted at this moment
            return {}
        return {int(match[1]): folder for folder in folders if (match := ITERATION.fullmatch(folder.name))}

    # --- corruption ----------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether all that the config asks for is measured."""
        results = self.results()
        return results is not None and (not self.config.tasks or results.zero_shot is not None)

    def missing_files(self) -> str:
        """What a finished run is missing, without reading arrays; empty where nothing is missing."""
        try:
            if (results := read_record(self.path / "results.json", Results)) is None:
                return "its results.json is missing"
            if self.last_iteration < self.config.iterations:
                return "an iteration of it is corrupt or missing"
            if self.config.tasks and results.zero_shot is None:
                return "its tasks are not answered"
            if self.config.save_model and read_json(self.path / "model" / PRUNING_FILE) is None:
                return "its checkpoint is missing"
        except RunError as error:
            return str(error).rstrip(".")
        return ""

    def corruption(self) -> list[str]:
        """What is corrupt or missing of all that the run has written, in sentences; reads all of it."""
        problems: list[str] = []

        def check(read: Callable[[], object]) -> None:
            try:
                read()
            except PruningError as error:
                problems.append(str(error))

        check(lambda: self.config)
        folders, geometry, iterations = self.iteration_folders(), self.geometry, self.iterations()
        if folders and geometry is None:
            problems.append(f"{str(self.path / 'geometry.json')!r} is corrupt or missing.")
        for iteration in iterations:
            check(iteration.check)
        if len(folders) > len(iterations) and geometry is not None:
            problems.append(f"iteration {len(iterations)} is corrupt or missing.")
        if self.written_status().state == "finished":
            check(lambda: read_json(self.path / "sources.json"))
            check(lambda: read_record(self.path / INPUTS_FILE, Inputs))
            if (missing := self.missing_files()) and not problems:
                problems.append(f"{missing}.")
        for model in checkpoint_folders(self.path):
            check(partial(check_files, model))
        return problems

    # --- process -------------------------------------------------------------------------------------------

    def written_status(self) -> Status:
        """`status.json` as its writer left it; `failed` where it is corrupt or missing."""
        try:
            status = read_record(self.path / "status.json", Status)
        except RunError as error:
            return Status(state="failed", message=f"{str(error).rstrip('.')}: resume it or delete it.")
        return status or Status(state="failed", message="its status.json is missing: resume it or delete it.")

    def status(self) -> Status:
        """`status.json`, with the state corrected if process or results are missing, or it is silent."""
        status = self.written_status()
        if status.state == "finished" and (missing := self.missing_files()):
            return status.model_copy(update={"state": "corrupt", "message": f"{missing}: resume it."})
        if status.state not in ACTIVE:
            return status
        silent = abs(time.time() - status.heartbeat) > STALL_SECONDS  # a time to come is no sign of life
        if process_lives(status.pid, status.pid_created):
            return status.model_copy(update={"state": "stalled"}) if silent else status
        if status.pid or silent:
            if (self.path / "cancel").exists():
                return status.model_copy(update={"state": "cancelled", "message": ""})
            message = self.last_output() or "the process left no message: resume it."
            return status.model_copy(update={"state": "dead", "message": message})
        return status

    def device(self, status: Status) -> str:
        """Device of the computation: the one that its worker chose for `auto`, or the config's."""
        return status.device or self.config.device

    @property
    def active(self) -> bool:
        """Whether a process is, or is about to be, at work on the run."""
        return self.status().state in (*ACTIVE, "stalled")

    @property
    def worked_on(self) -> bool:
        """Whether a living process works on the run."""
        status = self.written_status()
        return status.state in ACTIVE and process_lives(status.pid, status.pid_created)

    @property
    def resumable(self) -> bool:
        """Whether the run is unfinished and no process works on it."""
        return self.status().state not in (*ACTIVE, "stalled", "finished")

    @contextlib.contextmanager
    def held(self, seconds: float = 0.0) -> Iterator[None]:
        """Lock of the run, held by this process alone.

        Args:
            seconds: how long to wait for another process to release it.

        Raises:
            RunError: another process holds it, or the folder cannot be written.
        """
        lock = FileLock(self.path / ".lock")
        with writing(self.path):
            try:
                lock.acquire(timeout=seconds)
            except Timeout:
                raise self._busy() from None
        try:
            yield
        finally:
            lock.release()

    def _busy(self) -> RunError:
        return RunError(f"run {self.id!r} is being worked on by another process: cancel it first, or wait.")

    def ahead(self) -> list[Run]:
        """Runs on the same device that come first: those at work, and those that have waited longer."""
        mine = self.status()
        turn, device = (mine.created, self.id), self.device(mine)
        runs = []
        for other in RunStore(self.path.parent).all():
            status = other.status()
            devices = {device, other.device(status)}
            if other.id == self.id or (len(devices) > 1 and "auto" not in devices):
                continue
            waiting = status.state == "queued" and (status.created, other.id) < turn
            if status.state in AT_WORK or waiting:
                runs.append(other)
        return runs

    def cancel(self) -> None:
        """Ask the process to stop; it does within seconds and leaves a run that can be resumed.

        A suspended process (Ctrl-Z, SIGSTOP) is woken to read the request; a worker that hangs is killed.
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
            RunError: a process works on the run already, or it has finished and nothing of it is corrupt.
        """
        if self.worked_on:
            raise self._busy()
        if self.status().state == "finished" and not self.corruption():
            config = str(self.path / "config.json")
            raise RunError(
                f"run {self.id!r} has finished: start another run from its config (prune --config "
                f"{config!r})."
            )
        _ = self.config
        with writing(self.path):
            (self.path / "cancel").unlink(missing_ok=True)

    def launch(self) -> None:
        """Start a worker process on the run; an interrupted run continues after its last complete iteration.

        Raises:
            RunError: a process works on the run already, or it has finished.
        """
        self.check_startable()
        with self.held(RELEASE_SECONDS):
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


def dense_iteration(run: Run) -> StoredIteration:
    """The first iteration, whose statistics are those of the dense model.

    Raises:
        RunError: it is not complete yet.
    """
    if run.last_iteration < 1:
        raise RunError(f"run {run.id!r} has no statistics yet: wait for its first iteration, or resume it.")
    return run.iterations()[1]


class RunStore:
    """The runs directory; `runs` in the working directory by default."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()

    def _folders(self) -> list[Run]:
        """All folders that are named as runs, readable or not."""
        try:
            return [
                Run(path) for path in self.root.iterdir() if RUN_ID.fullmatch(path.name) and path.is_dir()
            ]
        except OSError:  # the directory does not exist yet, or cannot be read
            return []

    def create(self, config: RunConfig) -> Run:
        """A new run in the state `queued`.

        Raises:
            RunError: the directory cannot be written.
        """
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{config.method}-{secrets.token_hex(2)}"
        path, now = self.root / name, time.time()
        stored = {"config": config.model_dump(mode="json"), "versions": versions()}
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.mkdir()
                write_json(temporary / "config.json", stored)
                log(temporary, "created", config=with_checksum(stored))  # from which `repair` restores it
                write_json(temporary / "status.json", {"state": "queued", "heartbeat": now, "created": now})
        log_store(self.root, "created", run=name)
        # whoever creates a run has named what it reads
        permissions.agree(permissions.permissions_for(config))
        return Run(path)

    def get(self, run_id: str) -> Run:
        """A run by its id or by a unique prefix of it, broken runs included.

        Raises:
            RunError: no run fits, or more than one.
        """
        runs = self._folders()
        matches = [run for run in runs if run.id == run_id] or [
            run for run in runs if run_id and run.id.startswith(run_id)
        ]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise RunError(f"{run_id!r} fits {len(matches)} runs: write more of the id.")
        raise RunError(
            f"there is no run {run_id!r} in {str(self.root)!r}: 'runs list{runs_option(self.root)}' shows "
            "all runs there."
        )

    def all(self) -> list[Run]:
        """All readable runs, the newest first."""
        return sorted((run for run in self._folders() if not run.problem), key=_age, reverse=True)

    def broken(self) -> dict[str, str]:
        """Problems of the runs that cannot be listed, in a sentence, by id."""
        problems = ((run.id, run.problem) for run in self._folders())
        return {run_id: problem for run_id, problem in sorted(problems, reverse=True) if problem}

    def delete(self, run_id: str) -> None:
        """Remove a run's folder; a reader finds all of it or nothing at any moment.

        Raises:
            RunError: there is no such run, a process works on it, or its folder holds a file that is not part
                of a run.
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
