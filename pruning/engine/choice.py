"""How scores of different sites are made comparable, chosen by trying: `normalise auto`.

A rule that fits one model does not fit the next: whether heads or channels give way, early or late layers,
decides more than the score does. So every candidate cuts the model at hand to the final ratio, on a few
blocks of text set aside, and the one whose predictions stay nearest to the dense model's is taken. The
candidates are few on purpose: so few cannot be fitted to the text of the trials.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning.config import RunConfig
from pruning.engine.blocks import split_blocks
from pruning.engine.budget import first_mask
from pruning.engine.cutting import mean_inputs
from pruning.engine.events import Choice
from pruning.engine.sensitivity import cut_temporarily
from pruning.errors import ConfigError
from pruning.measure.perplexity import LOGIT_TOKENS, kl_divergence
from pruning.method.statistics import SiteStats
from pruning.models.geometry import Site
from pruning.models.layer_pass import Step, TokenStream, layer_pass
from pruning.models.layer_view import LayerView
from pruning.models.mask import Array, Mask
from pruning.models.source import LayerSource
from pruning.progress import Progress
from pruning.text.blocks import TokenBlocks

# Options of `RunConfig` by the name of a candidate; the last is FLAP's own rule.
CANDIDATES: dict[str, dict[str, Any]] = {
    **{name: {"normalise": name} for name in ("soft_share", "half_share", "robust_share", "share", "zscore")},
    "flap": {"normalise": "zscore", "square_attention": True, "unit_score": "mean"},
}
MOST_BLOCKS = 8  # of a domain that are set aside for the trials
FINALISTS = 2  # candidates that are tried on all blocks after the first of each domain; FLAP's always is
BALANCES = (0.5, 2.0)  # factors of the scores of heads that are tried with the best candidate


def trial_count(samples: int) -> int:
    """Blocks of a domain to set aside for trials, beside so many calibration blocks."""
    return min(MOST_BLOCKS, max(2, samples // 4))


def choose(
    source: LayerSource,
    scores: Mapping[Site, Array],
    stats: Mapping[Site, SiteStats],
    config: RunConfig,
    blocks: Sequence[TokenBlocks],
) -> Generator[Progress, None, Choice]:
    """Try the candidates at the final ratio of a config, and take the best.

    Args:
        source: of the layers of the dense model, which is the same afterwards.
        scores: by site (C,) of the dense model.
        stats: of the dense model, for the bias that stands in for what a trial removes.
        config: of the run.
        blocks: of each domain, which no statistics were taken of.

    Raises:
        ConfigError: no candidate reaches the ratio.
    """
    geometry = source.geometry()
    divergences: dict[str, float] = {}

    def masks_of(candidates: Mapping[str, Mapping[str, Any]]) -> dict[str, Mask]:
        masks = {}
        for name, options in candidates.items():
            with suppress(ConfigError):  # the ratio is out of its reach
                masks[name] = first_mask(scores, geometry, config.replace(**options))
        return masks

    def measure(masks: Mapping[str, Mask], blocks: Sequence[TokenBlocks]) -> Generator[Progress, None, None]:
        trials = MaskTrials(source, masks, stats, config, blocks)
        yield from layer_pass(source, [trials], "choose")
        divergences.update(trials.divergences())

    masks = masks_of(CANDIDATES) or {"soft_share": first_mask(scores, geometry, config)}
    first, _ = split_blocks(blocks, 1)
    yield from measure(masks, first)
    finalists = {*sorted(divergences, key=divergences.__getitem__)[:FINALISTS]}
    finalists |= {"flap"} & masks.keys()  # so that the choice is not worse than it
    if len(blocks[0].ids) > 1:
        yield from measure({name: masks[name] for name in masks if name in finalists}, blocks)
    best = min(finalists, key=divergences.__getitem__)
    options = {best: {**CANDIDATES[best], "attention_weight": 1.0}}
    if not best.startswith(("zscore", "flap")):  # whose values have both signs
        weights = {f"{best}, heads x {factor:g}": factor for factor in BALANCES}
        options |= {name: {**options[best], "attention_weight": weight} for name, weight in weights.items()}
        balanced = masks_of({name: options[name] for name in weights})
        if others := {name: mask for name, mask in balanced.items() if not _are_equal(mask, masks[best])}:
            yield from measure(others, blocks)
            best = min((best, *others), key=divergences.__getitem__)
    return Choice(best, options[best], divergences)


def _are_equal(a: Mask, b: Mask) -> bool:
    """Whether two masks remove the same."""
    return all(np.array_equal(kept, b.kept[site]) for site, kept in a.kept.items())


class MaskTrials:
    """A visitor that pushes blocks through the dense model and, beside it, through one cut by each mask."""

    def __init__(
        self,
        source: LayerSource,
        masks: Mapping[str, Mask],
        stats: Mapping[Site, SiteStats],
        config: RunConfig,
        blocks: Sequence[TokenBlocks],
    ) -> None:
        self.source, self.masks, self.stats = source, masks, stats
        bias = "none" if config.compensation == "none" else "bias"
        self.config = config.replace(compensation=bias)
        self.dense = TokenStream(source, blocks)
        self.streams = {name: self.dense.fork() for name in masks}
        self.tokens = self.dense.tokens * (1 + len(masks))

    def visit(self, index: int, view: LayerView) -> Iterator[Step]:
        """Push all blocks through the layer as it is, and cut by each mask."""
        for batch in self.dense.push(index, view):
            yield Step(batch.ids.numel())
        for name, mask in self.masks.items():
            with ExitStack() as cuts:
                for site in mask.geometry.layer_sites(index):
                    kept = mask.channels(site)
                    if not kept.all():
                        inputs = mean_inputs(self.stats[site], kept | True, self.source.device)
                        removed = torch.from_numpy(~kept)
                        cuts.enter_context(cut_temporarily(view, site.name, inputs, removed, self.config))
                for batch in self.streams[name].push(index, view):
                    yield Step(batch.ids.numel())

    @torch.no_grad()
    def divergences(self) -> dict[str, float]:
        """By name of a mask the Kullback-Leibler divergence of its predictions from the dense model's."""
        total = dict.fromkeys(self.masks, 0.0)
        tokens: dict[str, int] = {}
        for batch in self.dense.batches:
            tokens[batch.domain] = tokens.get(batch.domain, 0) + batch.ids.numel()
        for number, batch in enumerate(self.dense.batches):
            weight = self.config.mixture[batch.domain] / tokens[batch.domain]
            parts = self.dense.states[number].flatten(0, 1).split(LOGIT_TOKENS)
            others = {
                name: stream.states[number].flatten(0, 1).split(LOGIT_TOKENS)
                for name, stream in self.streams.items()
            }
            for at, part in enumerate(parts):
                dense = self._log_probabilities(part)
                for name, states in others.items():
                    divergence = kl_divergence(dense, self._log_probabilities(states[at]))
                    total[name] += weight * float(divergence.double().sum())
        return total

    def _log_probabilities(self, states: Tensor) -> Tensor:
        return self.source.logits(states).log_softmax(dim=-1)
