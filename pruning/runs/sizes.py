"""One run, every size: each iteration keeps what separates its model from the dense one; any can be written.

The masks of a run's iterations are nested, so a run in many small steps is a family of models. See GISP
(arXiv 2510.18030), whose models are nested in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import RunError
from pruning.models.delta import Delta
from pruning.paths import exists
from pruning.runs.dense import load_dense
from pruning.runs.run import Run
from pruning.runs.store import RunStore

if TYPE_CHECKING:
    from pruning.models.folder import LoadedModel


def write_model(run: Run, loaded: LoadedModel, delta: Delta, folder: Path) -> Path:
    """Write a model of a run as a checkpoint that says where it comes from.

    Args:
        run: that it belongs to.
        loaded: the pruned model.
        delta: what separates it from the dense one.
        folder: to write.

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
    return save(loaded.model, loaded.tokenizer, folder, record, delta.mask)


def checkpoint_after(run: Run, number: int) -> Path:
    """The checkpoint of a run's model after one of its iterations, written on first use.

    Raises:
        PruningError: the run has no such iteration, its model is another now, or the checkpoint cannot be
            written.
    """
    found = {iteration.number: iteration for iteration in run.iterations() if iteration.number}
    if number not in found:
        known = f"choose 1 to {max(found)}" if found else "its first iteration is not complete yet"
        raise RunError(f"run {run.id!r} has no model after iteration {number}: {known}.")
    if number == run.config.iterations and (run.path / "model").is_dir():
        return run.checkpoint
    folder = run.path / f"model-{number:02d}"
    if not folder.is_dir():
        from pruning.models.source import InMemory

        loaded = load_dense(run)
        delta = found[number].delta()
        delta.apply(InMemory(loaded.model))
        write_model(run, loaded, delta, folder)
    return folder


def named_model(name: str, store: RunStore) -> str:
    """A model by its name, or the path of a run's checkpoint by its id; see `named_checkpoint`.

    Raises:
        RunError: it is the id of no run, or of one without a checkpoint.
    """
    if name[:8].isdigit() and "/" not in name and not exists(Path(name)):
        return str(named_checkpoint(store, name))
    return name


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
