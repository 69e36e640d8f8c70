"""Masks: which heads and channels of the dense model are kept.

A mask always speaks of the dense model's indices, and True means kept. Its entries at a site are those of
`SiteShape`: query heads, or MLP channels; `Mask.channels` spreads heads over their channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pruning.models.geometry import Geometry, LayerShape, Site, SiteShape

Array = np.ndarray


@dataclass(frozen=True)
class Mask:
    """Which heads and channels of the dense model are kept.

    Attributes:
        geometry: the dense model's geometry.
        kept: by site a bool array (entries,). Each group of a site that is kept keeps the same number of
            entries.
    """

    geometry: Geometry
    kept: Mapping[Site, Array]

    @classmethod
    def full(cls, geometry: Geometry) -> Mask:
        """The mask that keeps everything."""
        return cls(geometry, {site: np.ones(geometry.shape(site).entries, bool) for site in geometry.sites})

    def channels(self, site: Site) -> Array:
        """The mask of a site by channel, bools (C,)."""
        kept, width = self.kept[site], self.geometry.shape(site).width
        return np.repeat(kept, width) if width > 1 else kept

    def groups(self, site: Site) -> Array:
        """The mask of a site by group, bools (groups,): a group is kept while one of its entries is."""
        groups = self.kept[site].reshape(self.geometry.shape(site).groups, -1)
        return np.asarray(groups.any(axis=1))

    @cached_property
    def pruned(self) -> Geometry:
        """The geometry of the pruned model."""
        layers: list[LayerShape] = [
            {site.name: self._pruned_shape(site) for site in self.geometry.layer_sites(layer)}
            for layer in range(len(self.geometry.layers))
        ]
        return replace(self.geometry, layers=tuple(layers))

    def _pruned_shape(self, site: Site) -> SiteShape:
        shape, entries = self.geometry.shape(site), int(self.kept[site].sum())
        if shape.group == 1:
            return replace(shape, groups=entries)
        groups = int(self.groups(site).sum())
        return replace(shape, groups=groups, group=entries // max(groups, 1))

    @property
    def removed_parameters(self) -> int:
        """The number of removed parameters of linear projections in decoder layers."""
        return self.geometry.linear_parameters - self.pruned.linear_parameters

    @property
    def ratio(self) -> float:
        """The achieved pruning ratio."""
        return self.removed_parameters / self.geometry.linear_parameters


# --- comparing masks -------------------------------------------------------------------------------------
def jaccard(a: Mask, b: Mask, site: Site) -> float:
    """The Jaccard index of two masks at a site: entries kept by both over entries kept by either."""
    both, either = a.kept[site] & b.kept[site], a.kept[site] | b.kept[site]
    return float(both.sum() / max(either.sum(), 1))


def chance_jaccard(a: Mask, b: Mask, site: Site) -> float:
    """The expected overlap of two random masks of these sizes (ratio of expectations)."""
    p, q = float(a.kept[site].mean()), float(b.kept[site].mean())
    return p * q / max(p + q - p * q, 1e-12)
