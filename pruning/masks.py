"""From scores to masks: comparable scores, units with their costs, a budget, and what may not be cut.

A mask always speaks of the dense model's indices, and True means retained. Its entries are query heads at
an `attn` site and channels at an `mlp` site; `Mask.channels` spreads heads over their channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from pruning.config import AttentionUnit, ConfigError, Normalise, RunConfig, UnitScore
from pruning.sites import KINDS, Geometry, Kind, LayerShape, Site

Array = np.ndarray
SORTED_AT_ONCE = 4096  # units; of more than these only those near the cut are sorted


@dataclass(frozen=True)
class Mask:
    """Which heads and channels of the dense model are retained.

    Attributes:
        geometry: the dense model's.
        retained: by site a bool array, (heads,) for `attn` and (channels,) for `mlp`. A layer keeps the same
            number of query heads on each of its retained key-value heads.
    """

    geometry: Geometry
    retained: Mapping[Site, Array]

    @classmethod
    def full(cls, geometry: Geometry) -> Mask:
        """The mask that retains everything."""
        return cls(geometry, {site: np.ones(entries(geometry, site), bool) for site in geometry.sites})

    def channels(self, site: Site) -> Array:
        """(C,) bool over the channels of a site."""
        retained = self.retained[site]
        return np.repeat(retained, self.geometry.head_dim) if site.kind == "attn" else retained

    def kv_heads(self, layer: int) -> Array:
        """(kv_heads,) bool: a key-value head stays while one of its query heads does."""
        groups = self.retained[Site(layer, "attn")].reshape(self.geometry.layers[layer].kv_heads, -1)
        return np.asarray(groups.any(axis=1))

    @cached_property
    def pruned(self) -> Geometry:
        """The geometry of the pruned model."""
        layers = []
        for layer in range(len(self.geometry.layers)):
            kv_heads = int(self.kv_heads(layer).sum())
            heads = int(self.retained[Site(layer, "attn")].sum())
            channels = int(self.retained[Site(layer, "mlp")].sum())
            layers.append(LayerShape(kv_heads, heads // max(kv_heads, 1), channels))
        return replace(self.geometry, layers=tuple(layers))

    @property
    def removed_parameters(self) -> int:
        """Linear parameters of the decoder layers that go."""
        return self.geometry.linear_parameters - self.pruned.linear_parameters

    @property
    def ratio(self) -> float:
        """The achieved pruning ratio."""
        return self.removed_parameters / self.geometry.linear_parameters


def entries(geometry: Geometry, site: Site) -> int:
    """Number of entries of a mask at a site: heads or channels."""
    shape = geometry.layers[site.layer]
    return shape.heads if site.kind == "attn" else shape.channels


# --- which heads and channels a person named -------------------------------------------------------------

_SELECTOR = re.compile(r"(?P<layers>\d+(-\d+)?)(\.(?P<kind>attn|mlp)(\.(?P<range>\d+(-\d+)?))?)?")


def _span(text: str | None, size: int, selector: str, what: str) -> range:
    if text is None:
        return range(size)
    first, _, last = text.partition("-")
    span = range(int(first), int(last or first) + 1)
    if not span or span[-1] >= size:
        raise ConfigError(f"{selector!r} names {what} {text}: there are 0 to {size - 1}.")
    return span


def select(geometry: Geometry, selectors: Sequence[str]) -> dict[Site, Array]:
    """Bool arrays like a mask's, True where a selector applies.

    Args:
        geometry: the dense model's.
        selectors: `LAYER[.attn|.mlp[.FIRST-LAST]]`, each part a number or an inclusive range, such as `3`,
            `0-1.mlp` or `3.attn.0-2`.

    Raises:
        ConfigError: a selector that is malformed or names what the model does not have.
    """
    chosen = {site: np.zeros(entries(geometry, site), bool) for site in geometry.sites}
    for selector in selectors:
        match = _SELECTOR.fullmatch(selector.strip())
        if not match:
            raise ConfigError(f"cannot read {selector!r}: write LAYER, LAYER.mlp or LAYER.attn.FIRST-LAST.")
        kinds: tuple[Kind, ...] = KINDS if match["kind"] is None else (Site.parse(f"0.{match['kind']}").kind,)
        for layer in _span(match["layers"], len(geometry.layers), selector, "layer"):
            for site in (Site(layer, kind) for kind in kinds):
                what = "head" if site.kind == "attn" else "channel"
                span = _span(match["range"], len(chosen[site]), selector, what)
                chosen[site][span.start : span.stop] = True
    return chosen


# --- scores of different sites made comparable ------------------------------------------------------------


class Scale(NamedTuple):
    """Mean, standard deviation and sum of a site's scores in the dense model: the first iteration's."""

    mean: float
    deviation: float
    total: float

    @classmethod
    def of(cls, scores: Array) -> Scale:
        """The scale of scores (C,)."""
        return cls(float(scores.mean()), float(scores.std(ddof=1)), float(scores.sum()))


def normalise(scores: Array, rule: Normalise, first: Scale) -> Array:
    """Scores (C,), NaN where removed, comparable with those of other sites by one of the rules.

    `share` is the part of the dense site's total fluctuation that a channel carries; `zscore` FLAP's
    standardisation over what is left; `zscore_zero` the same with removed channels counted as zeros;
    `zscore_first` with the mean and deviation of the dense model; `none` the score itself. Only rules that
    stay fixed through the iterations suit an iterative method: standardising what is left renews the low tail
    of the layer that was just cut, which is then cut again.
    """
    if rule == "none":
        return scores
    if rule == "share":
        return scores / (first.total or 1.0)
    scale = first
    if rule == "zscore":
        scale = Scale.of(scores[~np.isnan(scores)])
    elif rule == "zscore_zero":
        scale = Scale.of(np.nan_to_num(scores))
    return (scores - scale.mean) / (scale.deviation or 1.0)


# --- units -----------------------------------------------------------------------------------------------


class Units(NamedTuple):
    """The units of one site that can still be removed, in the order of `members`.

    Attributes:
        site: where.
        members: (U, m) indices of each unit's entries in the mask; -1 fills a shorter unit.
        score: (U,)
        cost: (U,) parameters that go with the unit.
        forced: (U,) units that a person asked to remove.
        protected: (U,) units that must stay: pinned by a person or the last of their layer.
        rest: (U,) the unit, if any, with the channels beyond the last multiple of the width: it goes before
            others, so that a layer of which nothing else is cut has a width that is a multiple as well.
    """

    site: Site
    members: Array
    score: Array
    cost: Array
    forced: Array
    protected: Array
    rest: Array

    @property
    def rank(self) -> Array:
        """(U,) the lowest goes first: what a person named, then rests, then by score."""
        return np.where(self.forced, -np.inf, np.where(self.rest, np.finfo(float).min, self.score))


def _members(
    values: Array, alive: Array, site: Site, shape: LayerShape, unit: AttentionUnit, width: int
) -> Array:
    """Indices (U, m) of the entries that are removed together; `values` (entries,) says in which order."""
    left = np.flatnonzero(alive)
    if site.kind == "mlp":
        if width == 1:
            return left[:, None]
        left = left[np.argsort(values[left], kind="stable")]
        return np.concatenate([np.full(-len(left) % width, -1), left]).reshape(-1, width)
    groups = left.reshape(len(np.unique(left // shape.group)), -1)  # (kv_heads left, group left)
    if unit == "kv_group":
        return groups
    order = np.argsort(values[groups], axis=1, kind="stable")
    return np.take_along_axis(groups, order, axis=1).T  # (group left, kv_heads left)


def _unit_cost(members: Array, site: Site, geometry: Geometry, unit: AttentionUnit) -> Array:
    size = (members >= 0).sum(axis=1)
    if site.kind == "mlp":
        return size * geometry.channel_cost
    return size * geometry.head_cost + (geometry.kv_head_cost if unit == "kv_group" else 0)


def site_units(
    site: Site,
    scores: Array,
    alive: Array,
    geometry: Geometry,
    *,
    keep: Array,
    remove: Array,
    floor: int,
    unit: AttentionUnit = "kv_group",
    unit_score: UnitScore = "per_parameter",
    width: int = 1,
) -> Units:
    """The units of a site with their scores.

    Args:
        site: where.
        scores: (C,) normalised scores of the channels, anything where removed.
        alive: (entries,) bool, the mask so far.
        geometry: the dense model's.
        keep: (entries,) bool, entries that must stay.
        remove: (entries,) bool, entries to cut first.
        floor: entries that must survive at least; the highest-scored units are protected for it.
        unit: what goes together at an `attn` site.
        unit_score: `per_parameter` divides a unit's summed score by its cost, in MLP channels; `mean` is
            FLAP's plain mean over a unit's channels.
        width: retained MLP channels stay a multiple of this.

    Raises:
        ConfigError: a unit is to be kept and cut at once, or the site would fall below its floor.
    """
    shape = geometry.layers[site.layer]
    if shape.group == 1:  # multi-head attention: a head is a group
        unit = "kv_group"
    values = scores.reshape(len(alive), -1).sum(axis=1)  # (entries,)
    order = np.where(keep, np.inf, np.where(remove, -np.inf, values))
    members = _members(order, alive, site, shape, unit, width)
    inside = members >= 0
    kept = (keep[members] & inside).any(axis=1)
    forced = (remove[members] & inside).any(axis=1)
    if (kept & forced).any():
        clash = members[kept & forced][0]
        names = ", ".join(f"{site}.{index}" for index in clash[clash >= 0][:8])
        raise ConfigError(
            f"you ask to keep and to remove {names} at once: what goes together can only do one."
        )
    cost = _unit_cost(members, site, geometry, unit)
    total = np.where(inside, values[members], 0.0).sum(axis=1)
    per_entry = geometry.head_dim if site.kind == "attn" else 1
    if unit_score == "mean":
        score = total / (inside.sum(axis=1) * per_entry)
    else:
        score = total * geometry.channel_cost / cost
    size = inside.sum(axis=1)
    protected = kept.copy()
    protected[_highest(np.where(forced, -np.inf, np.where(kept, np.inf, score)), size, floor)] = True
    if (protected & forced).any():
        raise ConfigError(
            f"removing all you named of {site} leaves it with fewer than {floor} "
            f"{'heads' if site.kind == 'attn' else 'channels'}: remove less there."
        )
    return Units(site, members, score, cost, forced, protected, rest=(size < width) & (site.kind == "mlp"))


def _highest(rank: Array, size: Array, floor: int) -> Array:
    """Indices of the highest-ranked units that together have `floor` entries."""
    count = min(len(rank), -(-floor // max(int(size.min()), 1)))  # enough even if all were the smallest
    top = np.flatnonzero(rank >= np.partition(rank, -count)[-count])  # and what ties with the last of them
    order = top[np.argsort(rank[top], kind="stable")[::-1]]
    return order[: int(np.searchsorted(np.cumsum(size[order]), floor)) + 1]


# --- budgets ---------------------------------------------------------------------------------------------


def next_mask(
    scores: Mapping[Site, Array], mask: Mask, ratio: float, config: RunConfig, scales: Mapping[Site, Scale]
) -> Mask:
    """The mask at a pruning ratio, from scores of the channels that the mask so far retains.

    Args:
        scores: by site (C,) in the dense model's indices; values of removed channels are ignored.
        mask: what is retained so far; what it removes stays removed.
        ratio: share of the dense model's linear parameters to have removed then.
        config: how to normalise, what is a unit, how to allocate, what to keep and to remove.
        scales: by site the scale of the dense model's scores.

    Returns:
        A mask whose ratio lies within one unit's cost of the request (for `uniform`, where a step is one
        channel in every layer, within one such step).

    Raises:
        ConfigError: the ratio cannot be reached, or `keep` and `remove` contradict each other.
    """
    geometry = mask.geometry
    keep, remove = select(geometry, config.keep), select(geometry, config.remove)
    units = []
    for site in geometry.sites:
        alive = mask.retained[site]
        values = np.where(mask.channels(site), scores[site], np.nan)
        if site.kind == "attn" and config.square_attention:
            values = values**2
        units.append(
            site_units(
                site,
                normalise(values, config.normalise, scales[site]),
                alive,
                geometry,
                keep=keep[site],
                remove=remove[site],
                floor=_floor(site, geometry, config),
                unit=config.attention_unit,
                unit_score=config.unit_score,
                width=config.round_to if site.kind == "mlp" else 1,
            )
        )
    allocate = {"global": _global, "uniform": _uniform, "equal": _equal}[config.allocation]
    retained = {site: array.copy() for site, array in mask.retained.items()}
    for unit, chosen in zip(units, allocate(units, mask, ratio, config), strict=True):
        members = unit.members[chosen].ravel()
        retained[unit.site][members[members >= 0]] = False
    return Mask(geometry, retained)


def first_mask(scores: Mapping[Site, Array], geometry: Geometry, config: RunConfig) -> Mask:
    """The mask that one cut of the dense model gives at the config's ratio; see `next_mask`."""
    scales = dense_scales(scores, config.square_attention)
    return next_mask(scores, Mask.full(geometry), config.ratio, config, scales)


