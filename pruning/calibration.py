"""Statistics of a model's channels over blocks of text, one decoder layer at a time.

Hidden states of all blocks go in, statistics come out, hidden states go on. Only one layer is at work at any
moment, so the same code serves a model in memory, on another device, or read from disk layer by layer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pruning.config import CalibrationError
from pruning.domains import TokenBlocks
from pruning.masks import Mask
from pruning.moments import Moments, Statistics, read_moments, write_moments
from pruning.sites import KINDS, CausalLM, LayerView, Site, layer_views

BATCH_TOKENS = {"cpu": 4096}  # tokens of one step through a layer, by type of device
DEFAULT_BATCH_TOKENS = 16384


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is; `done` and `total` count token-layers in calibration and tokens in evaluation."""

    stage: str
    done: int
    total: int
    detail: str = ""


# --- layer by layer --------------------------------------------------------------------------------------


@torch.no_grad()
def layer_inputs(model: CausalLM, ids: Tensor) -> tuple[Tensor, list[dict]]:
    """What enters the first decoder layer, and the other arguments of every layer.

    The model's own forward runs with its layers replaced by ones that write down what they are called with,
    so masks, sliding windows and position embeddings are whatever the model makes them.

    Args:
        model: a causal LM.
        ids: (B, T) token ids.

    Returns:
        Hidden states (B, T, d_model) and one dict of keyword arguments a layer.
    """
    layers = [view.layer for view in layer_views(model)]
    calls: list[dict] = []
    first: list[Tensor] = []

    def record(hidden_states: Tensor, **kwargs: object) -> Tensor:
        first.append(hidden_states)
        calls.append(kwargs)
        return hidden_states

    for layer in layers:
        layer.forward = record
    try:
        model.base_model(input_ids=ids, use_cache=False)
    finally:
        for layer in layers:
            del layer.forward
    return first[0], calls


@torch.no_grad()
def _step(view: LayerView, hidden: Tensor, kwargs: dict) -> tuple[Tensor, list[Moments]]:
    """One batch through one layer: the hidden states after it and the moments of its two sites."""
    taken: list[Moments] = []
    hooks = [
        view.projection(kind).register_forward_pre_hook(lambda _, args: taken.append(Moments.of(args[0])))
        for kind in KINDS
    ]
    try:
        return view.layer(hidden, **kwargs), taken
    finally:
        for hook in hooks:
            hook.remove()


