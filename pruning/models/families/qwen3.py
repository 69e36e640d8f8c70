"""Qwen3: norms over the channels of each query and key head."""

from pruning.models.family import (
    QUERY_KEY_NORMS,
    Family,
    Gguf,
    Projection,
    attention,
    gate_up,
    mlp,
    qkv,
)

FAMILY = Family(
    model_type="qwen3",
    name="Qwen3",
    sites=(
        attention(*qkv("attention_bias"), output=Projection("self_attn.o_proj", bias="attention_bias")),
        mlp(*gate_up()),
    ),
    windowed=True,
    computes={"query_key_norms": "norms of queries and keys"},
    gguf=Gguf("qwen3", computes=("query_key_norms",), head_norms=QUERY_KEY_NORMS),
    tiny={"qwen3": {"head_dim": 8}},
)