def check_reachable(geometry: Geometry, config: RunConfig) -> None:
    """Whether a config's ratio can be reached, whatever the scores.

    Raises:
        ConfigError: it cannot, or `keep` and `remove` are malformed or contradict each other.
    """
    scores = {site: np.ones(geometry.channels(site)) for site in geometry.sites}
    scales = dense_scales(scores, config.square_attention)
    next_mask(scores, Mask.full(geometry), config.ratio, config, scales)


def dense_scales(scores: Mapping[Site, Array], square_attention: bool) -> dict[Site, Scale]:
    """The scales of the dense model's scores, which normalisers that stay fixed refer to."""
    return {
        site: Scale.of(values**2 if square_attention and site.kind == "attn" else values)
        for site, values in scores.items()
    }


def _floor(site: Site, geometry: Geometry, config: RunConfig) -> int:
    shape = geometry.layers[site.layer]
    if site.kind == "mlp":
        return max(1, math.ceil(config.min_mlp_share * shape.channels))
    whole_groups = config.attention_unit == "kv_group" or shape.group == 1
    size = shape.group if whole_groups else shape.kv_heads
    return min(config.min_attention_units * size, shape.heads)


def _unreachable(ratio: float, most: float) -> ConfigError:
    return ConfigError(
        f"a pruning ratio of {ratio:.4g} cannot be reached: with the floors and what you keep, at most "
        f"{math.floor(most * 1e4) / 1e4:.4g} can be removed."
    )


