"""How the channels of a site vary together: their covariance, in one pass, mergeable, fused over domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pruning.method.moments import TokenWeights, token_weights
from pruning.method.statistics import STATISTICS, Array, Observation, Statistic, scatter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class SecondMoments(Statistic):
    """Count, mean and centred sum of products of a site's channels; tokens may have weights.

    Attributes:
        mean: (C,) mean over the tokens.
        m2: (C, C) sum over the tokens of (x - mean)(x - mean)^T.
        weight: sum of the tokens' weights; 0 stands for the count.
    """

    mean: Array
    m2: Array
    weight: float = 0.0

    @classmethod
    def observe(cls, observation: Observation) -> SecondMoments:
        """The second moments of the site's inputs, each token with weight one."""
        return cls.of(observation.inputs)

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

    @property
    def total(self) -> float:
        """Sum of the tokens' weights."""
        return self.weight or self.count

    def merge(self, other: SecondMoments) -> SecondMoments:
        """The second moments of both samples together (Chan, Golub and LeVeque 1983, equation 2.1)."""
        total = self.total + other.total
        delta = other.mean - self.mean
        between = delta[:, None] * delta[None, :] * (self.total * other.total / total)
        return SecondMoments(
            self.count + other.count,
            self.mean + delta * (other.total / total),
            self.m2 + other.m2 + between,
            total if self.weight else 0.0,
        )

    def in_dense_indices(self, kept: np.ndarray) -> SecondMoments:
        """The same as numpy arrays in the dense model's indices, NaN where either channel is removed."""
        mean, rows = (scatter(np.asarray(array.cpu()), kept) for array in (self.mean, self.m2))
        return SecondMoments(self.count, mean, scatter(rows.T, kept), self.weight)


class RelativeSecondMoments(SecondMoments):
    """Second moments with the token weights of `RelativeMoments`."""

    __slots__ = ()

    @classmethod
    def observe(cls, observation: Observation) -> SecondMoments:  # type: ignore[override]
        """The second moments of the site's inputs, weighted by `token_weights`."""
        return SecondMoments.of(observation.inputs, token_weights(observation))


STATISTICS.add(SecondMoments, "second_moments")
STATISTICS.add(RelativeSecondMoments, "relative_second_moments")
SECOND_KINDS_OF: dict[TokenWeights, str] = {
    "equal": "second_moments",
    "residual": "relative_second_moments",
}


def covariance(
    parts: Mapping[str, SecondMoments], weights: Mapping[str, float], mean: Array | None = None
) -> tuple[Array, Array]:
    """Mean (C,) and covariance (C, C) of a mixture of domains, by the law of total variance.

    Args:
        parts: by domain.
        weights: mixture weights that sum to 1; domains without one are left out.
        mean: (C,) about which to take the covariance; the mixture's own where left out.
    """
    used = [(weight, parts[name]) for name, weight in weights.items() if weight > 0]
    if mean is None:
        mean = sum(weight * part.mean for weight, part in used)
    matrix = 0.0
    for weight, part in used:
        delta = part.mean - mean
        between = delta[:, None] * delta[None, :] * part.total
        matrix = matrix + (part.m2 + between) * (weight / part.count)
    return mean, matrix
