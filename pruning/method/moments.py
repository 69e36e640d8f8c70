"""Mean, variance and covariance of channels, in one pass, mergeable, and fused over domains.

The arithmetic of merging and fusing is written once for numpy arrays and torch tensors: it needs nothing but
their operators.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from pruning.method.statistics import STATISTICS, Array, Observation, SiteStats, Statistic, scatter
from pruning.models.geometry import Site

if TYPE_CHECKING:
    from torch import Tensor


Fusion = Literal["within", "total"]


@dataclass(frozen=True, slots=True)
class CentredSums(Statistic):
    """Count, mean and centred sums of the channels of a site; tokens may have weights.

    Attributes:
        mean: (C,) mean over the tokens.
        m2: sum over the tokens of squares or products of the distances to the mean.
        weight: sum of the tokens' weights; 0 stands for the count, where every token weighs one.
    """

    mean: Array
    m2: Array
    weight: float = 0.0

    @property
    def total(self) -> float:
        """Sum of the tokens' weights."""
        return self.weight or self.count

    def merge(self, other: Self) -> Self:
        """The statistic of both samples together (Chan, Golub and LeVeque 1983, equation 2.1)."""
        total = self.total + other.total
        delta = other.mean - self.mean
        return replace(
            self,
            count=self.count + other.count,
            mean=self.mean + delta * (other.total / total),
            m2=self.m2 + other.m2 + self.products(delta) * (self.total * other.total / total),
            weight=total if self.weight else 0.0,
        )

    @staticmethod
    @abstractmethod
    def products(delta: Array) -> Array:
        """The squares or products of distances (C,), in the shape of `m2`."""


class Moments(CentredSums):
    """Moments of every channel of a site: `m2` (C,) is the sum of squared distances to the mean."""

    __slots__ = ()

    @classmethod
    def of(cls, x: Tensor, weights: Tensor | None = None) -> Moments:
        """The moments of activations x (..., C), taken in float32 and returned in float64.

        Two passes over the batch with the correction term of Chan, Golub and LeVeque ("Algorithms for
        computing the sample variance", 1983, equation 1.7), so that neither a large mean nor rounding of the
        mean costs digits. Sums over tokens are products with a row of ones, or of weights: on a CPU several
        times as fast as `sum(0)`.

        Args:
            x: activations.
            weights: (...) of the tokens, positive; None where every token weighs one.
        """
        x = x.reshape(-1, x.shape[-1]).float()  # (n, C)
        count = x.shape[0]
        row = x.new_ones(1, count) if weights is None else weights.reshape(1, -1).float()
        total = count if weights is None else float(row.double().sum())
        shift = (row @ x)[0] / total
        centred = x - shift
        first = (row @ centred)[0]
        second = (row @ centred.square_())[0]
        if x.device.type == "mps":  # has no float64
            shift, first, second = shift.cpu(), first.cpu(), second.cpu()
        shift, first, second = shift.double(), first.double(), second.double()
        m2 = (second - first**2 / total).clamp(min=0)
        return cls(count, shift + first / total, m2, 0.0 if weights is None else total)

    @staticmethod
    def products(delta: Array) -> Array:
        return delta**2

    @property
    def variance(self) -> Array:
        """(C,) unbiased sample variance, each token with its weight; zero for a single token."""
        return self.m2 / max(self.count - 1, 1)

    @property
    def mean_square(self) -> Array:
        """(C,) mean of the squared activations, each token with its weight."""
        return self.m2 / self.count + self.mean**2 * (self.total / self.count)


class SecondMoments(CentredSums):
    """Second moments of a site: `m2` (C, C) is the sum of products of distances to the mean."""

    __slots__ = ()

    @classmethod
    def of(cls, x: Tensor, weights: Tensor | None = None) -> SecondMoments:
        """The second moments of activations x (..., C): products in float32, returned in float64.

        Args:
            x: activations.
            weights: (...) of the tokens, positive; None where every token weighs one.
        """
        x = x.reshape(-1, x.shape[-1]).float()  # (n, C)
        count = x.shape[0]
        row = x.new_ones(count) if weights is None else weights.reshape(-1).float()
        total = count if weights is None else float(row.double().sum())
        mean = (row @ x) / total
        centred = (x - mean) * row.sqrt()[:, None]
        m2 = centred.T @ centred
        if x.device.type == "mps":  # has no float64
            mean, m2 = mean.cpu(), m2.cpu()
        return cls(count, mean.double(), m2.double(), 0.0 if weights is None else total)

    @staticmethod
    def products(delta: Array) -> Array:
        return delta[:, None] * delta[None, :]

    def in_dense_indices(self, kept: np.ndarray) -> SecondMoments:
        """The same as numpy arrays in the dense model's indices, NaN where either channel is removed."""
        mean, rows = (scatter(np.asarray(array.cpu()), kept) for array in (self.mean, self.m2))
        return SecondMoments(self.count, mean, scatter(rows.T, kept), self.weight)


