"""The cut of one iteration: compensate each output projection, then remove, a layer at a time.

A compensation that needs covariances, and a cut that is `sequential`, push the calibration blocks through the
layers once more while these are cut, so that the covariances of one layer are all that is ever held.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning.config import RunConfig
from pruning.engine.blocks import hold_out
from pruning.engine.budget import all_units, dense_scales, with_weights
from pruning.engine.calibration import dense_norms, observing
from pruning.method.allocation import first
from pruning.method.compensation import COMPENSATIONS, COVARIANCE, Inputs, Repair
from pruning.method.moments import MOMENTS_OF, SECOND_MOMENTS_OF, covariance, fuse, token_weights
from pruning.method.scores import SCORES
from pruning.method.statistics import STATISTICS, Observation, SiteStats, merge_into, scatter
from pruning.models.delta import Delta, weight_name
from pruning.models.geometry import Site
from pruning.models.layer_pass import Step, TokenStream, layer_pass
from pruning.models.layer_view import LayerView
from pruning.models.mask import Mask
from pruning.models.source import LayerSource
from pruning.models.surgery import add_bias, add_weight, cut_layer
from pruning.progress import Progress
from pruning.text.blocks import TokenBlocks


@torch.no_grad()
def compensate(view: LayerView, name: str, inputs: Inputs, removed: Tensor, config: RunConfig) -> Repair:
    """Repair an output projection for the loss of some of its inputs, and return what was added to it."""
    linear = view.projection(name)
    repair = COMPENSATIONS[config.compensation](linear.weight, inputs, removed.to(linear.weight.device))
    if repair.bias is not None:
        add_bias(linear, repair.bias)
    if repair.weight is not None:
        add_weight(linear, repair.weight)
    return repair


def mean_inputs(stats: SiteStats, kept: np.ndarray, device: torch.device) -> Inputs:
    """The mean of a site's inputs over the channels that it still has, as a bias needs it."""
    return Inputs(torch.as_tensor(stats.mean[kept], dtype=torch.float32).to(device))


class InputCollector:
    """Collects the inputs of a layer's sites; of the blocks least squares holds some out."""

    def __init__(self, source: LayerSource, blocks: Sequence[TokenBlocks], config: RunConfig) -> None:
        self.config, self.device = config, source.device
        self.covariances = config.compensation in COVARIANCE
        parts: list[TokenBlocks] = []
        self._held_out: set[int] = set()
        for each in blocks:
            parts += hold_out(each) if self.covariances else [each]
            self._held_out |= {len(parts) - 1} if self.covariances else set()
        self.stream = TokenStream(source, parts)
        kinds = SECOND_MOMENTS_OF if self.covariances else MOMENTS_OF
        self._observe = STATISTICS[kinds[config.token_weights]]

    def collect(self, index: int, view: LayerView, names: Sequence[str], advance: bool) -> Iterator[Step]:
        """Push the blocks through a layer, see `TokenStream.push`, collecting inputs of sites by name."""
        self._statistics: dict[str, dict[str, Any]] = {name: {} for name in names}
        self._observations: dict[str, dict[str, list[Observation]]] = {name: {} for name in names}
        with observing(view, names) as observations:
            for batch in self.stream.push(index, view, advance):
                for name in names:
                    if batch.part in self._held_out:
                        self._observations[name].setdefault(batch.domain, []).append(observations[name])
                    else:
                        part = self._observe(observations[name])
                        merge_into(self._statistics[name], batch.domain, part)
                yield Step(batch.ids.numel())

    def inputs(self, name: str, kept: np.ndarray) -> tuple[SiteStats, Inputs]:
        """The statistics of a site in the dense model's indices, and the inputs of a compensation.

        `kept` (C,) are bools over the dense model's channels, True for those that the site still has.
        """
        config, parts = self.config, dict(self._statistics[name])
        if not self.covariances:
            moments = {domain: part.in_dense_indices(kept) for domain, part in parts.items()}
            stats = fuse(moments, config.mixture, config.fusion, config.worst_domain)
            return stats, mean_inputs(stats, kept, self.device)
        heldout = self._observations[name]
        for domain, observations in heldout.items():
            for observation in observations:
                merge_into(parts, domain, self._observe(observation))
        mean, matrix = covariance(parts, config.mixture)
        fit = covariance(self._statistics[name], config.mixture, mean)[1] if heldout else matrix
        distances = {
            domain: self._distances(observations, mean, config.mixture[domain])
            for domain, observations in heldout.items()
        }
        variance, count = matrix.diagonal(), sum(part.count for part in parts.values())
        arrays = mean, variance, variance + mean**2
        dense = [scatter(array.double().cpu().numpy(), kept) for array in arrays]
        return SiteStats(count, dense[0], dense[1], dense[2]), Inputs(mean, matrix, fit, distances)

    def _distances(self, observations: Sequence[Observation], mean: Tensor, share: float) -> Tensor:
        """Weighted distances (n, c) of held-out tokens to the mean, see `Inputs.heldout`."""
        x = torch.cat([each.inputs.flatten(0, -2).float() for each in observations])
        x = x - mean.to(observations[0].inputs).float()
        weights = x.new_full((len(x),), share / len(x))
        if self.config.token_weights == "residual":
            weights = weights * torch.cat([token_weights(each).flatten() for each in observations])
        return (x * weights.sqrt()[:, None]).to(mean.device)


