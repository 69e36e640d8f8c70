"""What a difference of two accuracies is worth: two models are compared item by item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.05  # of every test and interval: 95% confidence
FLIPS = 9999  # of the permutation test: p values down to 1 in 10,000


@dataclass(frozen=True)
class Difference:
    """Pruned minus dense on the same items.

    Attributes:
        value: difference of the means.
        standard_error: of the paired difference; smaller than that of two separate samples, and infinite
            where one item or none was asked.
        p_value: how likely so large a difference is by chance.
    """

    value: float
    standard_error: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether it is more than noise, at `LEVEL`."""
        return self.p_value < LEVEL


def interval(standard_error: float, degrees: float = math.inf) -> float:
    """Half the width of a confidence interval: a quantile times the standard error.

    Args:
        standard_error: of a difference.
        degrees: of freedom, where the error was estimated from few samples (Student's t).
    """
    return quantile(degrees) * standard_error


def quantile(degrees: float = math.inf) -> float:
    """How many standard errors a two-sided confidence interval reaches: 1.96 for many samples at 95%."""
    if math.isinf(degrees):
        return NormalDist().inv_cdf(1 - LEVEL / 2)
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - LEVEL / 2))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of some items: sample deviation over the root of their number; infinite below two."""
    n = len(values)
    return float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.inf


def paired_delta(dense: Sequence[float], pruned: Sequence[float]) -> Difference:
    """Compare two models on one task.

    Right or wrong answers are compared by McNemar's exact test, probabilities by a permutation test.

    Args:
        dense, pruned: a value for every item, in the same order.

    Raises:
        ValueError: the items are not the same number.
    """
    differences = _differences(dense, pruned)
    if {*dense, *pruned} <= {0, 1}:
        p_value = _mcnemar(int((differences < 0).sum()), int((differences > 0).sum()))
    else:
        p_value = _permutation([differences])
    return Difference(float(differences.mean()), standard_error(differences.tolist()), p_value)


def average_delta(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Difference:
    """Compare two models on the plain mean over tasks: every task counts alike, however many items it has.

    Args:
        pairs: by task the values of the dense and of the pruned model.

    Raises:
        ValueError: the items of a task are not the same number.
    """
    differences = [_differences(dense, pruned) for dense, pruned in pairs]
    errors = [standard_error(d.tolist()) for d in differences]
    return Difference(
        float(np.mean([d.mean() for d in differences])),
        math.sqrt(sum(error**2 for error in errors)) / len(errors),
        _permutation(differences),
    )


def _differences(dense: Sequence[float], pruned: Sequence[float]) -> np.ndarray:
    if len(dense) != len(pruned):
        raise ValueError(f"{len(dense)} items against {len(pruned)}: they must be the same")
    return np.asarray(pruned, dtype=np.float64) - np.asarray(dense, dtype=np.float64)


def _mcnemar(lost: int, won: int) -> float:
    """Two-sided exact binomial test that items are as likely lost as won."""
    changed = lost + won
    tail = sum(math.comb(changed, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**changed)


def _permutation(tasks: Sequence[np.ndarray]) -> float:
    """Two-sided test that every item's difference could as well have the other sign.

    The mean over tasks of the means over items is held against those of randomly flipped signs. It holds
    for any number of items: with few of them no difference is significant.
    """
    weighted = np.concatenate([d / (len(d) * len(tasks)) for d in tasks])
    sizes, counts = np.unique(np.abs(weighted[weighted != 0]), return_counts=True)
    rng = np.random.default_rng(0)
    flipped = np.zeros(FLIPS)
    for size, count in zip(
        sizes, counts, strict=True
    ):  # items of one size together: their signs are binomial
        flipped += size * (2 * rng.binomial(count, 0.5, FLIPS) - count)
    observed = abs(weighted.sum()) * (1 - 1e-9)
    return float((1 + (np.abs(flipped) >= observed).sum()) / (1 + FLIPS))
