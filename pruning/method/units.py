"""Units: heads or channels of a site that are removed together, with costs, scores and pins."""

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

# --- selectors of heads and channels ---------------------------------------------------------------------
_SELECTOR = re.compile(r"(?P<layers>\d+(-\d+)?)(\.(?P<name>[a-z]+)(\.(?P<range>\d+(-\d+)?))?)?")


def _span(text: str | None, size: int, selector: str, noun: str) -> range:
    if text is None:
        return range(size)
    first, _, last = text.partition("-")
    span = range(int(first), int(last or first) + 1)
    if not span:
        raise ConfigError(f"{selector!r} names the {noun}s {text}: write the lower number first.")
    if span[-1] >= size:
        raise ConfigError(f"{selector!r} names {noun} {span[-1]}: the {noun}s are numbered 0 to {size - 1}.")
    return span


def select(geometry: Geometry, selectors: Sequence[str]) -> dict[Site, Array]:
    """Bool arrays like a mask's, True where a selector applies.

    Args:
        geometry: the dense model's.
        selectors: `LAYER[.attn|.mlp[.FIRST-LAST]]`, each part a number or an inclusive range, such as `3`,
            `0-1.mlp` or `3.attn.0-2`.

    Raises:
        ConfigError: a selector is malformed, or names heads or channels that the model does not have.
    """
    selected = {site: np.zeros(geometry.shape(site).entries, bool) for site in geometry.sites}
    for selector in selectors:
        match = _SELECTOR.fullmatch(selector.strip())
        if not match:
            raise ConfigError(f"cannot read {selector!r}: write LAYER, LAYER.mlp or LAYER.attn.FIRST-LAST.")
        if match["name"] not in (None, *geometry.names):
            names = " or ".join(geometry.names)
            raise ConfigError(f"{selector!r} names what cannot leave this model: name {names}.")
        for layer in _span(match["layers"], len(geometry.layers), selector, "layer"):
            for site in geometry.layer_sites(layer):
                if match["name"] not in (None, site.name):
                    continue
                noun = "head" if geometry.shape(site).has_heads else "channel"
                span = _span(match["range"], len(selected[site]), selector, noun)
                selected[site][span.start : span.stop] = True
    return selected


# --- units -----------------------------------------------------------------------------------------------
class Units(NamedTuple):
    """The units of one site that can still be removed, in the order of `members`.

    Attributes:
        site: of the units.
        members: (U, m) indices of each unit's entries in the mask; -1 fills a shorter unit.
        score: (U,)
        cost: (U,) parameters removed with the unit.
        forced: (U,) units that a person asked to remove.
        protected: (U,) units that are kept: pinned by a person or the last of their layer.
        remainder: (U,) the unit, if any, with the channels beyond the last multiple of the width: it is
            removed before others, so that a layer of which nothing else is cut has a multiple as well.
        divergence: (U + 1,) the predicted rise of the divergence when the first 0 to U units of `order` are
            removed, relative to what this site has lost already; None where no curves were measured.
    """

    site: Site
    members: Array
    score: Array
    cost: Array
    forced: Array
    protected: Array
    remainder: Array
    divergence: Array | None = None

    @property
    def order(self) -> Array:
        """(U,) indices of the units in the order of their removal, the protected ones at the end."""
        return np.argsort(np.where(self.protected, np.inf, self.rank), kind="stable")

    def entries(self, units: Array) -> Array:
        """(n,) indices of the entries in the mask of some units, given by index or as (U,) bools."""
        members = self.members[units].ravel()
        return np.asarray(members[members >= 0])

    @property
    def rank(self) -> Array:
        """(U,) the lowest is removed first: named by a person, then remainders, then by score."""
        return np.where(self.forced, -np.inf, np.where(self.remainder, np.finfo(float).min, self.score))


def _members(values: Array, kept: Array, shape: SiteShape, unit: AttentionUnit, width: int) -> Array:
    """Indices (U, m) of the entries that are removed together, by rising `values` (entries,)."""
    indices = np.flatnonzero(kept)
    if not shape.has_heads:
        if width == 1:
            return indices[:, None]
        indices = indices[np.argsort(values[indices], kind="stable")]
        return np.concatenate([np.full(-len(indices) % width, -1), indices]).reshape(-1, width)
    groups = indices.reshape(len(np.unique(indices // shape.group)), -1)  # (kept groups, kept of a group)
    if unit == "kv_group":
        return groups
    order = np.argsort(values[groups], axis=1, kind="stable")
    return np.take_along_axis(groups, order, axis=1).T  # (kept of a group, kept groups)


def _unit_cost(members: Array, shape: SiteShape, unit: AttentionUnit) -> Array:
    """(U,) parameters that go with each unit; what a group shares goes with the whole group."""
    size = (members >= 0).sum(axis=1)
    if not shape.has_heads:
        return size * (shape.entry_cost + shape.group_cost)
    return size * shape.entry_cost + (shape.group_cost if unit == "kv_group" else 0)


def site_units(
    site: Site,
    scores: Array,
    kept: Array,
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
        site: of the units.
        scores: (C,) normalised scores of the channels, anything where removed.
        kept: (entries,) bool, the mask so far.
        geometry: the dense model's.
        keep: (entries,) bool, entries to protect.
        remove: (entries,) bool, entries to cut first.
        floor: entries that must survive at least; the highest-scored units are protected for it.
        unit: the heads that are removed together at an `attn` site.
        unit_score: `per_parameter` divides a unit's summed score by its cost, in MLP channels; `mean` is
            FLAP's plain mean over a unit's channels.
        width: the number of kept MLP channels is a multiple of this.

    Raises:
        ConfigError: a unit is to be kept and cut at once, or the site would fall below its floor.
    """
    shape = geometry.shape(site)
    if shape.group == 1:  # multi-head attention: a head is a group
        unit = "kv_group"
    values = scores.reshape(len(kept), -1).sum(axis=1)  # (entries,)
    order = np.where(keep, np.inf, np.where(remove, -np.inf, values))
    members = _members(order, kept, shape, unit, width)
    inside = members >= 0
    pinned = (keep[members] & inside).any(axis=1)
    forced = (remove[members] & inside).any(axis=1)
    if (pinned & forced).any():
        clash = members[pinned & forced][0]
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
    protected = pinned.copy()
    protected[_highest(np.where(forced, -np.inf, np.where(pinned, np.inf, score)), size, floor)] = True
    if (protected & forced).any():
        noun, option = (
            ("heads", "--min-attention-units") if shape.has_heads else ("channels", "--min-mlp-share")
        )
        raise ConfigError(
            f"--remove leaves {site} with fewer {noun} than its minimum of {floor}: remove less there, or "
            f"lower {option}."
        )
    return Units(site, members, score, cost, forced, protected, remainder=size < width)


def _highest(rank: Array, size: Array, floor: int) -> Array:
    """Indices of the highest-ranked units that together have `floor` entries."""
    count = min(len(rank), -(-floor // max(int(size.min()), 1)))  # enough even if all were the smallest
    top = np.flatnonzero(rank >= np.partition(rank, -count)[-count])  # and what ties with the last of them
    order = top[np.argsort(rank[top], kind="stable")[::-1]]
    return order[: int(np.searchsorted(np.cumsum(size[order]), floor)) + 1]
