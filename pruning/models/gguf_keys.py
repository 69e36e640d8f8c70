"""What a GGUF file may say: the keys and tensors that are known, and refusals by name for all else.

A key is used, or it changes nothing, or changes nothing as long as it has a certain value. A file that says
more is not computed as it says. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pruning.formatting import quoted
from pruning.models import gguf_rope, gguf_sizes
from pruning.models.gguf_file import GGUFFile

# The file's name of an architecture, and transformers' model type where no bias or window asks for another.
TYPES = {"llama": "llama", "deci": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
# Below the architecture's name: used, besides the sizes and the rotary embedding. The size of the vocabulary
# is that of the embedding, whatever the key says.
USED = {"attention.layer_norm_rms_epsilon", "attention.sliding_window", "vocab_size"}
WINDOW = "attention.sliding_window"
# Below the architecture's name: what has to have one of these values, which change nothing.
NEUTRAL: dict[str, Collection[Any]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_shared_count": (0,),
    "leading_dense_block_count": (0,),
    "nextn_predict_layers": (0,),
    "attention.causal": (True,),
    "attention.max_alibi_bias": (0,),
    "attention.clamp_kqv": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "hidden_activation": ("silu", "swish"),
    "pooling_type": (0,),
    "use_parallel_residual": (False,),
    "tensor_data_layout": ("Meta AI original pth",),  # how rows of queries and keys always lie in these files
    **{f"rope.{key}": values for key, values in gguf_rope.NEUTRAL.items()},
}
# Written about the file, and read by nobody who computes: who made it of what, and how it was packed.
ABOUT = re.compile(r"general\.(?!type$).*|quantize\.imatrix\..*|split\.(no|tensors\.count)|mradermacher\..*")
TOKENIZER_USED = {
    *("tokens", "token_type", "merges", "scores", "model", "pre"),
    *("bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id", "eot_token_id", "eom_token_id"),
    *("add_bos_token", "add_eos_token", "add_space_prefix"),
}
# Tokens that are given a purpose only by programs for chats and for filling in the middle of code.
_PURPOSES = "seperator|cls|mask|fim_pre|fim_suf|fim_mid|fim_pad|fim_rep|fim_sep|prefix|suffix|middle"
TOKENIZER_NEUTRAL = re.compile(rf"({_PURPOSES})_token_id|token_type_count")
TOKENIZER_OFF = {  # neutral where they say no, or nothing
    "add_sep_token",
    "remove_extra_whitespaces",
    "normalizer.lowercase",
    "normalizer.strip_accents",
    "precompiled_charsmap",
    "suppress_tokens",
}
# By name in the file: the module of a layer and the role of the projection; see `Architecture`.
PROJECTIONS = {
    "attn_q": ("self_attn.q_proj", "query"),
    "attn_k": ("self_attn.k_proj", "key"),
    "attn_v": ("self_attn.v_proj", "value"),
    "attn_output": ("self_attn.o_proj", "output"),
    "ffn_gate": ("mlp.gate_proj", "gate"),
    "ffn_up": ("mlp.up_proj", "up"),
    "ffn_down": ("mlp.down_proj", "down"),
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = re.compile(r"blk\.(\d{1,5})\.([a-z_]+)\.(weight|bias)")


def check_keys(file: GGUFFile, prefix: str) -> None:
    """Refuse a file that says something which is not supported.

    Args:
        file: a GGUF file.
        prefix: of the keys about its layers: the architecture.

    Raises:
        ModelError: it does; the sentence names the key and its value.
    """
    if (parts := file.metadata.get("split.count", 1)) not in (0, 1):
        raise file.refusal(
            f"is one of {quoted(parts)} parts of a model",
            "join them (llama-gguf-split --merge), or give the model's folder with safetensors",
        )
    for key, value in file.metadata.items():
        if not _known(key, value, prefix):
            raise file.refusal(f"says {quoted(key, 80)} = {quoted(value)}, which is not supported")


def _known(key: str, value: Any, prefix: str) -> bool:
    if key == "general.type":
        return bool(value == "model")
    if ABOUT.fullmatch(key) or key == "split.count":
        return True
    if key in ("tokenizer.chat_template", "tokenizer.chat_templates", "tokenizer.huggingface.json"):
        return True
    if key.startswith("tokenizer.chat_template."):
        return True
    if name := _below(key, "tokenizer.ggml"):
        if name in TOKENIZER_OFF:
            return not value
        return name in TOKENIZER_USED or bool(TOKENIZER_NEUTRAL.fullmatch(name))
    name = _below(key, prefix)
    if name in NEUTRAL:
        return value in NEUTRAL[name]
    return (
        name in USED | gguf_sizes.KEYS or name in gguf_sizes.IMPLIED or _below(name, "rope") in gguf_rope.KEYS
    )


def _below(key: str, prefix: str) -> str:
    return key[len(prefix) + 1 :] if key.startswith(f"{prefix}.") else ""


def layer_tensor(name: str) -> tuple[int, str, str] | None:
    """Layer, part and kind (`weight` or `bias`) of a tensor, such as `blk.3.attn_q.bias`."""
    match = _LAYER.fullmatch(name)
    return (int(match[1]), match[2], match[3]) if match else None


def check_tensors(file: GGUFFile, architecture: str, layers: int) -> None:
    """Refuse a file with a tensor that nothing here would compute with.

    Args:
        file: a GGUF file.
        architecture: as the file names it.
        layers: of the model.

    Raises:
        ModelError: it holds one; the sentence names it.
    """
    outside = set(OUTSIDE)
    if architecture in ("llama", "deci"):
        scaled = file.metadata.get(f"{architecture}.rope.scaling.type") == "longrope"
        outside |= {gguf_rope.LONG, gguf_rope.SHORT} if scaled else {gguf_rope.FREQS}
    norms = NORMS.keys() | (QK_NORMS.keys() if architecture == "qwen3" else set())
    for name in file.tensors:
        layer = layer_tensor(name)
        inside = layer is not None and layer[0] < layers
        if name in outside:
            continue
        if inside and layer and (layer[1] in PROJECTIONS or (layer[1] in norms and layer[2] == "weight")):
            continue
        raise file.refusal(f"holds the tensor {quoted(name, 80)}, which is not supported")
