"""The laboratory of the lessons: a model kept in memory, copies of it to cut, and what a cut costs.

Statistics and norms are those of a finished run that ships with the project, so that a cut needs no pass of
its own over calibration text. Text to measure on is held out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning.config import RunConfig
from pruning.engine.blocks import calibration_blocks, evaluation_blocks
from pruning.engine.cutting import cut
from pruning.measure.perplexity import perplexity
from pruning.method.moments import Fused
from pruning.models.family import CausalLM
from pruning.models.folder import LoadedModel
from pruning.models.geometry import Site
from pruning.models.loading import load
from pruning.models.mask import Mask
from pruning.paths import ASSETS
from pruning.progress import Progress, drain
from pruning.registry import Registry
from pruning.runs.run import Run
from pruning.text.blocks import TokenBlocks

Told = Callable[[Progress], None]
Answer = dict[str, Any]
# By name: what a lesson asks for. The arguments after the first two are what its controls say.
EXPERIMENTS: Registry[Callable[..., Answer]] = Registry("experiment of a lesson")
BLOCKS = (
    2  # held-out blocks a domain: 2,048 tokens of four domains take a fraction of a second on the demo model
)
SAMPLES = 4  # calibration blocks a domain, where an experiment takes statistics of its own


@dataclass
class Lab:
    """A dense model and what is known of it.

    Attributes:
        model: `demo`, or `smollm2`.
    """

    model: str = "demo"

    @cached_property
    def run(self) -> Run:
        """The finished run that ships, whose first statistics are the dense model's."""
        return Run(ASSETS / f"{self.model}-run")

    @cached_property
    def config(self) -> RunConfig:
        """How to cut: once, as the run was told to."""
        few = {"iterations": 1, "samples": SAMPLES, "eval_blocks": BLOCKS}
        if self.model != "demo":
            few |= {"eval_blocks": 1, "seq_len": 128}
        return self.run.config.replace(device="cpu", save_model=False, **few)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The dense model; never changed."""
        return load(self.model, "cpu")

    @cached_property
    def geometry(self) -> Any:
        """Of the dense model."""
        return self.run.geometry

    @cached_property
    def first(self) -> Any:
        """The stored first iteration."""
        return next(it for it in self.run.iterations() if it.number == 1)

    def fused(self, mixture: Mapping[str, float] | None = None) -> dict[Site, Fused]:
        """Statistics of a mixture, the run's own where left out."""
        config = self.config
        return dict(self.first.statistics.fuse(mixture or config.mixture, config.fusion))

    @cached_property
    def heldout(self) -> list[TokenBlocks]:
        """Text to measure on, of each domain."""
        return evaluation_blocks(self.config, self.loaded.tokenizer, self.loaded.model)

    @cached_property
    def blocks(self) -> list[TokenBlocks]:
        """Text to calibrate on, of each domain."""
        return calibration_blocks(self.config, self.loaded.tokenizer, self.loaded.model)

    def copy(self) -> CausalLM:
        """The dense model once more, to be cut."""
        return copy.deepcopy(self.loaded.model)

    def pruned(
        self, mask: Mask, fused: Mapping[Site, Fused], config: RunConfig, told: Told = lambda _: None
    ) -> CausalLM:
        """A copy cut to a mask, compensated as a config says."""
        model = self.copy()
        drain(cut(model, Mask.full(self.geometry), mask, fused, config, self.blocks), told)
        return model

    def perplexities(self, model: CausalLM, told: Told = lambda _: None) -> dict[str, float]:
        """Perplexity of held-out text by domain, and `mean`, the geometric one."""
        found = {name: each.value for name, each in drain(perplexity(model, self.heldout), told).items()}
        return found | {"mean": math.exp(sum(map(math.log, found.values())) / len(found))}

    @cached_property
    def dense(self) -> dict[str, float]:
        """`perplexities` of the dense model."""
        return self.perplexities(self.loaded.model)

    @torch.no_grad()
    def _predictions(self, model: CausalLM) -> Iterator[Tensor]:
        for each in self.heldout:
            yield model(torch.from_numpy(each.ids[:1])).logits.flatten(0, 1).log_softmax(-1)

    @cached_property
    def _dense_predictions(self) -> Sequence[Tensor]:
        return list(self._predictions(self.loaded.model))

    def divergence(self, model: CausalLM) -> float:
        """Mean KL divergence of the next-token distribution from the dense model's, in nats a token."""
        parts = [
            float((dense.exp() * (dense - found)).sum(-1).double().mean())
            for dense, found in zip(self._dense_predictions, self._predictions(model), strict=True)
        ]
        return float(np.mean(parts))


def without(geometry: Any, site: Site, entries: Sequence[int] | np.ndarray) -> Mask:
    """The mask that lacks some entries of one site only."""
    mask = Mask.full(geometry)
    retained = {each: array.copy() for each, array in mask.retained.items()}
    retained[site][entries] = False
    return Mask(geometry, retained)
