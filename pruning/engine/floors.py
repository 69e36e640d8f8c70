"""What survives in every layer, and a warning where a mask leaves a site nothing more."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from pruning.config import RunConfig
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Array, Mask

MOST = 0.5  # other layers' median retained share above which a site at its floor stands out
NAMES = {"attn": "attention", "mlp": "mlp"}


def floor(site: Site, geometry: Geometry, config: RunConfig) -> int:
    """Heads or channels that survive at a site at least."""
    shape = geometry.shape(site)
    if not shape.has_heads:
        return max(1, math.ceil(config.min_mlp_share * shape.channels))
    whole_groups = config.attention_unit == "kv_group" or shape.group == 1
    size = shape.group if whole_groups else shape.groups
    return min(config.min_attention_units * size, shape.entries)


def warnings(mask: Mask, scores: Mapping[Site, Array], config: RunConfig) -> list[str]:
    """A sentence for each site that fell to its floor while others of its kind keep most.

    Args:
        mask: over the dense model.
        scores: by site (C,) of the dense model.
        config: of the run.
    """
    found = []
    for kind in mask.geometry.names:
        sites = [site for site in mask.geometry.sites if site.name == kind]
        shares = {site: float(mask.retained[site].mean()) for site in sites}
        if np.median(list(shares.values())) <= MOST:
            continue
        for site, share in shares.items():
            lowest = floor(site, mask.geometry, config)
            width = 1 if mask.geometry.shape(site).has_heads else config.round_to
            if int(mask.retained[site].sum()) < lowest + width and share < MOST:
                values = np.nan_to_num(scores[site])
                top = float(values.max() / (values.sum() or 1.0))
                score = config.score.replace("_", " ")
                normalise = "" if config.normalise == "soft_share" else "try --normalise soft_share, or "
                found.append(
                    f"layer {site.layer} {NAMES.get(site.name, site.name)} keeps {share:.0%}: one channel "
                    f"carries {top:.1%} of its {score}; {normalise}keep the whole module with --keep {site}."
                )
    return found
