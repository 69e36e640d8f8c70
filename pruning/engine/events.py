"""What the loop yields, and where an interrupted one goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pruning.measure.perplexity import Perplexity
from pruning.method.compensation import Repair
from pruning.method.damage import Curve
from pruning.method.moments import Statistics
from pruning.method.normalise import Scale
from pruning.models.delta import Delta
from pruning.models.folder import LoadedModel
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Mask
from pruning.progress import Progress

Norms = Mapping[Site, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Started:
    """The model and the text are there.

    Attributes:
        geometry: of the dense model.
        parameters: of the dense model, embeddings and all.
        fingerprint: names the dense weights.
        sources: by domain where its text came from and what it serves; see `blocks.describe_blocks`.
    """

    geometry: Geometry
    parameters: int
    fingerprint: str
    sources: dict[str, dict]


@dataclass(frozen=True)
class Iteration:
    """What one iteration found and did. Number 0 is the dense model: it has a perplexity and no more.

    Attributes:
        number: 0 to K.
        target: the ratio to reach in this iteration.
        delta: of the model after it.
        parameters: of the model after it.
        perplexity: by domain, of the model after it.
        seconds: that it took.
        statistics: moments of the model *before* the cut, by domain.
        norms: of its weight columns, see `calibration.column_norms`.
        scores: (C,) by site, of the channels that were still there, NaN elsewhere.
        repairs: by site, how its loss was compensated.
        curves: by site what cuts of the dense model cost; of the first iteration, where they were measured.
        mixture: by which its statistics were fused.
        rises: by domain the rise of the log-perplexity on blocks set aside, where they move the mixture.
    """

    number: int
    target: float
    delta: Delta
    parameters: int
    perplexity: dict[str, Perplexity]
    seconds: float
    statistics: Statistics | None = None
    norms: Norms = field(default_factory=dict)
    scores: Mapping[Site, np.ndarray] = field(default_factory=dict)
    repairs: Mapping[Site, Repair] = field(default_factory=dict)
    curves: Mapping[Site, Curve] = field(default_factory=dict)
    mixture: Mapping[str, float] = field(default_factory=dict)
    rises: Mapping[str, float] = field(default_factory=dict)

    @property
    def mask(self) -> Mask:
        """What is retained of the dense model."""
        return self.delta.mask


@dataclass(frozen=True)
class Finished:
    """The pruned model, in memory, and what separates it from the dense one."""

    loaded: LoadedModel
    delta: Delta

    @property
    def mask(self) -> Mask:
        """What is retained of the dense model."""
        return self.delta.mask


@dataclass(frozen=True)
class State:
    """Where to go on: everything a later iteration depends on beside the dense model and the config.

    Attributes:
        number: of the last complete iteration.
        delta: after it.
        scales: of the first iteration's scores; None before it.
        curves: that the first iteration measured.
        mixture: of the next iteration; None for the config's.
    """

    number: int
    delta: Delta
    scales: Mapping[Site, Scale] | None
    curves: Mapping[Site, Curve] = field(default_factory=dict)
    mixture: Mapping[str, float] | None = None


Event = Started | Progress | Iteration | Finished
