"""Sources of layers, for calibration, evaluation, cutting and saving.

Whoever needs layers asks for one at a time, in order, and hands it back with its changes, so that a source
may read layers from disk; the model in memory is the simplest one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pruning.models.family import CausalLM
from pruning.models.geometry import Geometry
from pruning.models.layer_view import LayerView, family_of, geometry, layer_views, parameter_count


class LayerSource(Protocol):
    """The layers of one model, its embedding and its output head.

    Attributes:
        config: the model's, of transformers.
        device, dtype: of the weights.
    """

    config: Any
    device: torch.device
    dtype: torch.dtype

    def __len__(self) -> int:
        """Number of decoder layers."""

    def layer(self, index: int) -> AbstractContextManager[LayerView]:
        """A layer to use and change; its changes are kept when the context ends."""

    def embed(self, ids: Tensor) -> tuple[Tensor, list[dict]]:
        """Hidden states (B, T, d_model) of token ids (B, T), and the other arguments of every layer."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) in float32 of hidden states (..., d_model) behind the last layer."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every stored tensor of the model by name, a layer at a time; tied ones once."""

    def write_config(self, folder: Path) -> None:
        """Write `config.json` and, where the model has them, its generation settings."""

    def geometry(self) -> Geometry:
        """The geometry of the model as it is now."""

    def parameter_count(self) -> int:
        """Number of parameters of the model as it is now, tied ones once."""


class InMemory:
    """The `LayerSource` of a model in memory, which is changed in place."""

    def __init__(self, model: CausalLM) -> None:
        self.model, self.config = model, model.config
        self.device, self.dtype = model.device, model.dtype
        self._views = layer_views(model)

    def __len__(self) -> int:
        return len(self._views)

    @contextmanager
    def layer(self, index: int) -> Iterator[LayerView]:
        yield self._views[index]

    @torch.no_grad()
    def embed(self, ids: Tensor) -> tuple[Tensor, list[dict]]:
        # in the model's own forward the layers record their arguments, so that masks, windows and position
        # embeddings are those of transformers
        inputs: list[Tensor] = []
        arguments: list[dict] = []

        def record(hidden_states: Tensor, **kwargs: object) -> Tensor:
            inputs.append(hidden_states)
            arguments.append(kwargs)
            return hidden_states

        for view in self._views:
            view.layer.forward = record
        try:
            self.model.base_model(input_ids=ids.to(self.device), use_cache=False)
        finally:
            for view in self._views:
                del view.layer.forward
        return inputs[0], arguments

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        family = family_of(self.model)
        norm = self.model.get_submodule(family.final_norm)
        logits = self.model.get_output_embeddings()(norm(hidden)).float()
        return family.head.apply(logits, self.config)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        prefix, tied = family_of(self.model).layers + ".", self.model.all_tied_weights_keys
        for name, tensor in self.model.state_dict().items():
            if name not in tied and not name.startswith(prefix):
                yield name, tensor
        for index in range(len(self)):
            with self.layer(index) as view:
                for name, tensor in view.layer.state_dict().items():
                    yield f"{prefix}{index}.{name}", tensor

    def write_config(self, folder: Path) -> None:
        self.config.architectures = [type(self.model).__name__]
        self.config.dtype = self.dtype
        self.config.save_pretrained(folder)
        write_generation_config(self.model, folder)

    def geometry(self) -> Geometry:
        return geometry(self.model)

    def parameter_count(self) -> int:
        return parameter_count(self.model)


def write_generation_config(model: CausalLM, folder: Path) -> None:
    """Write a model's generation settings as they came, even those that transformers would not save."""
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.to_json_file(folder / "generation_config.json")
