"""Mean and variance of channels, in one pass, mergeable, and fused over domains.

The arithmetic is written once for numpy arrays and torch tensors: it needs nothing but their operators.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pruning.method.statistics import STATISTICS, Array, Observation, Statistic
from pruning.models.geometry import Site

if TYPE_CHECKING:
    from torch import Tensor


Fusion = Literal["within", "total"]


@dataclass(frozen=True, slots=True)
class Moments(Statistic):
    """Count, mean and centred sum of squares of every channel of a site.

    Attributes:
        mean: (C,) mean over the tokens.
        m2: (C,) sum over the tokens of the squared distance to the mean.
    """

    mean: Array
    m2: Array

    @classmethod
    def observe(cls, seen: Observation) -> Moments:
        """`of` the site's inputs."""
        return cls.of(seen.inputs)

    @classmethod
    def of(cls, x: Tensor) -> Moments:
        """The moments of activations x (..., C), taken in float32 and returned in float64.

        Two passes over the batch with the correction term of Chan, Golub and LeVeque ("Algorithms for
        computing the sample variance", 1983, equation 1.7), so that neither a large mean nor rounding of the
        mean costs digits. Sums over tokens are products with a row of ones: on a CPU several times as fast
        as `sum(0)`.
        """
        x = x.reshape(-1, x.shape[-1]).float()  # (n, C)
        count = x.shape[0]
        ones = x.new_ones(1, count)
        shift = (ones @ x)[0] / count
        centred = x - shift
        first = (ones @ centred)[0]
        second = (ones @ centred.square_())[0]
        if x.device.type == "mps":  # has no float64
            shift, first, second = shift.cpu(), first.cpu(), second.cpu()
        shift, first, second = shift.double(), first.double(), second.double()
        return cls(count, shift + first / count, (second - first**2 / count).clamp(min=0))

    def merge(self, other: Moments) -> Moments:
        """The moments of both samples together (Chan, Golub and LeVeque 1983, equation 2.1)."""
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.m2 + other.m2 + delta**2 * (self.count * other.count / count),
        )

    @property
    def variance(self) -> Array:
        """(C,) unbiased sample variance; zero for a single token."""
        return self.m2 / max(self.count - 1, 1)


STATISTICS.add(Moments, "moments")


@dataclass(frozen=True, slots=True)
class Fused:
    """Moments of a site fused over the domains.

    Attributes:
        count: tokens of all domains together.
        mean: (C,)
        variance: (C,) by the rule of the fusion.
        mean_square: (C,) mean of the squared activations, which no rule changes.
    """

    count: int
    mean: Array
    variance: Array
    mean_square: Array


def fuse(moments: Mapping[str, Moments], weights: Mapping[str, float], rule: Fusion = "within") -> Fused:
    """One mean and variance from those of several domains.

    Args:
        moments: the moments of a site by domain.
        weights: mixture weights that sum to 1; domains without one are left out.
        rule: `within` takes the mean of the variances (arXiv 2601.02674), `total` adds the variance of the
            means (law of total variance), which is that of one pooled, weighted sample.

    Returns:
        The fused statistics, in the arrays' own type.
    """
    parts = [(weight, moments[name]) for name, weight in weights.items() if weight > 0]
    mean = sum(weight * part.mean for weight, part in parts)
    variance = sum(weight * part.variance for weight, part in parts)
    mean_square = sum(weight * (part.m2 / part.count + part.mean**2) for weight, part in parts)
    if rule == "total":
        variance = variance + sum(weight * (part.mean - mean) ** 2 for weight, part in parts)
    return Fused(sum(part.count for _, part in parts), mean, variance, mean_square)


@dataclass(frozen=True)
class Statistics:
    """Moments of every site, by domain.

    Attributes:
        moments: by domain and site; numpy float64 arrays in the dense model's indices, NaN where removed.
    """

    moments: Mapping[str, Mapping[Site, Moments]]

    def fuse(
        self, weights: Mapping[str, float], rule: Fusion, sites: Collection[Site] | None = None
    ) -> dict[Site, Fused]:
        """The statistics of a mixture, of all sites or of some: see `moments.fuse`. No model is needed."""
        sites = next(iter(self.moments.values())) if sites is None else sites
        return {site: fuse({d: m[site] for d, m in self.moments.items()}, weights, rule) for site in sites}
