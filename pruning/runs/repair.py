"""Back to the last whole state of a run: what is damaged is restored, or removed so that it is redone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pruning.checksums import corrupt, read_json, read_record, without_checksum, write_json
from pruning.errors import CorruptFileError, ModelError, RunError
from pruning.files import remove, sweep, writing
from pruning.formatting import quoted
from pruning.models.folder import check_files, describe
from pruning.runs.folder import RUN_LOG, check_only_run_files, checkpoint_folders, log
from pruning.runs.run import INPUTS_FILE, Run
from pruning.runs.schema import Inputs, Results, StoredGeometry


def repair(run: Run) -> list[str]:
    """Restore what a run has written, or remove it so that a resumed run computes it again.

    The caller holds the run (`Run.held`). What cannot be read, say of a failing disk, is left alone.

    Returns:
        What was found and done, in sentences; empty where all is whole.

    Raises:
        RunError: a file cannot be read or written, or the config is lost.
    """
    sweep(run.path)
    done = [*_config(run), *_geometry(run), *_inputs(run), *_iterations(run), *_outcome(run)]
    for words in done:
        log(run.path, "repaired", what=words)
    return done


def _config(run: Run) -> Iterator[str]:
    try:
        _ = run.config
    except CorruptFileError as error:
        for where, content in _copies(run):
            write_json(run.path / "config.json", content)
            with contextlib.suppress(CorruptFileError):
                _ = run.config
                yield f"config.json was damaged or gone; it is restored from {where}."
                return
        raise RunError(f"{str(error).rstrip('.')}, and no copy of it is left: delete the run.") from None


def _copies(run: Run) -> Iterator[tuple[str, dict]]:
    """Where else the options of a run stand."""
    for event in reversed(run.events()):
        if event["event"] in ("created", "moved") and isinstance(event.get("config"), dict):
            with contextlib.suppress(RunError):
                yield RUN_LOG, without_checksum(event["config"], run.path / RUN_LOG, trusting=False)
    for name in ("results.json", "model/pruning.json"):
        with contextlib.suppress(RunError):
            content = read_json(run.path / name, trusting=False)
            if content and isinstance(content.get("config"), dict):
                yield name, {"config": content["config"], "versions": content.get("versions", {})}


def _geometry(run: Run) -> Iterator[str]:
    path = run.path / "geometry.json"
    try:
        if read_record(path, StoredGeometry) or not run.iteration_folders():
            return
    except CorruptFileError:
        pass
    write_json(path, describe(run.config.model).geometry.to_dict())
    yield "geometry.json was damaged or gone; it is written anew from the model."


def _inputs(run: Run) -> Iterator[str]:
    path = run.path / INPUTS_FILE
    try:
        if read_record(path, Inputs) or not run.iteration_folders():
            return
        damage = ""
    except CorruptFileError as error:
        damage = str(error)
    for event in reversed(run.events()):
        if event["event"] == "inputs" and isinstance(event.get("inputs"), dict):
            with contextlib.suppress(CorruptFileError):
                write_json(path, without_checksum(event["inputs"], path, trusting=False))
                yield f"inputs.json was damaged or gone; it is restored from {RUN_LOG}."
                return
    if damage:
        with writing(run.path):
            remove(path)
        yield (
            f"{damage[:-1]}, and no copy of it is left: it cannot be checked whether the text of the run is "
            "unchanged."
        )


def _iterations(run: Run) -> Iterator[str]:
    whole = 0
    for iteration in run.iterations():
        try:
            iteration.check()
        except CorruptFileError as error:
            yield str(error)
            break
        whole += 1
    else:
        if len(run.iteration_folders()) > whole:
            yield f"Iteration {whole} is damaged or gone."
    again = {number: folder for number, folder in run.iteration_folders().items() if number >= whole}
    for folder in again.values():
        with writing(folder):
            _remove(run, folder)
    if again:
        last = f"the last intact iteration is {whole - 1}" if whole else "no iteration is intact"
        several = (
            f"Iterations {min(again)} to {max(again)} are" if len(again) > 1 else f"Iteration {min(again)} is"
        )
        yield f"{several} removed and computed again when the run is resumed: {last}."


def _remove(run: Run, folder: Path) -> None:
    """Remove a damaged part of a run.

    Raises:
        RunError: it holds a file that is no part of a run.
    """
    check_only_run_files(run.path, folder)
    remove(folder)


def _set_aside(model: Path) -> Path:
    """Rename a checkpoint that is not what was written: it may be a person's work."""
    number = 1
    while (target := model.with_name(f"{model.name}.changed-{number}")).exists():
        number += 1
    return model.rename(target)


def _outcome(run: Run) -> Iterator[str]:
    """Results and checkpoint, which follow from the iterations."""
    for name in ("results.json", "status.json", "sources.json"):
        try:
            if name == "results.json":
                read_record(run.path / name, Results)
            else:
                read_json(run.path / name)
        except CorruptFileError as error:
            with writing(run.path):
                remove(run.path / name)
            yield f"{str(error)[:-1]}: it is removed, and written again when the run is resumed."
    for model in checkpoint_folders(run.path):
        try:
            if read_json(model / "pruning.json") is None:
                raise corrupt(model / "pruning.json", "it is gone")
            check_files(model)
        except (CorruptFileError, ModelError):
            with writing(model):
                changed = _set_aside(model)
            when = "the run is resumed" if model.name == "model" else "it is named again"
            yield (
                f"The checkpoint {str(model)!r} is not what was written: it is now {quoted(changed.name)}, "
                f"and is written again when {when}."
            )
