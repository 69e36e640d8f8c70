"""What a GGUF file may say: the keys and tensors that are known, and refusals by name for all else.

A key is used, or it changes nothing, or changes nothing as long as it has a certain value. A file that says
more is not computed as it says. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from pruning.formatting import quoted
from pruning.models import gguf_rope, gguf_sizes
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
    own = USED | gguf_sizes.KEYS | set(ARCHITECTURES[prefix][0].keys)
    for key, value in file.metadata.items():
        if not _is_known(key, value, prefix, own):
            raise file.refusal(f"says {quoted(key, 80)} = {quoted(value)}, which is not supported")


def _is_known(key: str, value: Any, prefix: str, own: Collection[str]) -> bool:
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
    if name in NEUTRAL and name not in own:
        return value in NEUTRAL[name]
    return name in own or name in gguf_sizes.IMPLIED or _below(name, "rope") in gguf_rope.KEYS


def _below(key: str, prefix: str) -> str:
    return key[len(prefix) + 1 :] if key.startswith(f"{prefix}.") else ""


def layer_tensor(name: str) -> tuple[int, str, str] | None:
    """Layer, part and kind (`weight` or `bias`) of a tensor, such as `blk.3.attn_q.bias`."""
    match = _LAYER.fullmatch(name)
    return (int(match[1]), match[2], match[3]) if match else None
