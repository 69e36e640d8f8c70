"""From statistics to the mask of the next cut: scores, units, floors and pins, a budget."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from pruning.config import RunConfig
from pruning.errors import CalibrationError
from pruning.method.allocation import ALLOCATIONS
from pruning.method.moments import DomainStatistics, fuse
from pruning.method.normalise import NORMALISERS, Scale
from pruning.method.scores import SCORES
from pruning.method.sensitivity import Curve, divergence_at
from pruning.method.statistics import SiteStats, WeightNorms
from pruning.method.units import Units, select, site_units
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Array, Mask

Curves = Mapping[Site, Curve]
SITE_NUMBERS = {"attn": 0, "mlp": 1}  # for seeds; of other sites it is a hash of the name
TYPICAL_SHARE = 0.5  # median kept share of a site in all layers above which one at its floor stands out
NAMES = {"attn": "attention", "mlp": "MLP"}


def site_stats(
    statistics: DomainStatistics,
    norms: Mapping[Site, WeightNorms] | None,
    config: RunConfig,
    mixture: Mapping[str, float] | None = None,
) -> dict[Site, SiteStats]:
    """The statistics of sites, fused over the domains.

    Args:
        statistics: by domain and site.
        norms: of the weight columns of these sites; None for all sites without norms.
        config: how to fuse.
        mixture: weights of the domains that sum to 1; the config's where left out.
    """
    mixture = config.mixture if mixture is None else mixture
    stats = {}
    for site in next(iter(statistics.moments.values())) if norms is None else norms:
        moments = {domain: sites[site] for domain, sites in statistics.moments.items()}
        stats[site] = fuse(moments, mixture, config.fusion, config.worst_domain)
        if norms is not None:
            stats[site] = with_weights(stats[site], norms[site], site, config.seed)
    return stats


def with_weights(stats: SiteStats, norms: WeightNorms, site: Site, seed: int) -> SiteStats:
    """The statistics of a site with the norms of its weight columns and the seed of its random score."""
    number = SITE_NUMBERS.get(site.name, zlib.crc32(site.name.encode()))
    return replace(stats, **norms._asdict(), seed=(seed, site.layer, number))


def scores(
    statistics: DomainStatistics,
    norms: Mapping[Site, WeightNorms],
    config: RunConfig,
    mixture: Mapping[str, float] | None = None,
) -> dict[Site, Array]:
    """The score (C,) of every channel by site, NaN where removed; see `site_stats`."""
    stats = site_stats(statistics, norms, config, mixture)
    return {site: SCORES[config.score](each) for site, each in stats.items()}


def next_mask(
    scores: Mapping[Site, Array],
    mask: Mask,
    ratio: float,
    config: RunConfig,
    scales: Mapping[Site, Scale],
    curves: Curves | None = None,
) -> Mask:
    """The mask at a pruning ratio, from scores of the channels that the mask so far keeps.

    Args:
        scores: by site (C,) in the dense model's indices; values of removed channels are ignored.
        mask: so far; a channel that it removes stays removed.
        ratio: share of the dense model's linear parameters that the new mask removes.
        config: normaliser, units, allocation and pins.
        scales: by site the scale of the dense model's scores.
        curves: sensitivity curves by site, where they were measured.

    Returns:
        A mask whose ratio lies within one unit's cost of the request (for `uniform`, where a step is one
        channel in every layer, within one such step).

    Raises:
        ConfigError: the ratio cannot be reached, or `keep` and `remove` contradict each other.
    """
    return remove_units(mask, *rank(scores, mask, ratio, config, scales, curves))


def rank(
    scores: Mapping[Site, Array],
    mask: Mask,
    ratio: float,
    config: RunConfig,
    scales: Mapping[Site, Scale],
    curves: Curves | None = None,
) -> tuple[list[Units], list[Array]]:
    """The units of every site, and for each site bools (U,), True for those to remove; see `next_mask`."""
    units = all_units(scores, mask, config, scales)
    if curves:
        units = [u._replace(divergence=_divergence(u, mask, curves[u.site], config)) for u in units]
    return units, ALLOCATIONS[config.allocation](units, mask, ratio)


def remove_units(mask: Mask, units: list[Units], removed: list[Array]) -> Mask:
    """The mask without some of its units, by site bools (U,)."""
    kept = {site: array.copy() for site, array in mask.kept.items()}
    for unit, chosen in zip(units, removed, strict=True):
        kept[unit.site][unit.entries(chosen)] = False
    return Mask(mask.geometry, kept)


def floor(site: Site, geometry: Geometry, config: RunConfig) -> int:
    """The minimum number of heads or channels that a site keeps."""
    shape = geometry.shape(site)
    if not shape.has_heads:
        return max(1, math.ceil(config.min_mlp_share * shape.channels))
    whole_groups = config.attention_unit == "kv_group" or shape.group == 1
    size = shape.group if whole_groups else shape.groups
    return min(config.min_attention_units * size, shape.entries)


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
        kept = mask.channels(site)
        values = np.where(kept, scores[site], np.nan)
        if site.name == "attn" and config.square_attention:
            values = values**2
        normalised = NORMALISERS[config.normalise](values, scales[site])
        if geometry.shape(site).has_heads:
            normalised = normalised * config.attention_weight
        if not np.isfinite(normalised[kept]).all():
            raise CalibrationError(
                f"layer {site.layer}, {site.name}: the scores are not finite: the model is broken there, or "
                "needs another --score or --dtype."
            )
        units.append(
            site_units(
                site,
                normalised,
                mask.kept[site],
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


def _divergence(units: Units, mask: Mask, curve: Curve, config: RunConfig) -> Array:
    """(U + 1,) predicted divergence of losing the first 0 to U units; see `Units.divergence`."""
    removed = mask.geometry.parameters(units.site) - mask.pruned.parameters(units.site)
    parameters = removed + np.concatenate([[0], np.cumsum(units.cost[units.order])])
    divergence = divergence_at(curve.removed, curve.fused(config.mixture, config.worst_domain), parameters)
    return divergence - divergence[0]


def first_mask(
    scores: Mapping[Site, Array], geometry: Geometry, config: RunConfig, curves: Curves | None = None
) -> Mask:
    """The mask of one cut of the dense model at the config's ratio; see `next_mask`."""
    scales = dense_scales(scores, config.square_attention)
    return next_mask(scores, Mask.full(geometry), config.ratio, config, scales, curves)


