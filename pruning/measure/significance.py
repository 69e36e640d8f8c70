"""Significance of a difference between two models, which are compared item by item."""

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
    """Accuracy of the pruned minus that of the dense model on the same items.

    Attributes:
        value: difference of the means.
        standard_error: standard error of the paired difference, which is smaller than that of two separate
            samples; infinite for fewer than two items.
        p_value: probability of so large a difference by chance.
    """

    value: float
    standard_error: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the difference is more than noise, at `LEVEL`."""
        return self.p_value < LEVEL


def interval(standard_error: float, degrees: float = math.inf) -> float:
    """Half the width of a confidence interval: a quantile times the standard error.

    Args:
        standard_error: standard error of a difference.
        degrees: degrees of freedom, if the error was estimated from few samples (Student's t).
    """
    return quantile(degrees) * standard_error


def quantile(degrees: float = math.inf) -> float:
    """Standard errors that a two-sided confidence interval reaches: 1.96 for many samples at 95%."""
    if math.isinf(degrees):
        return NormalDist().inv_cdf(1 - LEVEL / 2)
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - LEVEL / 2))


def standard_error(values: Sequence[float]) -> float:
    """Standard error of a mean: sample deviation over the root of the number; infinite for fewer than two."""
    n = len(values)
    return float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.inf


def paired_delta(dense: Sequence[float], pruned: Sequence[float]) -> Difference:
    """Compare two models on one task.

    Right or wrong answers are compared by McNemar's exact test, probabilities by a permutation test.

    Args:
        dense, pruned: a value for every item, in the same order.

    Raises:
        ValueError: the numbers of items differ.
    """
    differences = _differences(dense, pruned)
    if not differences.any():
        p_value = 1.0
    elif {*dense, *pruned} <= {0, 1}:
        from scipy.stats import binomtest

        p_value = float(binomtest(int((differences < 0).sum()), np.count_nonzero(differences)).pvalue)
    else:
        p_value = _permutation([differences])
    return Difference(float(differences.mean()), standard_error(differences.tolist()), p_value)


def average_delta(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Difference:
    """Compare two models on the plain mean over tasks: every task counts alike, however many items it has.

    Args:
        pairs: values of the dense and of the pruned model for every task.

    Raises:
        ValueError: the numbers of items of a task differ.
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


def _permutation(tasks: Sequence[np.ndarray]) -> float:
    """Two-sided permutation test that every item's difference could as well have the other sign.

    The mean over tasks of the means over items is compared with those of randomly flipped signs. The test
    holds for any number of items: with few of them no difference is significant.
    """
    weighted = np.concatenate([d / (len(d) * len(tasks)) for d in tasks])
    sizes, counts = np.unique(np.abs(weighted[weighted != 0]), return_counts=True)
    rng = np.random.default_rng(0)
    flipped = np.zeros(FLIPS)
    for size, count in zip(sizes, counts, strict=True):  # the signs of items of one size are binomial
        flipped += size * (2 * rng.binomial(count, 0.5, FLIPS) - count)
    observed = abs(weighted.sum()) * (1 - 1e-9)
    return float((1 + (np.abs(flipped) >= observed).sum()) / (1 + FLIPS))
