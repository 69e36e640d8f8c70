"""Statistics as files: one safetensors file a domain, with a checksum of its own. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pruning.checksums import read_arrays, write_arrays
from pruning.method.statistics import S, Statistic
from pruning.models.geometry import Site


def write_statistics(file: Path, statistics: Mapping[Site, Statistic]) -> None:
    """Write a statistic of all sites as one safetensors file, atomically."""
    arrays = {f"{site}.{name}": array for site, s in statistics.items() for name, array in s.arrays().items()}
    scalars = {
        f"{name}s": json.dumps({str(site): getattr(s, name, 0) for site, s in statistics.items()})
        for name in ("count", "weight")
    }
    write_arrays(file, arrays, scalars)


def read_statistics(
    file: Path, kind: type[S], site: Site | None = None, verify: bool = False
) -> dict[Site, S] | None:
    """The statistics that `write_statistics` wrote, of all sites or of one; None where the file is corrupt.

    With `verify` all numbers are compared with the checksum, as a file in the cache needs.
    """
    if verify and read_arrays(file) is None:
        return None
    try:
        with safe_open(file, framework="numpy") as content:
            scalars = content.metadata()
            counts, weights = json.loads(scalars["counts"]), json.loads(scalars.get("weights", "{}"))
            statistics = {}
            for name in counts if site is None else [str(site)]:
                fields = {part: double(content.get_tensor(f"{name}.{part}")) for part in kind.array_names()}
                if weight := weights.get(name):
                    fields["weight"] = weight
                statistics[Site.parse(name)] = kind(counts[name], **fields)
            return statistics
    except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError):
        return None


def double(values: np.ndarray) -> np.ndarray:
    """Values in double precision; a run that ships with the project is stored in single."""
    return values.astype(np.float64, copy=False)
