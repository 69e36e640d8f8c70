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

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors import safe_open
from safetensors.numpy import load_file

from pruning.config import PruningError, RunConfig, RunError
from pruning.masks import Mask
from pruning.moments import Moments, Statistics, read_moments
from pruning.sites import Geometry, Site

RUN_ID = re.compile(r"\d{8}-\d{6}-[a-z_]+-[0-9a-f]{4}")
ITERATION = re.compile(r"iteration-(\d{2,3})")
STALL_SECONDS = 30.0
ACTIVE = ("queued", "starting", "running", "cancelling")
VERSIONED = ("torch", "transformers", "datasets", "lm_eval", "numpy", "safetensors")
PROJECT = Path(__file__).resolve().parent.parent


def default_root() -> Path:
    """Where runs are kept: `PRUNESCOPE_RUNS`, or `runs` in the working directory."""
    return Path(os.environ.get("PRUNESCOPE_RUNS") or "runs")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the disk's refusals into one sentence.

    Raises:
        RunError: nothing can be written there, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunError(
                f"the disk that holds {str(path)!r} is full: free some space and resume."
            ) from None
        raise RunError(f"cannot write to {str(path)!r}: {error.strerror or error}.") from None


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file as a whole; infinities and NaN become null.

    Raises:
        RunError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            temporary.write_text(json.dumps(finite(content), indent=1, allow_nan=False), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def finite(content: Any) -> Any:
    """JSON content with null for infinities and NaN, which JSON does not know."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is missing or not whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class StoredIteration:
    """One finished iteration as it lies on disk; arrays are read when asked for.

    Attributes:
        number: 0 for the dense model.
        path: its folder.
        metrics: target and achieved ratio, parameters, perplexity by domain, seconds.
        geometry: of the dense model.
    """

    number: int
    path: Path
    metrics: dict[str, Any]
    geometry: Geometry

    @cached_property
    def mask(self) -> Mask:
        """What is retained after this iteration."""
        if self.number == 0:
            return Mask.full(self.geometry)
        arrays = load_file(self.path / "mask.safetensors")
        return Mask(self.geometry, {Site.parse(name): array for name, array in arrays.items()})

    @cached_property
    def scores(self) -> dict[Site, np.ndarray]:
        """(C,) by site, of the channels that were there before this iteration's cut, NaN elsewhere."""
        return {Site.parse(name): a for name, a in load_file(self.path / "scores.safetensors").items()}

    @cached_property
    def norms(self) -> dict[Site, tuple[np.ndarray, np.ndarray]]:
        """Norm and mean absolute value of the weight columns, (C,) each, by site."""
        arrays = load_file(self.path / "norms.safetensors")
        return {site: (arrays[f"{site}.norm"], arrays[f"{site}.mean_abs"]) for site in self.geometry.sites}

    def norms_of(self, site: Site) -> tuple[np.ndarray, np.ndarray]:
        """`norms` of one site, read without the others and not kept."""
        with safe_open(self.path / "norms.safetensors", framework="numpy") as content:
            return content.get_tensor(f"{site}.norm"), content.get_tensor(f"{site}.mean_abs")

    @cached_property
    def statistics(self) -> Statistics:
        """Moments by domain, before this iteration's cut."""
        return self.statistics_of(None)

    def statistics_of(self, site: Site | None) -> Statistics:
        """`statistics` of one site, read without the others and not kept; None for all."""
        moments: dict[str, dict[Site, Moments]] = {}
        for file in sorted(self.path.glob("moments-*.safetensors")):
            if (found := read_moments(file, site)) is None:
                raise RunError(f"the statistics in {str(file)!r} are broken: delete the run or resume it.")
            moments[file.stem.removeprefix("moments-")] = found
        return Statistics(moments)


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

    def status(self) -> dict[str, Any]:
        """`status.json`, with the state corrected where its process is gone or silent.

        States: queued, starting, running, cancelling, cancelled, failed, finished; `dead` where the process
        ended without a word, `stalled` where it has been silent for half a minute.
        """
        status = read_json(self.path / "status.json") or {
            "state": "failed",
            "message": "the run has no status.",
        }
        if status["state"] in ACTIVE:
            if not process_lives(status.get("pid"), status.get("pid_created")):
                if status.get("pid") or time.time() - status.get("heartbeat", 0) > STALL_SECONDS:
                    status["state"], status["message"] = (
                        "dead",
                        self.last_words() or "its process ended without a word.",
                    )
            elif time.time() - status.get("heartbeat", 0) > STALL_SECONDS:
                status["state"] = "stalled"
        return status

    def device(self, status: dict[str, Any]) -> str:
        """Where it computes: what its worker found `auto` to be, or what it was told."""
        return str(status.get("device") or self.config.device)

    @property
    def active(self) -> bool:
        """Whether a process is, or is about to be, at work on it."""
        return self.status()["state"] in (*ACTIVE, "stalled")

    @property
    def worked_on(self) -> bool:
        """Whether a process has it in hand."""
        status = read_json(self.path / "status.json")
        return status.get("state") in ACTIVE and process_lives(status.get("pid"), status.get("pid_created"))

    def last_words(self, characters: int = 2000) -> str:
        """The end of what the worker printed."""
        try:
            text = (self.path / "log.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return text[-characters:].strip()

    def results(self) -> dict[str, Any]:
        """`results.json`; empty until the run is finished."""
        return read_json(self.path / "results.json")

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
                metrics := read_json(folder / "metrics.json")
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
        if status["state"] == "finished":
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
        known = {key: value for key, value in self.status().items() if key == "device"}
        write_json(self.path / "status.json", {"state": "queued", "heartbeat": now, "created": now, **known})
        paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with writing(self.path), (self.path / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pruning.worker", str(self.path.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        watch(process)


_children: list[subprocess.Popen] = []


def watch(process: subprocess.Popen) -> None:
    """Keep hold of a process, so that it is buried when it ends, with those that have ended: no zombies."""
    _children.append(process)
    _children[:] = [child for child in _children if child.poll() is None]


def process_lives(pid: int | None, created: float | None) -> bool:
    """Whether a process is the one that was started then, and not a zombie or another with its number."""
    if not pid:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - (created or 0)) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class RunStore:
    """The folder that holds runs."""

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
        turn = mine.get("created", 0), run.id
        ahead = []
        for other in self.all():
            status = other.status()
            if other.id == run.id or other.device(status) != run.device(mine):
                continue
            waiting = status["state"] == "queued" and (status.get("created", 0), other.id) < turn
            if status["state"] in ("starting", "running", "cancelling", "stalled") or waiting:
                ahead.append(other)
        return ahead


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    found = {"python": sys.version.split()[0]}
    for name in VERSIONED:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
