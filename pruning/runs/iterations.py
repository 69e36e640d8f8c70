"""One finished iteration of a run as it lies on disk; arrays are read when asked for. Needs no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from pruning.engine.statistics_files import double, read_statistics
from pruning.errors import DamagedError
from pruning.method.moments import DomainStatistics, Moments
from pruning.method.sensitivity import Curve
from pruning.method.statistics import WeightNorms
from pruning.models.delta import BIASES_FILE, MASK_FILE, WEIGHTS_FILE, Delta, read_mask
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Mask, entries
from pruning.runs.outcome import Metrics
from pruning.sealed import damaged, read_json, verify

SCORES_FILE, NORMS_FILE, CURVES_FILE = "scores.safetensors", "norms.safetensors", "damage.json"
LAYERS = "layers"  # folder of the layers that are through before the first iteration is whole


@dataclass(frozen=True)
class StoredIteration:
    """One finished iteration as it lies on disk; arrays are read when asked for, and verified then.

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

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """One of its files, verified; what cannot be read of it in the block is one sentence.

        Raises:
            DamagedError: it is gone, or not what was written.
        """
        file = self.path / name
        try:
            # of an earlier version's runs no checksums are known; damage curves have their own
            if self.metrics.files and name != CURVES_FILE:
                verify(file, self.metrics.files.get(name))
            yield file
        except FileNotFoundError:
            raise DamagedError(f"{str(file)!r} is gone: {self._way_out}") from None
        except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise DamagedError(f"{str(damaged(file, type(error).__name__))[:-1]}: {self._way_out}") from None
        except DamagedError as error:
            raise DamagedError(f"{str(error)[:-1]}: {self._way_out}") from None

    @property
    def _way_out(self) -> str:
        return f"resume run {self.path.parent.name!r}, and iteration {self.number} is computed again."

    def _expect(self, arrays: Mapping[Site, np.ndarray], sizes: Callable[[Geometry, Site], int]) -> None:
        """Whether there is an array (size,) for every site."""
        for site in self.geometry.sites:
            if arrays[site].shape != (sizes(self.geometry, site),):
                raise ValueError(f"{site} has another width")

    @cached_property
    def mask(self) -> Mask:
        """What is retained after this iteration."""
        if not self.number:
            return Mask.full(self.geometry)
        with self._reading(MASK_FILE) as file:
            mask = read_mask(file.parent, self.geometry)
            self._expect(mask.retained, entries)
            if any(array.dtype != bool for array in mask.retained.values()):
                raise TypeError("a mask holds bools")
            return mask

    def delta(self) -> Delta:
        """What separates the model after this iteration from the dense one; reading it takes torch."""
        for name in (BIASES_FILE, *({WEIGHTS_FILE} & self.metrics.files.keys())):
            with self._reading(name):
                pass
        with self._reading(MASK_FILE) as file:
            return Delta.read(file.parent, self.geometry)

    @cached_property
    def curves(self) -> dict[Site, Curve]:
        """What cuts of the dense model cost, by site; of the first iteration, where they were measured."""
        # measured with the run, or added later: the record has its own checksum
        with self._reading(CURVES_FILE) as file:
            if (found := read_json(file)) is None:
                if CURVES_FILE in self.metrics.files:
                    raise FileNotFoundError
                return {}
            return {Site.parse(name): Curve.from_dict(data) for name, data in found.items()}

    @cached_property
    def scores(self) -> dict[Site, np.ndarray]:
        """(C,) by site, of the channels that were there before this iteration's cut, NaN elsewhere."""
        with self._reading(SCORES_FILE) as file:
            found = {Site.parse(name): double(array) for name, array in load_file(file).items()}
            self._expect(found, Geometry.channels)
            return found

    @cached_property
    def norms(self) -> dict[Site, WeightNorms]:
        """Norm and mean absolute value of the weight columns, (C,) each, by site."""
        with self._reading(NORMS_FILE) as file:
            arrays = load_file(file)
            found = {
                site: WeightNorms(double(arrays[f"{site}.norm"]), double(arrays[f"{site}.mean_abs"]))
                for site in self.geometry.sites
            }
            for column in (0, 1):
                self._expect({site: pair[column] for site, pair in found.items()}, Geometry.channels)
            return found

    def norms_of(self, site: Site) -> WeightNorms:
        """`norms` of one site, read without the others and not kept."""
        with self._reading(NORMS_FILE) as file, safe_open(file, framework="numpy") as content:
            names = f"{site}.norm", f"{site}.mean_abs"
            return WeightNorms(*(double(content.get_tensor(name)) for name in names))

    @cached_property
    def statistics(self) -> DomainStatistics:
        """Moments by domain, before this iteration's cut."""
        return self.statistics_of(None)

    def statistics_of(self, site: Site | None) -> DomainStatistics:
        """`statistics` of one site, read without the others and not kept; None for all."""
        moments: dict[str, dict[Site, Moments]] = {}
        for name in self._names("moments-*.safetensors"):
            with self._reading(name) as file:
                if (found := read_statistics(file, Moments, site)) is None:
                    raise ValueError("no statistics")
                for each in self.geometry.sites if site is None else [site]:
                    if found[each].mean.shape != (self.geometry.channels(each),):
                        raise ValueError(f"{each} has another width")
                moments[file.stem.removeprefix("moments-")] = found
        return DomainStatistics(moments)

    def _names(self, pattern: str) -> list[str]:
        """Its files of a kind, as its record names them, or of an earlier version's run as they are there."""
        if self.metrics.files:
            return sorted(name for name in self.metrics.files if fnmatchcase(name, pattern))
        return sorted(file.name for file in self.path.glob(pattern))

    def check(self) -> None:
        """Read all of it.

        Raises:
            DamagedError: one of its files is gone, or not what was written.
        """
        for name in self.metrics.files:
            with self._reading(name):
                pass
        _ = self.curves
        if not self.metrics.files:
            _ = self.mask, self.delta()
            if self.number:
                _ = self.scores, self.norms, self.statistics


def layers_so_far(folder: Path) -> dict[Site, np.ndarray]:
    """Scores (C,) of the dense model's layers that are through, by site, of a run in its first iteration."""
    found: dict[Site, np.ndarray] = {}
    for file in sorted((folder / LAYERS).glob("*.safetensors")):
        try:
            found |= {Site.parse(name): double(array) for name, array in load_file(file).items()}
        except (OSError, SafetensorError, ValueError):
            continue  # deleted meanwhile: the iteration is whole
    return found
