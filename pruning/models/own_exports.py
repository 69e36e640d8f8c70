"""Exports of this project, and what was trained from them elsewhere, read as pruned checkpoints.

Such a folder has no `pruning.json`: the widths of its layers stand in its config.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.errors import ModelError
from pruning.formatting import quoted
from pruning.models.families import supported

# What an export with its modelling file adds to the dense config.
OWN_KEYS = ("auto_map", "per_layer_config", "output_bias", "allow_global_per_layer_attribute_access")
_PREFIX = "pruned_"  # of the model type of an export that brings its modelling file
# The type of a `deci` export: Llama's layers, with the widths of each in `block_configs`.
DECI, BLOCKS = "nemotron-nas", "block_configs"
EXPORT_KEYS = (*OWN_KEYS, BLOCKS)


def dense_name(model_type: object) -> object:
    """The model type of the dense architecture that an export computes; any other type as it is."""
    if not isinstance(model_type, str):
        return model_type
    return "llama" if model_type == DECI else model_type.removeprefix(_PREFIX)


def export_record(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What `pruning.json` would say of an export: the widths of its layers, and which sites have biases.

    Args:
        config: as in `config.json`.
        path: of the folder, for messages.

    Raises:
        ModelError: the widths are none, or a layer lacks its attention or its MLP.
    """
    if not (set(config) & {"per_layer_config", BLOCKS}):
        return {}
    family = supported(dense_name(config.get("model_type")))
    try:
        widths = _deci_widths(config) if BLOCKS in config else _own_widths(config)
        layers = [[spec.shape({**config, **own}) for spec in family.sites] for own in widths]
        geometry = family.geometry_of(config["hidden_size"], layers)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        file = path / "config.json"
        raise ModelError(
            f"{quoted(file)} does not say how wide its layers are ({error}): export the model again."
        ) from None
    biased = {
        str(site): bool(config.get("output_bias")) or family.spec(site.name).consumer.has_bias(config)
        for site in geometry.sites
    }
    return {"geometry": geometry.to_dict(), "biased": biased}


def _own_widths(config: Mapping[str, Any]) -> list[Mapping[str, int]]:
    """By layer the keys of its config that are not the model's."""
    layers: Mapping[str, Mapping[str, int]] = config["per_layer_config"]
    return [layers.get(str(index), {}) for index in range(config["num_hidden_layers"])]


def _deci_widths(config: Mapping[str, Any]) -> list[Mapping[str, int]]:
    """By layer the keys of its config, as Llama names them."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    rows: list[Mapping[str, int]] = []
    for index, block in enumerate(config[BLOCKS]):
        attention, mlp = block["attention"], block["ffn"]
        for part, known in ((attention, {"n_heads_in_group", "no_op"}), (mlp, {"ffn_mult", "no_op"})):
            if other := next((name for name, value in part.items() if value and name not in known), None):
                raise ValueError(f"layer {index} has {other}, which is not known here")
            if part.get("no_op"):
                raise ValueError(f"layer {index} has only one of attention and MLP")
        channels = int(2 * mlp["ffn_mult"] * hidden / 3)
        kv_heads = heads // attention["n_heads_in_group"]
        rows.append({"num_key_value_heads": kv_heads, "intermediate_size": -(-channels // 256) * 256})
    return rows
