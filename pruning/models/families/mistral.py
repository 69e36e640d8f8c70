"""Mistral: Llama without biases, with an optional sliding window."""

from pruning.models.family import DECI, Family, attention, gate_up, mlp, qkv

FAMILY = Family(
    model_type="mistral",
    name="Mistral",
    sites=(attention(*qkv()), mlp(*gate_up())),
    windowed=True,
    gguf=DECI,
    as_llama=True,
    tiny={"mistral_window": {"sliding_window": 7}},
)
