"""The experiments of the lessons: each takes what the controls say, and gives numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pruning.config import RunConfig
from pruning.engine.budget import dense_scales, first_mask, next_mask
from pruning.engine.calibration import calibrate_cached, observing
from pruning.engine.curves import damage_curves
from pruning.engine.events import Iteration
from pruning.engine.loop import prune_loaded, state_of
from pruning.errors import ConfigError
from pruning.lessons.lab import EXPERIMENTS, Answer, Lab, Told, without
from pruning.measure.writing import continue_prompt
from pruning.method.scores import score_sites
from pruning.models.delta import Delta
from pruning.models.folder import LoadedModel
from pruning.models.geometry import Site
from pruning.models.layer_view import layer_views
from pruning.models.mask import Mask
from pruning.progress import Progress, drain
from pruning.text.sources import EMBEDDED_DOMAINS

CUTS = 5  # of the cascade, against one


def answer(labs: Mapping[str, Lab], request: Mapping[str, Any], told: Told) -> Answer:
    """The numbers that a request asks for: `name` of an experiment, its `arguments`, among them the model."""
    arguments = dict(request["arguments"])
    return EXPERIMENTS[request["name"]](labs[arguments.pop("model", "demo")], told, **arguments)


@EXPERIMENTS.add
@torch.no_grad()
def follow(lab: Lab, told: Told, text: str, layer: int) -> Answer:
    """What every token of a text brings through the channels of a layer's MLP.

    Returns:
        `tokens` (T,) as text; `activations` (T, C) that enter `down_proj`; `norms` (C,) of the columns that
        read them.
    """
    ids = lab.loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][:, :24]
    view = layer_views(lab.loaded.model)[layer]
    with observing(view) as seen:
        lab.loaded.model(ids)
    norms = view.projection("mlp").weight.norm(dim=0)
    return {
        "tokens": [lab.loaded.tokenizer.decode([int(token)]) for token in ids[0]],
        "activations": seen["mlp"].inputs[0].tolist(),
        "norms": norms.tolist(),
    }


@EXPERIMENTS.add
def lose(lab: Lab, told: Told, site: str, channels: Sequence[int]) -> Answer:
    """What the loss of each of some channels alone costs.

    Returns:
        By channel, with and without a bias in its place, the divergence of the predictions in nats a token.
    """
    place = Site.parse(site)
    found: Answer = {}
    view = layer_views(lab.loaded.model)[place.layer]
    mean = lab.fused()[place].mean
    trials = [(channel, repair) for channel in channels for repair in ("bias", "none")]
    for number, (channel, repair) in enumerate(trials):
        told(Progress(f"channel {channel}", number, len(trials)))
        model = lab.copy()
        linear = layer_views(model)[place.layer].projection(place.name)
        column = view.projection(place.name).weight[:, channel].detach()
        linear.weight.data[:, channel] = 0
        if repair == "bias":
            linear.bias = torch.nn.Parameter(column * float(mean[channel]), requires_grad=False)
        found.setdefault(str(channel), {})[repair] = lab.divergence(model)
    return found


@EXPERIMENTS.add
def repair(lab: Lab, told: Told, layer: int, share: float) -> Answer:
    """What is left of the damage when the lowest-scored MLP channels of a layer go, by compensation.

    Returns:
        By compensation the divergence of the predictions in nats a token; `channels` that went, and `steady`,
        the median over them of the mean's size in standard deviations.
    """
    site, fused, config = Site(layer, "mlp"), lab.fused(), lab.config
    scores = score_sites(config.score, fused, lab.first.norms, config.seed)[site]
    lowest = np.argsort(scores)[: round(share * len(scores))]
    mask, found = without(lab.geometry, site, lowest), {}
    for number, name in enumerate(("none", "bias", "least_squares")):
        told(Progress(name, number, 3))
        model = lab.pruned(mask, fused, config.replace(compensation=name))
        found[name] = lab.divergence(model)
    return found | {"channels": len(lowest), "steady": float(np.median(fused[site].steadiness[lowest]))}


@EXPERIMENTS.add
def domains(lab: Lab, told: Told, ratio: float) -> Answer:
    """Prune by each domain's statistics alone and by all, and pay in every domain.

    Returns:
        `dense` perplexity by domain; `pruned` by the domain that decided, or `all`, and the domain measured.
    """
    mixtures = {name: {name: 1.0} for name in EMBEDDED_DOMAINS} | {"all": dict(lab.config.mixture)}
    found = {}
    for number, (name, mixture) in enumerate(mixtures.items()):
        told(Progress(name, number, len(mixtures)))
        config, fused = lab.config.replace(ratio=ratio, mixture=mixture), lab.fused(mixture)
        scores = score_sites(config.score, fused, lab.first.norms, config.seed)
        model = lab.pruned(first_mask(scores, lab.geometry, config), fused, config)
        found[name] = lab.perplexities(model)
    return {"dense": lab.dense, "pruned": found}


@EXPERIMENTS.add
def cascade(lab: Lab, told: Told, ratio: float, normalise: str = "share") -> Answer:
    """One cut against several, by the engine's own loop.

    Returns:
        Perplexity by domain and `mean` of the `dense` model, of `one` cut and of `several`.
    """
    found: Answer = {"dense": lab.dense}
    for name, cuts in (("one", 1), ("several", CUTS)):
        config = lab.config.replace(ratio=ratio, iterations=cuts, eval_blocks=0, normalise=normalise)
        loaded = LoadedModel(
            lab.copy(), lab.loaded.tokenizer, "demo", lab.loaded.path, lab.loaded.fingerprint
        )
        done = 0 if name == "one" else 1
        for event in prune_loaded(loaded, config):
            if isinstance(event, Iteration):
                done += event.number > 0
                told(Progress(f"cut {event.number} of {cuts}", done, 1 + CUTS))
        found[name] = lab.perplexities(loaded.model)
    return found


@EXPERIMENTS.add
def shift(lab: Lab, told: Told, layers: int, share: float) -> Answer:
    """What a cut of the first layers alone does to the statistics of those behind.

    Returns:
        `layers` (L,): by layer the median over its MLP channels that are left of the variance after the cut
        over that before.
    """
    config, dense = lab.config, Mask.full(lab.geometry)
    before = _statistics(lab, lab.loaded.model, dense, told)
    fused = before.fuse(config.mixture, config.fusion)
    scores = score_sites(config.score, fused, lab.first.norms, config.seed)
    retained = {site: array.copy() for site, array in dense.retained.items()}
    for site in (Site(layer, "mlp") for layer in range(layers)):
        retained[site][np.argsort(scores[site])[: round(share * len(scores[site]))]] = False
    mask = Mask(lab.geometry, retained)
    after = _statistics(lab, lab.pruned(mask, fused, config), mask, told)
    found = after.fuse(config.mixture, config.fusion)
    sites = [Site(layer, "mlp") for layer in range(len(lab.geometry.layers))]
    ratios = [found[site].variance / fused[site].variance for site in sites]
    return {"layers": [float(np.nanmedian(each)) for each in ratios]}


def _statistics(lab: Lab, model: Any, mask: Mask, told: Told) -> Any:
    state = Delta.of(model, mask, set()).digest(lab.loaded.fingerprint)
    return drain(calibrate_cached(model, lab.blocks, mask, state, lab.config.token_weights), told)


@EXPERIMENTS.add
def budgets(lab: Lab, told: Told, ratio: float, allocations: Sequence[str]) -> Answer:
    """The same ratio spread over the layers by several allocations.

    Returns:
        By allocation its `perplexity` by domain and `mean`, and `retained` (L,), the part of its linear
        parameters that each layer retains; `dense` perplexity.
    """
    config, fused, geometry = lab.config.replace(ratio=ratio), lab.fused(), lab.geometry
    scores = score_sites(config.score, fused, lab.first.norms, config.seed)
    scales, full, found = dense_scales(scores, config.square_attention), Mask.full(lab.geometry), {}
    for name in allocations:
        each, curves = config.replace(allocation=name), None
        if name == "measured":
            state = state_of(lab.loaded)
            curves = drain(damage_curves(lab.copy(), full, scores, scales, each, _short(lab), state), told)
        mask = next_mask(scores, full, ratio, each, scales, curves)
        retained = [
            sum(mask.pruned.parameters(Site(layer, kind)) for kind in ("attn", "mlp"))
            / sum(geometry.parameters(Site(layer, kind)) for kind in ("attn", "mlp"))
            for layer in range(len(geometry.layers))
        ]
        found[name] = {
            "perplexity": lab.perplexities(lab.pruned(mask, fused, each)),
            "retained": retained,
        }
    return {"dense": lab.dense, "allocations": found}


def _short(lab: Lab) -> list[Any]:
    """Less text for the 60 trials of the damage curves: with it a reader waits for seconds."""
    return [replace(each, ids=each.ids[:2, :128]) for each in lab.blocks]


@EXPERIMENTS.add
def normalisers(lab: Lab, told: Told, ratio: float, names: Sequence[str]) -> Answer:
    """One cut by the stored statistics, with scores made comparable in several ways.

    Returns:
        Perplexity by domain and `mean`: `dense`, and by normaliser.
    """
    fused, found = lab.fused(), {}
    told(Progress("dense", 0, len(names) + 1))
    found["dense"] = lab.dense
    for number, name in enumerate(names):
        told(Progress(name, number + 1, len(names) + 1))
        config: RunConfig = lab.config.replace(ratio=ratio, normalise=name)
        scores = score_sites(config.score, fused, lab.first.norms, config.seed)
        model = lab.pruned(first_mask(scores, lab.geometry, config), fused, config)
        found[name] = lab.perplexities(model)
    return found


@EXPERIMENTS.add
@torch.no_grad()
def by_hand(lab: Lab, told: Told, cuts: Sequence[Sequence[Any]], prompt: str, tokens: int = 40) -> Answer:
    """The dense model and one that a person cut go on with the same prompt.

    Args:
        lab, told: as for all.
        cuts: site, `lowest` or `highest`, and the part of the dense site that goes by score.
        prompt: to go on with.
        tokens: to write, each the most likely one.

    Returns:
        `texts` of both, `perplexity` of both by domain and `mean`, `ratio` that was removed.

    Raises:
        ConfigError: the prompt is empty, or longer than the model's context.
    """
    ids = lab.loaded.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    length, room = ids.shape[1], lab.loaded.model.config.max_position_embeddings - tokens
    if not 0 < length <= room:
        raise ConfigError(f"the prompt has {length} tokens: write 1 to {room} for the models to go on from.")
    scores = score_sites(lab.config.score, lab.fused(), lab.first.norms, lab.config.seed)
    retained = {site: array.copy() for site, array in Mask.full(lab.geometry).retained.items()}
    for name, which, share in cuts:
        site = Site.parse(name)
        # what goes together: one MLP channel, or a key-value head with its query heads
        entries = len(retained[site]) if site.name == "mlp" else lab.geometry.layers[site.layer].kv_heads
        order = np.argsort(scores[site].reshape(entries, -1).sum(axis=1), kind="stable")
        gone = (order if which == "lowest" else order[::-1])[: min(round(share * entries), entries - 1)]
        retained[site].reshape(entries, -1)[gone] = False
    for site, array in retained.items():
        if not array.any():
            raise ConfigError(f"these cuts leave nothing of {site}: undo one of them.")
    mask = Mask(lab.geometry, retained)
    model = lab.pruned(mask, lab.fused(), lab.config) if cuts else lab.loaded.model
    texts = []
    for number, each in enumerate((lab.loaded.model, model)):
        told(Progress("write", number, 2))
        written = continue_prompt(replace(lab.loaded, model=each), ids, tokens)
        texts.append(lab.loaded.tokenizer.decode(written, skip_special_tokens=True))
    perplexities = [lab.dense, lab.perplexities(model) if cuts else lab.dense]
    return {"texts": texts, "perplexity": perplexities, "ratio": mask.ratio}
