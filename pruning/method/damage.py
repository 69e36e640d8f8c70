"""Damage curves: what a model loses when one site loses units, measured, and what the next unit would cost.

A curve is taken for each site alone, at a handful of sizes of the cut. Sites are then compared by what they
cost, not by a formula: the budget walks along the convex hulls of the curves, always where a parameter costs
least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pruning.method.moments import Statistics
from pruning.models.geometry import Site
from pruning.models.mask import Array, Mask

# How a curve is measured, see `engine.curves`.
STEPS = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)  # parts of what may go at a site
PROBES = 2  # blocks a domain on which damage is measured, and which the compensation does not see


@dataclass(frozen=True)
class Curve:
    """The damage of cuts at one site, with all other sites dense.

    Attributes:
        removed: (R,) parameters that go, from 0 up.
        damage: by domain (R,) mean Kullback-Leibler divergence of the next-token distribution from the dense
            model's, in nats a token; 0 where nothing goes.
    """

    removed: Array
    damage: Mapping[str, Array]

    def fused(self, weights: Mapping[str, float], worst: float = 0.0) -> Array:
        """(R,) damage of a mixture.

        Args:
            weights: mixture weights that sum to 1; domains without one do not count.
            worst: from the mean over the domains (0) to the domain that loses most (1).
        """
        used = {name: weight for name, weight in weights.items() if weight > 0}
        mean = sum((weight * self.damage[name] for name, weight in used.items()), np.zeros(len(self.removed)))
        if not worst:
            return mean
        return (1 - worst) * mean + worst * np.max([self.damage[name] for name in used], axis=0)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; `from_dict` reads it."""
        return {"removed": self.removed.tolist(), "damage": {n: d.tolist() for n, d in self.damage.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Curve:
        """The curve that `to_dict` wrote."""
        damage = {name: np.asarray(values, float) for name, values in data["damage"].items()}
        return cls(np.asarray(data["removed"], float), damage)


def hull(removed: Array, damage: Array) -> tuple[Array, Array]:
    """The lower convex hull of a curve's points, from its first to its last.

    Args:
        removed: (R,) rising.
        damage: (R,)

    Returns:
        The points that are corners of the hull, at most R each.
    """
    corners: list[int] = []
    for i in range(len(removed)):
        while len(corners) > 1:
            a, b = corners[-2:]
            rise = (damage[b] - damage[a]) * (removed[i] - removed[a])
            if rise < (damage[i] - damage[a]) * (removed[b] - removed[a]):
                break
            corners.pop()
        corners.append(i)
    return removed[corners], damage[corners]


def predicted(removed: Array, damage: Array, at: Array) -> Array:
    """The hull's damage at other numbers of parameters; beyond its end the last slope goes on."""
    x, y = hull(removed, damage)
    found = np.interp(at, x, y)
    if len(x) > 1:
        slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
        found = np.where(at > x[-1], y[-1] + slope * (at - x[-1]), found)
    return np.asarray(found)


def foretell(curves: Mapping[Site, Curve], mask: Mask) -> dict[str, float]:
    """What a mask is foretold to cost: by domain the sum of the sites' damages, in nats a token.

    The sum takes the sites for independent, which they are not: at large cuts the model loses more.

    Args:
        curves: of every site.
        mask: over the same dense model.
    """
    total: dict[str, float] = {}
    for site, curve in curves.items():
        gone = np.array([mask.geometry.parameters(site) - mask.pruned.parameters(site)])
        for name, damage in curve.damage.items():
            total[name] = total.get(name, 0.0) + float(predicted(curve.removed, damage, gone)[0])
    return total


def lost_output(
    statistics: Statistics, norms: Mapping[Site, tuple[Array, Array]], mask: Mask
) -> dict[str, float]:
    """The share of the output variance of its modules that goes with a mask, by domain the mean over sites.

    A site's output is a sum over its channels; taken for uncorrelated, each adds its fluctuation score
    (arXiv 2312.11983), and the bias makes up for its mean. What later layers make of it is not known here.

    Args:
        statistics: of the dense model.
        norms: of its weight columns, by site; the first of the two is used.
        mask: over the same model.
    """
    lost = {}
    for domain, sites in statistics.moments.items():
        shares = []
        for site, moments in sites.items():
            scores = moments.variance * norms[site][0] ** 2
            shares.append(float(scores[~mask.channels(site)].sum() / (scores.sum() or 1.0)))
        lost[domain] = float(np.mean(shares))
    return lost
