"""Sources of layers, for calibration, evaluation, cutting and saving.

Whoever needs layers asks for one at a time, in order, and hands it back with its changes, so that a source
may read layers from disk; the model in memory is the simplest one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from pruning.models.architectures import (
    CausalLM,
    LayerView,
    architecture,
    geometry,
    layer_views,
    parameter_count,
)
from pruning.models.geometry import Geometry, Site


class LayerSource(Protocol):
    """The layers of one model, and what stands before and behind them.

    Attributes:
        config: the model's, as transformers keeps it.
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
        """The input of the first layer, and the other arguments of every layer.

        Args:
            ids: (B, T) token ids.

        Returns:
            Hidden states (B, T, d_model), and keyword arguments by layer.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) in float32 of hidden states (..., d_model) behind the last layer."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every stored tensor of the model by name, a layer at a time; tied ones once."""

    def geometry(self) -> Geometry:
        """The geometry of the model as it is now."""

    def parameter_count(self) -> int:
        """Parameters of the model as it is now, tied ones once."""

    def weight_name(self, site: Site) -> str:
        """The name among `tensors` of the weight of a site's output projection."""


class InMemory:
    """The layers of a model in memory, as a `LayerSource`.

    Args:
        model: whose layers are handed out, and changed in place.
    """

    def __init__(self, model: CausalLM) -> None:
        self.model, self.config = model, model.config
        self._views = layer_views(model)
        weight = next(model.parameters())
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype

    def __len__(self) -> int:
        return len(self._views)

    @contextmanager
    def layer(self, index: int) -> Iterator[LayerView]:
        """A layer to use and change."""
        yield self._views[index]

    @torch.no_grad()
    def embed(self, ids: Tensor) -> tuple[Tensor, list[dict]]:
        """The input of the first layer, and the other arguments of every layer.

        The model's own forward runs with layers that record their arguments, so masks, sliding windows and
        position embeddings are those of transformers.
        """
        arguments: list[dict] = []
        first: list[Tensor] = []

        def record(hidden_states: Tensor, **kwargs: object) -> Tensor:
            first.append(hidden_states)
            arguments.append(kwargs)
            return hidden_states

        for view in self._views:
            view.layer.forward = record
        try:
            self.model.base_model(input_ids=ids.to(self.device), use_cache=False)
        finally:
            for view in self._views:
                del view.layer.forward
        return first[0], arguments

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) in float32, through the final norm and the output head."""
        norm = self.model.get_submodule(architecture(self.model).norm)
        return self.model.get_output_embeddings()(norm(hidden)).float()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every stored tensor of the model by name, a layer at a time; tied ones once."""
        prefix, tied = architecture(self.model).layers + ".", self.model.all_tied_weights_keys
        for name, tensor in self.model.state_dict().items():
            if name not in tied and not name.startswith(prefix):
                yield name, tensor
        for index in range(len(self)):
            with self.layer(index) as view:
                for name, tensor in view.layer.state_dict().items():
                    yield f"{prefix}{index}.{name}", tensor

    def geometry(self) -> Geometry:
        """The geometry of the model, read off its weights."""
        return geometry(self.model)

    def parameter_count(self) -> int:
        """Parameters of the model, tied ones once."""
        return parameter_count(self.model)

    def weight_name(self, site: Site) -> str:
        """The parameter name of the weight of a site's output projection."""
        return architecture(self.model).projection_weight(site.layer, site.name)
