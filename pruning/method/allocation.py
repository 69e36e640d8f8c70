"""Which units are removed to meet a budget: the allocations.

An allocation is a function from the units of every site, the mask so far and the ratio to reach to one bool
array a site, True for the units to remove now. Register one with `@ALLOCATIONS.add`; its name becomes a value
of `RunConfig.allocation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby

import numpy as np

from pruning.errors import ConfigError
from pruning.method.units import Units
from pruning.models.mask import Array, Mask
from pruning.registry import Registry

ALLOCATIONS: Registry[Callable[[list[Units], Mask, float], list[Array]]] = Registry("allocation")
SORTED_AT_ONCE = 4096  # units; of more than these only those near the cut are sorted


def _unreachable(ratio: float, most: float) -> ConfigError:
    return ConfigError(
        f"a pruning ratio of {ratio:.4g} cannot be reached: at most {math.floor(most * 1e4) / 1e4:.4g} can "
        "be removed beside what --keep, --min-attention-units and --min-mlp-share keep: remove less, or "
        "lower these."
    )


@ALLOCATIONS.named("global")
def global_(units: list[Units], mask: Mask, ratio: float) -> list[Array]:
    """One ranking of all units of all sites, the lowest removed until the budget is met (FLAP's AL-AM)."""
    total = mask.geometry.linear_parameters
    budget = ratio * total - mask.removed_parameters
    rank = np.concatenate([u.rank for u in units])
    cost = np.concatenate([u.cost for u in units])
    free = np.flatnonzero(~np.concatenate([u.protected for u in units]))
    most = int(cost[free].sum())
    if budget - most >= cost.min():
        raise _unreachable(ratio, (mask.removed_parameters + most) / total)
    chosen = np.concatenate([u.forced for u in units])
    chosen[free[_nearest(rank[free], cost[free], budget)]] = True
    return np.split(chosen, np.cumsum([len(u.score) for u in units])[:-1])


def _nearest(rank: Array, cost: Array, budget: float) -> Array:
    """Indices of the lowest-ranked units whose cost together is nearest to a budget.

    The same as sorting all of them and cutting at the budget, but only those near the cut are sorted: models
    have millions of channels, and a slider waits for this.

    Args:
        rank: (U,)
        cost: (U,) of each unit.
        budget: in the same unit as the cost.
    """
    parts, window = [], np.arange(len(rank))
    while len(window) > SORTED_AT_ONCE:
        values = rank[window]
        pivot = np.partition(values, len(values) // 2)[len(values) // 2]
        low = values < pivot
        if not low.any():  # at least half of them are the lowest value
            low = values <= pivot
            if low.all():
                break
        spent = cost[window[low]].sum()
        if spent <= budget:
            parts.append(window[low])
            budget -= spent
            low = ~low
        window = window[low]
    order = window[np.argsort(rank[window], kind="stable")]
    spent = np.concatenate([[0], np.cumsum(cost[order])])
    count = int(np.searchsorted(spent, budget))  # spent[count - 1] < budget <= spent[count]
    if count == len(spent) or (count > 0 and budget - spent[count - 1] < spent[count] - budget):
        count -= 1
    return np.concatenate([*parts, order[:count]])


NEED_CURVES = {"measured"}  # names of allocations that need the sensitivity curve of each site


@ALLOCATIONS.add
def measured(units: list[Units], mask: Mask, ratio: float) -> list[Array]:
    """One ranking by the slope of each site's sensitivity curve: where a parameter costs the model least.

    Within a site the order is that of the scores. The curves are convex, so that the ranking keeps this
    order and meets the budget with the least predicted divergence. Where no curves were measured yet, as in
    the preview of a run, `global` stands in.
    """
    return global_([score_by_sensitivity(unit) for unit in units], mask, ratio)


def score_by_sensitivity(units: Units) -> Units:
    """The units with the rise of the predicted divergence per parameter in place of their scores."""
    if units.divergence is None:
        return units
    order = units.order
    slope = np.maximum.accumulate(np.diff(units.divergence) / units.cost[order])
    slope += np.linspace(0, 1e-9 * (np.abs(slope).max() or 1.0), len(slope))  # on a straight piece, by score
    score = np.empty(len(order))
    score[order] = slope
    return units._replace(score=score)


@ALLOCATIONS.add
def uniform(units: list[Units], mask: Mask, ratio: float) -> list[Array]:
    """The same ratio in every layer and site; channels make up for what whole heads cannot meet."""
    chosen, prunable = [], mask.geometry.prunable_share
    share = ratio / prunable  # of every site: what belongs to no site counts towards the ratio, and stays
    for _, layer in groupby(units, key=lambda unit: unit.site.layer):
        *coarse, fine = layer
        sizes = {unit.site: mask.geometry.parameters(unit.site) for unit in (*coarse, fine)}
        removed = {site: size - mask.pruned.parameters(site) for site, size in sizes.items()}
        spent, budget = sum(removed.values()), share * sum(sizes.values())
        for unit in coarse:
            chosen.append(_lowest(unit, share * sizes[unit.site] - removed[unit.site]))
            spent += int(unit.cost[chosen[-1]].sum())
        chosen.append(_lowest(fine, budget - spent))
        spent += int(fine.cost[chosen[-1]].sum())
        if budget - spent >= int(fine.cost.max()):
            raise _unreachable(ratio, prunable * spent / sum(sizes.values()))
    return chosen


@ALLOCATIONS.add
def equal(units: list[Units], mask: Mask, ratio: float) -> list[Array]:
    """The same number of heads, and of channels, in every layer, with the split that loses least.

    For every number of attention units that can go, the channels that meet the budget follow; the pair whose
    removed units carry the least score in all layers together is taken.
    """
    layers, total = len(mask.geometry.layers), mask.geometry.linear_parameters
    budget = (ratio * total - mask.removed_parameters) / layers
    by_name: dict[str, list[Units]] = {}
    for unit in units:
        by_name.setdefault(unit.site.name, []).append(unit)
    *coarse, fine = by_name.values()  # attention where the model has it, MLP
    heads, head_losses, head_cost = np.zeros(1, int), np.zeros(1), 0
    if coarse:
        head_losses = _losses(coarse[0])
        heads = np.arange(max(int(unit.forced.sum()) for unit in coarse[0]), len(head_losses))
        head_cost = coarse[0][0].cost.max()
    losses = _losses(fine)
    costs = np.concatenate([[0], np.cumsum(fine[0].cost)])[: len(losses)]
    short = (budget - heads * head_cost)[:, None] - costs  # (head counts, channel counts) still to remove
    channels = np.maximum(np.abs(short).argmin(axis=1), max(int(unit.forced.sum()) for unit in fine))
    missed = np.take_along_axis(short, channels[:, None], axis=1)[:, 0]
    step = fine[0].cost.max()
    if missed.min() >= step:
        raise _unreachable(ratio, ratio - missed.min() * layers / total)
    near = np.abs(missed) <= max(np.abs(missed).min(), step)
    best = np.where(near, head_losses[heads] + losses[channels], np.inf).argmin()
    counts = {coarse[0][0].site.name: int(heads[best])} if coarse else {}
    counts[fine[0].site.name] = int(channels[best])
    return [first(unit, counts[unit.site.name]) for unit in units]


def _losses(units: list[Units]) -> Array:
    """(n + 1,) score lost in all layers together with the 0..n lowest units of each layer."""
    sums = []
    for unit in units:
        order = _free(unit)
        sums.append(np.concatenate([[0], np.cumsum((unit.score * unit.cost)[order])]))
    length = min(len(values) for values in sums)
    return np.sum([values[:length] for values in sums], axis=0)


def _free(units: Units) -> Array:
    """Indices of the units that may be removed, in the order of their removal."""
    return units.order[: int((~units.protected).sum())]


def first(units: Units, count: int) -> Array:
    """(U,) bool: the `count` units that are removed first."""
    chosen = np.zeros(len(units.score), bool)
    chosen[_free(units)[:count]] = True
    return chosen


def _lowest(units: Units, budget: float) -> Array:
    """(U,) bool: the lowest-scored units whose cost is nearest to a budget, forced ones in any case."""
    spent = np.concatenate([[0], np.cumsum(units.cost[_free(units)])])
    return first(units, max(int(np.abs(spent - budget).argmin()), int(units.forced.sum())))
