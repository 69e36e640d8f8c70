"""Models of a run: the dense model that it began with, and the checkpoint after any of its iterations.

The masks of a run's iterations are nested, so a run in many small steps is a family of models. See GISP
(arXiv 2510.18030), whose models are nested in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pruning.checksums import with_checksum, write_json
from pruning.errors import ModelError, RunError
from pruning.formatting import quoted
from pruning.models.delta import Delta
from pruning.models.folder import fingerprint, locate, resolve
from pruning.models.hub import is_hub_id
from pruning.models.loading import Dtype
from pruning.paths import exists
from pruning.runs.folder import log
from pruning.runs.inputs import check_inputs, way_out
from pruning.runs.run import Run, RunStore
from pruning.runs.schema import StoredConfig

if TYPE_CHECKING:
    from pruning.models.folder import LoadedModel


def load_dense(run: Run) -> LoadedModel:
    """Load the dense model of a run, in the dtype that the run began with.

    Raises:
        ModelError: it cannot be loaded.
        RunError: it is not the one that the run began with.
    """
    from pruning.models.loading import load

    config, stored = run.config, run.inputs if run.last_iteration >= 0 else None
    if stored and not is_hub_id(config.model) and not exists(resolve(config.model)):
        raise ModelError(
            f"the model {quoted(config.model)} is missing: put it back, or name its new path ('runs resume "
            f"{run.argument} --model PATH')."
        )
    dtype = cast("Dtype", stored.dtype) if stored else config.dtype
    loaded = load(config.model, config.device, dtype, config.trust_remote_code)
    check_inputs(run, loaded.fingerprint)
    return loaded


def move_model(run: Run, name: str) -> Run:
    """Change the path or name of a run's dense model.

    Args:
        run: a run without a process.
        name: new name of the model, as in a config.

    Returns:
        The run with the name in its config.

    Raises:
        ModelError: there is no such model.
        RunError: it is not the model that the run began with, or the run cannot tell.
    """
    name = name if name in ("demo", "smollm2") or not exists(Path(name)) else str(Path(name).absolute())
    config = run.config.replace(model=name)
    weights = fingerprint(locate(name))
    begun = {iteration.metrics.weights for iteration in run.iterations()}
    if "" in begun:
        raise RunError(
            f"run {run.id!r} was made by an earlier version and has no record of its weights, so that "
            f"{quoted(name)} cannot be compared with them: put the model back to {quoted(run.config.model)}."
        )
    if begun - {weights}:
        raise RunError(
            f"the model {quoted(name)} is not the one that run {run.id!r} began with: name a copy of "
            f"{quoted(run.config.model)}, {way_out(run)}"
        )
    with run.held():
        stored = StoredConfig(config=config.model_dump(mode="json"), versions=run.versions).model_dump()
        write_json(run.path / "config.json", stored)
        log(run.path, "moved", model=name, before=run.config.model, config=with_checksum(stored))
    return Run(run.path)


def write_model(run: Run, loaded: LoadedModel, delta: Delta, folder: Path) -> Path:
    """Write a model of a run as a checkpoint that records its origin.

    Args:
        run: the run.
        loaded: the pruned model.
        delta: its difference from the dense model.
        folder: folder to write.

    Raises:
        RunError: it cannot be written.
    """
    from pruning.models.checkpoint import save
    from pruning.models.tensors import stored_type

    record: dict[str, Any] = {
        "run": run.id,
        "config": run.config.model_dump(mode="json"),
        "ratio": delta.mask.ratio,
    }
    if kind := stored_type(loaded.path):
        record["dense_type"] = kind
    if delta.weights:
        record["changed"] = sorted(delta.weights)
    return save(loaded.source, loaded.tokenizer, folder, record, delta.mask)


def checkpoint_after(run: Run, number: int) -> Path:
    """The checkpoint of a run's model after one of its iterations, written on first use.

    Raises:
        PruningError: there is no such iteration, the dense model was changed, or the folder cannot be
            written.
    """
    iterations = run.iterations()
    if not 0 < number < len(iterations):
        last = len(iterations) - 1
        choice = f"choose 1 to {last}" if last > 0 else "its first iteration is not complete yet"
        raise RunError(f"run {run.id!r} has no model after iteration {number}: {choice}.")
    if number == run.config.iterations and (run.path / "model").is_dir():
        return run.checkpoint
    folder = run.path / f"model-{number:02d}"
    if not folder.is_dir():
        loaded = load_dense(run)
        delta = iterations[number].delta()
        delta.apply(loaded.source)
        write_model(run, loaded, delta, folder)
    return folder


def named_model(name: str, store: RunStore) -> str:
    """A model by its name, or the path of a run's checkpoint by its id; see `named_checkpoint`.

    Raises:
        RunError: it is the id of no run, or of one without a checkpoint.
    """
    return str(named_checkpoint(store, name)) if named_run(name, store) else name


def named_run(name: str, store: RunStore) -> Run | None:
    """The run whose id names a model, as `ID` or `ID:3`; None for any other name.

    Raises:
        RunError: it is the id of no run.
    """
    is_id = name[:8].isdigit() and "/" not in name and not exists(Path(name))
    return store.get(name.partition(":")[0]) if is_id else None


def named_checkpoint(store: RunStore, name: str) -> Path:
    """The checkpoint that a run's id names; `ID:3` is the model after iteration 3.

    Raises:
        RunError: there is none.
    """
    run_id, separator, number = name.partition(":")
    run = store.get(run_id)
    if not separator:
        return run.checkpoint
    if not (number.isascii() and number.isdigit() and len(number) < 4):
        raise RunError(f"{name!r} names no iteration: write {run.id}:1 to {run.id}:{run.config.iterations}.")
    return checkpoint_after(run, int(number))
