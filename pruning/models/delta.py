"""The difference between a pruned model and its dense one. It can be named, saved, read and applied.

mask.safetensors       the mask over the dense model, bools by site
biases.safetensors     the pruned model's biases of the output projections, by site
weights.safetensors    weights that compensation changed, by parameter name; where there are none, no file
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from pruning.models.geometry import Geometry, Site
from pruning.models.layer_view import family_of
from pruning.models.mask import Mask

if TYPE_CHECKING:
    from torch import Tensor

    from pruning.models.layer_view import LayerView
    from pruning.models.source import LayerSource

MASK_FILE = "mask.safetensors"
BIASES_FILE = "biases.safetensors"
WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class Delta:
    """The difference between a pruned model and its dense one.

    Attributes:
        mask: the mask over the dense model.
        biases: the pruned model's biases (d_model,) of output projections, by site as `str` writes it.
        weights: the pruned model's weights by parameter name, where they are more than a selection of the
            dense model's.
    """

    mask: Mask
    biases: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, source: LayerSource, mask: Mask | None = None, changed: Collection[str] = ()) -> Delta:
        """The delta of a model.

        Args:
            source: the layers, cut to the mask.
            mask: the mask over the dense model; None for a dense model.
            changed: the names of parameters whose values were changed.
        """
        delta = cls(mask or Mask.full(source.geometry()), {}, {})
        for index in range(len(source)):
            with source.layer(index) as view:
                delta = delta.with_layer(source, index, view, changed)
        return delta

    def with_layer(self, source: LayerSource, index: int, view: LayerView, changed: Collection[str]) -> Delta:
        """The same delta with the biases and changed weights of a layer as they are now; see `of`."""
        biases, weights = dict(self.biases), dict(self.weights)
        for site in self.mask.geometry.layer_sites(index):
            linear, name = view.projection(site.name), weight_name(source, site)
            if linear.bias is not None:
                biases[str(site)] = linear.bias.data
            if name in changed:
                weights[name] = linear.weight.data
        return replace(self, biases=biases, weights=weights)

    def digest(self, fingerprint: str) -> str:
        """A name for the pruned model, made of every tensor and the fingerprint of the dense model.

        Args:
            fingerprint: the dense model's, from `LoadedModel`.
        """
        digest = hashlib.blake2b(fingerprint.encode(), digest_size=16)
        for site in self.mask.geometry.sites:
            digest.update(np.packbits(self.mask.kept[site]).tobytes())
        for name, tensor in (*sorted(self.biases.items()), *sorted(self.weights.items())):
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write the delta into a folder."""
        from safetensors.torch import save_file

        write_mask(self.mask, folder)
        for file, tensors in ((BIASES_FILE, self.biases), (WEIGHTS_FILE, self.weights)):
            if tensors or file == BIASES_FILE:
                save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, folder / file)

    @classmethod
    def read(cls, folder: Path, geometry: Geometry) -> Delta:
        """Read the delta of a folder.

        Args:
            folder: the folder that `write` wrote into; without a mask in it the model is dense.
            geometry: the dense model's geometry.

        Raises:
            OSError, SafetensorError, ValueError: the folder holds no delta.
        """
        from safetensors.torch import load_file

        mask = read_mask(folder, geometry) if (folder / MASK_FILE).exists() else Mask.full(geometry)
        weights = load_file(folder / WEIGHTS_FILE) if (folder / WEIGHTS_FILE).exists() else {}
        return cls(mask, load_file(folder / BIASES_FILE), weights)

    def apply(self, source: LayerSource) -> None:
        """Make the pruned model of the dense one, in place and bit for bit."""
        import torch

        from pruning.models.surgery import cut_layer

        dense = Mask.full(source.geometry())
        for index in range(len(source)):
            with source.layer(index) as view, torch.no_grad():
                cut_layer(view, dense, self.mask)
                for site in dense.geometry.layer_sites(index):
                    linear = view.projection(site.name)
                    if (bias := self.biases.get(str(site))) is not None:
                        linear.bias = torch.nn.Parameter(
                            bias.to(linear.weight), requires_grad=linear.weight.requires_grad
                        )
                    if (weight := self.weights.get(weight_name(source, site))) is not None:
                        linear.weight.copy_(weight)


def weight_name(source: LayerSource, site: Site) -> str:
    """The parameter name of the weight of a site's output projection."""
    return family_of(source).weight_name(site.layer, site.name)


def write_mask(mask: Mask, folder: Path) -> None:
    """Write a mask without torch."""
    save_arrays({str(site): array for site, array in mask.kept.items()}, folder / MASK_FILE)


def read_mask(folder: Path, geometry: Geometry) -> Mask:
    """Read the mask of a folder without torch.

    Raises:
        OSError, SafetensorError, ValueError: the folder holds no mask.
    """
    arrays = load_arrays(folder / MASK_FILE)
    return Mask(geometry, {Site.parse(name): array for name, array in arrays.items()})