def _global(units: list[Units], mask: Mask, ratio: float, config: RunConfig) -> list[Array]:
    """All units of all sites in one ranking, the lowest first until the budget is met (FLAP's AL-AM)."""
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
    taken, window = [], np.arange(len(rank))
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
            taken.append(window[low])
            budget -= spent
            low = ~low
        window = window[low]
    order = window[np.argsort(rank[window], kind="stable")]
    spent = np.concatenate([[0], np.cumsum(cost[order])])
    count = int(np.searchsorted(spent, budget))  # spent[count - 1] < budget <= spent[count]
    if count == len(spent) or (count > 0 and budget - spent[count - 1] < spent[count] - budget):
        count -= 1
    return np.concatenate([*taken, order[:count]])


def _uniform(units: list[Units], mask: Mask, ratio: float, config: RunConfig) -> list[Array]:
    """The same ratio in every layer and site; channels make up for what whole heads cannot meet."""
    geometry, chosen = mask.geometry, []
    for attn, mlp in zip(units[::2], units[1::2], strict=True):
        sizes = [geometry.parameters(attn.site), geometry.parameters(mlp.site)]
        gone = [
            size - mask.pruned.parameters(unit.site) for size, unit in zip(sizes, (attn, mlp), strict=True)
        ]
        heads = _lowest(attn, ratio * sizes[0] - gone[0])
        spent = sum(gone) + int(attn.cost[heads].sum())
        channels = _lowest(mlp, ratio * sum(sizes) - spent)
        spent += int(mlp.cost[channels].sum())
        if ratio * sum(sizes) - spent >= int(mlp.cost.max()):
            raise _unreachable(ratio, spent / sum(sizes))
        chosen += [heads, channels]
    return chosen


