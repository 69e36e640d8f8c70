"""Sensitivity curves: how far a model's predictions move when one site loses units, as measured.

A curve is measured for each site alone, at a handful of sizes of the cut. Sites are then compared by their
measured sensitivity, not by a formula: the budget walks along the convex hulls of the curves, always where a
parameter costs least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pruning.method.moments import DomainStatistics
from pruning.method.statistics import WeightNorms
from pruning.models.geometry import Site
from pruning.models.mask import Array, Mask

# How a curve is measured, see `engine.sensitivity`.
STEPS = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)  # shares of the units that may go at a site
PROBES = 2  # blocks per domain on which the divergence is measured, unseen by the compensation


@dataclass(frozen=True)
class Curve:
    """The sensitivity of the model to cuts at one site, with all other sites dense.

    Attributes:
        removed: (R,) parameters removed, from 0 up.
        divergence: by domain (R,) mean Kullback-Leibler divergence of the next-token distribution from the
            dense model's, in nats per token; 0 where nothing is removed.
    """

    removed: Array
    divergence: Mapping[str, Array]

    def fused(self, weights: Mapping[str, float], worst: float = 0.0) -> Array:
        """(R,) divergence of a mixture.

        Args:
            weights: mixture weights that sum to 1; domains without one do not count.
            worst: from the mean over the domains (0) to the domain that loses most (1).
        """
        used = {name: weight for name, weight in weights.items() if weight > 0}
        parts = (weight * self.divergence[name] for name, weight in used.items())
        mean = sum(parts, np.zeros(len(self.removed)))
        if not worst:
            return mean
        return (1 - worst) * mean + worst * np.max([self.divergence[name] for name in used], axis=0)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object, which `from_dict` reads; its key for the divergence is that of version 0.1."""
        damage = {name: values.tolist() for name, values in self.divergence.items()}
        return {"removed": self.removed.tolist(), "damage": damage}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Curve:
        """The curve that `to_dict` wrote."""
        divergence = {name: np.asarray(values, float) for name, values in data["damage"].items()}
        return cls(np.asarray(data["removed"], float), divergence)


def hull(removed: Array, divergence: Array) -> tuple[Array, Array]:
    """The corners of the lower convex hull of a curve's points, from its first to its last.

    Args:
        removed: (R,) rising.
        divergence: (R,)

    Returns:
        Both coordinates of the corners, at most R of them.
    """
    corners: list[int] = []
    for i in range(len(removed)):
        while len(corners) > 1:
            a, b = corners[-2:]
            rise = (divergence[b] - divergence[a]) * (removed[i] - removed[a])
            if rise < (divergence[i] - divergence[a]) * (removed[b] - removed[a]):
                break
            corners.pop()
        corners.append(i)
    return removed[corners], divergence[corners]


def divergence_at(removed: Array, divergence: Array, parameters: Array) -> Array:
    """The hull's divergence where other numbers of parameters are removed; its last slope continues."""
    x, y = hull(removed, divergence)
    values = np.interp(parameters, x, y)
    if len(x) > 1:
        slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
        values = np.where(parameters > x[-1], y[-1] + slope * (parameters - x[-1]), values)
    return np.asarray(values)


def predict_divergence(curves: Mapping[Site, Curve], mask: Mask) -> dict[str, float]:
    """By domain the divergence that the curves predict for a mask: the sum over the sites, in nats per token.

    The sum takes the sites for independent, which they are not: at large cuts the model loses more.

    Args:
        curves: of every site.
        mask: over the same dense model.
    """
    total: dict[str, float] = {}
    for site, curve in curves.items():
        removed = np.array([mask.geometry.parameters(site) - mask.pruned.parameters(site)])
        for name, divergence in curve.divergence.items():
            part = float(divergence_at(curve.removed, divergence, removed)[0])
            total[name] = total.get(name, 0.0) + part
    return total


def lost_output(
    statistics: DomainStatistics, norms: Mapping[Site, WeightNorms], mask: Mask
) -> dict[str, float]:
    """By domain the share of the modules' output variance that a mask removes, the mean over the sites.

    A site's output is a sum over its channels; taken for uncorrelated, each adds its fluctuation score
    (arXiv 2312.11983), and the bias makes up for its mean. The effect on later layers is not known here.

    Args:
        statistics: of the dense model.
        norms: of its weight columns, by site.
        mask: over the same model.
    """
    lost = {}
    for domain, sites in statistics.moments.items():
        shares = []
        for site, moments in sites.items():
            scores = moments.variance * norms[site].norm ** 2
            shares.append(float(scores[~mask.channels(site)].sum() / (scores.sum() or 1.0)))
        lost[domain] = float(np.mean(shares))
    return lost
