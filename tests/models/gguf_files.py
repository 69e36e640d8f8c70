"""Tiny GGUF files, written by hand as llama.cpp's converters write them."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from pruning.formats.gguf import interleave
from tests.conftest import SIZES, byte_tokenizer

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def dense(config_class: Any, **options: Any) -> Any:
    """A random model whose every parameter matters, with a context long enough for every rotary embedding."""
    torch.manual_seed(0)
    options = {**SIZES, "max_position_embeddings": 256, **options}
    model = AutoModelForCausalLM.from_config(config_class(**options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def tensors(model: Any, architecture: str) -> dict[str, np.ndarray]:
    """The parameters of a model by their names in GGUF; rows of queries and keys in pairs for a Llama."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    arrays = {}
    for name, tensor in model.state_dict().items():
        if name in OUTSIDE:
            arrays[OUTSIDE[name]] = tensor.numpy()
            continue
        _, _, layer, *inside = name.split(".")
        part, kind = ".".join(inside[:-1]), inside[-1]
        if inside[1] in ("q_proj", "k_proj") and architecture in ("llama", "deci"):
            tensor = interleave(tensor, head_dim)
        arrays[f"blk.{layer}.{NAMES[part]}.{kind}"] = tensor.numpy()
    if config.tie_word_embeddings:
        del arrays["output.weight"]
    return arrays


def metadata(model: Any, architecture: str) -> dict[str, Any]:
    """What the converters say of a model and of the tokenizer of `byte_tokenizer`."""
    config = model.config
    about = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
    }
    if getattr(config, "head_dim", None):
        about |= dict.fromkeys(
            ("attention.key_length", "attention.value_length", "rope.dimension_count"), config.head_dim
        )
    tokens = sorted(byte_tokenizer().get_vocab().items(), key=lambda entry: entry[1])
    return {f"{architecture}.{key}": value for key, value in about.items()} | {
        "general.name": "tiny",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": ["\u0120\u0120", *(token for token, _ in tokens[1:])],
        "tokenizer.ggml.token_type": [1] * 256 + [3],
        "tokenizer.ggml.merges": ["\u0120 \u0120"],
        "tokenizer.ggml.eos_token_id": 256,
    }


def write_file(path: Any, architecture: str, keys: dict[str, Any], arrays: dict[str, Any]) -> None:
    """A GGUF file of some keys and arrays; whole numbers are written as uint32 where these can hold them."""
    writer = gguf.GGUFWriter(str(path), architecture)
    for key, value in keys.items():
        kind = gguf.GGUFValueType.get_type(value)
        if kind == gguf.GGUFValueType.INT32:
            narrow = 0 <= value < 2**32
            kind = gguf.GGUFValueType.UINT32 if narrow else gguf.GGUFValueType.INT64
        writer.add_key_value(key, value, kind)
    for name, array in arrays.items():
        writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_model(
    path: Any,
    model: Any,
    architecture: str = "llama",
    keys: dict[str, Any] | None = None,
    arrays: dict[str, Any] | None = None,
    drop: tuple[str, ...] = (),
) -> Any:
    """A model as GGUF.

    Args:
        path: of the file.
        model: a dense model.
        architecture: as the file is to name it; `{arch}` in keys stands for it.
        keys, arrays: metadata and tensors besides, or in place of, the model's own.
        drop: keys and tensors to omit.
    """
    all_keys = metadata(model, architecture) | {
        key.replace("{arch}", architecture): value for key, value in (keys or {}).items()
    }
    all_arrays = tensors(model, architecture) | (arrays or {})
    omitted = {name.replace("{arch}", architecture) for name in drop}
    write_file(
        path,
        architecture,
        {key: value for key, value in all_keys.items() if key not in omitted},
        {name: array for name, array in all_arrays.items() if name not in omitted},
    )
    return model
