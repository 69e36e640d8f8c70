"""Compensation: what an output projection gets for the channels that it loses.

A compensation is a function from a projection's weight, the statistics of its input and the removed channels
to a `Repair`. Register one with `@COMPENSATIONS.add`; its name becomes a value of `RunConfig.compensation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pruning.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

RIDGES = (0.01, 0.1, 1.0)  # least squares adds these shares of each variance to it


@dataclass(frozen=True, slots=True)
class Inputs:
    """Statistics of a projection's input, as tensors over the channels that it still has.

    Attributes:
        mean: (C,) of the mixture.
        covariance: (C, C) of the mixture, collected for the compensations of `COVARIANCE`.
        fit_covariance: (C, C) the same without the tokens that were held out.
        heldout: by domain (n, C), distances of held-out tokens to the mean, times the square root of each
            token's share in the mixture; empty where there were too few blocks to hold some out.
    """

    mean: Tensor
    covariance: Tensor | None = None
    fit_covariance: Tensor | None = None
    heldout: Mapping[str, Tensor] = field(default_factory=dict)


class Repair(NamedTuple):
    """The changes of an output projection beside the loss of columns.

    Attributes:
        bias: (d_model,) to be *added* to the bias, which the published FLAP code assigns: a loop must not.
        weight: (d_model, C) to be added to the weight, of which the kept columns count.
        ridge: that damped the least squares.
        error: by domain, on held-out tokens, the squared output error as a share of that with a bias alone.
    """

    bias: Tensor | None = None
    weight: Tensor | None = None
    ridge: float | None = None
    error: Mapping[str, float] | None = None


COMPENSATIONS: Registry[Callable[[Tensor, Inputs, Tensor], Repair]] = Registry("compensation")
COVARIANCE = {"least_squares"}  # names of compensations that need the covariance of a projection's input


@COMPENSATIONS.add
def bias(weight: Tensor, inputs: Inputs, removed: Tensor) -> Repair:
    """The mean of the lost output: W[:, P] @ mean[P] (FLAP, arXiv 2312.11983, section 3.4).

    Args:
        weight: (d_model, C) of the output projection.
        inputs: statistics of its input.
        removed: (C,) bool, the set P.
    """
    removed = removed.to(weight.device)
    lost = weight[:, removed].float()
    return Repair(bias=lost @ inputs.mean.to(lost)[removed])


@COMPENSATIONS.add
def none(weight: Tensor, inputs: Inputs, removed: Tensor) -> Repair:
    """No compensation."""
    return Repair()


@COMPENSATIONS.add
def least_squares(weight: Tensor, inputs: Inputs, removed: Tensor) -> Repair:
    """Regression of the lost output on the kept channels, and a bias for the mean of the remaining error.

    The kept columns R get W[:, P] G[P, R] (G[R, R] + ridge diag G[R, R])^-1, G being the covariance:
    ridge regression of the lost output on the kept inputs. Adding to each variance a share of itself
    treats a channel with a massive activation like any other. `bias` is the case without correlation.

    A guard chooses the ridge on held-out tokens: the one with the least output error of the mixture among
    those with which no domain is worse off than with a bias alone; where there is none, the bias alone.
    """
    if inputs.covariance is None or inputs.fit_covariance is None:
        raise ValueError("least squares needs the covariance of the input")
    device = inputs.covariance.device
    kept, removed = ~removed.to(device), removed.to(device)
    lost = weight.to(device)[:, removed].float()
    ridge, error = RIDGES[1], None
    if inputs.heldout:
        target = {name: x[:, removed] @ lost.T for name, x in inputs.heldout.items()}
        bias_error = {name: float(y.square().sum()) or 1.0 for name, y in target.items()}
        errors = {}
        for candidate in RIDGES:
            update = _regression(lost, inputs.fit_covariance, kept, candidate).float().T
            residual = {name: y - inputs.heldout[name][:, kept] @ update for name, y in target.items()}
            errors[candidate] = {n: float(y.square().sum()) / bias_error[n] for n, y in residual.items()}
        harmless = [candidate for candidate in RIDGES if max(errors[candidate].values()) <= 1]
        if not harmless:
            return bias(weight, inputs, removed)._replace(error=dict.fromkeys(target, 1.0))
        ridge = min(harmless, key=lambda r: sum(bias_error[name] * e for name, e in errors[r].items()))
        error = errors[ridge]
    update = _regression(lost, inputs.covariance, kept, ridge).float()
    change = weight.new_zeros(weight.shape, dtype=update.dtype, device=device)
    change[:, kept] = update
    mean = inputs.mean.to(change)
    return Repair(lost @ mean[removed] - update @ mean[kept], change, ridge, error)


def _regression(lost: Tensor, covariance: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """(d_model, r) coefficients of the kept channels in the output of the lost ones (d_model, p)."""
    import torch

    own_covariance = covariance[kept][:, kept]
    variance = own_covariance.diagonal().clone()
    floor = variance.max() * torch.finfo(variance.dtype).eps + 1e-30
    own_covariance.diagonal().add_(ridge * variance + floor)
    cross, lost = covariance[kept][:, ~kept], lost.to(covariance)  # (r, p), (d_model, p)
    factor = torch.linalg.cholesky(own_covariance)
    if cross.shape[1] < len(lost):  # the smaller system
        return lost @ torch.cholesky_solve(cross, factor).T
    return torch.cholesky_solve(cross @ lost.T, factor).T
