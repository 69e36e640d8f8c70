"""Statistics of a model's channels over blocks of text, and norms of its weight columns, layer by layer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning.engine.statistics_files import read_statistics, write_statistics
from pruning.errors import CalibrationError
from pruning.files import ignore_write_errors
from pruning.method.moments import MOMENTS_OF, DomainStatistics, Moments, TokenWeights
from pruning.method.statistics import STATISTICS, Observation, Statistic, WeightNorms, merge_into, scatter
from pruning.models.cache import cache_file
from pruning.models.geometry import Site
from pruning.models.layer_pass import Step, TokenStream, layer_pass
from pruning.models.layer_view import LayerView
from pruning.models.mask import Mask
from pruning.models.source import LayerSource
from pruning.progress import Progress
from pruning.text.blocks import TokenBlocks


@dataclass(frozen=True)
class Calibration:
    """The result of a calibration pass, of all layers or of one; arrays in the dense model's indices.

    Attributes:
        statistics: by domain and site, of one kind.
        norms: of the weight columns, by site.
    """

    statistics: dict[str, dict[Site, Any]]
    norms: dict[Site, WeightNorms]


@contextmanager
def observing(view: LayerView, names: Sequence[str]) -> Iterator[dict[str, Observation]]:
    """Record the tensors at sites of a layer: a dict that every forward fills, by name of the site."""
    observations: dict[str, Observation] = {}
    residuals: dict[str, Tensor] = {}
    hooks = []
    for name in names:

        def save_residual(
            _: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], name: str = name
        ) -> None:
            residuals[name] = args[0] if args else kwargs["hidden_states"]  # as layers call their attention

        def save_input(_: object, args: tuple[Tensor, ...], name: str = name) -> None:
            observations[name] = Observation(args[0], residuals.pop(name))

        hooks.append(view.residual(name).register_forward_pre_hook(save_residual, with_kwargs=True))
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
    if (gain := view.output_gain(name)) is not None:  # of the norm that the output passes
        weight = weight * gain[:, None]
    norm, mean_abs = weight.norm(dim=0), weight.abs().mean(dim=0)
    return WeightNorms(norm.double().cpu().numpy(), mean_abs.double().cpu().numpy())


def dense_norms(view: LayerView, site: Site, mask: Mask) -> WeightNorms:
    """`weight_norms` of a layer cut to a mask in the dense model's indices, NaN where removed."""
    return WeightNorms(*(scatter(array, mask.channels(site)) for array in weight_norms(view, site.name)))


class CalibrationVisitor:
    """Collects a statistic and the weight norms, a layer at a time; see `calibrate`."""

    def __init__(self, source: LayerSource, blocks: Sequence[TokenBlocks], mask: Mask, kind: str) -> None:
        self.mask, self.observe = mask, STATISTICS[kind]
        self.stream = TokenStream(source, blocks)
        self.tokens = self.stream.tokens
        self.result = Calibration({each.domain: {} for each in blocks}, {})

    def visit(self, index: int, view: LayerView) -> Iterator[Step]:
        """Observe all batches in a layer; the last step brings the `Calibration` of the layer alone."""
        statistics, sites = self.result.statistics, self.mask.geometry.layer_sites(index)
        with observing(view, [site.name for site in sites]) as observations:
            for batch in self.stream.push(index, view):
                for site in sites:
                    merge_into(statistics[batch.domain], site, self.observe(observations[site.name]))
                yield Step(batch.ids.numel())
        norms = {site: dense_norms(view, site, self.mask) for site in sites}
        layer = {
            domain: {site: self._finalize(by_site[site], site, domain) for site in sites}
            for domain, by_site in statistics.items()
        }
        for domain, by_site in layer.items():
            statistics[domain].update(by_site)
        self.result.norms.update(norms)
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
    source: LayerSource, blocks: Sequence[TokenBlocks], mask: Mask, kind: str = "moments"
) -> Generator[Progress, None, Calibration]:
    """Push blocks of every domain through the layers and collect a statistic, and the weight norms.

    Args:
        source: of the layers of a model that is cut to `mask`.
        blocks: of each domain; without any only the weight norms are collected.
        mask: over the dense model.
        kind: of the statistic, its name in `STATISTICS`.

    Yields:
        Progress after every batch, and after every layer with its `Calibration`.

    Raises:
        CalibrationError: NaN or infinite activations; the message names layer, site and domain.
    """
    visitor = CalibrationVisitor(source, blocks, mask, kind)
    yield from layer_pass(source, [visitor], "calibrate")
    return visitor.result


def calibrate_cached(
    source: LayerSource,
    blocks: Sequence[TokenBlocks],
    mask: Mask,
    state: str,
    token_weights: TokenWeights = "equal",
) -> Generator[Progress, None, tuple[DomainStatistics, dict[Site, WeightNorms]]]:
    """The moments of every domain, cached by `state`, which names the model, and the weight norms."""
    kind = MOMENTS_OF[token_weights]
    files = {
        b.domain: cache_file("moments", source, state, kind, b.digest, suffix=".safetensors") for b in blocks
    }
    moments: dict[str, Mapping[Site, Moments]] = {
        domain: cached
        for domain, file in files.items()
        if (cached := read_statistics(file, Moments, verify=True)) is not None
    }
    missing = [each for each in blocks if each.domain not in moments]
    calibration = yield from calibrate(source, missing, mask, kind)
    for domain, sites in calibration.statistics.items():
        _write_cached(files[domain], sites)
    moments |= calibration.statistics
    return DomainStatistics({each.domain: moments[each.domain] for each in blocks}), calibration.norms


def _write_cached(file: Path, moments: Mapping[Site, Moments]) -> None:
    """Cache moments; where that fails, they are computed again the next time."""
    with ignore_write_errors():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_statistics(file, moments)
