"""Statistics of one site: what a calibration pass collects, and what scores are computed from.

A statistic is a class with `merge`, and a function that computes it from a batch, registered with
`@STATISTICS.add`; a pass collects the one that it is given by name (`engine.calibration.calibrate`). Its
fields, a count of tokens and arrays, are its file format (`engine.statistics_files`). Statistics merge over
batches and over processes: these sum counts and weighted means, then the squares about the common mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import numpy as np

from pruning.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Array = Any  # numpy.ndarray or torch.Tensor


@dataclass(frozen=True)
class Observation:
    """The tensors of one batch at a site.

    Attributes:
        inputs: (..., C) of the output projection.
        residual: (..., d_model) stream that the projection's output is added to.
    """

    inputs: Tensor
    residual: Tensor


@dataclass(frozen=True, slots=True)
class Statistic(ABC):
    """A statistic of one site; the fields beside `count` and `weight` are arrays, channels first.

    Attributes:
        count: tokens in the sample.
    """

    count: int

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """The statistic of both samples together."""

    @classmethod
    def array_names(cls) -> list[str]:
        """Names of the fields that are arrays."""
        return [field.name for field in fields(cls) if field.name not in ("count", "weight")]

    def arrays(self) -> dict[str, Array]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in self.array_names()}

    def in_dense_indices(self, kept: np.ndarray) -> Self:
        """The same statistic as numpy arrays in the dense model's indices, NaN where channels are removed.

        Args:
            kept: (C,) bool over the dense model's channels.
        """
        arrays: dict[str, Any] = {
            name: scatter(np.asarray(array.cpu()), kept) for name, array in self.arrays().items()
        }
        return replace(self, **arrays)


# Functions from an observation to the statistic of its batch, as float64 tensors.
STATISTICS: Registry[Callable[[Observation], Statistic]] = Registry("statistic")


def scatter(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Values (c, ...) of the kept channels at their indices in the dense model (C, ...), NaN elsewhere."""
    dense = np.full((len(kept), *values.shape[1:]), np.nan)
    dense[kept] = values
    return dense


K = TypeVar("K")
S = TypeVar("S", bound=Statistic)


def merge_into(statistics: dict[K, S], key: K, part: S) -> None:
    """Merge the statistic of another batch into the one under a key."""
    statistics[key] = statistics[key].merge(part) if key in statistics else part


class WeightNorms(NamedTuple):
    """Sizes of the columns of a site's output projection.

    Attributes:
        norm: (C,) Euclidean norm, ||W[:, j]||_2.
        mean_abs: (C,) mean of |W[:, j]| over the rows.
    """

    norm: Array
    mean_abs: Array


@dataclass(frozen=True, slots=True)
class SiteStats:
    """The numbers of one site, fused over the domains; arrays (C,), NaN where a channel is removed.

    Attributes:
        count: tokens of all domains together.
        mean: of the activations.
        variance: of the activations, by the rule of the fusion.
        mean_square: of the activations.
        norm, mean_abs: of the weight columns, see `WeightNorms`; None where no weights were given.
        seed: of the random score, different for every site.
    """

    count: int
    mean: Array
    variance: Array
    mean_square: Array
    norm: Array = None
    mean_abs: Array = None
    seed: tuple[int, ...] = (0,)

    @property
    def steadiness(self) -> Array:
        """(C,) size of the mean in standard deviations.

        Not `mean / sqrt(variance)`: where tokens have weights, variance and mean square are multiplied by
        their mean weight, and the mean is not.
        """
        return (self.mean_square / self.variance - 1).clip(min=0) ** 0.5
