"""Sensitivity curves of a model: cut one site alone, compensate it, and measure how far the predictions move.

Layer by layer: the calibration blocks give what the compensation needs, then each trial starts at its layer,
from cached hidden states, and its next-token distribution is compared with the dense model's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pruning.checksums import read_cached, write_cached
from pruning.config import RunConfig
from pruning.engine.blocks import split_blocks
from pruning.engine.budget import all_units
from pruning.engine.cutting import InputCollector, compensate
from pruning.measure.perplexity import kl_divergence
from pruning.method.compensation import Inputs
from pruning.method.normalise import Scale
from pruning.method.sensitivity import PROBES, STEPS, Curve
from pruning.method.units import Units
from pruning.models.cache import cache_file
from pruning.models.geometry import Site
from pruning.models.layer_pass import Step, TokenStream, layer_pass
from pruning.models.layer_view import LayerView
from pruning.models.mask import Array, Mask
from pruning.models.source import LayerSource
from pruning.progress import Progress
from pruning.text.blocks import TokenBlocks

# The options that the curves depend on, beside the model and the text.
FIELDS = {
    *("mixture", "fusion", "worst_domain", "token_weights", "score", "seed", "square_attention", "normalise"),
    *("unit_score", "attention_unit", "keep", "remove", "round_to", "min_attention_units", "min_mlp_share"),
    "compensation",
}


@dataclass(frozen=True)
class _Stored:
    """Curves as plain values, for the cache."""

    curves: dict[str, dict]


def sensitivity_curves(
    source: LayerSource,
    mask: Mask,
    scores: Mapping[Site, Array],
    scales: Mapping[Site, Scale],
    config: RunConfig,
    blocks: Sequence[TokenBlocks],
    state: str,
) -> Generator[Progress, None, dict[Site, Curve]]:
    """The sensitivity curve of every site, cached by `state`, which names the model.

    Args:
        source: of the layers of a model that is cut to `mask`.
        mask: over the dense model.
        scores: by site (C,), the order in which units are removed within a site.
        scales: see `budget.next_mask`.
        config: units and compensation.
        blocks: calibration blocks of each domain; the divergence is measured on the last `PROBES` of each, or
            on all where there are no more.
        state: of the model.
    """
    options = config.model_dump(mode="json", include=FIELDS)
    file = cache_file("curves", source, state, options, [(each.domain, each.digest) for each in blocks])
    if stored := read_cached(file, _Stored):
        return {Site.parse(name): Curve.from_dict(data) for name, data in stored.curves.items()}
    units = {each.site: each for each in all_units(scores, mask, config, scales)}
    visitor = Trials(source, mask, units, config, blocks)
    yield from layer_pass(source, [visitor], "measure sensitivity")
    write_cached(file, _Stored({str(site): curve.to_dict() for site, curve in visitor.curves.items()}))
    return visitor.curves


class Trials:
    """A visitor that cuts every site alone, at several sizes, and measures the divergence of each trial.

    Every trial asks for the layers behind its own once more. `units` are those of every site; for the other
    arguments see `sensitivity_curves`.
    """

    def __init__(
        self,
        source: LayerSource,
        mask: Mask,
        units: Mapping[Site, Units],
        config: RunConfig,
        blocks: Sequence[TokenBlocks],
    ) -> None:
        self.source, self.mask, self.units, self.config = source, mask, units, config
        self.curves: dict[Site, Curve] = {}
        # a regression looks better than it is on the text that it was fitted to
        count = min(len(each.ids) for each in blocks) - PROBES
        fit, probes = split_blocks(blocks, count) if count > 0 else (blocks, blocks)
        self.collector = InputCollector(source, fit, config)
        self.tokens = self.collector.stream.tokens
        self.probes, self.domains = TokenStream(source, probes), [each.domain for each in probes]
        self._dense = [self._log_probabilities(number, 0) for number in range(len(self.probes.batches))]

    def visit(self, index: int, view: LayerView) -> Iterator[Step]:
        """Try all cuts of a layer's sites, which is the same afterwards."""
        sites, mask = self.mask.geometry.layer_sites(index), self.mask
        yield from self.collector.collect(index, view, [site.name for site in sites], advance=True)
        for site in sites:
            units = self.units[site]
            inputs = replace(self.collector.inputs(site.name, mask.channels(site))[1], heldout={})
            before = float(mask.geometry.parameters(site) - mask.pruned.parameters(site))
            removed, divergence = [before], [dict.fromkeys(self.domains, 0.0)]
            for count in _counts(units):
                channels = _channels(units, count, mask, site)
                with cut_temporarily(view, site.name, inputs, channels, self.config):
                    divergence.append(self._divergence(index, view))
                removed.append(before + float(units.cost[units.order[:count]].sum()))
                yield Step()
            by_domain = {name: np.array([each[name] for each in divergence]) for name in self.domains}
            self.curves[site] = Curve(np.array(removed), by_domain)
        for _ in self.probes.push(index, view):
            pass

    @torch.no_grad()
    def _divergence(self, index: int, view: LayerView) -> dict[str, float]:
        """By domain the mean KL divergence from the dense model, in nats per token, with a layer as it is."""
        total = dict.fromkeys(self.domains, 0.0)
        tokens = dict.fromkeys(self.domains, 0)
        for number, (batch, dense) in enumerate(zip(self.probes.batches, self._dense, strict=True)):
            divergence = kl_divergence(dense, self._log_probabilities(number, index, view))
            total[batch.domain] += float(divergence.double().sum())
            tokens[batch.domain] += len(dense)
        return {name: total[name] / tokens[name] for name in total}

    @torch.no_grad()
    def _log_probabilities(self, number: int, index: int, view: LayerView | None = None) -> Tensor:
        """(B T, vocabulary) predictions for a batch of the probes, from its states in front of a layer on."""
        hidden = self.probes.states[number]
        if view is not None:
            hidden = self.probes.forward(number, index, view, hidden)
            index += 1
        for later in range(index, len(self.source)):
            with self.source.layer(later) as layer:
                hidden = self.probes.forward(number, later, layer, hidden)
        return self.source.logits(hidden.flatten(0, 1)).log_softmax(dim=-1)


def _counts(units: Units) -> list[int]:
    """Numbers of units to remove in the trials of a site."""
    removable = int((~units.protected).sum())
    return sorted({max(1, round(step * removable)) for step in STEPS}) if removable else []


def _channels(units: Units, count: int, mask: Mask, site: Site) -> Tensor:
    """(c,) bool over the channels that a site has: those of the first `count` units to be removed."""
    removed = np.zeros(len(mask.kept[site]), bool)
    removed[units.entries(units.order[:count])] = True
    channels = np.repeat(removed, mask.geometry.channels(site) // len(removed))
    return torch.as_tensor(channels[mask.channels(site)])


@contextmanager
def cut_temporarily(
    view: LayerView, name: str, inputs: Inputs, removed: Tensor, config: RunConfig
) -> Iterator[None]:
    """Compensate a site for channels whose columns are zero meanwhile: the same function as a cut."""
    linear = view.projection(name)
    weight, bias = linear.weight, linear.bias
    try:
        compensate(view, name, inputs, removed, config)
        linear.weight = torch.nn.Parameter(
            linear.weight.data.masked_fill(removed.to(weight.device), 0), requires_grad=False
        )
        yield
    finally:
        linear.weight, linear.bias = weight, bias
