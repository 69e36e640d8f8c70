"""Scores of different sites made comparable.

A normaliser is a function from a site's scores (C,), NaN where removed, and the scale that they had in the
dense model. Register one with `@NORMALISERS.add`; its name becomes a value of `RunConfig.normalise`.

Only rules that stay fixed through the iterations suit an iterative method. Standardising over the kept
channels shifts the mean of a layer that was just cut, so that its lowest channels look expendable again, and
the same layer is cut in every iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pruning.models.mask import Array
from pruning.registry import Registry


class Scale(NamedTuple):
    """A site's scores in the dense model.

    Attributes:
        mean, deviation, total, median: of the scores.
        clipped_mean: mean of the scores with the largest hundredth cut down to the 99th percentile.
        channels: how many.
    """

    mean: float
    deviation: float
    total: float
    median: float
    clipped_mean: float
    channels: int

    @classmethod
    def of(cls, scores: Array) -> Scale:
        """The scale of scores (C,) without NaN."""
        return cls(
            float(scores.mean()),
            float(scores.std(ddof=1)),
            float(scores.sum()),
            float(np.median(scores)),
            float(np.minimum(scores, np.percentile(scores, 99)).mean()),
            len(scores),
        )


NORMALISERS: Registry[Callable[[Array, Scale], Array]] = Registry("normaliser")


@NORMALISERS.add
def soft_share(scores: Array, first: Scale) -> Array:
    """The score over (channels x median x evenness)^(3/4), evenness being the median over the clipped mean.

    Dividing by what a site sums to makes sites comparable, but all the way (power 1) it denies that some
    matter more than others: 3/4 of the way lies between that and the plain score. A site whose scores are
    spread unevenly keeps more. Power and evenness were chosen on SmolLM2-135M and on the demo model; see
    benchmarks/results/methods.md.
    """
    return scores / _even_total(first) ** 0.75


@NORMALISERS.add
def half_share(scores: Array, first: Scale) -> Array:
    """`soft_share` with half of the way instead of 3/4."""
    return scores / _even_total(first) ** 0.5


def _even_total(first: Scale) -> float:
    """Channels x median x evenness, see `soft_share`."""
    evenness = first.median / (first.clipped_mean or 1.0)
    return first.channels * first.median * evenness or first.total or 1.0


@NORMALISERS.named("auto")
def chosen_by_trials(scores: Array, first: Scale) -> Array:
    """The rule that fits the model at hand, chosen by `engine.choice`; until then `soft_share` stands in."""
    return soft_share(scores, first)


@NORMALISERS.add
def robust_share(scores: Array, first: Scale) -> Array:
    """The score over what the dense site would sum to if all its channels were like the median one.

    As `share`, but a channel with a massive activation does not decide how much the others count: such
    channels exceed the median of their site a million times in trained models (arXiv 2402.17762).
    """
    return scores / (first.median * first.channels or first.total or 1.0)


@NORMALISERS.add
def share(scores: Array, first: Scale) -> Array:
    """The part of the dense site's total score that a channel carries."""
    return scores / (first.total or 1.0)


@NORMALISERS.add
def zscore(scores: Array, first: Scale) -> Array:
    """Standardised over the kept channels: FLAP's (arXiv 2312.11983, section 3.3)."""
    return _standardised(scores, Scale.of(scores[~np.isnan(scores)]))


@NORMALISERS.add
def zscore_zero(scores: Array, first: Scale) -> Array:
    """Standardised with removed channels counted as zeros."""
    return _standardised(scores, Scale.of(np.nan_to_num(scores)))


@NORMALISERS.add
def zscore_first(scores: Array, first: Scale) -> Array:
    """Standardised with the mean and deviation of the dense model."""
    return _standardised(scores, first)


@NORMALISERS.add
def none(scores: Array, first: Scale) -> Array:
    """The score itself."""
    return scores


def _standardised(scores: Array, scale: Scale) -> Array:
    return (scores - scale.mean) / (scale.deviation or 1.0)
