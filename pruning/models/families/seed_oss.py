"""Seed-OSS: Llama with a size of heads of its own, and a bias on every projection if its config says so."""

from pruning.models.family import DECI, Family, Projection, attention, gate_up, mlp, qkv

FAMILY = Family(
    model_type="seed_oss",
    name="SeedOss",
    sites=(
        attention(*qkv("attention_bias"), output=Projection("self_attn.o_proj", bias="attention_out_bias")),
        mlp(*gate_up("mlp_bias"), down=Projection("mlp.down_proj", bias="mlp_bias")),
    ),
    gguf=DECI,
    as_llama=True,
    tiny={},
)
