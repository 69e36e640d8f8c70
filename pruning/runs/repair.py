"""Back to the last intact state of a run: corrupt files are restored, or removed to be computed again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pruning.checksums import corrupt, read_json, read_record, without_checksum, write_json
from pruning.errors import CorruptFileError, ModelError, RunError
from pruning.files import PRUNING_FILE, remove, sweep, writing
from pruning.formatting import quoted
from pruning.models.folder import check_files, describe
from pruning.runs.folder import RUN_LOG, check_only_run_files, checkpoint_folders, log
from pruning.runs.run import INPUTS_FILE, Run
from pruning.runs.schema import Inputs, Results, StoredGeometry


def repair(run: Run) -> list[str]:
    """Restore the files of a run, or remove them so that a resumed run computes them again.

    The caller holds the run (`Run.held`). A file that cannot be read, as on a failing disk, is left alone.

    Returns:
        Problems and repairs, in sentences; empty for an intact run.

    Raises:
        RunError: a file cannot be read or written, or the config is lost.
    """
    sweep(run.path)
    actions = [
        *_config(run),
        *_geometry(run),
        *_inputs(run),
        *_iterations(run),
        *_records(run),
        *_models(run),
    ]
    for action in actions:
        log(run.path, "repaired", what=action)
    return actions


def _logged(run: Run, field: str, *events: str) -> Iterator[dict[str, Any]]:
    """Intact copies of a record in the run's log, the newest first."""
    for event in reversed(run.events()):
        if event["event"] in events and isinstance(event.get(field), dict):
            with contextlib.suppress(RunError):
                yield without_checksum(event[field], run.path / RUN_LOG, trusting=False)


def _config(run: Run) -> Iterator[str]:
    try:
        _ = run.config
    except CorruptFileError as error:
        for origin, content in _copies(run):
            write_json(run.path / "config.json", content)
            with contextlib.suppress(CorruptFileError):
                _ = run.config
                yield f"config.json was corrupt or missing; it is restored from {origin}."
                return
        raise RunError(f"{str(error).rstrip('.')}, and no copy of it is left: delete the run.") from None


def _copies(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of a run's config, with the name of the file that holds each."""
    for content in _logged(run, "config", "created", "moved"):
        yield RUN_LOG, content
    for name in ("results.json", f"model/{PRUNING_FILE}"):
        with contextlib.suppress(RunError):
            record = read_json(run.path / name, trusting=False)
            if record and isinstance(record.get("config"), dict):
                yield name, {"config": record["config"], "versions": record.get("versions", {})}


def _geometry(run: Run) -> Iterator[str]:
    path = run.path / "geometry.json"
    with contextlib.suppress(CorruptFileError):
        if read_record(path, StoredGeometry) or not run.iteration_folders():
            return
    write_json(path, describe(run.config.model).geometry.to_dict())
    yield "geometry.json was corrupt or missing; it is written anew from the model."


def _inputs(run: Run) -> Iterator[str]:
    path, problem = run.path / INPUTS_FILE, ""
    try:
        if read_record(path, Inputs) or not run.iteration_folders():
            return
    except CorruptFileError as error:
        problem = str(error)
    for content in _logged(run, "inputs", "inputs"):
        write_json(path, content)
        yield f"inputs.json was corrupt or missing; it is restored from {RUN_LOG}."
        return
    if problem:
        with writing(run.path):
            remove(path)
        yield (
            f"{problem[:-1]}, and no copy of it is left: it cannot be checked whether the text of the run is "
            "unchanged."
        )


def _iterations(run: Run) -> Iterator[str]:
    intact = 0
    for iteration in run.iterations():
        try:
            iteration.check()
        except CorruptFileError as error:
            yield str(error)
            break
        intact += 1
    else:
        if len(run.iteration_folders()) > intact:
            yield f"Iteration {intact} is corrupt or missing."
    again = {number: folder for number, folder in run.iteration_folders().items() if number >= intact}
    for folder in again.values():
        with writing(folder):
            check_only_run_files(run.path, folder)
            remove(folder)
    if again:
        last = f"the last intact iteration is {intact - 1}" if intact else "no iteration is intact"
        several = (
            f"Iterations {min(again)} to {max(again)} are" if len(again) > 1 else f"Iteration {min(again)} is"
        )
        yield f"{several} removed and computed again when the run is resumed: {last}."


def _records(run: Run) -> Iterator[str]:
    """Records that are written again when the run is resumed."""
    for name in ("results.json", "status.json", "sources.json"):
        path = run.path / name
        try:
            _ = read_record(path, Results) if name == "results.json" else read_json(path)
        except CorruptFileError as error:
            with writing(run.path):
                remove(path)
            yield f"{str(error)[:-1]}: it is removed, and written again when the run is resumed."


def _models(run: Run) -> Iterator[str]:
    """Checkpoints, which follow from the iterations; changed ones are renamed, as a person's work."""
    for model in checkpoint_folders(run.path):
        try:
            if read_json(model / PRUNING_FILE) is None:
                raise corrupt(model / PRUNING_FILE, "it is missing")
            check_files(model)
        except (CorruptFileError, ModelError):
            with writing(model):
                changed = model.rename(_unused_name(model))
            when = "the run is resumed" if model.name == "model" else "it is named again"
            yield (
                f"The checkpoint {str(model)!r} is not what was written: it is now {quoted(changed.name)}, "
                f"and is written again when {when}."
            )


def _unused_name(model: Path) -> Path:
    number = 1
    while (target := model.with_name(f"{model.name}.changed-{number}")).exists():
        number += 1
    return target
