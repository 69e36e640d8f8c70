"""Units: what is removed together at a site, what each costs and scores, and which a person pinned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from pruning.errors import ConfigError
from pruning.models.geometry import Geometry, Site, SiteShape
from pruning.models.mask import Array

AttentionUnit = Literal["kv_group", "query_head"]
UnitScore = Literal["per_parameter", "mean"]

# --- which heads and channels a person named -------------------------------------------------------------
_SELECTOR = re.compile(r"(?P<layers>\d+(-\d+)?)(\.(?P<name>[a-z]+)(\.(?P<range>\d+(-\d+)?))?)?")


def _span(text: str | None, size: int, selector: str, what: str) -> range:
    if text is None:
        return range(size)
    first, _, last = text.partition("-")
    span = range(int(first), int(last or first) + 1)
    if not span:
        raise ConfigError(f"{selector!r} names the {what}s {text}: write the lower number first.")
    if span[-1] >= size:
        raise ConfigError(f"{selector!r} names {what} {span[-1]}: the {what}s are numbered 0 to {size - 1}.")
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
    chosen = {site: np.zeros(geometry.shape(site).entries, bool) for site in geometry.sites}
    for selector in selectors:
        match = _SELECTOR.fullmatch(selector.strip())
        if not match or match["name"] not in (None, *geometry.names):
            raise ConfigError(f"cannot read {selector!r}: write LAYER, LAYER.mlp or LAYER.attn.FIRST-LAST.")
        for layer in _span(match["layers"], len(geometry.layers), selector, "layer"):
            for site in geometry.layer_sites(layer):
                if match["name"] not in (None, site.name):
                    continue
                what = "head" if geometry.shape(site).has_heads else "channel"
                span = _span(match["range"], len(chosen[site]), selector, what)
                chosen[site][span.start : span.stop] = True
    return chosen


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
        damage: (U + 1,) what the model is predicted to lose when the first 0 to U units of `order` go, beyond
            what it has lost at this site already; None where no damage was measured.
    """

    site: Site
    members: Array
    score: Array
    cost: Array
    forced: Array
    protected: Array
    rest: Array
    damage: Array | None = None

    @property
    def order(self) -> Array:
        """(U,) indices of the units, the first to go first, those that must stay at the end."""
        return np.argsort(np.where(self.protected, np.inf, self.rank), kind="stable")

    def entries(self, chosen: Array) -> Array:
        """(n,) indices of the entries in the mask of some units, given by index or as (U,) bools."""
        members = self.members[chosen].ravel()
        return np.asarray(members[members >= 0])

    @property
    def rank(self) -> Array:
        """(U,) the lowest goes first: what a person named, then rests, then by score."""
        return np.where(self.forced, -np.inf, np.where(self.rest, np.finfo(float).min, self.score))


def _members(values: Array, alive: Array, shape: SiteShape, unit: AttentionUnit, width: int) -> Array:
    """Indices (U, m) of the entries that are removed together; `values` (entries,) says in which order."""
    entries = np.flatnonzero(alive)
    if not shape.has_heads:
        if width == 1:
            return entries[:, None]
        entries = entries[np.argsort(values[entries], kind="stable")]
        return np.concatenate([np.full(-len(entries) % width, -1), entries]).reshape(-1, width)
    groups = entries.reshape(len(np.unique(entries // shape.group)), -1)  # (groups retained, their entries)
    if unit == "kv_group":
        return groups
    order = np.argsort(values[groups], axis=1, kind="stable")
    return np.take_along_axis(groups, order, axis=1).T  # (entries of a group, groups)


def _unit_cost(members: Array, shape: SiteShape, unit: AttentionUnit) -> Array:
    """(U,) parameters that go with each unit; what a group shares goes with the whole group."""
    size = (members >= 0).sum(axis=1)
    if not shape.has_heads:
        return size * (shape.entry_cost + shape.group_cost)
    return size * shape.entry_cost + (shape.group_cost if unit == "kv_group" else 0)


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
    shape = geometry.shape(site)
    if shape.group == 1:  # multi-head attention: a head is a group
        unit = "kv_group"
    values = scores.reshape(len(alive), -1).sum(axis=1)  # (entries,)
    order = np.where(keep, np.inf, np.where(remove, -np.inf, values))
    members = _members(order, alive, shape, unit, width)
    inside = members >= 0
    kept = (keep[members] & inside).any(axis=1)
    forced = (remove[members] & inside).any(axis=1)
    if (kept & forced).any():
        clash = members[kept & forced][0]
        names = ", ".join(f"{site}.{index}" for index in clash[clash >= 0][:8])
        raise ConfigError(
            f"--keep and --remove both name a part of {names}, which can only be kept or removed together: "
            "take it out of one of them."
        )
    cost = _unit_cost(members, shape, unit)
    total = np.where(inside, values[members], 0.0).sum(axis=1)
    if unit_score == "mean":
        score = total / (inside.sum(axis=1) * shape.width)
    else:
        score = total * geometry.least_cost / cost
    size = inside.sum(axis=1)
    protected = kept.copy()
    protected[_highest(np.where(forced, -np.inf, np.where(kept, np.inf, score)), size, floor)] = True
    if (protected & forced).any():
        what, option = (
            ("heads", "--min-attention-units") if shape.has_heads else ("channels", "--min-mlp-share")
        )
        raise ConfigError(
            f"--remove leaves {site} with fewer {what} than its minimum of {floor}: remove less there, or "
            f"lower {option}."
        )
    return Units(site, members, score, cost, forced, protected, rest=size < width)


def _highest(rank: Array, size: Array, floor: int) -> Array:
    """Indices of the highest-ranked units that together have `floor` entries."""
    count = min(len(rank), -(-floor // max(int(size.min()), 1)))  # enough even if all were the smallest
    top = np.flatnonzero(rank >= np.partition(rank, -count)[-count])  # and what ties with the last of them
    order = top[np.argsort(rank[top], kind="stable")[::-1]]
    return order[: int(np.searchsorted(np.cumsum(size[order]), floor)) + 1]
