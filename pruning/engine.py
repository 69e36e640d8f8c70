"""The method: calibrate the model as it is, score, cut a little, compensate, and begin again.

`prune_events` is the whole of it, a generator of typed events. Whoever drives it shows them, writes them
down, or stops by closing it:

    for event in prune_events(RunConfig(ratio=0.5)):
        print(event)

One iteration with one domain and `zscore` is FLAP (arXiv 2312.11983); several with all domains is the method
of arXiv 2601.02674.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pruning.calibration import Progress, calibrate_cached, column_norms
from pruning.config import RunConfig, too_long
from pruning.domains import TokenBlocks, heldout_blocks, load_text, sample_blocks
from pruning.evaluation import Perplexity, perplexity, perplexity_cached
from pruning.masks import Mask, Scale, dense_scales, next_mask
from pruning.models import LoadedModel, load
from pruning.moments import Fused, Statistics
from pruning.scores import score_sites
from pruning.sites import KINDS, CausalLM, Geometry, Site, geometry, layer_views
from pruning.surgery import add_bias, compensation, output_biases, remove, set_output_biases

T = TypeVar("T")
Norms = Mapping[Site, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Started:
    """The model and the text are there.

    Attributes:
        geometry: of the dense model.
        parameters: of the dense model, embeddings and all.
        fingerprint: names the dense weights.
        sources: by domain where its calibration text came from.
    """

    geometry: Geometry
    parameters: int
    fingerprint: str
    sources: dict[str, dict]


@dataclass(frozen=True)
class Iteration:
    """What one iteration found and did. Number 0 is the dense model: it has a perplexity and no more.

    Attributes:
        number: 0 to K.
        target: the ratio to reach in this iteration.
        mask: after it.
        biases: of the output projections after it, by site, as they stand in the model.
        parameters: of the model after it.
        perplexity: by domain, of the model after it.
        seconds: that it took.
        statistics: moments of the model *before* the cut, by domain.
        norms: of its weight columns, see `calibration.column_norms`.
        scores: (C,) by site, of the channels that were still there, NaN elsewhere.
    """

    number: int
    target: float
    mask: Mask
    biases: Mapping[str, Tensor]
    parameters: int
    perplexity: dict[str, Perplexity]
    seconds: float
    statistics: Statistics | None = None
    norms: Norms = field(default_factory=dict)
    scores: Mapping[Site, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """The pruned model, in memory."""

    loaded: LoadedModel
    mask: Mask


@dataclass(frozen=True)
class State:
    """Where to go on: everything a later iteration depends on beside the dense model and the config.

    Attributes:
        number: of the last complete iteration.
        mask, biases: after it.
        scales: of the first iteration's scores; None before it.
    """

    number: int
    mask: Mask
    biases: Mapping[str, Tensor]
    scales: Mapping[Site, Scale] | None


Event = Started | Progress | Iteration | Finished


def parameter_count(model: CausalLM) -> int:
    """Parameters of a model, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def drain(events: Generator[Progress, None, T], on_progress: Callable[[Progress], None]) -> T:
    """Run a stage to its end outside the engine, showing its progress."""
    while True:
        try:
            on_progress(next(events))
        except StopIteration as stop:
            return stop.value


def _check_length(config: RunConfig, model: CausalLM) -> None:
    context = getattr(model.config, "max_position_embeddings", config.seq_len)
    if config.seq_len > context:
        raise too_long(config.seq_len, context)


def calibration_blocks(config: RunConfig, tokenizer: object, model: CausalLM) -> list[TokenBlocks]:
    """The calibration blocks of every domain of a config.

    Raises:
        PruningError: text that cannot be had, or blocks longer than the model's context.
    """
    _check_length(config, model)
    return [
        sample_blocks(
            name,
            load_text(name, config.domains.get(name, "embedded"), "calibration", config.seed),
            tokenizer,
            config.samples,
            config.seq_len,
            config.seed,
        )
        for name in config.mixture
    ]


