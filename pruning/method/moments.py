"""Mean and variance of channels, in one pass, mergeable, and fused over domains.

The arithmetic is written once for numpy arrays and torch tensors: it needs nothing but their operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal

from pruning.method.statistics import STATISTICS, Array, Observation, SiteStats, Statistic
from pruning.models.geometry import Site

if TYPE_CHECKING:
    from torch import Tensor


Fusion = Literal["within", "total"]


@dataclass(frozen=True, slots=True)
class Moments(Statistic):
    """Count, mean and centred sum of squares of every channel of a site; tokens may have weights.

    Attributes:
        mean: (C,) mean over the tokens.
        m2: (C,) sum over the tokens of the squared distance to the mean.
        weight: sum of the tokens' weights; 0 stands for the count, where every token weighs one.
    """

    mean: Array
    m2: Array
    weight: float = 0.0

    @classmethod
    def observe(cls, observation: Observation) -> Moments:
        """The moments of the site's inputs, each token with weight one."""
        return cls.of(observation.inputs)

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

    @property
    def total(self) -> float:
        """Sum of the tokens' weights."""
        return self.weight or self.count

    def merge(self, other: Moments) -> Moments:
        """The moments of both samples together (Chan, Golub and LeVeque 1983, equation 2.1)."""
        total = self.total + other.total
        delta = other.mean - self.mean
        return Moments(
            self.count + other.count,
            self.mean + delta * (other.total / total),
            self.m2 + other.m2 + delta**2 * (self.total * other.total / total),
            total if self.weight else 0.0,
        )

    @property
    def variance(self) -> Array:
        """(C,) unbiased sample variance, each token with its weight; zero for a single token."""
        return self.m2 / max(self.count - 1, 1)

    @property
    def mean_square(self) -> Array:
        """(C,) mean of the squared activations, each token with its weight."""
        return self.m2 / self.count + self.mean**2 * (self.total / self.count)


class RelativeMoments(Moments):
    """Moments in which a token counts by the inverse mean square of the residual stream behind it.

    What a module adds to the residual stream is divided by that stream's root mean square in the next RMSNorm
    (arXiv 1910.07467): an error there matters relative to it. A token with a massive activation
    (arXiv 2402.17762), whose stream is a thousand times as large, no longer decides a channel's variance.
    """

    __slots__ = ()

    @classmethod
    def observe(cls, observation: Observation) -> Moments:  # type: ignore[override]
        """The moments of the site's inputs, weighted by `token_weights`."""
        return Moments.of(observation.inputs, token_weights(observation))


def token_weights(observation: Observation) -> Tensor:
    """(...) weights of the tokens: 1 / mean square of the residual stream."""
    return 1 / observation.residual.float().square().mean(dim=-1).clamp(min=1e-30)


STATISTICS.add(Moments, "moments")
STATISTICS.add(RelativeMoments, "relative_moments")
TokenWeights = Literal["equal", "residual"]
KINDS_OF: dict[TokenWeights, str] = {"equal": "moments", "residual": "relative_moments"}


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


@dataclass(frozen=True)
class DomainStatistics:
    """Moments of every site, by domain; `engine.budget.site_stats` fuses them.

    Attributes:
        moments: by domain and site; numpy float64 arrays in the dense model's indices, NaN where removed.
    """

    moments: Mapping[str, Mapping[Site, Moments]]
