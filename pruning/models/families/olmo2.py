"""OLMo 2: a norm behind each module and none in front; norms of queries and keys over all their heads."""

from pruning.models.family import Family, Projection, attention, gate_up, mlp, qkv

FAMILY = Family(
    model_type="olmo2",
    name="Olmo2",
    sites=(
        attention(
            *qkv("attention_bias"),
            output=Projection("self_attn.o_proj", bias="attention_bias"),
            residual="self_attn",
            post_norm="post_attention_layernorm",
            prunable=False,  # the norms of queries and keys divide by the mean square of all heads
        ),
        mlp(*gate_up(), residual="mlp", post_norm="post_feedforward_layernorm"),
    ),
    computes={
        "only_post_norms": "norms behind each module instead of in front",
        "query_key_norms_over_heads": "norms of queries and keys over all heads",
    },
    tiny={
        "olmo2": {},
        "olmo2_mha_bias": {"num_key_value_heads": 8, "attention_bias": True},
    },
)
