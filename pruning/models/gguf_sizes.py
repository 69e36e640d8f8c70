"""The sizes that a GGUF file says, one width for each layer, compared with each other. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from pruning.formatting import quoted
from pruning.models.geometry import CHANNELS, DEEPEST, WIDEST
from pruning.models.gguf_file import GGUFFile

HEADS, KV_HEADS, MLP = "attention.head_count", "attention.head_count_kv", "feed_forward_length"
HIDDEN, LAYERS, CONTEXT, HEAD_DIM = (
    "embedding_length",
    "block_count",
    "context_length",
    "attention.key_length",
)
KEYS = {HEADS, KV_HEADS, MLP, HIDDEN, LAYERS, CONTEXT, HEAD_DIM}
# What follows from the width of a head, and may be said all the same.
IMPLIED = ("rope.dimension_count", "attention.value_length", "attention.scale")
AGAIN = "copy or download it again"


class Widths(NamedTuple):
    """Widths of a decoder layer: its query heads, key-value heads, and MLP channels."""

    heads: int
    kv_heads: int
    channels: int

    @property
    def config(self) -> dict[str, int]:
        """The keys of a config that say them."""
        names = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
        return dict(zip(names, self, strict=True))


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model: width of the residual stream, channels of a head, longest sequence, and layers."""

    hidden: int
    head_dim: int
    context: int
    layers: tuple[Widths, ...]


def read_sizes(file: GGUFFile, prefix: str, by_layer: bool) -> Sizes:
    """The sizes of a GGUF file's model.

    Args:
        file: a GGUF file.
        prefix: of the keys: the architecture.
        by_layer: whether layers may differ in width.

    Raises:
        ModelError: one is missing, is no size, or contradicts another; or layers have no attention or no MLP.
    """

    def size(key: str, value: Any) -> int:
        if type(value) is not int or not 0 < value <= WIDEST:
            raise file.refusal(f"says {prefix}.{key} = {quoted(value)}, which is no size of a model")
        return value

    def required(key: str) -> Any:
        if (value := file.metadata.get(f"{prefix}.{key}")) is None:
            raise file.refusal(f"lacks {prefix}.{key}", AGAIN)
        return value

    def widths(key: str, value: Any) -> list[int]:
        """One for each layer, from a list or from one for all."""
        each = value if isinstance(value, list) else [value] * depth
        if len(each) != depth or (not by_layer and any(width != each[0] for width in each)):
            expected = "one width for each" if by_layer else "one width for all"
            raise file.refusal(
                f"says {prefix}.{key} = {quoted(value)}, and its {depth} layers need {expected}"
            )
        for layer, width in enumerate(each):
            if width == 0:
                raise file.refusal(
                    f"says {prefix}.{key} = 0 of layer {layer}, and such layers are not supported"
                )
            size(key, width)
        return each

    hidden, context = size(HIDDEN, required(HIDDEN)), size(CONTEXT, required(CONTEXT))
    if (depth := size(LAYERS, required(LAYERS))) > DEEPEST:
        raise file.refusal(f"says {prefix}.{LAYERS} = {depth:,}, and no model has as many", AGAIN)
    heads = widths(HEADS, required(HEADS))
    kv_heads = widths(KV_HEADS, file.metadata.get(f"{prefix}.{KV_HEADS}", heads))
    channels = widths(MLP, required(MLP))
    for layer, (queries, keys) in enumerate(zip(heads, kv_heads, strict=True)):
        if queries % keys:
            raise file.refusal(f"has {queries} query heads for {keys} key-value heads in layer {layer}")
    if len(set(heads)) == 1 and hidden % heads[0] == 0:
        head_dim = size(HEAD_DIM, file.metadata.get(f"{prefix}.{HEAD_DIM}", hidden // heads[0]))
    else:
        head_dim = size(HEAD_DIM, required(HEAD_DIM))
    if head_dim % 2 or sum(heads) * head_dim + sum(channels) > CHANNELS:
        raise file.refusal(f"has heads of {head_dim} channels and layers of sizes that no model has", AGAIN)
    for key in IMPLIED:
        value = file.metadata.get(f"{prefix}.{key}")
        scale = isinstance(value, float) and (value == 0 or math.isclose(value, head_dim**-0.5, rel_tol=1e-6))
        if value is not None and not (scale if key == "attention.scale" else value == head_dim):
            raise file.refusal(
                f"says {prefix}.{key} = {quoted(value)}, and its heads have {head_dim} channels"
            )
    layers = tuple(Widths(*widths) for widths in zip(heads, kv_heads, channels, strict=True))
    return Sizes(hidden, head_dim, context, layers)
