"""Gemma 3, text only: norms before and after each module, which multiply by one plus their weight."""

from collections.abc import Mapping
from typing import Any

from pruning.models.family import (
    QUERY_KEY_NORMS,
    Config,
    Family,
    Gguf,
    Head,
    Projection,
    attention,
    gate_up,
    mlp,
    one_plus,
    qkv,
)

EVERY = 6  # layers, of which the last looks at the whole context; llama.cpp has this number in its code
LOCAL_THETA = 10_000.0  # base of the rotary embedding in layers with a window, as in llama.cpp's code


def _metadata(config: Any) -> dict[str, Any]:
    return {"attention.sliding_window": config.sliding_window}


def _config(metadata: Config, config: Config) -> Mapping[str, Any]:
    local = {"rope_type": "default", "rope_theta": float(metadata.get("rope.freq_base_swa", LOCAL_THETA))}
    types = [
        "sliding_attention" if (layer + 1) % EVERY else "full_attention"
        for layer in range(config["num_hidden_layers"])
    ]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": config["head_dim"],
        "sliding_window": metadata["attention.sliding_window"],
        "layer_types": types,
        "rope_parameters": {"full_attention": config["rope_parameters"], "sliding_attention": local},
    }


FAMILY = Family(
    model_type="gemma3_text",
    name="Gemma3",
    classes=("Gemma3TextConfig", "Gemma3TextModel", "Gemma3ForCausalLM"),
    sites=(
        attention(
            *qkv("attention_bias"),
            output=Projection("self_attn.o_proj", bias="attention_bias"),
            post_norm="post_attention_layernorm",
            gain=one_plus,
        ),
        mlp(
            *gate_up(),
            residual="pre_feedforward_layernorm",
            post_norm="post_feedforward_layernorm",
            gain=one_plus,
        ),
    ),
    head=Head(softcap="final_logit_softcapping"),
    activation="hidden_activation",
    windowed=True,
    nested_rope=True,
    heads_divide=True,
    computes={
        "post_norms": "norms behind each module",
        "query_key_norms": "norms of queries and keys",
        "embedding_scale": "scaled embeddings",
    },
    config={
        "query_pre_attn_scalar": None,
        "final_logit_softcapping": None,
        "attn_logit_softcapping": None,
        "use_bidirectional_attention": False,
        "sliding_window_pattern": None,
        "rope_local_base_freq": None,
    },
    gguf=Gguf(
        "gemma3",
        computes=(
            *("post_norms", "query_key_norms", "embedding_scale", "window", "query_pre_attn_scalar"),
            *("activation:gelu_pytorch_tanh", "sliding_window_pattern", "rope_local_base_freq"),
        ),
        norms={
            "input_layernorm": "attn_norm",
            "post_attention_layernorm": "post_attention_norm",
            "pre_feedforward_layernorm": "ffn_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        },
        head_norms=QUERY_KEY_NORMS,
        gain=1.0,
        keys=("attention.sliding_window", "rope.freq_base_swa"),
        metadata=_metadata,
        config=_config,
    ),
    tiny={"gemma3": {"num_hidden_layers": 6, "head_dim": 8, "sliding_window": 7, "query_pre_attn_scalar": 8}},
)
