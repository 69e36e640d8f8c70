"""Masks: which heads and channels of the dense model are retained.

A mask always speaks of the dense model's indices, and True means retained. Its entries are query heads at
an `attn` site and channels at an `mlp` site; `Mask.channels` spreads heads over their channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pruning.models.geometry import Geometry, LayerShape, Site

Array = np.ndarray


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
        return np.repeat(retained, self.geometry.head_dim) if site.name == "attn" else retained

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
    return shape.heads if site.name == "attn" else shape.channels


# --- comparing masks -------------------------------------------------------------------------------------
def jaccard(a: Mask, b: Mask, site: Site) -> float:
    """Retained by both over retained by either, in channels of one site."""
    both, either = a.retained[site] & b.retained[site], a.retained[site] | b.retained[site]
    return float(both.sum() / max(either.sum(), 1))


def chance_jaccard(a: Mask, b: Mask, site: Site) -> float:
    """The expected overlap of two random masks of these sizes (ratio of expectations)."""
    p, q = float(a.retained[site].mean()), float(b.retained[site].mean())
    return p * q / max(p + q - p * q, 1e-12)
