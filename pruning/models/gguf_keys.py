"""The metadata keys of GGUF files that are supported; a file with any other is refused by the key's name.

A supported key is used, or it changes nothing, or changes nothing as long as it has a certain value. Needs no
torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from pruning.formatting import quoted
from pruning.models.families import FAMILIES
from pruning.models.family import DECI, Gguf
from pruning.models.gguf_file import GGUFFile

# By the file's name of an architecture how its layers lie in the file, and transformers' model type where no
# bias or window asks for another.
ARCHITECTURES: dict[str, tuple[Gguf, str]] = {
    "llama": (replace(DECI, architecture="llama", by_layer=False), "llama"),
    "qwen2": (replace(DECI, architecture="qwen2", by_layer=False, pairs=False), "qwen2"),
    "deci": (DECI, "llama"),
    **{f.gguf.architecture: (f.gguf, f.model_type) for f in FAMILIES.values() if f.gguf not in (None, DECI)},
}
# Keys below the architecture's name that are used. The size of the vocabulary is that of the embedding,
# whatever the key says.
HEADS, KV_HEADS, MLP = "attention.head_count", "attention.head_count_kv", "feed_forward_length"
HIDDEN, LAYERS, CONTEXT = "embedding_length", "block_count", "context_length"
HEAD_DIM, WINDOW = "attention.key_length", "attention.sliding_window"
# What follows from the width of a head, and may be said all the same.
IMPLIED = ("rope.dimension_count", "attention.value_length", "attention.scale")
ROPE = {
    *("rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor"),
    *("rope.scaling.attn_factor", "rope.scaling.original_context_length"),
    *("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
    "rope.scaling.finetuned",  # which llama.cpp only prints
}
USED = {
    *(HEADS, KV_HEADS, MLP, HIDDEN, LAYERS, CONTEXT, HEAD_DIM, WINDOW, *IMPLIED, *ROPE),
    *("attention.layer_norm_rms_epsilon", "vocab_size"),
}
# Keys below the architecture's name that have to have one of these values, which change nothing.
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
    "rope.scaling.alpha": (0, 1),
    "rope.scaling.yarn_log_multiplier": (0,),
    "rope.scaling.yarn_ext_factor": (1, -1),
    "rope.scaling.yarn_attn_factor": (1,),
}
# Keys that change nothing in what is computed: who made the file of what, how it was packed, chat templates.
ABOUT = re.compile(
    r"general\.(?!type$).*|quantize\.imatrix\..*|split\.(no|count|tensors\.count)|mradermacher\..*"
    r"|tokenizer\.(chat_templates?|chat_template\..*|huggingface\.json)"
)
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


def check_keys(file: GGUFFile, prefix: str) -> None:
    """Refuse a file with metadata that is not supported.

    Args:
        file: a GGUF file.
        prefix: the architecture, with which the keys about its layers begin.

    Raises:
        ModelError: it has; the sentence names the key and its value.
    """
    if (parts := file.metadata.get("split.count", 1)) not in (0, 1):
        raise file.error(
            f"is one of {quoted(parts)} parts of a model",
            "join them (llama-gguf-split --merge), or give the model's folder with safetensors",
        )
    own = USED | set(ARCHITECTURES[prefix][0].keys)
    for key, value in file.metadata.items():
        if not _is_supported(key, value, prefix, own):
            raise file.error(f"says {quoted(key, 80)} = {quoted(value)}, which is not supported")


def _is_supported(key: str, value: Any, prefix: str, own: Collection[str]) -> bool:
    if key == "general.type":
        return bool(value == "model")
    if ABOUT.fullmatch(key):
        return True
    if name := _below(key, "tokenizer.ggml"):
        if name in TOKENIZER_OFF:
            return not value
        return name in TOKENIZER_USED or bool(TOKENIZER_NEUTRAL.fullmatch(name))
    name = _below(key, prefix)
    return name in own or (name in NEUTRAL and value in NEUTRAL[name])


def _below(key: str, prefix: str) -> str:
    return key[len(prefix) + 1 :] if key.startswith(f"{prefix}.") else ""
