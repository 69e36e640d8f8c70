"""What decides which formats a checkpoint can be written in, read without loading its weights."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pruning.models.delta import MASK_FILE
from pruning.models.families import FAMILIES
from pruning.models.family import Family
from pruning.models.folder import dense_config, describe, read_record
from pruning.models.geometry import Geometry, Site


@dataclass(frozen=True)
class CheckpointInfo:
    """What decides which formats a checkpoint can be written in: its config, tokenizer and `pruning.json`.

    Attributes:
        family: the dense model's.
        geometry: the widths of the pruned model.
        biases: whether a projection of the dense model has a bias.
        output_bias: whether an output projection has a bias that the dense architecture does not have.
        differences: what the model computes that a plain Llama layer does not; see `Family.differences`.
        vocabulary: the number of rows of the embedding.
        tied: whether the embedding is the output projection as well.
        itemsize: bytes of a weight as the dense model stores it.
        dense_type: the type of the dense model's weights, as `export` takes it; None where it is not known.
        base: the name of the dense model, where it was recorded.
        mask: whether what was cut from the dense model is on record as well.
        tokenizer: the content of `tokenizer.json`; None where there is none yet.
    """

    family: Family
    geometry: Geometry
    biases: bool
    output_bias: bool
    differences: dict[str, str]
    vocabulary: int
    tied: bool
    itemsize: int
    dense_type: str | None
    base: str | None
    mask: bool
    tokenizer: dict[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> CheckpointInfo:
        """The info of a checkpoint folder, dense or pruned.

        Raises:
            ModelError: the folder is no checkpoint.
        """
        record, summary = read_record(folder), describe(str(folder))
        config, dense = dense_config(record["base"] if "base" in record else str(folder))
        family = FAMILIES[summary.model_type]
        sizes = {"float32": 4, "f32": 4, "float64": 8}
        return cls(
            family=family,
            geometry=summary.geometry,
            biases=family.has_biases(config),
            output_bias=any(
                biased and not family.spec(Site.parse(site).name).consumer.has_bias(config)
                for site, biased in record.get("biased", {}).items()
            ),
            differences=family.differences(config),
            vocabulary=summary.vocabulary,
            tied=summary.tied,
            itemsize=sizes.get(record.get("dense_type") or summary.dtype, 2),
            dense_type=record.get("dense_type"),
            base=record.get("config", {}).get("model"),
            mask=(folder / MASK_FILE).is_file(),
            tokenizer=_tokenizer_file(folder) or (_tokenizer_file(dense) if dense else None),
        )

    def unsupported_feature(self, allowed: Collection[str]) -> str:
        """What the model computes and a format does not, in words; the first such feature, or empty.

        Args:
            allowed: the features of the format, by name, or by the part of a name before its colon.
        """
        features = self.differences.items()
        return next((text for name, text in features if not {name, name.split(":")[0]} & {*allowed}), "")

    @property
    def equal_widths(self) -> bool:
        """Whether all layers have the same heads and channels."""
        first, *others = self.geometry.layers
        return all(layer == first for layer in others)

    @property
    def widest(self) -> Geometry:
        """The geometry with every layer as wide as the widest."""
        layers, names = self.geometry.layers, self.geometry.names
        shape = {
            name: replace(
                layers[0][name],
                groups=max(layer[name].groups for layer in layers),
                group=max(layer[name].group for layer in layers),
            )
            for name in names
        }
        return replace(self.geometry, layers=(shape,) * len(layers))

    def parameters(self, geometry: Geometry | None = None) -> int:
        """Number of parameters of the whole model, without norms and biases of output projections."""
        embeddings = self.vocabulary * self.geometry.hidden_size * (1 if self.tied else 2)
        return (geometry or self.geometry).linear_parameters + embeddings


def _tokenizer_file(folder: Path) -> dict[str, Any] | None:
    """The content of `tokenizer.json`; None where the library makes the tokenizer from other files."""
    file = folder / "tokenizer.json"
    return _read_tokenizer(file, file.stat().st_mtime_ns) if file.is_file() else None


@lru_cache(maxsize=4)  # the file has megabytes, and a page needs it at every click
def _read_tokenizer(file: Path, changed: int) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def rotary_keys(config: Any) -> dict[str, Any]:
    """The keys of `config.json` in which transformers 4 and mlx-lm read the rotary embedding.

    mlx-lm takes its own default base in silence where they are missing. transformers 4 had no such keys for
    a rotary embedding of each type of layer.
    """
    rotary = dict(config.rope_parameters)
    if "rope_theta" not in rotary:
        return {}
    theta = rotary.pop("rope_theta")
    plain = rotary.get("rope_type", "default") == "default"
    return {"rope_theta": theta, "rope_scaling": None if plain else rotary}