def _equal(units: list[Units], mask: Mask, ratio: float, config: RunConfig) -> list[Array]:
    """The same number of heads, and of channels, in every layer; how many of which is what loses least.

    For every number of attention units that can go, the channels that meet the budget follow; the pair whose
    removed units carry the least score in all layers together is taken.
    """
    layers, total = len(mask.geometry.layers), mask.geometry.linear_parameters
    budget = (ratio * total - mask.removed_parameters) / layers
    sites = units[::2], units[1::2]  # attention, MLP
    lost = [_losses(each) for each in sites]
    fewest = [max(int(unit.forced.sum()) for unit in each) for each in sites]
    heads = np.arange(fewest[0], len(lost[0]))
    costs = heads * sites[0][0].cost.max(), np.concatenate([[0], np.cumsum(sites[1][0].cost)])[: len(lost[1])]
    rest = (budget - costs[0])[:, None] - costs[1]  # (head counts, channel counts) parameters still to remove
    channels = np.maximum(np.abs(rest).argmin(axis=1), fewest[1])
    missed = np.take_along_axis(rest, channels[:, None], axis=1)[:, 0]
    step = sites[1][0].cost.max()
    if missed.min() >= step:
        raise _unreachable(ratio, ratio - missed.min() * layers / total)
    near = np.abs(missed) <= max(np.abs(missed).min(), step)
    best = np.where(near, lost[0][heads] + lost[1][channels], np.inf).argmin()
    counts = int(heads[best]), int(channels[best])
    return [_first(unit, counts[index % 2]) for index, unit in enumerate(units)]


