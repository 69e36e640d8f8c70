"""Damage curves of a run: measured with it or later, and what they predict for a mask."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path

from pruning.errors import RunError
from pruning.method.sensitivity import Curve, predict_divergence
from pruning.models.geometry import Site
from pruning.models.mask import Mask
from pruning.progress import Progress
from pruning.runs.dense import load_dense
from pruning.runs.inputs import check_text, text_digests
from pruning.runs.iterations import CURVES_FILE, StoredIteration
from pruning.runs.run import Run
from pruning.sealed import write_json


def write_curves(folder: Path, curves: Mapping[Site, Curve]) -> None:
    """Write curves into the folder of an iteration."""
    write_json(folder / CURVES_FILE, {str(site): curve.to_dict() for site, curve in curves.items()})


def dense_iteration(run: Run) -> StoredIteration:
    """The iteration whose statistics are those of the dense model.

    Raises:
        RunError: the run has none yet.
    """
    found = next((iteration for iteration in run.iterations() if iteration.number == 1), None)
    if found is None:
        raise RunError(f"run {run.id!r} has no statistics yet: wait for its first iteration, or resume it.")
    return found


def measure_damage(run: Run, **changes: object) -> Generator[Progress, None, dict[Site, Curve]]:
    """Measure the damage curves of a run's dense model, and keep them with the run.

    Args:
        run: with statistics of the dense model.
        changes: options to measure with instead of the run's, such as another compensation.

    Raises:
        PruningError: the run has no statistics yet, or its model or text cannot be had or are others now.
    """
    from pruning.engine.blocks import calibration_blocks, describe_blocks
    from pruning.engine.budget import dense_scales
    from pruning.engine.loop import state_of
    from pruning.engine.sensitivity import sensitivity_curves
    from pruning.models.source import InMemory

    first, config = dense_iteration(run), run.config.replace(**changes)
    loaded = load_dense(run)
    blocks = calibration_blocks(config, loaded.tokenizer, loaded.model)
    if stored := run.inputs:
        check_text(run, stored, text_digests(describe_blocks(blocks, [])), blocks=False)
    scales = dense_scales(first.scores, config.square_attention)
    curves = yield from sensitivity_curves(
        InMemory(loaded.model),
        Mask.full(first.geometry),
        first.scores,
        scales,
        config,
        blocks,
        state_of(loaded),
    )
    write_curves(first.path, curves)
    return curves


def foretold(run: Run) -> dict[str, float]:
    """By domain what a run's own curves foretold of its final mask; empty where none were measured."""
    curves = dense_iteration(run).curves
    return predict_divergence(curves, run.iterations()[-1].mask) if curves else {}
