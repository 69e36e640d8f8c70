"""What a calibration pass takes down of a site: statistics that merge over batches, domains and processes.

A statistic is a class with `observe` and `merge`, registered with `@STATISTICS.add`; a pass is told by name
which to take (`engine.calibration.calibrate`). Its fields are a count of tokens and arrays, and these are its
file format.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pruning.checksums import CHECKSUM_KEY
from pruning.files import atomic_write
from pruning.models.geometry import Site
from pruning.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Array = Any  # numpy.ndarray or torch.Tensor


@dataclass(frozen=True)
class Observation:
    """What passes a site in one batch.

    Attributes:
        inputs: (..., C) of the output projection.
        residual: (..., d_model) stream that its output is added to.
    """

    inputs: Tensor
    residual: Tensor


@dataclass(frozen=True, slots=True)
class Statistic(ABC):
    """A statistic of one site; the fields beside `count` and `weight` are arrays, channels first.

    Attributes:
        count: tokens seen.
    """

    count: int

    @classmethod
    @abstractmethod
    def observe(cls, seen: Observation) -> Self:
        """The statistic of one batch, as float64 tensors."""

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """The statistic of both samples together."""

    @classmethod
    def parts(cls) -> list[str]:
        """Names of the arrays."""
        return [field.name for field in fields(cls) if field.name not in ("count", "weight")]

    def arrays(self) -> dict[str, Array]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in self.parts()}

    def in_dense_indices(self, retained: np.ndarray) -> Self:
        """The same as numpy arrays in the dense model's indices, NaN where channels are gone.

        Args:
            retained: (C,) bool, C the dense model's.
        """
        found: dict[str, Any] = {
            name: scatter(np.asarray(array.cpu()), retained) for name, array in self.arrays().items()
        }
        return replace(self, **found)


STATISTICS: Registry[type[Statistic]] = Registry("statistic")


def scatter(values: np.ndarray, retained: np.ndarray) -> np.ndarray:
    """Values of the retained channels (c, ...) at their places in the dense model (C, ...), NaN elsewhere."""
    full = np.full((len(retained), *values.shape[1:]), np.nan)
    full[retained] = values
    return full


def double(values: np.ndarray) -> np.ndarray:
    """In double precision, whatever it was stored in: a run that ships is stored in less."""
    return values.astype(np.float64, copy=False)


K = TypeVar("K")


def merge_into(found: dict[K, Statistic], key: K, part: Statistic) -> None:
    """Join the statistic of another batch to what was found so far under a key."""
    found[key] = found[key].merge(part) if key in found else part


# --- files -------------------------------------------------------------------------------------------------

S = TypeVar("S", bound=Statistic)


def write_statistic(file: Path, found: Mapping[Site, Statistic]) -> None:
    """A statistic of all sites as one safetensors file, whole or not at all."""
    arrays = {f"{site}.{part}": array for site, s in found.items() for part, array in s.arrays().items()}
    scalars = {
        f"{name}s": json.dumps({str(site): getattr(s, name, 0) for site, s in found.items()})
        for name in ("count", "weight")
    }
    with atomic_write(file, durable=False) as temporary:
        save_file(arrays, temporary, metadata=scalars | {CHECKSUM_KEY: _checksum(arrays, scalars)})


def _checksum(arrays: Mapping[str, np.ndarray], scalars: Mapping[str, str]) -> str:
    """Of arrays and what stands beside them, whatever their order in the file."""
    digest = hashlib.blake2b(json.dumps(scalars, sort_keys=True).encode(), digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def read_kept(file: Path, kind: type[S]) -> dict[Site, S] | None:
    """What `write_statistic` wrote, every number of it; None where the file is not what was written."""
    try:
        with safe_open(file, framework="numpy") as content:
            scalars = content.metadata()
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError):
        return None
    seal = (scalars or {}).pop(CHECKSUM_KEY, None)
    return read_statistic(file, kind) if seal == _checksum(arrays, scalars) else None


def read_statistic(file: Path, kind: type[S], only: Site | None = None) -> dict[Site, S] | None:
    """What `write_statistic` wrote; None where the file is not whole.

    Args:
        file: of one domain.
        kind: of the statistic.
        only: this site, without reading the others.
    """
    try:
        with safe_open(file, framework="numpy") as content:
            counts = json.loads(content.metadata()["counts"])
            weights = json.loads(content.metadata().get("weights", "{}"))
            sites = [name for name in counts if only is None or name == str(only)]
            found = {}
            for site in sites:
                parts = {part: double(content.get_tensor(f"{site}.{part}")) for part in kind.parts()}
                if weight := weights.get(site):
                    parts["weight"] = weight
                found[Site.parse(site)] = kind(counts[site], **parts)
            return found
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
