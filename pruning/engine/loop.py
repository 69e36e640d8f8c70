"""The method: calibrate the model, score, cut a little, compensate, measure, and repeat.

`prune_loaded` is all of it, a generator of typed events; `runs.worker` drives it and writes them to disk. One
iteration with one domain, `zscore` and equal token weights is FLAP (arXiv 2312.11983); several with all
domains are the method of arXiv 2601.02674.

An iteration asks for every layer at most twice: for the statistics, and to cut, repair and measure it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping

from pruning.config import RunConfig
from pruning.engine.blocks import (
    VALIDATION_BLOCKS,
    calibration_blocks,
    describe_blocks,
    evaluation_blocks,
    split_blocks,
)
from pruning.engine.budget import Curves, dense_scales, next_mask, scores, site_stats
from pruning.engine.calibration import calibrate_cached
from pruning.engine.choice import choose, trial_count
from pruning.engine.cutting import Cut
from pruning.engine.events import Event, Finished, Iteration, Started, State
from pruning.engine.sensitivity import sensitivity_curves
from pruning.measure.perplexity import Evaluation, Perplexity, perplexity_cached, predictions_cached
from pruning.method.allocation import NEED_CURVES
from pruning.method.mixture import adapt
from pruning.models.delta import Delta
from pruning.models.folder import LoadedModel
from pruning.models.layer_pass import LayerVisitor, layer_pass


def state_of(loaded: LoadedModel) -> str:
    """A name for a model in memory that was not cut since it was loaded."""
    return Delta.of(loaded.source).digest(loaded.fingerprint)


def prune_loaded(
    loaded: LoadedModel, config: RunConfig, state: State | None = None
) -> Generator[Event, None, None]:
    """Prune a dense model iteration by iteration, in place; an interrupted run is resumed from its state.

    Yields:
        `Started`, the dense `Iteration` 0, `Progress` within stages, an `Iteration` after each, `Finished`.

    Raises:
        PruningError: see its subclasses.
    """
    source = loaded.source
    validation_blocks = VALIDATION_BLOCKS if config.adapt_mixture else 0
    trial_blocks = trial_count(config.samples) if config.normalise == "auto" else 0
    more = max(validation_blocks, trial_blocks)
    blocks = calibration_blocks(config, loaded.tokenizer, loaded.model, more)
    heldout = evaluation_blocks(config, loaded.tokenizer, loaded.model)
    sources = describe_blocks(blocks, heldout)
    blocks, aside = split_blocks(blocks, config.samples) if more else (blocks, [])
    validation = aside if validation_blocks else []
    yield Started(source.geometry(), source.parameter_count(), loaded.fingerprint, sources)

    began = time.monotonic()
    delta, scales = Delta.of(source), None
    curves: Curves = {}
    mixture: Mapping[str, float] = config.mixture
    name = delta.digest(loaded.fingerprint)
    dense_validation = yield from perplexity_cached(source, validation, name)
    dense = yield from predictions_cached(source, heldout, name)
    if state is None:
        values = {b.domain: Perplexity.of(b, dense[b.domain].losses) for b in heldout}
        yield Iteration(0, 0.0, delta, source.parameter_count(), values, time.monotonic() - began)
    else:
        delta, scales, curves, mixture = state.delta, state.scales, state.curves, state.mixture or mixture
        delta.apply(source)

    for number in range(state.number + 1 if state else 1, config.iterations + 1):
        began, before, mixed = time.monotonic(), delta.mask, config.replace(mixture=dict(mixture))
        name, target = delta.digest(loaded.fingerprint), config.ratio_at(number)
        statistics, norms = yield from calibrate_cached(source, blocks, before, name, config.token_weights)
        site_scores, stats = scores(statistics, norms, mixed), site_stats(statistics, None, mixed)
        choice = None
        if config.normalise == "auto":
            trial, _ = split_blocks(aside, trial_blocks)
            choice = yield from choose(source, site_scores, stats, mixed, trial)
            config, mixed = config.replace(**choice.options), mixed.replace(**choice.options)
        scales = scales or dense_scales(site_scores, config.square_attention)
        if config.allocation in NEED_CURVES and number == 1:
            curves = yield from sensitivity_curves(source, before, site_scores, scales, mixed, blocks, name)
        after = next_mask(site_scores, before, target, mixed, scales, curves)

        cut = Cut(source, before, after, stats, mixed, blocks, delta.weights)
        evaluation, validated = Evaluation(source, heldout, dense), Evaluation(source, validation)
        visitors: list[LayerVisitor] = [cut, evaluation, validated]
        yield from layer_pass(source, visitors, "compensate" if cut.tokens else "evaluate")
        delta = cut.delta
        rises = {
            domain: math.log(value.value / dense_validation[domain].value)
            for domain, value in validated.perplexities().items()
        }
        yield Iteration(
            number,
            target,
            delta,
            source.parameter_count(),
            evaluation.perplexities(),
            time.monotonic() - began,
            statistics,
            norms,
            site_scores,
            cut.repairs,
            curves if number == 1 else {},
            mixture,
            rises,
            choice,
        )
        mixture = adapt(mixture, rises) if rises else mixture
    yield Finished(loaded, delta)
