"""The shapes of a model's prunable sites, and what their units cost in parameters.

A site is the input of an output projection of a decoder layer. Its channels come in entries (a head, or a
single MLP channel), and its entries in groups (the query heads of one key-value head). Nothing here imports
torch, so that a page can reason about masks without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

# Wider and deeper than any model by ten times; arrays are made of these sizes as soon as a config is read.
WIDEST, DEEPEST = 2**24, 4096
# Channels of all layers that a config may name: ten times those of a 405B model. Every page holds arrays of
# this size, so that a number with a few zeros too many would take the memory of the app's server.
CHANNELS = 100_000_000


class Site(NamedTuple):
    """A prunable site: a layer, and the name of the site in the model's family; written `3.attn`."""

    layer: int
    name: str

    def __str__(self) -> str:
        return f"{self.layer}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> Site:
        """The site that `str` wrote."""
        layer, name = text.split(".")
        return cls(int(layer), name)


@dataclass(frozen=True)
class SiteShape:
    """The size of a site, and the parameters of its units.

    Attributes:
        groups: the number of key-value heads, or of MLP channels.
        group: entries of each group: the query heads of a key-value head; 1 for MLP channels.
        width: channels of an entry: those of a head; 1 for MLP channels.
        entry_cost: parameters that an entry has by itself: its rows and columns of the projections.
        group_cost: parameters that the entries of a group share: the rows of its key and its value.
    """

    groups: int
    group: int = 1
    width: int = 1
    entry_cost: int = 0
    group_cost: int = 0

    @property
    def entries(self) -> int:
        """Number of entries: query heads or MLP channels."""
        return self.groups * self.group

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.entries * self.width

    @property
    def parameters(self) -> int:
        """Parameters of all units together (a bias of the output projection stays, and does not count)."""
        return self.entries * self.entry_cost + self.groups * self.group_cost

    @property
    def has_heads(self) -> bool:
        """Whether an entry is a head, with several channels."""
        return self.width > 1

    @property
    def cache_values(self) -> int:
        """Keys and values that one token leaves in the cache of a layer."""
        return 2 * self.groups * self.width if self.has_heads else 0


LayerShape = Mapping[str, SiteShape]  # by name of the site, in the order in which a layer computes them


@dataclass(frozen=True)
class Geometry:
    """The shapes of all sites of a model.

    Attributes:
        hidden_size: the width of the residual stream, d_model.
        layers: the shapes of the sites of every layer.
        fixed_parameters: parameters of linear projections in decoder layers that belong to no site.
        fixed_cache_values: keys and values of a token in the cache, of heads that belong to no site.
    """

    hidden_size: int
    layers: tuple[LayerShape, ...]
    fixed_parameters: int = 0
    fixed_cache_values: int = 0

    @cached_property
    def sites(self) -> list[Site]:
        """All sites in the order in which the model computes them."""
        return [site for layer in range(len(self.layers)) for site in self.layer_sites(layer)]

    def layer_sites(self, layer: int) -> tuple[Site, ...]:
        """The sites of one layer in the order in which the layer computes them."""
        return tuple(Site(layer, name) for name in self.layers[layer])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of sites that occur, such as `attn` and `mlp`."""
        return tuple(dict.fromkeys(site.name for site in self.sites))

    def shape(self, site: Site) -> SiteShape:
        """The shape of a site."""
        return self.layers[site.layer][site.name]

    def channels(self, site: Site) -> int:
        """Number of channels C of a site."""
        return self.shape(site).channels

    def parameters(self, site: Site) -> int:
        """The number of linear parameters of a site."""
        return self.shape(site).parameters

    @cached_property
    def linear_parameters(self) -> int:
        """The denominator of the pruning ratio: parameters of the decoder layers' linear projections."""
        return self.fixed_parameters + sum(self.parameters(site) for site in self.sites)

    @cached_property
    def prunable_share(self) -> float:
        """The share of the linear parameters that belongs to sites; no pruning ratio is larger."""
        return 1 - self.fixed_parameters / self.linear_parameters

    @cached_property
    def least_cost(self) -> int:
        """Parameters of the smallest group, in most models an MLP channel: the unit of cost in scores."""
        shapes = (self.shape(site) for site in self.sites)
        return min(shape.group * shape.entry_cost + shape.group_cost for shape in shapes)

    @property
    def cache_values(self) -> int:
        """Keys and values that one token leaves in the cache, of all layers."""
        shapes = (self.shape(site) for site in self.sites)
        return self.fixed_cache_values + sum(shape.cache_values for shape in shapes)

    def to_dict(self) -> dict[str, Any]:
        """The geometry as a JSON object, which `from_dict` reads."""
        layers = [{name: asdict(shape) for name, shape in layer.items()} for layer in self.layers]
        return {
            "hidden_size": self.hidden_size,
            "layers": layers,
            "fixed_parameters": self.fixed_parameters,
            "fixed_cache_values": self.fixed_cache_values,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Geometry:
        """The geometry that `to_dict` of this or an earlier version wrote.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none, or has sizes that no model has.
        """
        if len(data["layers"]) > DEEPEST:
            raise ValueError("too many layers")
        if "head_dim" in data:
            data = _from_version_2(data)
        layers = tuple(
            {name: SiteShape(**shape) for name, shape in layer.items()} for layer in data["layers"]
        )
        fixed = data["fixed_parameters"], data.get("fixed_cache_values", 0)
        return cls(data["hidden_size"], layers, *fixed).checked()

    def checked(self) -> Geometry:
        """The geometry itself.

        Raises:
            ValueError: it has sizes that no model has.
        """
        shapes = [shape for layer in self.layers for shape in layer.values()]
        sizes = [self.hidden_size, *(size for s in shapes for size in (s.groups, s.group, s.width))]
        costs = [self.fixed_parameters, self.fixed_cache_values]
        costs += [cost for s in shapes for cost in (s.entry_cost, s.group_cost)]
        if not shapes or not all(type(size) is int and 0 < size <= WIDEST for size in sizes):
            raise ValueError("a width is no whole number from 1 up, or too large")
        if not all(type(cost) is int and cost >= 0 for cost in costs):
            raise ValueError("a number of parameters is no whole number from 0 up")
        if sum(shape.channels for shape in shapes) > CHANNELS:
            raise ValueError("more channels than any model has")
        return self


def _from_version_2(data: dict[str, Any]) -> dict[str, Any]:
    """A geometry as version 0.2 wrote it: attention and MLP in every layer, biases instead of costs."""
    hidden, width = data["hidden_size"], data["head_dim"]
    query, key_value, gate_up = (bool(data.get(f"{name}_bias")) for name in ("query", "key_value", "gate_up"))
    return {
        "hidden_size": hidden,
        "layers": [
            {
                "attn": {
                    "groups": layer["kv_heads"],
                    "group": layer["group"],
                    "width": width,
                    "entry_cost": width * (2 * hidden + query),
                    "group_cost": 2 * width * (hidden + key_value),
                },
                "mlp": {"groups": layer["channels"], "entry_cost": 3 * hidden + 2 * gate_up},
            }
            for layer in data["layers"]
        ],
        "fixed_parameters": 0,
    }
