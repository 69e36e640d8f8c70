"""The pass of token batches through a model's layers, one layer at a time.

`layer_pass` is the one loop over layers: it hands each layer to visitors, which push their own batches
through it (`TokenStream`), observe the activations at its sites, and may change it. Only one layer is in use
at a time; between two layers the hidden states of all batches lie in an `ActivationCache`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from copy import copy
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pruning.models.layer_view import LayerView
from pruning.models.source import LayerSource
from pruning.progress import Progress

BATCH_TOKENS = {"cpu": 4096}  # tokens of one step through a layer, by type of device
DEFAULT_BATCH_TOKENS = 16384
FREE_SHARE = 0.25  # of a device's memory stays free, for a layer's weights, activations and statistics


class Blocks(Protocol):
    """Blocks of token ids (n_blocks, seq_len) of one domain."""

    @property
    def domain(self) -> str: ...
    @property
    def ids(self) -> np.ndarray: ...


class Batch(NamedTuple):
    """Token ids (B, T) that pass a layer together, from the `Blocks` of index `part`."""

    part: int
    domain: str
    ids: Tensor


class Step(NamedTuple):
    """Work of a visitor on a layer: tokens that passed it, and in some steps a result that is complete."""

    tokens: int = 0
    result: object = None


class LayerVisitor(Protocol):
    """A computation that needs every layer once, in order, and pushes some tokens through each."""

    tokens: int

    def visit(self, index: int, view: LayerView) -> Iterator[Step]:
        """Use a layer and change it, a step at a time."""


def layer_pass(
    source: LayerSource, visitors: Sequence[LayerVisitor], stage: str
) -> Generator[Progress, None, None]:
    """Hand every layer once to the visitors, each with the changes of those before.

    Yields:
        Progress of the stage after every step, in token-layers; none where no tokens pass.
    """
    depth, done = len(source), 0
    total = depth * sum(visitor.tokens for visitor in visitors)
    for index in range(depth):
        with source.layer(index) as view:
            for visitor in visitors:
                for step in visitor.visit(index, view):
                    done += step.tokens
                    if total:
                        yield Progress(stage, done, total, f"layer {index + 1} of {depth}", step.result)


class ActivationCache:
    """Hidden states of batches between two layers; on the CPU where the device is short of memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._states: dict[int, Tensor] = {}

    def copy(self) -> ActivationCache:
        """Another cache with the same states."""
        other = ActivationCache(self.device)
        other._states = dict(self._states)
        return other

    def __setitem__(self, number: int, hidden: Tensor) -> None:
        self._states[number] = hidden.cpu() if free_share(self.device) < FREE_SHARE else hidden

    def __getitem__(self, number: int) -> Tensor:
        return self._states[number].to(self.device)


def free_share(device: torch.device) -> float:
    """The share of a device's memory that can still be allocated; 1 where it is the CPU's."""
    if device.type != "cuda":
        return 1.0
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (free + reserved) / total


class TokenStream:
    """Batches of tokens on their way through the layers.

    Attributes:
        batches: in the order of the blocks; each holds blocks of one domain.
        states: hidden states (B, T, d_model) of each batch in front of the next layer.
        tokens: of all batches.
    """

    def __init__(self, source: LayerSource, blocks: Sequence[Blocks]) -> None:
        size = BATCH_TOKENS.get(source.device.type, DEFAULT_BATCH_TOKENS)
        self.batches = [
            Batch(part, each.domain, ids)
            for part, each in enumerate(blocks)
            if len(each.ids)
            for ids in torch.from_numpy(each.ids).split(max(1, size // each.ids.shape[1]))
        ]
        self.states = ActivationCache(source.device)
        self.tokens = sum(batch.ids.numel() for batch in self.batches)
        self._arguments: dict[torch.Size, list[dict]] = {}
        for number, batch in enumerate(self.batches):
            self.states[number], arguments = source.embed(batch.ids)
            self._arguments.setdefault(batch.ids.shape, arguments)

    def fork(self) -> TokenStream:
        """The same batches, to go another way from here on."""
        other = copy(self)
        other.states = self.states.copy()
        return other

    def push(self, index: int, view: LayerView, advance: bool = True) -> Iterator[Batch]:
        """Push every batch through a layer, and yield it; `advance` moves the states behind the layer."""
        for number, batch in enumerate(self.batches):
            hidden = self.forward(number, index, view, self.states[number])
            if advance:
                self.states[number] = hidden
            yield batch

    @torch.no_grad()
    def forward(self, number: int, index: int, view: LayerView, hidden: Tensor) -> Tensor:
        """Hidden states (B, T, d_model) of a batch behind a layer, from those in front of it."""
        states: Tensor = view.layer(hidden, **self._arguments[self.batches[number].ids.shape][index])
        return states
