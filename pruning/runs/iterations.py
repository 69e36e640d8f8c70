"""One finished iteration of a run as it lies on disk; arrays are read when asked for. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from pruning.errors import RunError
from pruning.files import read_json
from pruning.method.damage import Curve
from pruning.method.moments import Moments, Statistics
from pruning.method.statistics import double, read_statistic
from pruning.models.delta import Delta, read_mask
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Mask
from pruning.runs.outcome import Metrics

CURVES_FILE = "damage.json"


@dataclass(frozen=True)
class StoredIteration:
    """One finished iteration as it lies on disk; arrays are read when asked for.

    Attributes:
        number: 0 for the dense model.
        path: its folder.
        metrics: its numbers.
        geometry: of the dense model.
    """

    number: int
    path: Path
    metrics: Metrics
    geometry: Geometry

    @cached_property
    def mask(self) -> Mask:
        """What is retained after this iteration."""
        return read_mask(self.path, self.geometry) if self.number else Mask.full(self.geometry)

    def delta(self) -> Delta:
        """What separates the model after this iteration from the dense one; reading it takes torch."""
        return Delta.read(self.path, self.geometry)

    @cached_property
    def curves(self) -> dict[Site, Curve]:
        """What cuts of the dense model cost, by site; of the first iteration, where they were measured."""
        return {
            Site.parse(name): Curve.from_dict(data)
            for name, data in read_json(self.path / CURVES_FILE).items()
        }

    @cached_property
    def scores(self) -> dict[Site, np.ndarray]:
        """(C,) by site, of the channels that were there before this iteration's cut, NaN elsewhere."""
        arrays = load_file(self.path / "scores.safetensors")
        return {Site.parse(name): double(array) for name, array in arrays.items()}

    @cached_property
    def norms(self) -> dict[Site, tuple[np.ndarray, np.ndarray]]:
        """Norm and mean absolute value of the weight columns, (C,) each, by site."""
        arrays = load_file(self.path / "norms.safetensors")
        return {
            site: (double(arrays[f"{site}.norm"]), double(arrays[f"{site}.mean_abs"]))
            for site in self.geometry.sites
        }

    def norms_of(self, site: Site) -> tuple[np.ndarray, np.ndarray]:
        """`norms` of one site, read without the others and not kept."""
        with safe_open(self.path / "norms.safetensors", framework="numpy") as content:
            names = f"{site}.norm", f"{site}.mean_abs"
            return double(content.get_tensor(names[0])), double(content.get_tensor(names[1]))

    @cached_property
    def statistics(self) -> Statistics:
        """Moments by domain, before this iteration's cut."""
        return self.statistics_of(None)

    def statistics_of(self, site: Site | None) -> Statistics:
        """`statistics` of one site, read without the others and not kept; None for all."""
        moments: dict[str, dict[Site, Moments]] = {}
        for file in sorted(self.path.glob("moments-*.safetensors")):
            if (found := read_statistic(file, Moments, site)) is None:
                raise RunError(f"the statistics in {str(file)!r} are broken: delete the run or resume it.")
            moments[file.stem.removeprefix("moments-")] = found
        return Statistics(moments)
