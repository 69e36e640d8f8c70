"""The dense model of a run: the one that it began with, wherever it lies now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from pruning.errors import ModelError, RunError
from pruning.models.folder import fingerprint, locate, place
from pruning.models.hub import is_hub_id
from pruning.models.loading import Dtype
from pruning.paths import exists
from pruning.runs.inputs import check_weights, way_out
from pruning.runs.log import log
from pruning.runs.outcome import StoredConfig
from pruning.runs.run import Run
from pruning.sealed import sealed, write_json
from pruning.words import quoted

if TYPE_CHECKING:
    from pruning.models.folder import LoadedModel


def load_dense(run: Run) -> LoadedModel:
    """The dense model of a run, in the dtype that the run began with.

    Raises:
        ModelError: it cannot be loaded.
        RunError: it is not the one that the run began with.
    """
    from pruning.models.loading import load

    config, stored = run.config, run.inputs if run.iterations() else None
    if stored and not is_hub_id(config.model) and not exists(place(config.model)):
        raise ModelError(
            f"the model {quoted(config.model)} is gone: put it back, or name its new path ('runs resume "
            f"{run.named} --model PATH')."
        )
    dtype = cast("Dtype", stored.dtype) if stored else config.dtype
    loaded = load(config.model, config.device, dtype, config.trust_remote_code)
    check_weights(run, loaded.fingerprint)
    return loaded


def move_model(run: Run, name: str) -> Run:
    """Have a run take its dense model from another place from now on.

    Args:
        run: that nobody works on.
        name: of the model, as in a config.

    Returns:
        The run, with the name in its config.

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
        log(run.path, "moved", model=name, before=run.config.model, config=sealed(stored))
    return Run(run.path)
