"""How many UTF-8 bytes of a text each of its tokens stands for."""

from __future__ import annotations

from typing import Any

import numpy as np


def count_bytes(text: str, tokenizer: Any) -> np.ndarray | None:
    """UTF-8 bytes of a document by token, int64 (n_tokens,).

    Their sum is that of the document, whatever its script: a character that is divided between tokens is so
    by bytes, and what a tokenizer drops or normalises is counted with a token beside it. Special tokens count
    0, also where the text spells them out; an unknown token counts what it stands for.

    Args:
        text: of a document.
        tokenizer: of the model.

    Returns:
        None where the tokenizer does not say which part of the text a token comes from.
    """
    if not tokenizer.is_fast:
        return None
    encoding = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    ids = np.asarray(encoding["input_ids"], dtype=np.int64)
    is_special = np.isin(ids, special_ids(tokenizer))
    if "ByteLevel" in repr(tokenizer.backend_tokenizer.decoder):
        counts = _byte_level_counts(tokenizer.convert_ids_to_tokens(ids.tolist()))
        if counts.sum() == len(text.encode()):  # it is not where the text was normalised
            return np.where(is_special, 0, counts)
    offsets = np.asarray(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    for index in np.flatnonzero(ids == tokenizer.unk_token_id):
        start, end = offsets[index]
        is_special[index] = text[start:end] == tokenizer.unk_token  # else it stands for other text
    return np.where(is_special, 0, _offset_counts(text, offsets))


def special_ids(tokenizer: Any) -> list[int]:
    """The ids that stand for no text, such as the end of text and the beginning of a turn."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted({*tokenizer.all_special_ids, *added})


def _byte_level_counts(tokens: list[str]) -> np.ndarray:
    """Bytes of tokens whose every character stands for a byte; tokens that were added are text as it is."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = frozenset(ByteLevel.alphabet())
    lengths = {
        token: len(token) if alphabet.issuperset(token) else len(token.encode()) for token in set(tokens)
    }
    return np.array([lengths[token] for token in tokens], dtype=np.int64)


def _offset_counts(text: str, offsets: np.ndarray) -> np.ndarray:
    """Bytes from the end of one token to that of the next, from offsets (n_tokens, 2) in characters.

    Tokens that end at the same character share its bytes; the last have one more where they do not divide, as
    in byte fallback behind the mark of a word, which has none.
    """
    if not len(offsets):
        return np.zeros(0, dtype=np.int64)
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    widths = 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)
    bytes_before = np.concatenate([[0], widths.cumsum()])
    ends = np.maximum.accumulate(offsets[:, 1])
    ends[ends == ends[-1]] = len(text)
    firsts = np.flatnonzero(np.diff(ends, prepend=-1))
    sizes = np.diff(np.append(firsts, len(ends)))
    shares, remainders = np.divmod(np.diff(bytes_before[ends[firsts]], prepend=0), sizes)
    from_last = np.repeat(firsts + sizes, sizes) - np.arange(len(ends))  # 1 for the last of each group
    return np.repeat(shares, sizes) + (from_last <= np.repeat(remainders, sizes))
