"""Phi-3 and Phi-4: one projection makes queries, keys and values, and one makes gate and up."""

from pruning.models.family import DECI, GATE, KEY, QUERY, UP, VALUE, Family, Projection, attention, mlp

FAMILY = Family(
    model_type="phi3",
    name="Phi3",
    sites=(
        attention(
            Projection("self_attn.qkv_proj", (QUERY, KEY, VALUE)),
            # where the forward pass splits the projection is read from these
            attributes={
                "self_attn.num_key_value_groups": "group",
                "self_attn.num_key_value_heads": "groups",
                "self_attn.config.num_attention_heads": "entries",
            },
        ),
        mlp(Projection("mlp.gate_up_proj", (GATE, UP)), attributes={}),
    ),
    windowed=True,
    gguf=DECI,
    as_llama=True,
    tiny={"phi3": {}, "phi3_window": {"sliding_window": 7}},
)
