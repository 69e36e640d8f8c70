"""Damage curves of a model: cut one site alone, compensate it, and see how far the predictions move.

Layer by layer: the calibration blocks bring what the compensation needs, then each trial starts at its layer,
from kept hidden states, and its next-token distribution is compared with the dense model's.
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
from pruning.engine.blocks import set_aside
from pruning.engine.budget import all_units
from pruning.engine.cutting import Taker, compensate
from pruning.method.compensation import Inputs
from pruning.method.damage import PROBES, STEPS, Curve
from pruning.method.normalise import Scale
from pruning.method.units import Units
from pruning.models.cache import cache_file
from pruning.models.family import CausalLM
from pruning.models.geometry import KINDS, Kind, Site
from pruning.models.layer_view import LayerView
from pruning.models.layers import Layers, Stream
from pruning.models.mask import Array, Mask
from pruning.progress import Progress
from pruning.text.blocks import TokenBlocks

# What damage depends on beside the model and the text.
FIELDS = {
    *("mixture", "fusion", "worst_domain", "token_weights", "score", "seed", "square_attention", "normalise"),
    *("unit_score", "attention_unit", "keep", "remove", "round_to", "min_attention_units", "min_mlp_share"),
    "compensation",
}


@dataclass(frozen=True)
class _Stored:
    """Curves as plain values, for the cache."""

    curves: dict[str, dict]


def damage_curves(
    model: CausalLM,
    mask: Mask,
    scores: Mapping[Site, Array],
    scales: Mapping[Site, Scale],
    config: RunConfig,
    blocks: Sequence[TokenBlocks],
    state: str,
) -> Generator[Progress, None, dict[Site, Curve]]:
    """What it costs to cut each site alone, kept on disk by what it depends on.

    Args:
        model: cut to `mask`.
        mask: over the dense model.
        scores: by site (C,), the order in which units go within a site.
        scales: see `budget.next_mask`.
        config: what is a unit, and how a cut is compensated.
        blocks: calibration blocks of each domain; damage is measured on the last `PROBES` of each, or on all
            where there are no more.
        state: names the model's weights and what was cut from them.
    """
    options = config.model_dump(mode="json", include=FIELDS)
    file = cache_file("curves", model, state, options, [(each.domain, each.digest) for each in blocks])
    if stored := read_cached(file, _Stored):
        return {Site.parse(name): Curve.from_dict(data) for name, data in stored.curves.items()}
    found = yield from _measure(model, mask, scores, scales, config, blocks)
    write_cached(file, _Stored({str(site): curve.to_dict() for site, curve in found.items()}))
    return found


def _measure(
    model: CausalLM,
    mask: Mask,
    scores: Mapping[Site, Array],
    scales: Mapping[Site, Scale],
    config: RunConfig,
    blocks: Sequence[TokenBlocks],
) -> Generator[Progress, None, dict[Site, Curve]]:
    # On text that a regression was fitted to, what it mends looks better than it is.
    rest = min(len(each.ids) for each in blocks) - PROBES
    fitted, probes = set_aside(blocks, rest) if rest > 0 else (blocks, blocks)
    layers = Layers(model)
    taker = Taker(fitted, config, layers.batch_tokens)
    stream = Stream(layers, taker.batches)
    probe = _Probe(layers, probes)
    curves: dict[Site, Curve] = {}
    for number in range(len(layers)):
        taker.clear()
        progress = Progress("measure damage", number, len(layers), f"layer {number + 1} of {len(layers)}")
        for _ in stream.step(number, taker.around(KINDS)):
            yield progress
        with layers.layer(number) as view:
            for site in (Site(number, kind) for kind in KINDS):
                (units,) = all_units(scores, mask, config, scales, [site])
                inputs = replace(taker.inputs(site.name), heldout={})
                gone = float(mask.geometry.parameters(site) - mask.pruned.parameters(site))
                removed, damage = [gone], [dict.fromkeys(probe.domains, 0.0)]
                for count in _counts(units):
                    with _without(view, site.name, inputs, _channels(units, count, mask, site), config):
                        damage.append(probe.divergence(number))
                    removed.append(gone + float(units.cost[units.order[:count]].sum()))
                    yield progress
                by_domain = {name: np.array([each[name] for each in damage]) for name in probe.domains}
                curves[site] = Curve(np.array(removed), by_domain)
        probe.advance(number)
    stream.states.close()
    probe.close()
    return curves


def _counts(units: Units) -> list[int]:
    """Numbers of units to remove in the trials of a site."""
    free = int((~units.protected).sum())
    return sorted({max(1, round(step * free)) for step in STEPS}) if free else []


def _channels(units: Units, count: int, mask: Mask, site: Site) -> Tensor:
    """(c,) bool over the channels that a site has: those of the first units to go."""
    entries = np.zeros(len(mask.retained[site]), bool)
    entries[units.entries(units.order[:count])] = True
    head = mask.geometry.shape(site).width
    return torch.as_tensor(np.repeat(entries, head)[mask.channels(site)])


@contextmanager
def _without(view: LayerView, kind: Kind, inputs: Inputs, gone: Tensor, config: RunConfig) -> Iterator[None]:
    """A site compensated for channels whose columns are zero meanwhile: the same function as a cut."""
    linear = view.projection(kind)
    weight, bias = linear.weight, linear.bias
    try:
        compensate(view, kind, inputs, gone, config)
        linear.weight = torch.nn.Parameter(
            linear.weight.data.masked_fill(gone.to(weight.device), 0), requires_grad=False
        )
        yield
    finally:
        linear.weight, linear.bias = weight, bias


class _Probe:
    """Blocks on which predictions are compared with the dense model's.

    Args:
        layers: of the model.
        blocks: of each domain.
    """

    def __init__(self, layers: Layers, blocks: Sequence[TokenBlocks]) -> None:
        self.domains = [each.domain for each in blocks]
        self._layers = layers
        self._stream = Stream(layers, [torch.from_numpy(each.ids) for each in blocks])
        self._dense = [self._log_probabilities(i, 0) for i in range(len(blocks))]

    def _log_probabilities(self, index: int, number: int) -> Tensor:
        states = self._layers.last(self._stream.rest(index, number)).flatten(0, 1)
        return self._layers.logits(states).log_softmax(dim=-1)

    @torch.no_grad()
    def divergence(self, number: int) -> dict[str, float]:
        """By domain the mean KL divergence, in nats a token, of the model as it is from a layer on."""
        found = {}
        for index, (name, dense) in enumerate(zip(self.domains, self._dense, strict=True)):
            away = self._log_probabilities(index, number).neg_().add_(dense)
            found[name] = float((dense.exp() * away).sum(dim=-1).double().mean())
        return found

    def advance(self, number: int) -> None:
        """Go on behind a layer."""
        for _ in self._stream.step(number):
            pass

    def close(self) -> None:
        """Let go of the states."""
        self._stream.states.close()
