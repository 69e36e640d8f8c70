"""Statistics of the displayed run, read once, and the scores and masks that follow from them without a model."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import streamlit as st

from pruning.config import RunConfig
from pruning.engine.budget import first_mask
from pruning.errors import RunError
from pruning.method.scores import score_sites
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Mask
from pruning.runs.folder import StoredIteration
from pruning.runs.run import Run
from ui.state import Choice

Array = np.ndarray


@st.cache_resource(max_entries=3, show_spinner=False)
def _stored(path: str, stamp: int, _it: StoredIteration) -> StoredIteration:
    """An iteration whose arrays stay in memory once read; read-only, since all sessions share it.

    Three of a 32B model with four domains are 0.6 GB.
    """
    return _it


def iteration(run: Run, number: int) -> StoredIteration:
    """An iteration of a run; 0 is the dense model.

    Raises:
        RunError: it is missing or corrupt.
    """
    iterations = run.iterations()
    if not 0 <= number < len(iterations):
        raise RunError(
            f"iteration {number} of run {run.id!r} is corrupt or missing: resume the run, or choose another."
        )
    it = iterations[number]
    return _stored(str(it.path), stamp(it), it)


def stamp(it: StoredIteration) -> int:
    """Modification time of an iteration's folder for cache keys, as curves may be added; 0 if just deleted."""
    with contextlib.suppress(OSError):
        return it.path.stat().st_mtime_ns
    return 0


def statistics_iteration(chosen: Choice) -> StoredIteration | None:
    """The iteration whose statistics are shown; None if the run has none yet."""
    last = chosen.run.last_iteration
    return iteration(chosen.run, min(max(chosen.iteration, 1), last)) if last > 0 else None


def scores(it: StoredIteration, config: RunConfig, weights: Mapping[str, float]) -> dict[Site, Array]:
    """Scores of every channel for a mixture, from the stored statistics; needs no model."""
    return score_sites(
        config.score,
        it.statistics.fuse(weights, config.fusion, worst_domain=config.worst_domain),
        it.norms,
        config.seed,
    )


def preview(it: StoredIteration, config: RunConfig, geometry: Geometry) -> Mask:
    """The mask of one-shot pruning with these statistics; recent ones are cached.

    Raises:
        ConfigError: the pruning ratio cannot be reached, or keep and remove contradict each other.
    """
    return _preview(str(it.path), stamp(it), config.model_dump_json(), it, config, geometry)


@st.cache_resource(max_entries=8, show_spinner=False)
def _preview(
    path: str, stamp: int, key: str, _it: StoredIteration, _config: RunConfig, _geometry: Geometry
) -> Mask:
    return first_mask(scores(_it, _config, _config.mixture), _geometry, _config, _it.curves)
