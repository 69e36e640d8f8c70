"""The cut of one iteration on a live model: compensate each output projection, then remove."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pruning.method.compensation import COMPENSATIONS
from pruning.method.moments import Fused
from pruning.models.architectures import CausalLM, LayerView, architecture
from pruning.models.geometry import KINDS, Site
from pruning.models.layers import Layers
from pruning.models.mask import Mask
from pruning.models.surgery import add_bias, add_weight, cut_layer


@torch.no_grad()
def cut(
    model: CausalLM, before: Mask, after: Mask, fused: Mapping[Site, Fused], compensation: str
) -> set[str]:
    """Compensate with the current statistics, then remove: in place, from one mask to a smaller one.

    Args:
        model: cut to `before`.
        before, after: masks over the dense model.
        fused: statistics of the model as it is, in the dense model's indices.
        compensation: a name in `COMPENSATIONS`.

    Returns:
        Names of the parameters whose values were changed, beside biases.
    """
    layers, changed = Layers(model), set()
    for number in range(len(layers)):
        with layers.layer(number) as view:
            for kind in KINDS:
                site = Site(number, kind)
                if _compensate(view, site, before, after, fused[site], compensation):
                    changed.add(architecture(model).projection_weight(number, kind))
            cut_layer(view, number, before, after)
    return changed


def _compensate(
    view: LayerView, site: Site, before: Mask, after: Mask, fused: Fused, compensation: str
) -> bool:
    """Repair one site's output projection; gives whether its weight was changed."""
    alive = before.channels(site)
    removed = torch.as_tensor(~after.channels(site)[alive])
    if not removed.any():
        return False
    linear = view.projection(site.kind)
    device = linear.weight.device
    parts = (fused.mean, fused.variance, fused.mean_square)
    here = Fused(fused.count, *(torch.as_tensor(p[alive], dtype=torch.float32).to(device) for p in parts))
    repair = COMPENSATIONS[compensation](linear.weight, here, removed.to(device))
    if repair.bias is not None:
        add_bias(linear, repair.bias)
    if repair.weight is not None:
        add_weight(linear, repair.weight)
    return repair.weight is not None
