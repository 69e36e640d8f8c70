"""Compensation: what an output projection gets for the channels that it loses.

A compensation is a function from a projection's weight, the statistics of its input and what is removed to a
`Repair`. Register one with `@COMPENSATIONS.add`; its name becomes a value of `RunConfig.compensation`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from pruning.method.moments import Fused
from pruning.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class Repair(NamedTuple):
    """What changes in an output projection beside the loss of columns.

    Attributes:
        bias: (d_model,) to be *added* to the bias, which the published FLAP code assigns: a loop must not.
        weight: (d_model, C) to be added to the weight, of which the retained columns count.
    """

    bias: Tensor | None = None
    weight: Tensor | None = None


COMPENSATIONS: Registry[Callable[[Tensor, Fused, Tensor], Repair]] = Registry("compensation")


@COMPENSATIONS.add
def bias(weight: Tensor, fused: Fused, removed: Tensor) -> Repair:
    """What the output loses on average: W[:, P] @ mean[P] (FLAP, arXiv 2312.11983, section 3.4).

    Args:
        weight: (d_model, C) of the output projection.
        fused: statistics of its input, (C,) each, as tensors.
        removed: (C,) bool, the set P.
    """
    mean = fused.mean[removed].to(weight.device, weight.float().dtype)
    return Repair(bias=weight[:, removed].float() @ mean)


@COMPENSATIONS.add
def none(weight: Tensor, fused: Fused, removed: Tensor) -> Repair:
    """Nothing."""
    return Repair()