class Cut:
    """A visitor that cuts every layer from one mask to a smaller one, in place.

    Args:
        source: of the layers of a model that is cut to `before`.
        before, after: masks over the dense model.
        stats: of the model as it is, by site, in the dense model's indices.
        config: how to compensate, and whether to choose the channels by fresh statistics.
        blocks: of each domain, for the compensations of `COVARIANCE` and for `sequential`.
        changed: names of the weights that earlier cuts changed.

    Attributes:
        delta: of the model after the cut, of the layers so far.
        repairs: by site, of sites that lost something, without their tensors.
    """

    def __init__(
        self,
        source: LayerSource,
        before: Mask,
        after: Mask,
        stats: Mapping[Site, SiteStats],
        config: RunConfig,
        blocks: Sequence[TokenBlocks] = (),
        changed: Collection[str] = (),
    ) -> None:
        self.source, self.before, self.stats, self.config = source, before, stats, config
        self.delta = Delta(after)
        self.changed = set(changed)
        self.repairs: dict[Site, Repair] = {}
        self.collector, self.tokens = None, 0
        if config.sequential or config.compensation in COVARIANCE:
            self.collector = InputCollector(source, blocks, config)
            self.tokens = self.collector.stream.tokens * (2 if config.sequential else 1)

    def visit(self, index: int, view: LayerView) -> Iterator[Step]:
        """Collect fresh inputs where the cut needs them, choose again if it is `sequential`, and cut."""
        before, config = self.before, self.config
        sites = [
            site
            for site in before.geometry.layer_sites(index)
            if (before.kept[site] & ~self.delta.mask.kept[site]).any()
        ]
        if self.collector:
            names = [site.name for site in sites]
            yield from self.collector.collect(index, view, names, advance=not config.sequential)
        for site in sites:
            kept = before.channels(site)
            if self.collector:
                stats, inputs = self.collector.inputs(site.name, kept)
                if config.sequential:
                    entries = {**self.delta.mask.kept, site: self._choose_again(site, view, stats)}
                    self.delta = replace(self.delta, mask=Mask(before.geometry, entries))
            else:
                inputs = mean_inputs(self.stats[site], kept, self.source.device)
            removed = torch.as_tensor(~self.delta.mask.channels(site)[kept])
            repair = compensate(view, site.name, inputs, removed, config)
            if repair.weight is not None:
                self.changed.add(weight_name(self.source, site))
            self.repairs[site] = repair._replace(bias=None, weight=None)
        cut_layer(view, before, self.delta.mask)
        self.delta = self.delta.with_layer(self.source, index, view, self.changed)
        if self.collector and config.sequential:
            for batch in self.collector.stream.push(index, view):
                yield Step(batch.ids.numel())

    def _choose_again(self, site: Site, view: LayerView, stats: SiteStats) -> np.ndarray:
        """Entries (E,) that a site keeps when as many units are removed, chosen by fresh statistics."""
        before, config = self.before, self.config
        scores = SCORES[config.score](with_weights(stats, dense_norms(view, site, before), site, config.seed))
        scales = dense_scales({site: np.nan_to_num(scores)}, config.square_attention)
        (units,) = all_units({site: scores}, before, config, scales, [site])
        count = int((before.kept[site] & ~self.delta.mask.kept[site]).sum())
        sizes = np.cumsum((units.members[units.order] >= 0).sum(axis=1))
        kept = before.kept[site].copy()
        kept[units.entries(first(units, int(np.searchsorted(sizes, count)) + 1))] = False
        return kept


def cut(
    source: LayerSource,
    before: Mask,
    after: Mask,
    stats: Mapping[Site, SiteStats],
    config: RunConfig,
    blocks: Sequence[TokenBlocks] = (),
) -> Generator[Progress, None, Delta]:
    """Cut a model in a pass of its own, see `Cut`; the loop measures the cut layers in the same pass."""
    visitor = Cut(source, before, after, stats, config, blocks)
    yield from layer_pass(source, [visitor], "compensate")
    return visitor.delta
