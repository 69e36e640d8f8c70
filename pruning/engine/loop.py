"""The method: calibrate the model as it is, score, cut a little, compensate, and begin again.

`prune_events` is the whole of it, a generator of typed events; `runs.worker` drives it and writes them down.
One iteration with one domain, `zscore` and equal token weights is FLAP (arXiv 2312.11983); several with all
domains are the method of arXiv 2601.02674.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping

from pruning.config import RunConfig
from pruning.engine.blocks import (
    ASIDE,
    calibration_blocks,
    describe_blocks,
    evaluation_blocks,
    set_aside,
)
from pruning.engine.budget import Curves, dense_scales, next_mask
from pruning.engine.calibration import calibrate_cached, column_norms
from pruning.engine.curves import damage_curves
from pruning.engine.cutting import cut
from pruning.engine.events import Event, Finished, Iteration, Started, State
from pruning.measure.perplexity import perplexity, perplexity_cached
from pruning.method.allocation import DAMAGE
from pruning.method.mixture import adapted
from pruning.method.scores import score_sites
from pruning.models.delta import Delta
from pruning.models.folder import LoadedModel
from pruning.models.layer_view import geometry, parameter_count
from pruning.models.loading import load


def state_of(loaded: LoadedModel) -> str:
    """A name for a model in memory that was not cut since it was loaded."""
    return Delta.of(loaded.model).digest(loaded.fingerprint)


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
    loaded = load(config.model, config.device, config.dtype, config.trust_remote_code)
    yield from prune_loaded(loaded, config, state)


def prune_loaded(
    loaded: LoadedModel, config: RunConfig, state: State | None = None
) -> Generator[Event, None, None]:
    """`prune_events` on a dense model that is in memory already, and is cut in place."""
    model = loaded.model
    dense = geometry(model)
    blocks = calibration_blocks(config, loaded.tokenizer, model, ASIDE if config.adapt_mixture else 0)
    heldout = evaluation_blocks(config, loaded.tokenizer, model)
    sources = describe_blocks(blocks, heldout)
    blocks, aside = set_aside(blocks, config.samples) if config.adapt_mixture else (blocks, [])
    yield Started(dense, parameter_count(model), loaded.fingerprint, sources)

    began = time.monotonic()
    delta, scales = Delta.of(model), None
    curves: Curves = {}
    mixture: Mapping[str, float] = config.mixture
    losses = yield from perplexity_cached(model, aside, delta.digest(loaded.fingerprint))
    if state is None:
        values = yield from perplexity_cached(model, heldout, delta.digest(loaded.fingerprint))
        yield Iteration(0, 0.0, delta, parameter_count(model), values, time.monotonic() - began)
    else:
        delta, scales, curves, mixture = state.delta, state.scales, state.curves, state.mixture or mixture
        delta.apply(model)

    for number in range(state.number + 1 if state else 1, config.iterations + 1):
        began, before, now = time.monotonic(), delta.mask, config.replace(mixture=dict(mixture))
        state_name = delta.digest(loaded.fingerprint)
        statistics = yield from calibrate_cached(model, blocks, before, state_name, config.token_weights)
        fused = statistics.fuse(now.mixture, config.fusion, worst_domain=config.worst_domain)
        norms = column_norms(model, before)
        scores = score_sites(config.score, fused, norms, config.seed)
        scales = scales or dense_scales(scores, config.square_attention)
        target = config.ratio_at(number)
        if config.allocation in DAMAGE and number == 1:
            curves = yield from damage_curves(model, before, scores, scales, now, blocks, state_name)
        after = next_mask(scores, before, target, now, scales, curves)
        done = yield from cut(model, before, after, fused, now, blocks)
        delta = Delta.of(model, done.mask, {*delta.weights, *done.changed})
        values = yield from perplexity(model, heldout)
        rises = {
            name: math.log(p.value / losses[name].value)
            for name, p in (yield from perplexity(model, aside)).items()
        }
        yield Iteration(
            number,
            target,
            delta,
            parameter_count(model),
            values,
            time.monotonic() - began,
            statistics,
            norms,
            scores,
            done.repairs,
            curves if number == 1 else {},
            mixture,
            rises,
        )
        mixture = adapted(mixture, rises) if rises else mixture
    yield Finished(loaded, delta)
