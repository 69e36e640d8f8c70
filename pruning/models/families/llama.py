"""Llama."""

from pruning.models.family import DECI, Family, Projection, attention, gate_up, mlp, qkv

FAMILY = Family(
    model_type="llama",
    name="Llama",
    sites=(
        attention(*qkv("attention_bias"), output=Projection("self_attn.o_proj", bias="attention_bias")),
        mlp(*gate_up("mlp_bias"), down=Projection("mlp.down_proj", bias="mlp_bias")),
    ),
    gguf=DECI,
    as_llama=True,
    heads_divide=True,
    tiny={
        "llama_mha": {"num_key_value_heads": 8},
        "llama_gqa_bias": {"attention_bias": True, "mlp_bias": True},
    },
)
