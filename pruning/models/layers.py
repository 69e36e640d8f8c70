"""Decoder layers handed out one at a time: ask for a layer, use it, hand it back.

Calibration, evaluation, cutting and saving work on `Layers` and never hold more than one of them, so that a
source that reads layers from disk can take the place of a model in memory. Hidden states of the blocks
between two layers lie in a `Stash`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning.models.family import CausalLM
from pruning.models.layer_view import LayerView, family_of, layer_views

BATCH_TOKENS = {"cpu": 4096}  # tokens of one step through a layer, by type of device
DEFAULT_BATCH_TOKENS = 16384
Place = Literal["device", "cpu", "disk"]
Around = Callable[[LayerView, int, int], AbstractContextManager[object]]


class Layers:
    """The layers of a model in memory.

    Attributes:
        model: whose layers they are.
        device, dtype: of its weights.
    """

    def __init__(self, model: CausalLM) -> None:
        self.model = model
        self._views = layer_views(model)
        weight = next(model.parameters())
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype

    def __len__(self) -> int:
        return len(self._views)

    @contextmanager
    def layer(self, index: int) -> Iterator[LayerView]:
        """A layer to use and change; what was changed stays when it is handed back."""
        yield self._views[index]

    @property
    def batch_tokens(self) -> int:
        """Tokens of one step through a layer."""
        return BATCH_TOKENS.get(self.device.type, DEFAULT_BATCH_TOKENS)

    @torch.no_grad()
    def inputs(self, ids: Tensor) -> tuple[Tensor, list[dict]]:
        """What enters the first layer, and the other arguments of every layer.

        The model's own forward runs with its layers replaced by ones that write down what they are called
        with, so masks, sliding windows and position embeddings are whatever the model makes them.

        Args:
            ids: (B, T) token ids.

        Returns:
            Hidden states (B, T, d_model) and one dict of keyword arguments a layer.
        """
        calls: list[dict] = []
        first: list[Tensor] = []

        def record(hidden_states: Tensor, **kwargs: object) -> Tensor:
            first.append(hidden_states)
            calls.append(kwargs)
            return hidden_states

        for view in self._views:
            view.layer.forward = record
        try:
            self.model.base_model(input_ids=ids.to(self.device), use_cache=False)
        finally:
            for view in self._views:
                del view.layer.forward
        return first[0], calls

    @torch.no_grad()
    def last(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., d_model) behind the last layer through the final norm."""
        return self.model.get_submodule(family_of(self.model).final_norm)(hidden)

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """Logits (..., vocabulary) in float32 of normalised states."""
        logits = self.model.get_output_embeddings()(states).float()
        return family_of(self.model).head.apply(logits, self.model.config)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every stored tensor of the model by name, a layer at a time; tied ones once."""
        prefix, tied = family_of(self.model).layers + ".", self.model.all_tied_weights_keys
        for name, tensor in self.model.state_dict().items():
            if name not in tied and not name.startswith(prefix):
                yield name, tensor
        for index in range(len(self)):
            with self.layer(index) as view:
                for name, tensor in view.layer.state_dict().items():
                    yield f"{prefix}{index}.{name}", tensor


class Stash:
    """Hidden states of batches between two layers: on the model's device, in memory, or in files.

    Args:
        device: of the model; what is taken out lies there.
        place: where the states wait.
    """

    def __init__(self, device: torch.device, place: Place = "device") -> None:
        self.device, self.place = device, place
        self._states: list[Any] = []
        self._folder = tempfile.TemporaryDirectory(prefix="prunescope-") if place == "disk" else None

    def __len__(self) -> int:
        return len(self._states)

    def append(self, hidden: Tensor) -> None:
        """Put the states of another batch in."""
        self._states.append(None)
        self[len(self._states) - 1] = hidden

    def __setitem__(self, index: int, hidden: Tensor) -> None:
        if self._folder is not None:
            file = Path(self._folder.name) / f"{index}.safetensors"
            save_file({"hidden": hidden.contiguous()}, file)
            self._states[index] = file
        else:
            self._states[index] = hidden.to("cpu") if self.place == "cpu" else hidden

    def __getitem__(self, index: int) -> Tensor:
        state = self._states[index]
        state = load_file(state)["hidden"] if isinstance(state, Path) else state
        return state.to(self.device)

    def close(self) -> None:
        """Let go of the states."""
        self._states.clear()
        if self._folder is not None:
            self._folder.cleanup()


def nothing(view: LayerView, layer: int, batch: int) -> AbstractContextManager[object]:
    """Watches nothing."""
    return nullcontext()


class Stream:
    """Batches of tokens on their way through the layers, one layer at a time.

    Args:
        layers: of the model.
        batches: ids (B, T) each.
        place: where hidden states wait.

    Attributes:
        states: hidden states (B, T, d_model) of each batch in front of the next layer.
    """

    def __init__(self, layers: Layers, batches: Sequence[Tensor], place: Place = "device") -> None:
        self.layers, self.batches = layers, batches
        self.states = Stash(layers.device, place)
        self._arguments: dict[torch.Size, list[dict]] = {}
        for ids in batches:
            hidden, kwargs = layers.inputs(ids)
            self._arguments.setdefault(ids.shape, kwargs)
            self.states.append(hidden)

    def step(self, number: int, around: Around = nothing, advance: bool = True) -> Iterator[int]:
        """Push every batch through a layer.

        Args:
            number: of the layer.
            around: see `forward`.
            advance: whether the states move on; otherwise they are in front of the layer still.

        Yields:
            The batch after each.
        """
        with self.layers.layer(number) as view:
            for index in range(len(self.batches)):
                with torch.no_grad(), around(view, number, index):
                    hidden = self._through(view, number, index, self.states[index])
                if advance:
                    self.states[index] = hidden
                yield index

    @torch.no_grad()
    def rest(self, index: int, number: int) -> Tensor:
        """Hidden states of a batch behind the last layer, from a layer on; the stream stays where it is."""
        hidden = self.states[index]
        for layer in range(number, len(self.layers)):
            with self.layers.layer(layer) as view:
                hidden = self._through(view, layer, index, hidden)
        return hidden

    def _through(self, view: LayerView, number: int, index: int, hidden: Tensor) -> Tensor:
        found: Tensor = view.layer(hidden, **self._arguments[self.batches[index].shape][number])
        return found


def forward(
    layers: Layers, batches: Sequence[Tensor], around: Around = nothing, place: Place = "device"
) -> Generator[tuple[int, int], None, Stash]:
    """Push batches of tokens through all layers, one layer at a time.

    Args:
        layers: of the model.
        batches: ids (B, T) each.
        around: gives a context for each step of a batch through a layer, from the layer's view, its number
            and the batch's; calibration watches the sites there.
        place: where hidden states wait.

    Yields:
        Layer and batch after each step.

    Returns:
        Hidden states (B, T, d_model) of each batch behind the last layer.
    """
    stream = Stream(layers, batches, place)
    for number in range(len(layers)):
        for index in stream.step(number, around):
            yield number, index
    return stream.states
