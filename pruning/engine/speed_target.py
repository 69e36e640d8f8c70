"""The speed of a model at some pruning ratios, timed on this machine."""

from __future__ import annotations

import copy
from collections.abc import Generator
from dataclasses import replace

import numpy as np

from pruning.config import RunConfig
from pruning.engine.budget import first_mask
from pruning.engine.targets import Timing
from pruning.measure.speed import bench, lengths_within
from pruning.models.folder import LoadedModel
from pruning.models.layer_view import geometry
from pruning.models.mask import Mask
from pruning.models.surgery import remove
from pruning.progress import Progress

TIMED = (0.0, 0.3, 0.6)  # ratios at which a model is timed
NEW_TOKENS = 16


def time_ratios(loaded: LoadedModel) -> Generator[Progress, None, Timing]:
    """How many tokens per second a model writes at some ratios, for one person on this machine.

    Copies that lost the same share of every module are timed turn by turn. Which channels go does not matter.

    Args:
        loaded: the dense model; it stays as it is.
    """
    shape = geometry(loaded.model)
    full, config = Mask.full(shape), RunConfig.create(allocation="uniform")
    scores = {site: np.ones(shape.channels(site)) for site in shape.sites}
    masks = [first_mask(scores, shape, config.replace(ratio=ratio)) for ratio in TIMED]
    models = [replace(loaded, model=copy.deepcopy(loaded.model)) for _ in masks]
    for each, mask in zip(models, masks, strict=True):
        remove(each.model, full, mask)
    length = lengths_within([loaded.model.config.max_position_embeddings], NEW_TOKENS)[:1]
    found = yield from bench(models, (1,), length, NEW_TOKENS)
    return Timing([mask.ratio for mask in masks], [each.decode.median for each in found])
