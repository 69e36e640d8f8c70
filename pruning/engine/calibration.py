"""Statistics of a model's channels over blocks of text, and norms of its weight columns, layer by layer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pruning.engine.statistics_files import read_statistics, write_statistics
from pruning.errors import CalibrationError
from pruning.files import ignore_write_errors
from pruning.method.moments import KINDS_OF, DomainStatistics, Moments, TokenWeights
from pruning.method.statistics import STATISTICS, Observation, Statistic, WeightNorms, merge_into, scatter
from pruning.models.architectures import LayerView
from pruning.models.cache import cache_file
from pruning.models.geometry import Site
from pruning.models.layer_pass import Step, TokenStream, layer_pass
from pruning.models.mask import Mask
from pruning.models.source import LayerSource
from pruning.progress import Progress
from pruning.text.blocks import TokenBlocks

# By name of the statistic, domain and site.
StatisticsByName = dict[str, dict[str, dict[Site, Statistic]]]


@dataclass(frozen=True)
class Calibration:
    """The result of a calibration pass, of all layers or of one; arrays in the dense model's indices.

    Attributes:
        statistics: by name of the statistic, domain and site.
        norms: of the weight columns, by site.
    """

    statistics: StatisticsByName
    norms: dict[Site, WeightNorms] = field(default_factory=dict)

    def moments(self, kind: str) -> DomainStatistics:
        """The moments among the statistics, by their name."""
        return DomainStatistics(
            {
                domain: {site: part for site, part in sites.items() if isinstance(part, Moments)}
                for domain, sites in self.statistics[kind].items()
            }
        )


@contextmanager
def observing(view: LayerView, names: Sequence[str]) -> Iterator[dict[str, Observation]]:
    """Record the tensors at sites of a layer: a dict that every forward fills, by name of the site."""
    observations: dict[str, Observation] = {}
    residuals: dict[str, Tensor] = {}
    hooks = []
    for name in names:

        def save_residual(_: object, args: tuple[Tensor, ...], name: str = name) -> None:
            residuals[name] = args[0]

        def save_input(_: object, args: tuple[Tensor, ...], name: str = name) -> None:
            observations[name] = Observation(args[0], residuals.pop(name))

        hooks.append(view.norm(name).register_forward_pre_hook(save_residual))
        hooks.append(view.projection(name).register_forward_pre_hook(save_input))
    try:
        yield observations
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def weight_norms(view: LayerView, name: str) -> WeightNorms:
    """Norm and mean absolute value (C,) of the columns that read a site of a layer, as numpy arrays."""
    weight = view.projection(name).weight.float()
    norm, mean_abs = weight.norm(dim=0), weight.abs().mean(dim=0)
    return WeightNorms(norm.double().cpu().numpy(), mean_abs.double().cpu().numpy())


def dense_norms(view: LayerView, site: Site, mask: Mask) -> WeightNorms:
    """`weight_norms` of a layer cut to a mask in the dense model's indices, NaN where removed."""
    return WeightNorms(*(scatter(array, mask.channels(site)) for array in weight_norms(view, site.name)))


class CalibrationVisitor:
    """Collects statistics and weight norms, a layer at a time; see `calibrate`."""

    def __init__(
        self, source: LayerSource, blocks: Sequence[TokenBlocks], mask: Mask, kinds: Sequence[str]
    ) -> None:
        self.mask = mask
        self.stream = TokenStream(source, blocks)
        self.tokens = self.stream.tokens
        self.result = Calibration({kind: {each.domain: {} for each in blocks} for kind in kinds})

    def visit(self, index: int, view: LayerView) -> Iterator[Step]:
        """Observe all batches in a layer; the last step brings the `Calibration` of the layer alone."""
        statistics, sites = self.result.statistics, self.mask.geometry.layer_sites(index)
        with observing(view, [site.name for site in sites]) as observations:
            for batch in self.stream.push(index, view):
                for site in sites:
                    for kind, domains in statistics.items():
                        part = STATISTICS[kind].observe(observations[site.name])
                        merge_into(domains[batch.domain], site, part)
                yield Step(batch.ids.numel())
        norms = {site: dense_norms(view, site, self.mask) for site in sites}
        self.result.norms.update(norms)
        for domains in statistics.values():
            for domain, by_site in domains.items():
                by_site.update({site: self._finalize(by_site[site], site, domain) for site in sites})
        layer = {
            kind: {domain: {site: by_site[site] for site in sites} for domain, by_site in domains.items()}
            for kind, domains in statistics.items()
        }
        yield Step(result=Calibration(layer, norms))

    def _finalize(self, statistic: Statistic, site: Site, domain: str) -> Statistic:
        """The statistic of a site as arrays in the dense model's indices."""
        kept = self.mask.channels(site)
        statistic = statistic.in_dense_indices(kept)
        if not all(np.isfinite(array[kept]).all() for array in statistic.arrays().values()):
            raise CalibrationError(
                f"layer {site.layer}, {site.name}: the activations on domain {domain!r} are not finite: "
                "the model is broken there, or needs another --dtype."
            )
        return statistic


def calibrate(
    source: LayerSource, blocks: Sequence[TokenBlocks], mask: Mask, kinds: Sequence[str] = ("moments",)
) -> Generator[Progress, None, Calibration]:
    """Push blocks through the layers and collect statistics of every site.

    Args:
        source: of the layers of a model that is dense, or cut to `mask`.
        blocks: of each domain; without blocks only the weight norms are collected.
        mask: of the model, to return the statistics in the dense model's indices.
        kinds: statistics to collect, by their names in `STATISTICS`.

    Yields:
        Progress after every batch, in token-layers, and after every layer with its `Calibration`.

    Returns:
        The statistics and norms of all layers.

    Raises:
        CalibrationError: NaN or infinite activations; the message names layer, site and domain.
    """
    visitor = CalibrationVisitor(source, blocks, mask, kinds)
    yield from layer_pass(source, [visitor], "calibrate")
    return visitor.result


def calibrate_cached(
    source: LayerSource,
    blocks: Sequence[TokenBlocks],
    mask: Mask,
    state: str,
    token_weights: TokenWeights = "equal",
) -> Generator[Progress, None, tuple[DomainStatistics, dict[Site, WeightNorms]]]:
    """The moments of every domain, which are cached, and the weight norms.

    Args:
        source, blocks, mask: see `calibrate`.
        state: names the model's weights and what has been cut from them.
        token_weights: how much each token counts.
    """
    kind = KINDS_OF[token_weights]
    files = {
        b.domain: cache_file("moments", source, state, kind, b.digest, suffix=".safetensors") for b in blocks
    }
    moments: dict[str, Mapping[Site, Moments]] = {
        domain: cached
        for domain, file in files.items()
        if (cached := read_statistics(file, Moments, verify=True)) is not None
    }
    missing = [each for each in blocks if each.domain not in moments]
    calibration = yield from calibrate(source, missing, mask, (kind,))
    for domain, sites in calibration.moments(kind).moments.items():
        moments[domain] = sites
        _write_cached(files[domain], sites)
    return DomainStatistics({each.domain: moments[each.domain] for each in blocks}), calibration.norms


def _write_cached(file: Path, moments: Mapping[Site, Moments]) -> None:
    """Cache moments; a cache that cannot be written costs time, not the run."""
    with ignore_write_errors():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_statistics(file, moments)
