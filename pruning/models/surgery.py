"""Removing heads and channels from a live model, layer by layer, and changing its output projections."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pruning.models.architectures import CausalLM, LayerView, layer_views
from pruning.models.geometry import Geometry, LayerShape, Site
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


def _spread(heads: Tensor, head_dim: int) -> Tensor:
    """Channel indices (len(heads) * head_dim,) of heads."""
    return (heads[:, None] * head_dim + torch.arange(head_dim, device=heads.device)).flatten()


def add_bias(linear: nn.Linear, delta: Tensor) -> None:
    """Add to a projection's bias; give it one if it had none. The sum is taken in float32."""
    old = linear.bias.data if linear.bias is not None else torch.zeros_like(linear.weight[:, 0])
    bias = (old.float() + delta.to(old.device, torch.float32)).to(linear.weight.dtype)
    linear.bias = nn.Parameter(bias, requires_grad=linear.weight.requires_grad)


def add_weight(linear: nn.Linear, delta: Tensor) -> None:
    """Add to a projection's weight. The sum is taken in float32."""
    weight = (linear.weight.data.float() + delta.to(linear.weight.device, torch.float32)).to(linear.weight)
    linear.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)


def set_shape(view: LayerView, shape: LayerShape) -> None:
    """Tell a layer's modules their new widths; the head counts are read from the projections' shapes."""
    view.attention.num_key_value_groups = shape.group
    view.mlp.intermediate_size = shape.channels


def _indices(before: Tensor, after: Tensor) -> Tensor:
    """Positions, among the entries that `before` retains, of those that `after` retains."""
    return torch.nonzero(after[before]).flatten()


def cut_layer(view: LayerView, layer: int, before: Mask, after: Mask) -> None:
    """Cut a layer from one mask to a smaller one, in place: rows and columns of the coupled weights.

    Args:
        view: of a layer that has been cut to `before`.
        layer: its number.
        before, after: masks over the dense model, `after` within `before`.
    """
    head_dim, device = after.geometry.head_dim, view.query.weight.device
    attn, mlp = Site(layer, "attn"), Site(layer, "mlp")

    def kept(old: object, new: object) -> Tensor:
        return _indices(torch.as_tensor(old), torch.as_tensor(new)).to(device)

    query = _spread(kept(before.retained[attn], after.retained[attn]), head_dim)
    key_value = _spread(kept(before.kv_heads(layer), after.kv_heads(layer)), head_dim)
    channels = kept(before.retained[mlp], after.retained[mlp])
    if len(query) < view.query.out_features:
        _take(view.query, rows=query)
        _take(view.output, columns=query)
    if len(key_value) < view.key.out_features:
        _take(view.key, rows=key_value)
        _take(view.value, rows=key_value)
    if len(channels) < view.down.in_features:
        _take(view.gate, rows=channels)
        _take(view.up, rows=channels)
        _take(view.down, columns=channels)
    set_shape(view, after.pruned.layers[layer])


def resize(model: CausalLM, geometry: Geometry, biased: Mapping[str, bool]) -> None:
    """Give a model the widths of a geometry without regard to its weights, before a checkpoint is loaded.

    Args:
        model: a dense model, on the meta device if it is large.
        geometry: the widths to have.
        biased: by site, as `str` writes it, whether its output projection has a bias.
    """
    for layer, (view, shape) in enumerate(zip(layer_views(model), geometry.layers, strict=True)):
        heads, kv_heads = shape.heads * geometry.head_dim, shape.kv_heads * geometry.head_dim
        device = view.query.weight.device
        rows = {view.query: heads, view.key: kv_heads, view.value: kv_heads}
        for linear, width in (*rows.items(), (view.gate, shape.channels), (view.up, shape.channels)):
            _take(linear, rows=torch.arange(width, device=device))
        for linear, width in ((view.output, heads), (view.down, shape.channels)):
            _take(linear, columns=torch.arange(width, device=device))
        for kind, linear in (("attn", view.output), ("mlp", view.down)):
            if biased[f"{layer}.{kind}"] and linear.bias is None:
                linear.bias = nn.Parameter(torch.empty_like(linear.weight[:, 0]), requires_grad=False)
        set_shape(view, shape)


def output_biases(model: CausalLM) -> dict[str, Tensor]:
    """Biases (d_model,) of the output projections that have one, by site: what compensation has written."""
    return {
        f"{layer}.{kind}": view.projection(kind).bias.data
        for layer, view in enumerate(layer_views(model))
        for kind in ("attn", "mlp")
        if view.projection(kind).bias is not None
    }


def mask_channels(model: CausalLM, mask: Mask) -> None:
    """Zero the columns of the output projections that a mask removes, in place.

    The masked twin of a pruned model: the same function, nothing made smaller. It is what the surgery is
    tested against.
    """
    for layer, view in enumerate(layer_views(model)):
        for kind in ("attn", "mlp"):
            linear = view.projection(kind)
            removed = torch.as_tensor(~mask.channels(Site(layer, kind)), device=linear.weight.device)
            linear.weight.data[:, removed] = 0
