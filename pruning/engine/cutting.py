"""The cut of one iteration on a live model: compensate each output projection, then remove.

A compensation that needs covariances, and a cut that is `sequential`, take a pass of their own over the
calibration blocks, one layer at a time, so that the covariances of one layer are all that is ever held.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pruning.config import RunConfig
from pruning.engine.budget import all_units, dense_scales
from pruning.engine.calibration import observing
from pruning.method.allocation import first
from pruning.method.compensation import COMPENSATIONS, COVARIANCE, Inputs, Repair
from pruning.method.moments import KINDS_OF, Fused, Moments, fuse, token_weights
from pruning.method.scores import score_sites
from pruning.method.second_moments import SECOND_KINDS_OF, SecondMoments, covariance
from pruning.method.statistics import STATISTICS, Observation, Statistic, merge_into, scatter
from pruning.models.family import CausalLM
from pruning.models.geometry import KINDS, Kind, Site
from pruning.models.layer_view import LayerView, family_of
from pruning.models.layers import Around, Layers, Place, Stream
from pruning.models.mask import Mask
from pruning.models.surgery import add_bias, add_weight, cut_layer
from pruning.progress import Progress
from pruning.text.blocks import TokenBlocks

HELD_OUT = 8  # one of so many blocks of a domain is held out of the least squares, to judge it
MOST_HELD_OUT = 4  # blocks a domain


@dataclass
class Cut:
    """What a cut did.

    Attributes:
        mask: after it.
        changed: names of the parameters whose values were changed, beside biases.
        repairs: by site, of sites that lost something.
    """

    mask: Mask
    changed: set[str] = field(default_factory=set)
    repairs: dict[Site, Repair] = field(default_factory=dict)

    def note(self, model: CausalLM, site: Site, repair: Repair) -> None:
        """Take down a repair."""
        if repair.weight is not None:
            self.changed.add(family_of(model).weight_name(site.layer, site.name))
        self.repairs[site] = repair._replace(bias=None, weight=None)


def cut(
    model: CausalLM,
    before: Mask,
    after: Mask,
    fused: Mapping[Site, Fused],
    config: RunConfig,
    blocks: Sequence[TokenBlocks] = (),
    place: Place = "device",
) -> Generator[Progress, None, Cut]:
    """Compensate with the current statistics, then remove: in place, from one mask to a smaller one.

    Args:
        model: cut to `before`.
        before, after: masks over the dense model.
        fused: statistics of the model as it is, in the dense model's indices.
        config: how to compensate, and whether to take fresh inputs.
        blocks: of each domain, for the pass that some compensations and `sequential` need.
        place: where hidden states wait between two layers.
    """
    if config.sequential or config.compensation in COVARIANCE:
        return (yield from _cut_with_pass(model, before, after, config, blocks, place))
    layers, done = Layers(model), Cut(after)
    for number in range(len(layers)):
        with layers.layer(number) as view:
            for site, removed in _losses(number, before, after).items():
                alive, f = before.channels(site), fused[site]
                mean, variance, square = (
                    torch.as_tensor(part[alive], dtype=torch.float32).to(layers.device)
                    for part in (f.mean, f.variance, f.mean_square)
                )
                inputs = Inputs(f.count, mean, variance, square)
                done.note(model, site, compensate(view, site.name, inputs, removed, config))
            cut_layer(view, before, after)
    return done


def _losses(layer: int, before: Mask, after: Mask) -> dict[Site, Tensor]:
    """Sites of a layer that lose something, with (c,) bools over the channels that they have."""
    found = {}
    for site in (Site(layer, kind) for kind in KINDS):
        removed = torch.as_tensor(~after.channels(site)[before.channels(site)])
        if removed.any():
            found[site] = removed
    return found


@torch.no_grad()
def compensate(view: LayerView, kind: Kind, inputs: Inputs, removed: Tensor, config: RunConfig) -> Repair:
    """Repair one output projection for the loss of some of its inputs, and give what was added."""
    linear = view.projection(kind)
    repair = COMPENSATIONS[config.compensation](linear.weight, inputs, removed.to(linear.weight.device))
    if repair.bias is not None:
        add_bias(linear, repair.bias)
    if repair.weight is not None:
        add_weight(linear, repair.weight)
    return repair


# --- with a pass of its own --------------------------------------------------------------------------------


class Taker:
    """Takes what a compensation needs of the sites of one layer, from batches of blocks.

    Args:
        blocks: of each domain; one in `HELD_OUT` of them is held out.
        config: of the run.

    Attributes:
        batches: ids (B, T) to push through the layers.
        heldout: by number of the batch, whether it is held out.
    """

    def __init__(self, blocks: Sequence[TokenBlocks], config: RunConfig, batch_tokens: int) -> None:
        self.config = config
        self.covariances = config.compensation in COVARIANCE
        self.batches: list[Tensor] = []
        self.heldout: list[bool] = []
        self._domains: list[str] = []
        for domain in blocks:
            ids = torch.from_numpy(domain.ids)
            aside = min(-(-len(ids) // HELD_OUT), MOST_HELD_OUT) if self.covariances and len(ids) > 1 else 0
            for part, held in ((ids[: len(ids) - aside], False), (ids[len(ids) - aside :], True)):
                for batch in part.split(max(1, batch_tokens // ids.shape[1])) if len(part) else ():
                    self.batches.append(batch)
                    self.heldout.append(held)
                    self._domains.append(domain.domain)
        kinds = SECOND_KINDS_OF if self.covariances else KINDS_OF
        self._kind = STATISTICS[kinds[config.token_weights]]
        self.clear()

    def clear(self) -> None:
        """Begin another layer."""
        self._found: dict[Kind, dict[str, Statistic]] = {kind: {} for kind in KINDS}
        self._aside: dict[Kind, dict[str, list[Observation]]] = {kind: {} for kind in KINDS}

    def around(self, kinds: Sequence[Kind]) -> Around:
        """For `Stream.step`: watches these sites."""

        @contextmanager
        def taking(view: LayerView, layer: int, batch: int) -> Iterator[None]:
            with observing(view) as seen:
                yield
            for kind in kinds:
                name, x = self._domains[batch], seen[kind]
                if self.heldout[batch]:
                    self._aside[kind].setdefault(name, []).append(x)
                else:
                    merge_into(self._found[kind], name, self._kind.observe(x))

        return taking

    def inputs(self, kind: Kind) -> Inputs:
        """What is known of the inputs of a site after all batches have passed."""
        mixture, found = self.config.mixture, dict(self._found[kind])
        if not self.covariances:
            moments = {name: part for name, part in found.items() if isinstance(part, Moments)}
            f = fuse(moments, mixture, self.config.fusion, self.config.worst_domain)
            return Inputs(f.count, f.mean, f.variance, f.mean_square)
        for name, parts in self._aside[kind].items():
            for part in parts:
                merge_into(found, name, self._kind.observe(part))
        mean, matrix = covariance(second(found), mixture)
        fitted = covariance(second(self._found[kind]), mixture, mean)[1] if self._aside[kind] else matrix
        heldout = {
            name: self._distances(parts, mean, mixture[name]) for name, parts in self._aside[kind].items()
        }
        variance = matrix.diagonal()
        count = sum(part.count for part in found.values())
        return Inputs(count, mean, variance, variance + mean**2, matrix, fitted, heldout)

    def _distances(self, seen: Sequence[Observation], mean: Tensor, share: float) -> Tensor:
        """See `Inputs.heldout`."""
        x = torch.cat([each.inputs.flatten(0, -2).float() for each in seen]) - mean.to(seen[0].inputs).float()
        part = x.new_full((len(x),), share / len(x))
        if self.config.token_weights == "residual":
            part = part * torch.cat([token_weights(each).flatten() for each in seen])
        return (x * part.sqrt()[:, None]).to(mean.device)


def second(found: Mapping[str, Statistic]) -> dict[str, SecondMoments]:
    """Statistics of which it is known that they are second moments."""
    return {name: part for name, part in found.items() if isinstance(part, SecondMoments)}


def _cut_with_pass(
    model: CausalLM, before: Mask, after: Mask, config: RunConfig, blocks: Sequence[TokenBlocks], place: Place
) -> Generator[Progress, None, Cut]:
    layers = Layers(model)
    taker = Taker(blocks, config, layers.batch_tokens)
    stream = Stream(layers, taker.batches, place)
    done, retained = Cut(after), dict(after.retained)
    size = [batch.numel() for batch in taker.batches]
    passed, total = 0, sum(size) * len(layers) * (2 if config.sequential else 1)

    def told(index: int, number: int) -> Progress:
        nonlocal passed
        passed += size[index]
        return Progress("compensate", passed, total, f"layer {number + 1} of {len(layers)}")

    for number in range(len(layers)):
        losing = _losses(number, before, after)
        taker.clear()
        around = taker.around([site.name for site in losing])
        for index in stream.step(number, around, advance=not config.sequential):
            yield told(index, number)
        with layers.layer(number) as view:
            known = {site: taker.inputs(site.name) for site in losing}
            if config.sequential:
                for site in losing:
                    retained[site] = _same_number(site, view, known[site], before, after, config)
                done.mask = Mask(after.geometry, retained)
            for site, removed in _losses(number, before, done.mask).items():
                done.note(model, site, compensate(view, site.name, known[site], removed, config))
            cut_layer(view, before, done.mask)
        if config.sequential:
            for index in stream.step(number):
                yield told(index, number)
    stream.states.close()
    return done


@torch.no_grad()
def _same_number(
    site: Site, view: LayerView, inputs: Inputs, before: Mask, after: Mask, config: RunConfig
) -> np.ndarray:
    """What a site retains when as many units go as a mask says, chosen by fresh statistics."""
    alive, weight = before.channels(site), view.projection(site.name).weight.float()
    mean, variance, square = (
        scatter(part.double().cpu().numpy(), alive)
        for part in (inputs.mean, inputs.variance, inputs.mean_square)
    )
    norms = weight.norm(dim=0), weight.abs().mean(dim=0)
    columns = tuple(scatter(norm.double().cpu().numpy(), alive) for norm in norms)
    fused = {site: Fused(inputs.count, mean, variance, square)}
    scores = score_sites(config.score, fused, {site: (columns[0], columns[1])}, config.seed)
    scales = dense_scales({site: np.nan_to_num(scores[site])}, config.square_attention)
    (units,) = all_units(scores, before, config, scales, [site])
    count = int((before.retained[site] & ~after.retained[site]).sum())
    sizes = np.cumsum((units.members[units.order] >= 0).sum(axis=1))
    kept = before.retained[site].copy()
    kept[units.entries(first(units, int(np.searchsorted(sizes, count)) + 1))] = False
    return kept
