"""Live models seen through their family: decoder layers, and the shapes of their sites."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pruning.errors import ModelError
from pruning.models.families import FAMILIES, supported
from pruning.models.family import CausalLM, Config, Family, SiteSpec
from pruning.models.geometry import Geometry, Site, SiteShape

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear, Module


@dataclass(frozen=True)
class LayerView:
    """One live decoder layer, and what its family declares of it.

    Attributes:
        family: the family of the model.
        config: the content of the dense model's `config.json`.
        number: the layer's number.
        layer: the module.
    """

    family: Family
    config: Config
    number: int
    layer: Any

    @property
    def sites(self) -> dict[Site, SiteSpec]:
        """The layer's prunable sites, with their declarations."""
        return {Site(self.number, spec.name): spec for spec in self.family.sites if spec.prunable}

    def module(self, path: str) -> Any:
        """The module at a path from the layer."""
        return self.layer.get_submodule(path)

    def projection(self, name: str) -> Linear:
        """The projection whose input a site is, with its weight (d_model, C)."""
        linear: Linear = self.module(self.family.spec(name).consumer.path)
        return linear

    def residual(self, name: str) -> Module:
        """The module whose input is the residual stream that the site's output is added to."""
        module: Module = self.module(self.family.spec(name).residual)
        return module

    def output_gain(self, name: str) -> Tensor | None:
        """The gain (d_model,) of the norm behind the consumer; None where there is no such norm."""
        spec = self.family.spec(name)
        return spec.gain(self.module(spec.post_norm).weight) if spec.post_norm else None

    def shape(self, spec: SiteSpec) -> SiteShape:
        """The shape of a site, dense or pruned, read off the weights."""
        width = spec.unit.size(self.config)[2]
        entries = self.module(spec.consumer.path).in_features // width
        rows = sum(self.module(producer.path).out_features for producer in spec.producers) // width
        parts = [part.per for producer in spec.producers for part in producer.parts]
        groups = entries
        if shared := parts.count("groups"):
            groups = (rows - parts.count("entries") * entries) // shared
        return spec.with_costs(groups, entries // max(groups, 1), width, self.config)

    def resize(self, spec: SiteSpec, shape: SiteShape) -> None:
        """Tell the modules of a site their new sizes, where they do not read them off the weights."""
        for path, size in spec.attributes.items():
            owner_path, _, name = path.rpartition(".")
            module_path, _, last = owner_path.rpartition(".")
            if last == "config":  # shared by all layers
                module = self.module(module_path)
                module.config = copy.copy(module.config)
                setattr(module.config, name, getattr(shape, size))
            else:
                setattr(self.module(owner_path), name, getattr(shape, size))


def family_of(model: CausalLM) -> Family:
    """The family of a live model.

    Raises:
        ModelError: its type is not supported.
    """
    return supported(getattr(getattr(model, "config", None), "model_type", None))


def layer_views(model: CausalLM) -> list[LayerView]:
    """Every decoder layer of a model, in order.

    Raises:
        ModelError: its type is not supported, or its layers are not what that type's are.
    """
    family = family_of(model)
    try:
        config = model.config.to_dict()
        views = [
            LayerView(family, config, number, layer)
            for number, layer in enumerate(model.get_submodule(family.layers))
        ]
        for view in views:
            for spec in family.sites:
                for path in (*(projection.path for projection in spec.projections), spec.residual):
                    view.module(path)
    except AttributeError as error:
        raise ModelError(
            f"{type(model).__name__} is not built as {family.name} models are ({error}): supported are "
            f"causal language models of type {', '.join(FAMILIES)}."
        ) from None
    return views


def geometry(model: CausalLM) -> Geometry:
    """The geometry of a live model, dense or pruned, read off its weights."""
    views = layer_views(model)
    layers = [[view.shape(spec) for spec in view.family.sites] for view in views]
    return family_of(model).geometry_of(model.config.hidden_size, layers)


def parameter_count(model: CausalLM) -> int:
    """Parameters of a model, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
