"""The events of the loop, and the state from which an interrupted one is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pruning.measure.perplexity import Perplexity
from pruning.method.compensation import Repair
from pruning.method.moments import DomainStatistics
from pruning.method.normalise import Scale
from pruning.method.sensitivity import Curve
from pruning.method.statistics import WeightNorms
from pruning.models.delta import Delta
from pruning.models.folder import LoadedModel
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Mask
from pruning.progress import Progress


@dataclass(frozen=True)
class Started:
    """The model and the text are loaded.

    Attributes:
        geometry: of the dense model.
        parameters: of the whole dense model, embeddings included.
        fingerprint: names the dense weights.
        sources: by domain the source and the use of its text; see `blocks.describe_blocks`.
    """

    geometry: Geometry
    parameters: int
    fingerprint: str
    sources: dict[str, dict]


@dataclass(frozen=True)
class Choice:
    """The options that fitted the model at hand best.

    Attributes:
        name: of the candidate.
        options: of `RunConfig`, in place of `auto`.
        divergences: by name of a candidate the mean divergence from the dense model, in nats per token,
            weighted over the domains by the mixture, on the blocks that it was tried on.
    """

    name: str
    options: dict[str, Any]
    divergences: dict[str, float]


@dataclass(frozen=True)
class Iteration:
    """The result of one iteration. Number 0 is the dense model: it has a perplexity and no more.

    Attributes:
        number: 0 to K.
        target: the ratio to reach in this iteration.
        delta: of the model after the cut.
        parameters: of the model after the cut.
        perplexity: by domain, of the model after the cut.
        seconds: that the iteration took.
        statistics: moments of the model *before* the cut, by domain.
        norms: of the weight columns before the cut, by site.
        scores: (C,) by site, of the channels before the cut, NaN where removed earlier.
        repairs: by site, how its loss was compensated.
        curves: sensitivity curves by site, in the first iteration, where they were measured.
        mixture: of the domains in this iteration.
        rises: by domain the rise of the log-perplexity on validation blocks, where these adapt the mixture.
        choice: of the options that `normalise auto` stands for, in the first iteration.
    """

    number: int
    target: float
    delta: Delta
    parameters: int
    perplexity: dict[str, Perplexity]
    seconds: float
    statistics: DomainStatistics | None = None
    norms: Mapping[Site, WeightNorms] = field(default_factory=dict)
    scores: Mapping[Site, np.ndarray] = field(default_factory=dict)
    repairs: Mapping[Site, Repair] = field(default_factory=dict)
    curves: Mapping[Site, Curve] = field(default_factory=dict)
    mixture: Mapping[str, float] = field(default_factory=dict)
    rises: Mapping[str, float] = field(default_factory=dict)
    choice: Choice | None = None

    @property
    def mask(self) -> Mask:
        """The mask over the dense model."""
        return self.delta.mask


@dataclass(frozen=True)
class Finished:
    """The pruned model, in memory, and its delta from the dense one."""

    loaded: LoadedModel
    delta: Delta

    @property
    def mask(self) -> Mask:
        """The mask over the dense model."""
        return self.delta.mask


@dataclass(frozen=True)
class State:
    """Everything that a later iteration depends on beside the dense model and the config.

    Attributes:
        number: of the last complete iteration.
        delta: after that iteration.
        scales: of the first iteration's scores; None before the first.
        curves: sensitivity curves that the first iteration measured.
        mixture: of the next iteration; None for the config's.
    """

    number: int
    delta: Delta
    scales: Mapping[Site, Scale] | None
    curves: Mapping[Site, Curve] = field(default_factory=dict)
    mixture: Mapping[str, float] | None = None


Event = Started | Progress | Iteration | Finished
