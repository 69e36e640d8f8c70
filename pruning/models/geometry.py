"""Where a model is pruned: the two sites of a decoder layer, and the shapes and costs of their units.

A site is the input of an output projection: `attn` the input of `o_proj`, `mlp` that of `down_proj`. Nothing
here imports torch, so that a page can reason about masks without it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

Kind = str
KINDS: tuple[Kind, ...] = ("attn", "mlp")
# Wider and deeper than any model by ten times; arrays are made of these sizes as soon as a config is read.
WIDEST, DEEPEST = 2**24, 4096


class Site(NamedTuple):
    """One prunable place; written `3.attn`."""

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
class LayerShape:
    """Widths of a decoder layer: `kv_heads` key-value heads, `group` query heads on each, MLP `channels`."""

    kv_heads: int
    group: int
    channels: int

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.kv_heads * self.group


@dataclass(frozen=True)
class Geometry:
    """Shapes of all decoder layers, and what each unit costs in parameters.

    Attributes:
        hidden_size: width of the residual stream, d_model.
        head_dim: channels of a head.
        layers: one `LayerShape` a layer.
        query_bias, key_value_bias, gate_up_bias: whether these projections have biases, which go with their
            rows.
    """

    hidden_size: int
    head_dim: int
    layers: tuple[LayerShape, ...]
    query_bias: bool = False
    key_value_bias: bool = False
    gate_up_bias: bool = False

    @property
    def sites(self) -> list[Site]:
        """All sites in the order in which the model computes them."""
        return [site for layer in range(len(self.layers)) for site in self.layer_sites(layer)]

    def layer_sites(self, layer: int) -> tuple[Site, ...]:
        """The sites of one layer in the order in which the layer computes them."""
        return tuple(Site(layer, name) for name in KINDS)

    def channels(self, site: Site) -> int:
        """Number of channels C of a site."""
        shape = self.layers[site.layer]
        return shape.heads * self.head_dim if site.name == "attn" else shape.channels

    @property
    def head_cost(self) -> int:
        """Parameters of one query head: its rows of q_proj and columns of o_proj."""
        return self.head_dim * (2 * self.hidden_size + self.query_bias)

    @property
    def kv_head_cost(self) -> int:
        """Parameters of one key-value head: its rows of k_proj and v_proj."""
        return 2 * self.head_dim * (self.hidden_size + self.key_value_bias)

    @property
    def channel_cost(self) -> int:
        """Parameters of one MLP channel: a row of gate_proj and up_proj, a column of down_proj."""
        return 3 * self.hidden_size + 2 * self.gate_up_bias

    def parameters(self, site: Site) -> int:
        """Linear parameters that go when the whole site goes (the biases of o_proj and down_proj stay)."""
        shape = self.layers[site.layer]
        if site.name == "attn":
            return shape.heads * self.head_cost + shape.kv_heads * self.kv_head_cost
        return shape.channels * self.channel_cost

    @property
    def linear_parameters(self) -> int:
        """The denominator of the pruning ratio: parameters of the decoder layers' linear projections."""
        return sum(self.parameters(site) for site in self.sites)

    @property
    def cache_values(self) -> int:
        """Keys and values that one token leaves in the cache, of all layers."""
        return 2 * self.head_dim * sum(shape.kv_heads for shape in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Geometry:
        """The geometry that `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is none, or has sizes that no model has.
        """
        if len(data["layers"]) > DEEPEST:
            raise ValueError("too many layers")
        layers = tuple(LayerShape(**shape) for shape in data["layers"])
        widths = [data["hidden_size"], data["head_dim"]]
        widths += [width for shape in layers for width in (shape.kv_heads, shape.group, shape.channels)]
        if not layers or not all(type(width) is int and 0 < width <= WIDEST for width in widths):
            raise ValueError("a width is no whole number from 1 up, or too large")
        return cls(**{**data, "layers": layers})
