"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values."""

from pruning.models.family import DECI, Family, attention, gate_up, mlp, qkv

FAMILY = Family(
    model_type="qwen2",
    name="Qwen2",
    sites=(attention(*qkv(bias=True)), mlp(*gate_up())),
    windowed=True,
    gguf=DECI,
    as_llama=True,
    tiny={"qwen2": {"tie_word_embeddings": True}},
)
