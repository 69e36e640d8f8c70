"""From scores to the mask of the next cut: comparable scores, units, floors and pins, a budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from pruning.config import RunConfig
from pruning.engine.floors import floor
from pruning.errors import CalibrationError
from pruning.method.allocation import ALLOCATIONS
from pruning.method.damage import Curve, predicted
from pruning.method.normalise import NORMALISERS, Scale
from pruning.method.units import Units, select, site_units
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Array, Mask

Curves = Mapping[Site, Curve]


def next_mask(
    scores: Mapping[Site, Array],
    mask: Mask,
    ratio: float,
    config: RunConfig,
    scales: Mapping[Site, Scale],
    curves: Curves | None = None,
) -> Mask:
    """The mask at a pruning ratio, from scores of the channels that the mask so far retains.

    Args:
        scores: by site (C,) in the dense model's indices; values of removed channels are ignored.
        mask: what is retained so far; what it removes stays removed.
        ratio: share of the dense model's linear parameters to have removed then.
        config: how to normalise, what is a unit, how to allocate, what to keep and to remove.
        scales: by site the scale of the dense model's scores.
        curves: by site what its cuts cost, where that was measured.

    Returns:
        A mask whose ratio lies within one unit's cost of the request (for `uniform`, where a step is one
        channel in every layer, within one such step).

    Raises:
        ConfigError: the ratio cannot be reached, or `keep` and `remove` contradict each other.
    """
    return without(mask, *ranked(scores, mask, ratio, config, scales, curves))


def ranked(
    scores: Mapping[Site, Array],
    mask: Mask,
    ratio: float,
    config: RunConfig,
    scales: Mapping[Site, Scale],
    curves: Curves | None = None,
) -> tuple[list[Units], list[Array]]:
    """The units of every site, and by site which (U,) of them go; see `next_mask`."""
    units = all_units(scores, mask, config, scales)
    if curves:
        units = [unit._replace(damage=_damage(unit, mask, curves[unit.site], config)) for unit in units]
    return units, ALLOCATIONS[config.allocation](units, mask, ratio)


def without(mask: Mask, units: list[Units], chosen: list[Array]) -> Mask:
    """A mask that has lost the chosen ones of its units."""
    retained = {site: array.copy() for site, array in mask.retained.items()}
    for unit, gone in zip(units, chosen, strict=True):
        retained[unit.site][unit.entries(gone)] = False
    return Mask(mask.geometry, retained)


def all_units(
    scores: Mapping[Site, Array],
    mask: Mask,
    config: RunConfig,
    scales: Mapping[Site, Scale],
    sites: Collection[Site] | None = None,
) -> list[Units]:
    """The units of every site that can still be removed, or of some sites; see `next_mask`."""
    geometry = mask.geometry
    keep, remove = select(geometry, config.keep), select(geometry, config.remove)
    units = []
    for site in geometry.sites if sites is None else sites:
        alive = mask.retained[site]
        there = mask.channels(site)
        values = np.where(there, scores[site], np.nan)
        if site.name == "attn" and config.square_attention:
            values = values**2
        normalised = NORMALISERS[config.normalise](values, scales[site])
        if not np.isfinite(normalised[there]).all():  # no ranking is one then
            raise CalibrationError(
                f"layer {site.layer}, {site.name}: the scores are not finite: the model is broken there, or "
                "needs another --score or --dtype."
            )
        units.append(
            site_units(
                site,
                normalised,
                alive,
                geometry,
                keep=keep[site],
                remove=remove[site],
                floor=floor(site, geometry, config),
                unit=config.attention_unit,
                unit_score=config.unit_score,
                width=1 if geometry.shape(site).has_heads else config.round_to,
            )
        )
    return units


def _damage(units: Units, mask: Mask, curve: Curve, config: RunConfig) -> Array:
    """(U + 1,) predicted damage of losing the first 0 to U units; see `Units.damage`."""
    gone = mask.geometry.parameters(units.site) - mask.pruned.parameters(units.site)
    at = gone + np.concatenate([[0], np.cumsum(units.cost[units.order])])
    found = predicted(curve.removed, curve.fused(config.mixture, config.worst_domain), at)
    return found - found[0]


def first_mask(
    scores: Mapping[Site, Array], geometry: Geometry, config: RunConfig, curves: Curves | None = None
) -> Mask:
    """The mask that one cut of the dense model gives at the config's ratio; see `next_mask`."""
    scales = dense_scales(scores, config.square_attention)
    return next_mask(scores, Mask.full(geometry), config.ratio, config, scales, curves)


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
        site: Scale.of(values**2 if square_attention and site.name == "attn" else values)
        for site, values in scores.items()
    }
