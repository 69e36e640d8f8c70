"""A byte-level BPE tokenizer as GGUF has it, from what `tokenizer.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruning.models.gguf_input import LLAMA3_SPLIT, QWEN2_SPLIT

# llama.cpp's name of a pre-tokenizer, by the pattern that tokenizer.json splits text with.
PRE_TOKENIZERS = {QWEN2_SPLIT: "qwen2", LLAMA3_SPLIT: "llama-bpe", None: "gpt-2"}
DIGITS = "smollm"  # every digit apart, then as gpt-2


def pre_tokenizer(content: Mapping[str, Any]) -> str | None:
    """llama.cpp's name of how a `tokenizer.json` splits text; None if it has none, or it is no such BPE."""
    stages = content.get("pre_tokenizer") or {}
    stages = stages.get("pretokenizers", [stages])
    patterns = [s["pattern"].get("Regex") for s in stages if s.get("type") == "Split"]
    byte_level = any(s.get("type") == "ByteLevel" for s in stages)
    digits = any(s.get("type") == "Digits" and s.get("individual_digits") for s in stages)
    if (content.get("model") or {}).get("type") != "BPE" or not byte_level or len(patterns) > 1:
        return None
    if digits:
        return None if patterns else DIGITS
    return PRE_TOKENIZERS.get(patterns[0] if patterns else None)


def vocabulary(content: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Tokens, types, merges and the pre-tokenizer's name, from what `tokenizer.json` holds."""
    import gguf

    bpe = content["model"]
    tokens = {index: token for token, index in bpe["vocab"].items()}
    types = dict.fromkeys(tokens, gguf.TokenType.NORMAL)
    for added in content.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    return {
        "pre": pre_tokenizer(content),
        "tokens": [tokens.get(i, f"[PAD{i}]") for i in range(size)],
        "types": [types.get(i, gguf.TokenType.UNUSED) for i in range(size)],
        "merges": [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]],
    }


def add_tokenizer(writer: Any, tokenizer: Any, vocabulary: dict[str, Any]) -> None:
    """Write a vocabulary, special tokens and chat templates."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["types"])
    # llama.cpp wants the list to be there and GGUF has no empty ones: a merge that never applies does no harm
    writer.add_token_merges(vocabulary["merges"] or ["\u0120 \u0120"])
    for name in ("bos", "eos", "pad"):
        if (token := getattr(tokenizer, f"{name}_token_id", None)) is not None:
            getattr(writer, f"add_{name}_token_id")(token)
    first = tokenizer("a").input_ids[:1]
    writer.add_add_bos_token(first == [tokenizer.bos_token_id] != [None])
    if template := getattr(tokenizer, "chat_template", None):
        named = isinstance(template, dict)  # several: for tools, say, beside the default one
        writer.add_chat_template(
            [{"name": name, "template": text} for name, text in template.items()] if named else template
        )
