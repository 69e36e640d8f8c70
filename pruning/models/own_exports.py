"""Exports of this project, and what was trained from them elsewhere, read as pruned checkpoints.

Such a folder has no `pruning.json`: the widths of its layers stand in its config.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.errors import ModelError
from pruning.formatting import quoted
from pruning.models.architectures import Architecture, supported
from pruning.models.geometry import Geometry

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
    architecture = supported(dense_name(config.get("model_type")))
    try:
        dense = architecture.geometry(config).to_dict()
        widths = _deci_widths(config) if BLOCKS in config else _own_widths(config)
        dense["layers"] = [
            {"kv_heads": kv_heads, "group": heads // kv_heads, "channels": channels}
            for heads, kv_heads, channels in widths
        ]
        geometry = Geometry.from_dict(dense)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        file = path / "config.json"
        raise ModelError(
            f"{quoted(file)} does not say how wide its layers are ({error}): export the model again."
        ) from None
    return {
        "geometry": geometry.to_dict(),
        "biased": {str(site): _has_bias(architecture, config, site.name) for site in geometry.sites},
    }


def _has_bias(architecture: Architecture, config: Mapping[str, Any], kind: str) -> bool:
    return bool(config.get("output_bias")) or architecture.has_bias(
        "output" if kind == "attn" else "down", config
    )


def _own_widths(config: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Heads, key-value heads and channels of each layer; what a layer does not name is the config's own."""
    names = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    layers: Mapping[str, Mapping[str, int]] = config["per_layer_config"]
    rows = []
    for index in range(config["num_hidden_layers"]):
        own = {**{name: config[name] for name in names}, **layers.get(str(index), {})}
        heads, kv_heads, channels = (own[name] for name in names)
        if heads % kv_heads:
            raise ValueError(f"layer {index} has {heads} heads on {kv_heads} key-value heads")
        rows.append((heads, kv_heads, channels))
    return rows


def _deci_widths(config: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    heads, hidden, rows = config["num_attention_heads"], config["hidden_size"], []
    for index, block in enumerate(config[BLOCKS]):
        attention, mlp = block["attention"], block["ffn"]
        for part, known in ((attention, {"n_heads_in_group", "no_op"}), (mlp, {"ffn_mult", "no_op"})):
            if other := next((name for name, value in part.items() if value and name not in known), None):
                raise ValueError(f"layer {index} has {other}, which is not known here")
            if part.get("no_op"):
                raise ValueError(f"layer {index} has only one of attention and MLP")
        channels = int(2 * mlp["ffn_mult"] * hidden / 3)
        rows.append((heads, heads // attention["n_heads_in_group"], -(-channels // 256) * 256))
    return rows
