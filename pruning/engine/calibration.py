"""Statistics of a model's channels over blocks of text, one decoder layer at a time.

Hidden states of all blocks go in, statistics come out, hidden states go on.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pruning.errors import CalibrationError
from pruning.files import ignore_write_errors
from pruning.method.moments import KINDS_OF, Moments, Statistics, TokenWeights
from pruning.method.statistics import (
    STATISTICS,
    Observation,
    Statistic,
    merge_into,
    read_kept,
    scatter,
    write_statistic,
)
from pruning.models.cache import cache_file
from pruning.models.family import CausalLM
from pruning.models.geometry import KINDS, Site
from pruning.models.layer_view import LayerView
from pruning.models.layers import Layers, Place, forward
from pruning.models.mask import Mask
from pruning.progress import Progress, relay
from pruning.text.blocks import TokenBlocks

# By name of the statistic, domain and site.
Observed = dict[str, dict[str, dict[Site, Statistic]]]


@dataclass(frozen=True)
class LayerFound:
    """A layer that all blocks have passed: `Progress.found` of its last step.

    Attributes:
        statistics: by name of the statistic, domain and site, as `calibrate` returns them.
        norms: by site the two weight norms of `column_norms`.
    """

    statistics: Observed
    norms: dict[Site, tuple[np.ndarray, np.ndarray]]


@contextmanager
def observing(view: LayerView) -> Iterator[dict[str, Observation]]:
    """Watches what passes the sites of a layer; filled by kind of site while the layer runs."""
    seen: dict[str, Observation] = {}
    streams: dict[str, Tensor] = {}
    hooks = []
    for kind in KINDS:

        def enter(_: object, args: tuple[Tensor, ...], kind: str = kind) -> None:
            streams[kind] = args[0]

        def meet(_: object, args: tuple[Tensor, ...], kind: str = kind) -> None:
            seen[kind] = Observation(args[0], streams.pop(kind))

        hooks.append(view.norm(kind).register_forward_pre_hook(enter))
        hooks.append(view.projection(kind).register_forward_pre_hook(meet))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def calibrate(
    model: CausalLM,
    blocks: Sequence[TokenBlocks],
    mask: Mask,
    kinds: Sequence[str] = ("moments",),
    place: Place = "device",
) -> Generator[Progress, None, Observed]:
    """Push blocks through the layers and take statistics of every site.

    Args:
        model: dense, or cut to `mask`.
        blocks: of each domain.
        mask: of the model, to return the statistics in the dense model's indices.
        kinds: which statistics, by their names in `STATISTICS`.
        place: where hidden states wait between two layers.

    Yields:
        Progress after every batch, in token-layers; with a layer's last one comes a `LayerFound`.

    Returns:
        By name of the statistic, domain and site.

    Raises:
        CalibrationError: NaN or infinite activations; the message names layer, site and domain.
    """
    layers = Layers(model)
    batches = [
        (domain.domain, ids)
        for domain in blocks
        for ids in torch.from_numpy(domain.ids).split(max(1, layers.batch_tokens // domain.ids.shape[1]))
    ]
    found: Observed = {name: {domain.domain: {} for domain in blocks} for name in kinds}
    norms: dict[Site, tuple[np.ndarray, np.ndarray]] = {}

    @contextmanager
    def taking(view: LayerView, layer: int, batch: int) -> Iterator[None]:
        with observing(view) as seen:
            yield
        for kind in KINDS:
            site = Site(layer, kind)
            for name in kinds:
                merge_into(found[name][batches[batch][0]], site, STATISTICS[name].observe(seen[kind]))
        if batch == len(batches) - 1:
            norms.update(_norms(view, layer, mask))

    total, done = sum(domain.ids.size for domain in blocks) * len(layers), 0

    def told(step: tuple[int, int]) -> Progress:
        nonlocal done
        layer, batch = step
        done += batches[batch][1].numel()
        through = None
        if batch == len(batches) - 1:
            _settle(found, layer, mask)
            sites = [Site(layer, kind) for kind in KINDS]
            mine = {
                name: {domain: {site: all_[site] for site in sites} for domain, all_ in domains.items()}
                for name, domains in found.items()
            }
            through = LayerFound(mine, {site: norms[site] for site in sites})
        return Progress("calibrate", done, total, f"layer {layer + 1} of {len(layers)}", through)

    stash = yield from relay(forward(layers, [ids for _, ids in batches], taking, place), told)
    stash.close()
    return found


def _settle(found: Observed, layer: int, mask: Mask) -> None:
    """Statistics of a layer that all batches have passed, as arrays in the dense model's indices."""
    for domains in found.values():
        for domain, sites in domains.items():
            for site in (Site(layer, kind) for kind in KINDS):
                retained = mask.channels(site)
                settled = sites[site].in_dense_indices(retained)
                if not all(np.isfinite(array[retained]).all() for array in settled.arrays().values()):
                    raise CalibrationError(
                        f"layer {layer}, {site.name}: the activations on domain {domain!r} are not finite: "
                        "the model is broken there, or needs another --dtype."
                    )
                sites[site] = settled


def calibrate_cached(
    model: CausalLM,
    blocks: Sequence[TokenBlocks],
    mask: Mask,
    state: str,
    token_weights: TokenWeights = "equal",
) -> Generator[Progress, None, Statistics]:
    """The moments of every domain, kept on disk by what they depend on.

    Args:
        model, blocks, mask: see `calibrate`.
        state: names the model's weights and what has been cut from them.
        token_weights: how much each token counts.
    """
    kind = KINDS_OF[token_weights]
    files = {
        b.domain: cache_file("moments", model, state, kind, b.digest, suffix=".safetensors") for b in blocks
    }
    found: dict[str, Mapping[Site, Moments]] = {}
    for domain, file in files.items():
        if file.exists() and (stored := read_kept(file, Moments)) is not None:
            found[domain] = stored
    if missing := [b for b in blocks if b.domain not in found]:
        fresh = yield from calibrate(model, missing, mask, (kind,))
        for domain, sites in fresh[kind].items():
            found[domain] = {site: m for site, m in sites.items() if isinstance(m, Moments)}
            _keep(files[domain], found[domain])
    return Statistics({b.domain: found[b.domain] for b in blocks})


def _keep(file: Path, moments: Mapping[Site, Moments]) -> None:
    """A cache that cannot be written costs time, not the run."""
    with ignore_write_errors():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_statistic(file, moments)


@torch.no_grad()
def column_norms(model: CausalLM, mask: Mask) -> dict[Site, tuple[np.ndarray, np.ndarray]]:
    """||W[:, j]||_2 and the mean of |W[:, j]| of every channel, in dense indices, NaN where removed."""
    layers, norms = Layers(model), {}
    for number in range(len(layers)):
        with layers.layer(number) as view:
            norms.update(_norms(view, number, mask))
    return norms


@torch.no_grad()
def _norms(view: LayerView, layer: int, mask: Mask) -> dict[Site, tuple[np.ndarray, np.ndarray]]:
    """`column_norms` of one layer."""
    found = {}
    for kind in KINDS:
        site, weight = Site(layer, kind), view.projection(kind).weight.float()
        retained = mask.channels(site)
        found[site] = (
            scatter(weight.norm(dim=0).double().cpu().numpy(), retained),
            scatter(weight.abs().mean(dim=0).double().cpu().numpy(), retained),
        )
    return found
