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
from pruning.engine.budget import first_mask, scores, site_stats
from pruning.engine.cutting import cut
from pruning.measure.perplexity import kl_divergence, perplexity
from pruning.method.statistics import SiteStats
from pruning.models.family import CausalLM
from pruning.models.folder import LoadedModel
from pruning.models.geometry import Site
from pruning.models.loading import load
from pruning.models.mask import Array, Mask
from pruning.models.source import InMemory
from pruning.paths import ASSETS
from pruning.progress import Progress, drain
from pruning.registry import Registry
from pruning.runs.run import Run
from pruning.text.blocks import TokenBlocks

ProgressCallback = Callable[[Progress], None]
Answer = dict[str, Any]
# By name: the experiments of the lessons. The arguments after the first two are the values of its controls.
EXPERIMENTS: Registry[Callable[..., Answer]] = Registry("experiment of a lesson")
# Held-out blocks per domain: 2,048 tokens of four domains take a fraction of a second on the demo model.
BLOCKS = 2
SAMPLES = 4  # calibration blocks per domain, where an experiment collects statistics of its own


@dataclass
class Lab:
    """A dense model with its statistics, text and perplexities.

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
        """The config of the run, with a single cut."""
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
        """The geometry of the dense model."""
        return self.run.geometry

    @cached_property
    def first(self) -> Any:
        """The stored first iteration."""
        return next(it for it in self.run.iterations() if it.number == 1)

    def stats(self, config: RunConfig | None = None) -> dict[Site, SiteStats]:
        """The dense model's statistics by site, fused as a config says, the lab's own where left out."""
        return site_stats(self.first.statistics, self.first.norms, config or self.config)

    def scores(self, config: RunConfig | None = None) -> dict[Site, Array]:
        """The dense model's scores (C,) by site, by a config, the lab's own where left out."""
        return scores(self.first.statistics, self.first.norms, config or self.config)

    @cached_property
    def heldout(self) -> list[TokenBlocks]:
        """Held-out text of each domain, to measure on."""
        return evaluation_blocks(self.config, self.loaded.tokenizer, self.loaded.model)

    @cached_property
    def blocks(self) -> list[TokenBlocks]:
        """Calibration text of each domain."""
        return calibration_blocks(self.config, self.loaded.tokenizer, self.loaded.model)

    def copy(self) -> CausalLM:
        """A copy of the dense model, to be cut."""
        return copy.deepcopy(self.loaded.model)

    def pruned(
        self, mask: Mask, config: RunConfig, stats: Mapping[Site, SiteStats] | None = None
    ) -> CausalLM:
        """A copy of the model cut to a mask and compensated, by the lab's own statistics or by others."""
        model, full = self.copy(), Mask.full(self.geometry)
        steps = cut(InMemory(model), full, mask, stats or self.stats(config), config, self.blocks)
        drain(steps, lambda _: None)
        return model

    def pruned_once(self, **options: Any) -> CausalLM:
        """A copy of the model after one cut by the lab's statistics and config with other options."""
        config = self.config.replace(**options)
        return self.pruned(first_mask(self.scores(config), self.geometry, config), config)

    def perplexities(self, model: CausalLM) -> dict[str, float]:
        """Perplexity of held-out text by domain, and `mean`, the geometric one."""
        measured = drain(perplexity(InMemory(model), self.heldout), lambda _: None)
        values = {name: each.value for name, each in measured.items()}
        return values | {"mean": math.exp(sum(map(math.log, values.values())) / len(values))}

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
            float(kl_divergence(dense, changed).double().mean())
            for dense, changed in zip(self._dense_predictions, self._predictions(model), strict=True)
        ]
        return float(np.mean(parts))


def mask_without(geometry: Any, site: Site, entries: Sequence[int] | np.ndarray) -> Mask:
    """The mask that removes some entries of one site only."""
    mask = Mask.full(geometry)
    kept = {each: array.copy() for each, array in mask.kept.items()}
    kept[site][entries] = False
    return Mask(geometry, kept)