def evaluation_blocks(config: RunConfig, tokenizer: object, model: CausalLM) -> list[TokenBlocks]:
    """The held-out blocks of every domain that a config measures.

    Raises:
        PruningError: text that cannot be had, or blocks longer than the model's context.
    """
    _check_length(config, model)
    if config.eval_blocks == 0:
        return []
    return [
        heldout_blocks(
            name,
            load_text(name, config.domains.get(name, "embedded"), "heldout", config.seed),
            tokenizer,
            config.seq_len,
            config.eval_blocks,
        )
        for name in config.measured_domains
    ]


def state_digest(fingerprint: str, mask: Mask, biases: Mapping[str, Tensor]) -> str:
    """A name for a model that was cut: its dense weights, its mask and its biases decide everything."""
    digest = hashlib.blake2b(fingerprint.encode(), digest_size=16)
    for site in mask.geometry.sites:
        digest.update(np.packbits(mask.retained[site]).tobytes())
    for name, bias in sorted(biases.items()):
        digest.update(name.encode() + bias.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def state_of(loaded: LoadedModel, mask: Mask | None = None) -> str:
    """`state_digest` of a model in memory, cut to a mask; dense where none is given."""
    mask = mask or Mask.full(geometry(loaded.model))
    return state_digest(loaded.fingerprint, mask, output_biases(loaded.model))


@torch.no_grad()
def cut(model: CausalLM, before: Mask, after: Mask, fused: Mapping[Site, Fused], config: RunConfig) -> None:
    """Compensate with the current means, then remove: in place, from one mask to a smaller one."""
    if config.compensation == "bias":
        for layer, view in enumerate(layer_views(model)):
            for kind in KINDS:
                site = Site(layer, kind)
                alive = before.channels(site)
                removed = torch.as_tensor(~after.channels(site)[alive])
                if removed.any():
                    linear = view.projection(kind)
                    mean = torch.as_tensor(fused[site].mean[alive], dtype=torch.float32)
                    device = linear.weight.device
                    add_bias(linear, compensation(linear.weight, mean.to(device), removed.to(device)))
    remove(model, before, after)


def prune_events(config: RunConfig, state: State | None = None) -> Iterator[Event]:
    """Prune a model iteration by iteration.

    Args:
        config: what to do.
        state: where an interrupted run goes on; None to begin.

    Yields:
        `Started`, the dense `Iteration` 0, `Progress` within stages, an `Iteration` after each, `Finished`.

    Raises:
        PruningError: see its subclasses; nothing has been written then.
    """
    loaded = load(config.model, config.device, config.dtype)
    yield from prune_loaded(loaded, config, state)


def prune_loaded(
    loaded: LoadedModel, config: RunConfig, state: State | None = None
) -> Generator[Event, None, None]:
    """`prune_events` on a dense model that is in memory already, and is cut in place."""
    model = loaded.model
    dense = geometry(model)
    blocks = calibration_blocks(config, loaded.tokenizer, model)
    heldout = evaluation_blocks(config, loaded.tokenizer, model)
    yield Started(dense, parameter_count(model), loaded.fingerprint, {b.domain: b.source for b in blocks})

    began = time.monotonic()
    mask, scales = Mask.full(dense), None
    if state is None:
        values = yield from perplexity_cached(model, heldout, state_of(loaded))
        yield Iteration(
            0, 0.0, mask, output_biases(model), parameter_count(model), values, time.monotonic() - began
        )
    else:
        remove(model, mask, state.mask)
        set_output_biases(model, state.biases)
        mask, scales = state.mask, state.scales

    for number in range(state.number + 1 if state else 1, config.iterations + 1):
        began = time.monotonic()
        statistics = yield from calibrate_cached(model, blocks, mask, state_of(loaded, mask))
        fused = statistics.fuse(config.mixture, config.fusion)
        norms = column_norms(model, mask)
        scores = score_sites(config.score, fused, norms, config.seed)
        scales = scales or dense_scales(scores, config.square_attention)
        target = config.ratio_at(number)
        after = next_mask(scores, mask, target, config, scales)
        cut(model, mask, after, fused, config)
        mask = after
        values = yield from perplexity(model, heldout)
        yield Iteration(
            number,
            target,
            mask,
            output_biases(model),
            parameter_count(model),
            values,
            time.monotonic() - began,
            statistics,
            norms,
            scores,
        )
    yield Finished(loaded, mask)