def check_reachable(geometry: Geometry, config: RunConfig) -> None:
    """Check that a config's ratio can be reached, whatever the scores.

    Raises:
        ConfigError: it cannot be reached, or `keep` and `remove` are malformed or contradict each other.
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


def warnings(mask: Mask, scores: Mapping[Site, Array], config: RunConfig) -> list[str]:
    """A sentence for each site at its floor while those of the same name in other layers keep most.

    Args:
        mask: over the dense model.
        scores: by site (C,) of the dense model.
        config: of the run.
    """
    sentences = []
    for name in mask.geometry.names:
        sites = [site for site in mask.geometry.sites if site.name == name]
        shares = {site: float(mask.kept[site].mean()) for site in sites}
        if np.median(list(shares.values())) <= TYPICAL_SHARE:
            continue
        for site, share in shares.items():
            lowest = floor(site, mask.geometry, config)
            width = 1 if mask.geometry.shape(site).has_heads else config.round_to
            if int(mask.kept[site].sum()) < lowest + width and share < TYPICAL_SHARE:
                values = np.nan_to_num(scores[site])
                top = float(values.max() / (values.sum() or 1.0))
                score = config.score.replace("_", " ")
                normalise = "" if config.normalise == "soft_share" else "try --normalise soft_share, or "
                sentences.append(
                    f"layer {site.layer} {NAMES.get(name, name)} keeps {share:.0%}: one channel carries "
                    f"{top:.1%} of its {score}; {normalise}keep the whole module with --keep {site}."
                )
    return sentences
