"""Mean and variance of channels, in one pass, mergeable, and fused over domains.

The arithmetic is written once for numpy arrays and torch tensors: it needs nothing but their operators.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pruning.config import Fusion
from pruning.sites import Site

if TYPE_CHECKING:
    from torch import Tensor

Array = Any  # numpy.ndarray or torch.Tensor


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and centred sum of squares of every channel of a site.

    Attributes:
        count: tokens seen, n.
        mean: (C,) mean over the tokens.
        m2: (C,) sum over the tokens of the squared distance to the mean.
    """

    count: int
    mean: Array
    m2: Array

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


def write_moments(file: Path, moments: Mapping[Site, Moments]) -> None:
    """Moments of all sites as one safetensors file, written beside and renamed."""
    arrays = {f"{site}.{part}": getattr(m, part) for site, m in moments.items() for part in ("mean", "m2")}
    counts = json.dumps({str(site): m.count for site, m in moments.items()})
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file(arrays, temporary, metadata={"counts": counts})
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def read_moments(file: Path, only: Site | None = None) -> dict[Site, Moments] | None:
    """The moments that `write_moments` wrote; None where the file is not whole.

    Args:
        file: of one domain.
        only: this site, without reading the others.
    """
    try:
        with safe_open(file, framework="numpy") as content:
            counts = json.loads(content.metadata()["counts"])
            sites = [name for name in counts if only is None or name == str(only)]
            arrays = {
                site: (content.get_tensor(f"{site}.mean"), content.get_tensor(f"{site}.m2")) for site in sites
            }
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return {Site.parse(site): Moments(counts[site], mean, m2) for site, (mean, m2) in arrays.items()}
