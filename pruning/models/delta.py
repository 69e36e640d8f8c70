"""A delta: what separates a pruned model from its dense one. It can be named, saved, read and applied.

mask.safetensors       what is retained of the dense model, bools by site
biases.safetensors     biases of the output projections, by site, as they stand in the pruned model
weights.safetensors    weights that compensation changed, by parameter name; where there are none, no file
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Mask

if TYPE_CHECKING:
    from torch import Tensor

    from pruning.models.family import CausalLM

MASK_FILE = "mask.safetensors"
BIASES_FILE = "biases.safetensors"
WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class Delta:
    """What separates a pruned model from its dense one.

    Attributes:
        mask: over the dense model.
        biases: (d_model,) of output projections, by site as `str` writes it, as they stand in the model.
        weights: of the pruned shape, by parameter name; only those that are no mere selection of the dense
            model's.
    """

    mask: Mask
    biases: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: CausalLM, mask: Mask | None = None, changed: Collection[str] = ()) -> Delta:
        """The delta of a live model.

        Args:
            model: cut to the mask.
            mask: over the dense model; where it is left out the model is dense.
            changed: names of parameters whose values were changed.
        """
        from pruning.models.layer_view import geometry
        from pruning.models.surgery import output_biases

        weights = {name: model.get_parameter(name).data for name in changed}
        return cls(mask or Mask.full(geometry(model)), output_biases(model), weights)

    def digest(self, fingerprint: str) -> str:
        """A name for the pruned model: every tensor enters it, and what names the dense weights.

        Args:
            fingerprint: of the dense model.
        """
        digest = hashlib.blake2b(fingerprint.encode(), digest_size=16)
        for site in self.mask.geometry.sites:
            digest.update(np.packbits(self.mask.retained[site]).tobytes())
        for name, tensor in (*sorted(self.biases.items()), *sorted(self.weights.items())):
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        from safetensors.torch import save_file

        write_mask(self.mask, folder)
        for file, tensors in ((BIASES_FILE, self.biases), (WEIGHTS_FILE, self.weights)):
            if tensors or file == BIASES_FILE:
                save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, folder / file)

    @classmethod
    def read(cls, folder: Path, geometry: Geometry) -> Delta:
        """The delta that a folder holds.

        Args:
            folder: that `write` wrote into; without a mask the model is dense.
            geometry: the dense model's.

        Raises:
            OSError, SafetensorError, ValueError: it holds none.
        """
        from safetensors.torch import load_file

        mask = read_mask(folder, geometry) if (folder / MASK_FILE).exists() else Mask.full(geometry)
        weights = load_file(folder / WEIGHTS_FILE) if (folder / WEIGHTS_FILE).exists() else {}
        return cls(mask, load_file(folder / BIASES_FILE), weights)

    def apply(self, model: CausalLM) -> None:
        """Make the pruned model of the dense one, in place and bit for bit."""
        import torch

        from pruning.models.layer_view import geometry
        from pruning.models.surgery import remove, set_output_biases

        remove(model, Mask.full(geometry(model)), self.mask)
        set_output_biases(model, self.biases)
        with torch.no_grad():
            for name, tensor in self.weights.items():
                model.get_parameter(name).copy_(tensor)


def write_mask(mask: Mask, folder: Path) -> None:
    """A mask alone; needs no torch."""
    save_arrays({str(site): array for site, array in mask.retained.items()}, folder / MASK_FILE)


def read_mask(folder: Path, geometry: Geometry) -> Mask:
    """The mask of a folder, without torch.

    Raises:
        OSError, SafetensorError, ValueError: it holds none.
    """
    arrays = load_arrays(folder / MASK_FILE)
    return Mask(geometry, {Site.parse(name): array for name, array in arrays.items()})
