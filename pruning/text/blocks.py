"""From text to blocks of tokens, and the UTF-8 bytes that each token stands for."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pruning.errors import DomainError, ModelError, library_errors
from pruning.text.sources import DomainText, Split

BATCH = 256  # documents tokenized at a time: until they are an array, a token takes 170 bytes


@dataclass(frozen=True)
class TokenBlocks:
    """Blocks of tokens of one domain, all of full length.

    Attributes:
        domain: name of the domain.
        ids: token ids, int64 (n_blocks, seq_len).
        source: record of where the text came from, with revision and seed.
        bytes: UTF-8 bytes that the tokens stand for, without the first token of each block, which nothing
            predicts; 0 where they were not counted.
    """

    domain: str
    ids: np.ndarray
    source: dict[str, Any]
    bytes: int = 0

    @property
    def digest(self) -> str:
        """Hash of the token ids and their division into blocks, whatever text they came from."""
        digest = hashlib.blake2b(repr(self.ids.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.ids).tobytes())
        return digest.hexdigest()


def token_stream(texts: Sequence[str], tokenizer: Any) -> np.ndarray:
    """Token ids of all documents, int64 (n,), each closed by the end-of-text token if there is one."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    parts = [np.empty(0, np.int64)]
    for start in range(0, len(texts), BATCH):
        with library_errors(ModelError, "the model's tokenizer cannot read the text"):
            batch = tokenizer(texts[start : start + BATCH], add_special_tokens=False, verbose=False)
        parts += [np.asarray(ids + end, dtype=np.int64) for ids in batch["input_ids"]]
    return np.concatenate(parts)


def _starts(size: int, seq_len: int, rng: np.random.Generator) -> Iterator[int]:
    """Random starts of blocks that cover the text once before they cover it again at another offset."""
    while True:
        offset = int(rng.integers(min(seq_len, size - seq_len + 1)))
        cells = np.arange(offset, size - seq_len + 1, seq_len)
        yield from rng.permutation(cells).tolist()


def sample_blocks(
    name: str, text: DomainText, tokenizer: Any, samples: int, seq_len: int, seed: int
) -> TokenBlocks:
    """Draw random blocks of full length, never padded.

    The draw depends on the seed and the domain's name alone, so that the first n blocks are the same
    whatever the number of samples.

    Raises:
        DomainError: the text is shorter than one block.
    """
    stream = token_stream(text.texts, tokenizer)
    _check_length(name, stream, seq_len, text.source, "calibration")
    rng = np.random.default_rng([seed, *name.encode()])
    starts = _starts(len(stream), seq_len, rng)
    ids = np.stack([stream[start : start + seq_len] for start in itertools.islice(starts, samples)])
    return TokenBlocks(name, ids, {**text.source, "seed": seed, "tokens_available": len(stream)})


def heldout_blocks(
    name: str, text: DomainText, tokenizer: Any, seq_len: int, limit: int | None = None
) -> TokenBlocks:
    """Non-overlapping blocks from the start of the text, at most `limit`; an incomplete last one is dropped.

    Raises:
        DomainError: the text is shorter than one block.
    """
    stream = token_stream(text.texts, tokenizer)
    _check_length(name, stream, seq_len, text.source, "heldout")
    count = min(len(stream) // seq_len, limit or len(stream))
    ids = stream[: count * seq_len].reshape(count, seq_len)
    return TokenBlocks(name, ids, text.source, _predicted_bytes(text.texts, tokenizer, ids))


def _predicted_bytes(texts: Iterable[str], tokenizer: Any, ids: np.ndarray) -> int:
    """UTF-8 bytes of blocks (n_blocks, seq_len) at the start of texts, without each block's first token."""
    end = [] if tokenizer.eos_token_id is None else [0]
    parts, tokens = [], 0
    for text in texts:
        if tokens >= ids.size:
            break
        with library_errors(ModelError, "the model's tokenizer cannot map tokens to text"):
            counts = count_bytes(text, tokenizer)
        if counts is None:
            return 0
        parts.append(np.append(counts, end))
        tokens += len(parts[-1])
    return int(np.concatenate(parts)[: ids.size].reshape(ids.shape)[:, 1:].sum())


def _check_length(name: str, stream: np.ndarray, seq_len: int, source: dict[str, Any], split: Split) -> None:
    if len(stream) >= seq_len:
        return
    part = "its calibration text" if split == "calibration" else "its held-out text"
    if "heldout_share" in source:
        share = "first nine tenths" if split == "calibration" else "held-out tenth"
        part = f"the {share} of its text"
    raise DomainError(
        f"domain {name!r}: {part} has {len(stream):,} tokens, and a block needs {seq_len:,}: "
        "give more text or a shorter --seq-len."
    )


# --- bytes per token ---------------------------------------------------------------------------------------


def count_bytes(text: str, tokenizer: Any) -> np.ndarray | None:
    """UTF-8 bytes that each token of a document stands for, int64 (n_tokens,).

    The counts sum to the bytes of the document, whatever its script: a character that is divided between
    tokens is divided by bytes, and text that a tokenizer drops or normalises counts for a neighbouring token.
    Special tokens count 0, also where the text spells them out; an unknown token counts the text it replaces.

    Returns:
        None if the tokenizer does not say which part of the text a token comes from.
    """
    if not tokenizer.is_fast:
        return None
    encoding = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    ids = np.asarray(encoding["input_ids"], dtype=np.int64)
    is_special = np.isin(ids, _special_ids(tokenizer))
    if "ByteLevel" in repr(tokenizer.backend_tokenizer.decoder):
        counts = _byte_level_counts(tokenizer.convert_ids_to_tokens(ids.tolist()))
        if counts.sum() == len(text.encode()):  # else the text was normalised
            return np.where(is_special, 0, counts)
    offsets = np.asarray(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    for index in np.flatnonzero(ids == tokenizer.unk_token_id):
        start, end = offsets[index]
        is_special[index] = text[start:end] == tokenizer.unk_token  # else it replaces other text
    return np.where(is_special, 0, _offset_counts(text, offsets))


def _special_ids(tokenizer: Any) -> list[int]:
    """Ids of tokens that stand for no text, such as the end of text and the beginning of a turn."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted({*tokenizer.all_special_ids, *added})


def _byte_level_counts(tokens: list[str]) -> np.ndarray:
    """Bytes of byte-level tokens, whose characters stand for a byte each; added tokens are plain text."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = frozenset(ByteLevel.alphabet())
    lengths = {
        token: len(token) if alphabet.issuperset(token) else len(token.encode()) for token in set(tokens)
    }
    return np.array([lengths[token] for token in tokens], dtype=np.int64)


def _offset_counts(text: str, offsets: np.ndarray) -> np.ndarray:
    """Bytes from the end of one token to the end of the next, from offsets (n_tokens, 2) in characters.

    Tokens that end at the same character share its bytes; where these do not divide, the last tokens have one
    more, as in byte fallback, where a word's mark comes first and has none.
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
