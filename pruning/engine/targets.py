"""The pruning ratio that reaches a size or a speed. Only timing a model needs torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pruning.config import RunConfig
from pruning.engine.budget import first_mask
from pruning.errors import ConfigError
from pruning.models.delta import Delta
from pruning.models.folder import LoadedModel, Summary
from pruning.models.mask import Mask
from pruning.progress import Progress

STEP = 0.01  # ratios are tried in such steps
MOST = 0.9
TIMED = (0.0, 0.3, 0.6)  # shares of every module that a model lacks when it is timed
NEW_TOKENS = 16

# Sizes of a pruned model, from its mask and the parameters of the whole dense model; two bytes a number.
SIZES: dict[str, Callable[[Mask, int], float]] = {
    "parameters": lambda mask, dense: dense - mask.removed_parameters,
    "checkpoint in 16 bit, bytes": lambda mask, dense: 2 * (dense - mask.removed_parameters),
    "KV cache of a token in 16 bit, bytes": lambda mask, dense: 2 * mask.pruned.cache_values,
}


def smallest_ratio(size: Callable[[float], float], limit: float) -> float:
    """The smallest ratio, in steps of `STEP`, at which a size is within a limit.

    Args:
        size: of the model at a ratio; it falls as the ratio rises.
        limit: in the same unit.

    Raises:
        ConfigError: not even the largest ratio is enough, or one of them cannot be reached.
    """
    low, high = 0, round(MOST / STEP)
    if size(0) <= limit:
        return 0.0
    while high > low:
        try:
            least = size(high * STEP)
            break
        except ConfigError:  # floors and what is kept may forbid the largest ratios
            high -= 1
    else:
        raise ConfigError(
            "nothing can be removed beside what --keep, --min-attention-units and --min-mlp-share keep: "
            "lower these."
        )
    if least > limit:
        raise ConfigError(
            f"{limit:,.0f} is out of reach: a pruning ratio of {high * STEP:.0%}, the largest, leaves "
            f"{least:,.0f}: give at least that."
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if size(middle * STEP) <= limit else (middle, high)
    return high * STEP


def ratio_for_parameters(summary: Summary, limit: float) -> float:
    """The ratio at which the whole model has at most a number of parameters.

    Raises:
        ConfigError: embeddings and norms, which are not pruned, are more than that.
    """
    linear = summary.geometry.linear_parameters
    fixed = summary.parameters - linear
    ratio = (summary.parameters - limit) / linear
    if ratio >= 1:
        raise ConfigError(
            f"{limit:,.0f} parameters are out of reach: {fixed:,} are in embeddings and norms, which are not "
            "pruned: allow more."
        )
    return max(0.0, math.ceil(ratio * 1e4) / 1e4)


@dataclass(frozen=True)
class Timing:
    """The speed of one model at some pruning ratios, as timed on one machine.

    Attributes:
        ratios: ascending, from 0.
        speeds: tokens per second at each.
    """

    ratios: Sequence[float]
    speeds: Sequence[float]

    def ratio(self, speed: float) -> float:
        """The ratio that reaches a speed in tokens per second, on a line through the seconds per token.

        Raises:
            ConfigError: the speed is out of reach.
        """
        slope, dense = np.polyfit(self.ratios, 1 / np.asarray(self.speeds), 1)
        if speed <= self.speeds[0]:
            return 0.0
        ratio = (1 / speed - dense) / slope if slope < 0 else math.inf
        if ratio > MOST:
            raise ConfigError(
                f"{speed:,.0f} tokens per second are out of reach: on this machine the dense model writes "
                f"{self.speeds[0]:,.0f} and, with {self.ratios[-1]:.0%} removed, {self.speeds[-1]:,.0f}: "
                "give a lower speed."
            )
        return max(0.0, math.ceil(ratio * 1e4) / 1e4)


def time_ratios(loaded: LoadedModel) -> Generator[Progress, None, Timing]:
    """The speed of a model at some ratios, in tokens per second for one person on this machine.

    Copies without the same share of every module are timed in turns; which channels they lack is the same.

    Args:
        loaded: the dense model; it stays as it is.
    """
    from pruning.measure.speed import bench, lengths_within

    shape, config = loaded.source.geometry(), RunConfig.create(allocation="uniform")
    scores = {site: np.ones(shape.channels(site)) for site in shape.sites}
    ratios = [share * shape.prunable_share for share in TIMED]
    masks = [first_mask(scores, shape, config.replace(ratio=ratio)) for ratio in ratios]
    models = [replace(loaded, model=copy.deepcopy(loaded.model)) for _ in masks]
    for each, mask in zip(models, masks, strict=True):
        Delta(mask).apply(each.source)
    length = lengths_within([loaded.model.config.max_position_embeddings], NEW_TOKENS)[:1]
    speeds = yield from bench(models, (1,), length, NEW_TOKENS)
    return Timing([mask.ratio for mask in masks], [each.decode.median for each in speeds])
