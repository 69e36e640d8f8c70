"""The pruning ratio that reaches a speed, as timed on this machine."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator
from dataclasses import replace

import numpy as np

from pruning.config import RunConfig
from pruning.engine.budget import first_mask
from pruning.engine.targets import MOST
from pruning.errors import ConfigError
from pruning.measure.speed import bench, lengths_within
from pruning.models.architectures import geometry
from pruning.models.folder import LoadedModel
from pruning.models.mask import Mask
from pruning.models.surgery import remove
from pruning.progress import Progress

TIMED = (0.0, 0.3, 0.6)  # ratios at which a model is timed
NEW_TOKENS = 16


def ratio_for_speed(loaded: LoadedModel, wanted: float) -> Generator[Progress, None, float]:
    """The ratio at which a model writes so many tokens per second, for one person on this machine.

    Copies that lost the same share of every module are timed turn by turn, and a line is laid through their
    seconds per token. Which channels go does not matter to speed.

    Args:
        loaded: the dense model; it stays as it is.
        wanted: tokens per second.

    Raises:
        ConfigError: the speed is out of reach.
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
    speeds = [each.decode.median for each in found]
    slope, dense = np.polyfit([mask.ratio for mask in masks], [1 / speed for speed in speeds], 1)
    if wanted <= speeds[0]:
        return 0.0
    ratio = (1 / wanted - dense) / slope if slope < 0 else math.inf
    if ratio > MOST:
        raise ConfigError(
            f"{wanted:,.0f} tokens per second are out of reach: here the dense model writes {speeds[0]:,.0f} "
            f"and, with {masks[-1].ratio:.0%} removed, {speeds[-1]:,.0f}."
        )
    return math.ceil(ratio * 1e4) / 1e4
