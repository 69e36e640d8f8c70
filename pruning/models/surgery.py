"""Removing heads and channels from the layers of a live model, and changing its output projections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from pruning.models.family import CausalLM
from pruning.models.geometry import Geometry
from pruning.models.layer_view import LayerView, layer_views
from pruning.models.mask import Mask


def _take(linear: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Keep only some outputs (rows) or inputs (columns) of a linear layer, in place."""
    weight = linear.weight.data
    if rows is not None:
        weight = weight[rows]
        linear.out_features = len(rows)
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias.data[rows], requires_grad=linear.bias.requires_grad)
    if columns is not None:
        weight = weight[:, columns]
        linear.in_features = len(columns)
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=linear.weight.requires_grad)


def _spread(indices: Tensor, width: int) -> Tensor:
    """Channel indices (len(indices) * width,) of entries or groups."""
    return (indices[:, None] * width + torch.arange(width, device=indices.device)).flatten()


def add_bias(linear: nn.Linear, delta: Tensor) -> None:
    """Add to a projection's bias in float32; a projection without a bias gets one."""
    old = linear.bias.data if linear.bias is not None else torch.zeros_like(linear.weight[:, 0])
    bias = (old.float() + delta.to(old.device, torch.float32)).to(linear.weight.dtype)
    linear.bias = nn.Parameter(bias, requires_grad=linear.weight.requires_grad)


def add_weight(linear: nn.Linear, delta: Tensor) -> None:
    """Add to a projection's weight in float32."""
    weight = (linear.weight.data.float() + delta.to(linear.weight.device, torch.float32)).to(linear.weight)
    linear.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)


def _indices(before: np.ndarray, after: np.ndarray, device: torch.device) -> Tensor:
    """Positions, among the entries that `before` keeps, of those that `after` keeps."""
    return torch.from_numpy(np.flatnonzero(after[before])).to(device)


def cut_layer(view: LayerView, before: Mask, after: Mask) -> None:
    """Cut a layer from one mask to a smaller one, in place: rows and columns of the coupled weights.

    Args:
        view: of a layer that has been cut to `before`.
        before, after: masks over the dense model, `after` within `before`.
    """
    for site, spec in view.sites.items():
        old, new = before.pruned.shape(site), after.pruned.shape(site)
        if new.entries == old.entries:
            continue
        consumer = view.projection(site.name)
        device = consumer.weight.device
        channels = {
            "entries": _spread(_indices(before.kept[site], after.kept[site], device), old.width),
            "groups": _spread(_indices(before.groups(site), after.groups(site), device), old.width),
        }
        for producer in spec.producers:
            rows, offset = [], 0
            for part in producer.parts:
                rows.append(channels[part.per] + offset)
                offset += part.rows(old)
            if sum(map(len, rows)) < offset:
                _take(view.module(producer.path), rows=torch.cat(rows))
        _take(consumer, columns=channels["entries"])
        view.resize(spec, new)


def empty_model(config: Any, geometry: Geometry, biased: Mapping[str, bool]) -> CausalLM:
    """A model as wide as a geometry, on the meta device, for weights to be loaded into.

    Args:
        config: the dense model's, as transformers has it.
        geometry: the widths of the model.
        biased: by site, as `str` writes it, whether its output projection has a bias; a site that is left
            out has one where the config says so.
    """
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    for view in layer_views(model):
        for site, spec in view.sites.items():
            shape, consumer = geometry.shape(site), view.projection(site.name)
            for producer in spec.producers:
                linear = view.module(producer.path)
                _take(linear, rows=torch.arange(producer.rows(shape), device="meta"))
            _take(consumer, columns=torch.arange(shape.channels, device="meta"))
            if biased.get(str(site)) and consumer.bias is None:
                consumer.bias = nn.Parameter(torch.empty_like(consumer.weight[:, 0]), requires_grad=False)
            view.resize(spec, shape)
    return model