def _losses(units: list[Units]) -> Array:
    """(n + 1,) score that goes, in all layers together, with the 0..n lowest units of each layer."""
    sums = []
    for unit in units:
        order = _order(unit)
        sums.append(np.concatenate([[0], np.cumsum((unit.score * unit.cost)[order])]))
    length = min(len(values) for values in sums)
    return np.sum([values[:length] for values in sums], axis=0)


def _order(units: Units) -> Array:
    """Indices of the units that may go, the first to go first."""
    free = np.flatnonzero(~units.protected)
    return free[np.argsort(units.rank[free], kind="stable")]


def _first(units: Units, count: int) -> Array:
    """(U,) bool: the `count` units that go first."""
    chosen = np.zeros(len(units.score), bool)
    chosen[_order(units)[:count]] = True
    return chosen


def _lowest(units: Units, budget: float) -> Array:
    """(U,) bool: the lowest-scored units whose cost is nearest to a budget, forced ones in any case."""
    spent = np.concatenate([[0], np.cumsum(units.cost[_order(units)])])
    return _first(units, max(int(np.abs(spent - budget).argmin()), int(units.forced.sum())))


# --- comparing masks -------------------------------------------------------------------------------------


def jaccard(a: Mask, b: Mask, site: Site) -> float:
    """Retained by both over retained by either, in channels of one site."""
    both, either = a.retained[site] & b.retained[site], a.retained[site] | b.retained[site]
    return float(both.sum() / max(either.sum(), 1))


def chance_jaccard(a: Mask, b: Mask, site: Site) -> float:
    """The expected overlap of two random masks of these sizes (ratio of expectations)."""
    p, q = float(a.retained[site].mean()), float(b.retained[site].mean())
    return p * q / max(p + q - p * q, 1e-12)