# --- the registered statistics -----------------------------------------------------------------------------


@STATISTICS.add
def moments(observation: Observation) -> Moments:
    """Moments in which every token counts alike."""
    return Moments.of(observation.inputs)


@STATISTICS.add
def relative_moments(observation: Observation) -> Moments:
    """Moments in which a token counts by the inverse mean square of the residual stream behind it.

    The output of a module is divided by the root mean square of the residual stream in the next RMSNorm
    (arXiv 1910.07467): an error there matters relative to it. A token with a massive activation
    (arXiv 2402.17762), whose stream is a thousand times as large, no longer decides a channel's variance.
    """
    return Moments.of(observation.inputs, token_weights(observation))


@STATISTICS.add
def second_moments(observation: Observation) -> SecondMoments:
    """Second moments in which every token counts alike."""
    return SecondMoments.of(observation.inputs)


@STATISTICS.add
def relative_second_moments(observation: Observation) -> SecondMoments:
    """Second moments with the token weights of `relative_moments`."""
    return SecondMoments.of(observation.inputs, token_weights(observation))


def token_weights(observation: Observation) -> Tensor:
    """(...) weights of the tokens: 1 / mean square of the residual stream."""
    return 1 / observation.residual.float().square().mean(dim=-1).clamp(min=1e-30)


TokenWeights = Literal["equal", "residual"]
MOMENTS_OF: dict[TokenWeights, str] = {"equal": "moments", "residual": "relative_moments"}
SECOND_MOMENTS_OF: dict[TokenWeights, str] = {
    "equal": "second_moments",
    "residual": "relative_second_moments",
}


# --- fusion over domains -----------------------------------------------------------------------------------


def fuse(
    moments: Mapping[str, Moments],
    weights: Mapping[str, float],
    rule: Fusion = "within",
    worst_domain: float = 0.0,
) -> SiteStats:
    """The statistics of a mixture of domains at one site, without the weights.

    Args:
        moments: of the site by domain.
        weights: mixture weights that sum to 1; domains without one are left out.
        rule: `within` takes the mean of the variances (arXiv 2601.02674), `total` adds the variance of the
            means (law of total variance), which is that of one pooled, weighted sample.
        worst_domain: from that variance (0) to the largest of any domain (1).

    Returns:
        The fused statistics, in the type of the moments' arrays.
    """
    parts = [(weight, moments[name]) for name, weight in weights.items() if weight > 0]
    mean = sum(weight * part.mean for weight, part in parts)
    variance = sum(weight * part.variance for weight, part in parts)
    mean_square = sum(weight * part.mean_square for weight, part in parts)
    if rule == "total":
        variance = variance + sum(weight * (part.mean - mean) ** 2 for weight, part in parts)
    if worst_domain:
        largest = reduce(lambda a, b: a + (b - a) * (b > a), (part.variance for _, part in parts))
        variance = (1 - worst_domain) * variance + worst_domain * largest
    return SiteStats(sum(part.count for _, part in parts), mean, variance, mean_square)


def covariance(
    parts: Mapping[str, SecondMoments], weights: Mapping[str, float], mean: Array | None = None
) -> tuple[Array, Array]:
    """Mean (C,) and covariance (C, C) of a mixture of domains, by the law of total variance.

    Args:
        parts: second moments by domain.
        weights: mixture weights that sum to 1; domains without one are left out.
        mean: (C,) about which to take the covariance; the mixture's own where left out.
    """
    used = [(weight, parts[name]) for name, weight in weights.items() if weight > 0]
    if mean is None:
        mean = sum(weight * part.mean for weight, part in used)
    matrix = 0.0
    for weight, part in used:
        between = part.products(part.mean - mean) * part.total
        matrix = matrix + (part.m2 + between) * (weight / part.count)
    return mean, matrix


@dataclass(frozen=True)
class DomainStatistics:
    """Moments of every site, by domain; `engine.budget.site_stats` fuses them.

    Attributes:
        moments: by domain and site; numpy float64 arrays in the dense model's indices, NaN where removed.
    """

    moments: Mapping[str, Mapping[Site, Moments]]
