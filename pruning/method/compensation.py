"""Compensation: what an output projection gets for the channels that it loses.

A compensation is a function from a projection's weight, what is known of its input and what is removed to a
`Repair`. Register one with `@COMPENSATIONS.add`; its name becomes a value of `RunConfig.compensation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pruning.method.moments import Fused
from pruning.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

RIDGES = (0.01, 0.1, 1.0)  # what least squares adds to the variances, as a part of each


@dataclass(frozen=True, slots=True)
class Inputs(Fused):
    """What is known of a projection's input, as tensors over the channels that it still has.

    Attributes:
        covariance: (C, C) of the mixture, taken for the compensations of `COVARIANCE`.
        fitted: (C, C) the same without the tokens that were held out.
        heldout: by domain (n, C), distances to the mean of tokens that were held out, times the square root
            of each one's part in the mixture; empty where there were too few blocks to hold some out.
    """

    covariance: Tensor | None = None
    fitted: Tensor | None = None
    heldout: Mapping[str, Tensor] = field(default_factory=dict)


class Repair(NamedTuple):
    """What changes in an output projection beside the loss of columns.

    Attributes:
        bias: (d_model,) to be *added* to the bias, which the published FLAP code assigns: a loop must not.
        weight: (d_model, C) to be added to the weight, of which the retained columns count.
        ridge: by which least squares was damped.
        error: by domain, on tokens held out, the squared output error that is left, as a part of that with
            a bias alone.
    """

    bias: Tensor | None = None
    weight: Tensor | None = None
    ridge: float | None = None
    error: Mapping[str, float] | None = None


COMPENSATIONS: Registry[Callable[[Tensor, Inputs, Tensor], Repair]] = Registry("compensation")
COVARIANCE = {"least_squares"}  # names of those that need the covariance of a projection's input


@COMPENSATIONS.add
def bias(weight: Tensor, inputs: Inputs, removed: Tensor) -> Repair:
    """What the output loses on average: W[:, P] @ mean[P] (FLAP, arXiv 2312.11983, section 3.4).

    Args:
        weight: (d_model, C) of the output projection.
        inputs: what is known of its input.
        removed: (C,) bool, the set P.
    """
    removed = removed.to(weight.device)
    lost = weight[:, removed].float()
    return Repair(bias=lost @ inputs.mean.to(lost)[removed])


@COMPENSATIONS.add
def none(weight: Tensor, inputs: Inputs, removed: Tensor) -> Repair:
    """Nothing."""
    return Repair()


@COMPENSATIONS.add
def least_squares(weight: Tensor, inputs: Inputs, removed: Tensor) -> Repair:
    """What the retained channels can say of the removed ones, and the bias for what is left on average.

    The retained columns R get W[:, P] G[P, R] (G[R, R] + ridge diag G[R, R])^-1, G being the covariance:
    ridge regression of the lost output on the retained inputs. Adding to each variance a part of itself
    treats a channel with a massive activation like any other. `bias` is the case without correlation.

    A guard chooses the ridge on tokens that were held out: the one with the least output error of the mixture
    among those with which no domain is worse off than with a bias alone; where there is none, the bias.
    """
    if inputs.covariance is None or inputs.fitted is None:
        raise ValueError("least squares needs the covariance of the input")
    device = inputs.covariance.device
    kept, removed = ~removed.to(device), removed.to(device)
    lost = weight.to(device)[:, removed].float()
    ridge, error = RIDGES[1], None
    if inputs.heldout:
        target = {name: x[:, removed] @ lost.T for name, x in inputs.heldout.items()}
        alone = {name: float(y.square().sum()) or 1.0 for name, y in target.items()}
        found = {}
        for candidate in RIDGES:
            update = _regression(lost, inputs.fitted, kept, candidate).float().T
            left = {name: y - inputs.heldout[name][:, kept] @ update for name, y in target.items()}
            found[candidate] = {name: float(y.square().sum()) / alone[name] for name, y in left.items()}
        harmless = [candidate for candidate in RIDGES if max(found[candidate].values()) <= 1]
        if not harmless:
            return bias(weight, inputs, removed)._replace(error=dict.fromkeys(target, 1.0))
        ridge = min(harmless, key=lambda r: sum(alone[name] * part for name, part in found[r].items()))
        error = found[ridge]
    update = _regression(lost, inputs.covariance, kept, ridge).float()
    change = weight.new_zeros(weight.shape, dtype=update.dtype, device=device)
    change[:, kept] = update
    mean = inputs.mean.to(change)
    return Repair(lost @ mean[removed] - update @ mean[kept], change, ridge, error)


def _regression(lost: Tensor, covariance: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """(d_model, r) coefficients of the retained channels in the output of those lost (d_model, p)."""
    import torch

    own = covariance[kept][:, kept]
    variance = own.diagonal().clone()
    own.diagonal().add_(ridge * variance + variance.max() * torch.finfo(own.dtype).eps + 1e-30)
    cross, lost = covariance[kept][:, ~kept], lost.to(covariance)  # (r, p), (d_model, p)
    factor = torch.linalg.cholesky(own)
    if cross.shape[1] < len(lost):  # the smaller system
        return lost @ torch.cholesky_solve(cross, factor).T
    return torch.cholesky_solve(cross @ lost.T, factor).T