def calibrate(
    model: CausalLM, blocks: Sequence[TokenBlocks], mask: Mask
) -> Generator[Progress, None, Statistics]:
    """Push blocks through the layers and take the moments of every site.

    Args:
        model: dense, or cut to `mask`.
        blocks: of each domain.
        mask: of the model, to return the moments in the dense model's indices.

    Yields:
        Progress after every batch, in token-layers.

    Raises:
        CalibrationError: NaN or infinite activations; the message names layer, site and domain.
    """
    device = next(model.parameters()).device
    tokens = BATCH_TOKENS.get(device.type, DEFAULT_BATCH_TOKENS)
    views = layer_views(model)
    batches: list[tuple[str, Tensor]] = []  # (domain, hidden states), replaced layer after layer
    arguments: dict[torch.Size, list[dict]] = {}
    for domain in blocks:
        for ids in torch.from_numpy(domain.ids).split(max(1, tokens // domain.ids.shape[1])):
            hidden, kwargs = layer_inputs(model, ids.to(device))
            arguments.setdefault(ids.shape, kwargs)
            batches.append((domain.domain, hidden))
    total = sum(domain.ids.size for domain in blocks) * len(views)
    done = 0
    moments: dict[str, dict[Site, Moments]] = {domain.domain: {} for domain in blocks}
    for layer, view in enumerate(views):
        for index, (domain_name, hidden) in enumerate(batches):
            after, taken = _step(view, hidden, arguments[hidden.shape[:2]][layer])
            batches[index] = (domain_name, after)
            seen = moments[domain_name]
            for kind, part in zip(KINDS, taken, strict=True):
                site = Site(layer, kind)
                seen[site] = seen[site].merge(part) if site in seen else part
            done += hidden.shape[0] * hidden.shape[1]
            yield Progress("calibrate", done, total, f"layer {layer + 1} of {len(views)}")
        for domain_name, seen in moments.items():
            for site in (Site(layer, kind) for kind in KINDS):
                seen[site] = _in_dense_indices(seen[site], mask, site, domain_name)
    return Statistics(moments)


def _in_dense_indices(moments: Moments, mask: Mask, site: Site, domain: str) -> Moments:
    mean, m2 = moments.mean.cpu().numpy(), moments.m2.cpu().numpy()
    if not (np.isfinite(mean).all() and np.isfinite(m2).all()):
        raise CalibrationError(
            f"layer {site.layer}, {site.kind}: the activations on domain {domain!r} are not finite: "
            "the model is broken there, or needs another --dtype."
        )
    retained = mask.channels(site)
    return Moments(moments.count, _scatter(mean, retained), _scatter(m2, retained))


def _scatter(values: np.ndarray, retained: np.ndarray) -> np.ndarray:
    full = np.full(len(retained), np.nan)
    full[retained] = values
    return full


# --- the cache -------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where moments are kept between runs: `PRUNESCOPE_CACHE`, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunescope"
    return Path(os.environ.get("PRUNESCOPE_CACHE") or default)


def cache_key(state: str, blocks: TokenBlocks, dtype: str, device: str) -> str:
    """A name for the moments of these tokens in a model's state (its weights and what was cut from it)."""
    return hashlib.blake2b(f"1 {state} {blocks.digest} {dtype} {device}".encode(), digest_size=16).hexdigest()


def calibrate_cached(
    model: CausalLM, blocks: Sequence[TokenBlocks], mask: Mask, state: str
) -> Generator[Progress, None, Statistics]:
    """`calibrate`, with the moments of each domain kept on disk by what they depend on.

    Args:
        model, blocks, mask: see `calibrate`.
        state: names the model's weights and what has been cut from them.
    """
    weight = next(model.parameters())
    keys = {b.domain: cache_key(state, b, str(weight.dtype), weight.device.type) for b in blocks}
    files = {domain: cache_folder() / "moments" / f"{key}.safetensors" for domain, key in keys.items()}
    found: dict[str, Mapping[Site, Moments]] = {}
    for domain, file in files.items():
        if file.exists() and (stored := read_moments(file)) is not None:
            found[domain] = stored
    missing = [b for b in blocks if b.domain not in found]
    if missing:
        fresh = yield from calibrate(model, missing, mask)
        for domain, moments in fresh.moments.items():
            found[domain] = moments
            _write_quietly(files[domain], moments)
    return Statistics({b.domain: found[b.domain] for b in blocks})


def _write_quietly(file: Path, moments: Mapping[Site, Moments]) -> None:
    """A cache that cannot be written costs time, not the run."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_moments(file, moments)
    except OSError:
        pass


# --- weights ---------------------------------------------------------------------------------------------


@torch.no_grad()
def column_norms(model: CausalLM, mask: Mask) -> dict[Site, tuple[np.ndarray, np.ndarray]]:
    """||W[:, j]||_2 and the mean of |W[:, j]| of every channel, in dense indices, NaN where removed."""
    norms = {}
    for layer, view in enumerate(layer_views(model)):
        for kind in KINDS:
            site, weight = Site(layer, kind), view.projection(kind).weight.float()
            retained = mask.channels(site)
            norm, mean_abs = weight.norm(dim=0), weight.abs().mean(dim=0)
            norms[site] = (
                _scatter(norm.double().cpu().numpy(), retained),
                _scatter(mean_abs.double().cpu().numpy(), retained),
            )
    return norms
