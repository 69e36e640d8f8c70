"""The experiments of the lessons: functions from the values of a lesson's controls to plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pruning.engine.budget import dense_scales, next_mask, site_stats
from pruning.engine.calibration import calibrate_cached, observing
from pruning.engine.events import Iteration
from pruning.engine.loop import prune_loaded, state_of
from pruning.engine.sensitivity import sensitivity_curves
from pruning.errors import ConfigError
from pruning.lessons.lab import EXPERIMENTS, Answer, Lab, ProgressCallback, mask_without
from pruning.measure.writing import continue_prompt
from pruning.method.moments import DomainStatistics
from pruning.method.scores import SCORES
from pruning.models.delta import Delta
from pruning.models.family import CausalLM
from pruning.models.geometry import Site
from pruning.models.mask import Mask
from pruning.models.source import InMemory
from pruning.progress import Progress, drain
from pruning.text.sources import EMBEDDED_DOMAINS

CUTS = 5  # of the cascade, against one


def answer(labs: Mapping[str, Lab], request: Mapping[str, Any], on_progress: ProgressCallback) -> Answer:
    """The answer to a request: `name` of an experiment, and its `arguments`, among them the model."""
    arguments = dict(request["arguments"])
    return EXPERIMENTS[request["name"]](labs[arguments.pop("model", "demo")], on_progress, **arguments)


@EXPERIMENTS.add
@torch.no_grad()
def follow(lab: Lab, on_progress: ProgressCallback, text: str, layer: int) -> Answer:
    """The activations of every token of a text in the channels of a layer's MLP.

    Returns:
        `tokens` (T,) as text; `activations` (T, C) that enter `down_proj`; `norms` (C,) of the columns that
        read them.
    """
    tokenizer, site = lab.loaded.tokenizer, Site(layer, "mlp")
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][:, :24]
    with lab.loaded.source.layer(layer) as view, observing(view, ["mlp"]) as observations:
        lab.loaded.model(ids)
    return {
        "tokens": [tokenizer.decode([int(token)]) for token in ids[0]],
        "activations": observations["mlp"].inputs[0].tolist(),
        "norms": lab.first.norms[site].norm.tolist(),
    }


@EXPERIMENTS.add
def lose(lab: Lab, on_progress: ProgressCallback, site: str, channels: Sequence[int]) -> Answer:
    """The effect of losing each of some channels alone.

    Returns:
        By channel, with and without a bias in its place, the divergence of the predictions in nats per token.
    """
    layer, name = Site.parse(site)
    divergence: Answer = {}
    mean = lab.stats()[Site(layer, name)].mean
    trials = [(channel, repair) for channel in channels for repair in ("bias", "none")]
    for number, (channel, repair) in enumerate(trials):
        on_progress(Progress(f"channel {channel}", number, len(trials)))
        model = lab.copy()
        with InMemory(model).layer(layer) as view:
            linear = view.projection(name)
            column = linear.weight[:, channel].detach().clone()
            linear.weight.data[:, channel] = 0
            if repair == "bias":
                linear.bias = torch.nn.Parameter(column * float(mean[channel]), requires_grad=False)
        divergence.setdefault(str(channel), {})[repair] = lab.divergence(model)
    return divergence


@EXPERIMENTS.add
def repair(lab: Lab, on_progress: ProgressCallback, layer: int, share: float) -> Answer:
    """The remaining divergence when the lowest-scored MLP channels of a layer are removed, by compensation.

    Returns:
        By compensation the divergence of the predictions in nats per token; the number of `channels`, and
        `steady`, the median over them of the mean's size in standard deviations.
    """
    site = Site(layer, "mlp")
    stats, scores = lab.stats()[site], lab.scores()[site]
    lowest = np.argsort(scores)[: round(share * len(scores))]
    result: Answer = {"channels": len(lowest), "steady": float(np.median(stats.steadiness[lowest]))}
    for number, name in enumerate(("none", "bias", "least_squares")):
        on_progress(Progress(name, number, 3))
        mask = mask_without(lab.geometry, site, lowest)
        result[name] = lab.divergence(lab.pruned(mask, lab.config.replace(compensation=name)))
    return result


@EXPERIMENTS.add
def domains(lab: Lab, on_progress: ProgressCallback, ratio: float) -> Answer:
    """Prune by each domain's statistics alone and by all, and measure every domain.

    Returns:
        `dense` perplexity by domain; `pruned` by the domain that was calibrated on, or `all`, and the domain
        that was measured.
    """
    mixtures = {name: {name: 1.0} for name in EMBEDDED_DOMAINS} | {"all": dict(lab.config.mixture)}
    pruned = {}
    for number, (name, mixture) in enumerate(mixtures.items()):
        on_progress(Progress(name, number, len(mixtures)))
        pruned[name] = lab.perplexities(lab.pruned_once(ratio=ratio, mixture=mixture))
    return {"dense": lab.dense, "pruned": pruned}


@EXPERIMENTS.add
def cascade(lab: Lab, on_progress: ProgressCallback, ratio: float, normalise: str = "share") -> Answer:
    """One cut against several, by the engine's own loop.

    Returns:
        Perplexity by domain and `mean` of the `dense` model, of `one` cut and of `several`.
    """
    perplexities: Answer = {"dense": lab.dense}
    for name, cuts in (("one", 1), ("several", CUTS)):
        config = lab.config.replace(ratio=ratio, iterations=cuts, eval_blocks=0, normalise=normalise)
        loaded = replace(lab.loaded, model=lab.copy())
        done = 0 if name == "one" else 1
        for event in prune_loaded(loaded, config):
            if isinstance(event, Iteration) and event.number:
                done += 1
                on_progress(Progress(f"cut {event.number} of {cuts}", done, 1 + CUTS))
        perplexities[name] = lab.perplexities(loaded.model)
    return perplexities


@EXPERIMENTS.add
def shift(lab: Lab, on_progress: ProgressCallback, layers: int, share: float) -> Answer:
    """The effect of a cut of the first layers alone on the statistics of later ones.

    Returns:
        `layers` (L,): by layer the median over its kept MLP channels of the variance after the cut over that
        before.
    """
    config, dense = lab.config, Mask.full(lab.geometry)
    sites = [site for site in lab.geometry.sites if site.name == "mlp"]
    before = site_stats(_statistics(lab, lab.loaded.model, dense, on_progress), lab.first.norms, config)
    kept = {site: array.copy() for site, array in dense.kept.items()}
    for site in sites[:layers]:
        scores = SCORES[config.score](before[site])
        kept[site][np.argsort(scores)[: round(share * len(scores))]] = False
    mask = Mask(lab.geometry, kept)
    pruned = lab.pruned(mask, config, before)
    after = site_stats(_statistics(lab, pruned, mask, on_progress), None, config)
    ratios = [after[site].variance / before[site].variance for site in sites]
    return {"layers": [float(np.nanmedian(each)) for each in ratios]}


def _statistics(lab: Lab, model: CausalLM, mask: Mask, on_progress: ProgressCallback) -> DomainStatistics:
    source = InMemory(model)
    state = Delta.of(source, mask).digest(lab.loaded.fingerprint)
    steps = calibrate_cached(source, lab.blocks, mask, state, lab.config.token_weights)
    return drain(steps, on_progress)[0]


@EXPERIMENTS.add
def budgets(lab: Lab, on_progress: ProgressCallback, ratio: float, allocations: Sequence[str]) -> Answer:
    """The same ratio spread over the layers by several allocations.

    Returns:
        By allocation its `perplexity` by domain and `mean`, and `retained` (L,), the share of its linear
        parameters that each layer keeps; `dense` perplexity.
    """
    geometry, scores, full = lab.geometry, lab.scores(), Mask.full(lab.geometry)
    scales, results = dense_scales(scores, lab.config.square_attention), {}
    for name in allocations:
        config, curves = lab.config.replace(ratio=ratio, allocation=name), None
        if name == "measured":
            state, source = state_of(lab.loaded), InMemory(lab.copy())
            # less text for the 60 trials of the curves: with all of it a reader waits for seconds
            blocks = [replace(each, ids=each.ids[:2, :128]) for each in lab.blocks]
            steps = sensitivity_curves(source, full, scores, scales, config, blocks, state)
            curves = drain(steps, on_progress)
        mask = next_mask(scores, full, ratio, config, scales, curves)
        kept = [
            sum(map(mask.pruned.parameters, geometry.layer_sites(layer)))
            / sum(map(geometry.parameters, geometry.layer_sites(layer)))
            for layer in range(len(geometry.layers))
        ]
        results[name] = {"perplexity": lab.perplexities(lab.pruned(mask, config)), "retained": kept}
    return {"dense": lab.dense, "allocations": results}


@EXPERIMENTS.add
def normalisers(lab: Lab, on_progress: ProgressCallback, ratio: float, names: Sequence[str]) -> Answer:
    """One cut by the stored statistics, with scores made comparable in several ways.

    Returns:
        Perplexity by domain and `mean`: `dense`, and by normaliser.
    """
    on_progress(Progress("dense", 0, len(names) + 1))
    perplexities: Answer = {"dense": lab.dense}
    for number, name in enumerate(names):
        on_progress(Progress(name, number + 1, len(names) + 1))
        perplexities[name] = lab.perplexities(lab.pruned_once(ratio=ratio, normalise=name))
    return perplexities


@EXPERIMENTS.add
@torch.no_grad()
def by_hand(
    lab: Lab, on_progress: ProgressCallback, cuts: Sequence[Sequence[Any]], prompt: str, tokens: int = 40
) -> Answer:
    """The dense model and one that a person cut continue the same prompt.

    Args:
        lab: with the dense model.
        on_progress: called with the progress.
        cuts: site, `lowest` or `highest` scores, and the share of the dense site to remove.
        prompt: to continue.
        tokens: to write, each the most likely one.

    Returns:
        `texts` of both, `perplexity` of both by domain and `mean`, pruning `ratio`.

    Raises:
        ConfigError: the prompt is empty, or longer than the model's context.
    """
    ids = lab.loaded.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    length, room = ids.shape[1], lab.loaded.model.config.max_position_embeddings - tokens
    if not 0 < length <= room:
        raise ConfigError(f"the prompt has {length} tokens: write 1 to {room} for the models to go on from.")
    scores = lab.scores()
    kept = {site: array.copy() for site, array in Mask.full(lab.geometry).kept.items()}
    for name, which, share in cuts:
        site = Site.parse(name)
        # a unit is one MLP channel, or a key-value head with its query heads
        entries = lab.geometry.shape(site).groups
        order = np.argsort(scores[site].reshape(entries, -1).sum(axis=1), kind="stable")
        removed = (order if which == "lowest" else order[::-1])[: min(round(share * entries), entries - 1)]
        kept[site].reshape(entries, -1)[removed] = False
    for site, array in kept.items():
        if not array.any():
            raise ConfigError(f"these cuts leave nothing of {site}: undo one of them.")
    mask = Mask(lab.geometry, kept)
    model = lab.pruned(mask, lab.config) if cuts else lab.loaded.model
    texts = []
    for number, each in enumerate((lab.loaded.model, model)):
        on_progress(Progress("write", number, 2))
        written = continue_prompt(replace(lab.loaded, model=each), ids, tokens)
        texts.append(lab.loaded.tokenizer.decode(written, skip_special_tokens=True))
    perplexities = [lab.dense, lab.perplexities(model) if cuts else lab.dense]
    return {"texts": texts, "perplexity": perplexities, "ratio": mask.ratio}
