"""What lies in a run's folder, read. Needs no torch.

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
import time
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from pruning.config import RunConfig
from pruning.errors import DamagedError, PruningError, RunError
from pruning.files import PRUNING_FILE
from pruning.models.folder import check_files
from pruning.models.geometry import Geometry
from pruning.paths import runs_option
from pruning.runs import log
from pruning.runs.contents import checkpoint_folders
from pruning.runs.iterations import StoredIteration
from pruning.runs.outcome import (
    DomainSource,
    Inputs,
    Metrics,
    Results,
    Sources,
    Status,
    StoredConfig,
    StoredGeometry,
)
from pruning.sealed import damaged, read_bytes, read_json, read_record, stamp

INPUTS_FILE = "inputs.json"
ITERATION = re.compile(r"iteration-(\d{2,3})")


@lru_cache(maxsize=4096)
def _read_config(path: Path, _stamp: tuple[int, ...]) -> RunConfig:
    """A run's config; kept, since pages list all runs again and again and it takes milliseconds."""
    if (stored := read_record(path, StoredConfig)) is None:
        raise DamagedError(f"{str(path)!r} is gone.")
    try:
        # a run of version 0.1 had no choice of the tokens' weights
        return RunConfig.create(**{"token_weights": "equal", **stored.config})
    except PruningError as error:
        raise damaged(path, str(error).rstrip(".")[:200]) from None
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        raise damaged(path, "it holds no options of a run") from None


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
            raise DamagedError(f"{str(path)!r} is gone.") from None

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
        return log.read(self.path / log.RUN_LOG)

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

    def lacks(self) -> str:
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
            if (why := self.lacks()) and not found:
                found.append(f"{why}.")
        for model in checkpoint_folders(self.path):
            look(partial(check_files, model))
        return found
