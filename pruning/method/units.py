"""Units: heads or channels of a site that are removed together, with costs, scores and pins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from pruning.errors import ConfigError
from pruning.models.geometry import Geometry, LayerShape, Site
from pruning.models.mask import Array, entries

AttentionUnit = Literal["kv_group", "query_head"]
UnitScore = Literal["per_parameter", "mean"]

# --- selectors of heads and channels ---------------------------------------------------------------------
_SELECTOR = re.compile(r"(?P<layers>\d+(-\d+)?)(\.(?P<kind>attn|mlp)(\.(?P<range>\d+(-\d+)?))?)?")


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
    selected = {site: np.zeros(entries(geometry, site), bool) for site in geometry.sites}
    for selector in selectors:
        match = _SELECTOR.fullmatch(selector.strip())
        if not match:
            raise ConfigError(f"cannot read {selector!r}: write LAYER, LAYER.mlp or LAYER.attn.FIRST-LAST.")
        for layer in _span(match["layers"], len(geometry.layers), selector, "layer"):
            for site in geometry.layer_sites(layer):
                if match["kind"] not in (None, site.name):
                    continue
                noun = "head" if site.name == "attn" else "channel"
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


def _members(
    values: Array, kept: Array, site: Site, shape: LayerShape, unit: AttentionUnit, width: int
) -> Array:
    """Indices (U, m) of the entries that are removed together, by rising `values` (entries,)."""
    indices = np.flatnonzero(kept)
    if site.name == "mlp":
        if width == 1:
            return indices[:, None]
        indices = indices[np.argsort(values[indices], kind="stable")]
        return np.concatenate([np.full(-len(indices) % width, -1), indices]).reshape(-1, width)
    groups = indices.reshape(len(np.unique(indices // shape.group)), -1)  # (kept kv_heads, kept of a group)
    if unit == "kv_group":
        return groups
    order = np.argsort(values[groups], axis=1, kind="stable")
    return np.take_along_axis(groups, order, axis=1).T  # (kept of a group, kept kv_heads)


def _unit_cost(members: Array, site: Site, geometry: Geometry, unit: AttentionUnit) -> Array:
    size = (members >= 0).sum(axis=1)
    if site.name == "mlp":
        return size * geometry.channel_cost
    return size * geometry.head_cost + (geometry.kv_head_cost if unit == "kv_group" else 0)


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
    shape = geometry.layers[site.layer]
    if shape.group == 1:  # multi-head attention: a head is a group
        unit = "kv_group"
    values = scores.reshape(len(kept), -1).sum(axis=1)  # (entries,)
    order = np.where(keep, np.inf, np.where(remove, -np.inf, values))
    members = _members(order, kept, site, shape, unit, width)
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
    cost = _unit_cost(members, site, geometry, unit)
    total = np.where(inside, values[members], 0.0).sum(axis=1)
    per_entry = geometry.head_dim if site.name == "attn" else 1
    if unit_score == "mean":
        score = total / (inside.sum(axis=1) * per_entry)
    else:
        score = total * geometry.channel_cost / cost
    size = inside.sum(axis=1)
    protected = pinned.copy()
    protected[_highest(np.where(forced, -np.inf, np.where(pinned, np.inf, score)), size, floor)] = True
    if (protected & forced).any():
        noun, option = (
            ("heads", "--min-attention-units") if site.name == "attn" else ("channels", "--min-mlp-share")
        )
        raise ConfigError(
            f"--remove leaves {site} with fewer {noun} than its minimum of {floor}: remove less there, or "
            f"lower {option}."
        )
    return Units(
        site, members, score, cost, forced, protected, remainder=(size < width) & (site.name == "mlp")
    )


def _highest(rank: Array, size: Array, floor: int) -> Array:
    """Indices of the highest-ranked units that together have `floor` entries."""
    count = min(len(rank), -(-floor // max(int(size.min()), 1)))  # enough even if all were the smallest
    top = np.flatnonzero(rank >= np.partition(rank, -count)[-count])  # and what ties with the last of them
    order = top[np.argsort(rank[top], kind="stable")[::-1]]
    return order[: int(np.searchsorted(np.cumsum(size[order]), floor)) + 1]
