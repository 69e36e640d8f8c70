"""A tokenizer as GGUF has it, from the content of `tokenizer.json`: a byte-level or a SentencePiece BPE.

llama.cpp splits text for a byte-level BPE by a rule that it knows by name. A SentencePiece BPE it merges by
the scores of the pieces; `tokenizer.json` has the merges instead, in the order of these scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from pruning.models.gguf_tokenizer import LLAMA3_SPLIT, QWEN2_SPLIT

# llama.cpp's name of a pre-tokenizer, by the pattern that tokenizer.json splits text with.
PRE_TOKENIZERS = {QWEN2_SPLIT: "qwen2", LLAMA3_SPLIT: "llama-bpe", None: "gpt-2"}
DIGITS = "smollm"  # every digit apart, then as gpt-2
SPACE = "\u2581"  # how SentencePiece writes a space
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def unsupported_reason(content: Mapping[str, Any]) -> str:
    """Why llama.cpp does not split text as a `tokenizer.json` does; empty if it does."""
    if pre_tokenizer(content) or (prefixed(content) is not None and piece_order(content) is not None):
        return ""
    names = ", ".join([*PRE_TOKENIZERS.values(), DIGITS])
    return (
        f"the tokenizer is neither a byte-level BPE that llama.cpp knows by name ({names}) nor a "
        "SentencePiece BPE such as Llama 2's"
    )


def pre_tokenizer(content: Mapping[str, Any]) -> str | None:
    """The name that llama.cpp has for the way a byte-level BPE splits text; None for any other tokenizer."""
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


def prefixed(content: Mapping[str, Any]) -> bool | None:
    """Whether a SentencePiece BPE puts a space before a text; None where it is no plain SentencePiece BPE."""
    bpe = content.get("model") or {}
    if bpe.get("type") != "BPE" or not bpe.get("byte_fallback"):
        return None
    first, normalizer = content.get("pre_tokenizer"), content.get("normalizer") or {}
    stages = normalizer.get("normalizers", [normalizer] if normalizer else [])
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if first is None and stages and stages[-1] == spaces:
        before = stages[:-1]
        return bool(before) if before in ([], [{"type": "Prepend", "prepend": SPACE}]) else None
    if first and first.get("type") == "Metaspace" and not stages and not first.get("split", True):
        return first.get("prepend_scheme") != "never" if first.get("replacement") == SPACE else None
    return None


def piece_order(content: Mapping[str, Any]) -> dict[str, int] | None:
    """The order in which a BPE's merges make its pieces; None if scores of pieces cannot say the same.

    llama.cpp, as SentencePiece, joins any two pieces that make a third, that of the highest score first. So
    all merges that make a piece have to follow each other, and none that the vocabulary allows is missing.
    """
    bpe = content["model"]
    vocabulary, merges = bpe["vocab"], [_pair(merge) for merge in bpe["merges"]]
    added = {token["content"] for token in content.get("added_tokens", [])}  # cut out before merges
    products = [piece for piece, _ in groupby(left + right for left, right in merges)]
    order = {piece: position for position, piece in enumerate(products)}
    pairs = set(merges)
    pieces = vocabulary.keys() - added
    complete = all(
        (piece[:cut], piece[cut:]) in pairs
        for piece in pieces
        if not _BYTE.fullmatch(piece)
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    )
    return order if complete and len(order) == len(products) else None


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def vocabulary(content: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Tokens and types, and merges or scores, from the content of a `tokenizer.json`."""
    import gguf

    bpe = content["model"]
    tokens = {index: token for token, index in bpe["vocab"].items()}
    types = dict.fromkeys(tokens, gguf.TokenType.NORMAL)
    entries: dict[str, Any]
    if rule := pre_tokenizer(content):
        merges = [" ".join(_pair(merge)) for merge in bpe["merges"]]
        entries = {"model": "gpt2", "pre": rule, "merges": merges}
    else:
        order = piece_order(content) or {}
        scores = [-float(order.get(tokens.get(index, ""), 0)) for index in range(size)]
        entries = {"model": "llama", "pre": "default", "scores": scores, "prefixed": prefixed(content)}
        types |= {i: gguf.TokenType.BYTE for i, token in tokens.items() if _BYTE.fullmatch(token)}
    for added in content.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    if entries["model"] == "llama" and bpe.get("unk_token") in bpe["vocab"]:
        types[bpe["vocab"][bpe["unk_token"]]] = gguf.TokenType.UNKNOWN
    return entries | {
        "tokens": [tokens.get(i, f"[PAD{i}]") for i in range(size)],
        "types": [types.get(i, gguf.TokenType.UNUSED) for i in range(size)],
    }


def add_tokenizer(writer: Any, tokenizer: Any, vocabulary: dict[str, Any]) -> None:
    """Write a vocabulary, special tokens and chat templates."""
    writer.add_tokenizer_model(vocabulary["model"])
    writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["types"])
    special = ["bos", "eos", "pad"]
    if "scores" in vocabulary:
        writer.add_token_scores(vocabulary["scores"])
        writer.add_add_space_prefix(vocabulary["prefixed"])
        special.append("unk")
    else:
        # llama.cpp wants the list and GGUF has no empty ones: a merge that never applies does no harm
        writer.add_token_merges(vocabulary["merges"] or ["\u0120 \u0120"])
    for name in special:
        if (token := getattr(tokenizer, f"{name}_token_id", None)) is not None:
            getattr(writer, f"add_{name}_token_id")(token)
    first = tokenizer("a").input_ids[:1]
    writer.add_add_bos_token(first == [tokenizer.bos_token_id] != [None])
    if template := getattr(tokenizer, "chat_template", None):
        named = isinstance(template, dict)  # several: for tools, say, beside the default one
        writer.add_chat_template(
            [{"name": name, "template": text} for name, text in template.items()] if named else template
        )
