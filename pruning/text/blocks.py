"""From text to blocks of tokens, all of full length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pruning.errors import DomainError, ModelError, library_errors
from pruning.text.hub import Split
from pruning.text.sources import DomainText
from pruning.text.token_bytes import count_bytes

TOGETHER = 256  # documents that are tokenized at a time: until they are an array, a token takes 170 bytes


@dataclass(frozen=True)
class TokenBlocks:
    """Blocks of a domain's text, all of full length.

    Attributes:
        domain: name.
        ids: int64 (n_blocks, seq_len).
        source: where the text came from, with revision and seed.
        bytes: of the text in UTF-8 that the tokens stand for, without the first token of each block, which
            nothing predicts; 0 where they were not counted.
    """

    domain: str
    ids: np.ndarray
    source: dict[str, Any]
    bytes: int = 0

    @property
    def digest(self) -> str:
        """Names the tokens themselves and their division into blocks, whatever they were cut from."""
        digest = hashlib.blake2b(repr(self.ids.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.ids).tobytes())
        return digest.hexdigest()


def token_stream(texts: Sequence[str], tokenizer: Any) -> np.ndarray:
    """All documents as one int64 array, each closed by the end-of-text token if there is one."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    parts = [np.empty(0, np.int64)]
    for start in range(0, len(texts), TOGETHER):
        with library_errors(ModelError, "the model's tokenizer cannot read the text"):
            batch = tokenizer(texts[start : start + TOGETHER], add_special_tokens=False, verbose=False)
        parts += [np.asarray(ids + end, dtype=np.int64) for ids in batch["input_ids"]]
    return np.concatenate(parts)


def _starts(size: int, seq_len: int, rng: np.random.Generator) -> Iterator[int]:
    """Random starts that cover the text before they cover it again at another offset."""
    while True:
        offset = int(rng.integers(min(seq_len, size - seq_len + 1)))
        cells = np.arange(offset, size - seq_len + 1, seq_len)
        yield from rng.permutation(cells).tolist()


def sample_blocks(
    name: str, text: DomainText, tokenizer: Any, samples: int, seq_len: int, seed: int
) -> TokenBlocks:
    """Random blocks of full length, never padded.

    The draw depends on the seed and the domain's name alone, so that the first n blocks are the same
    whatever the number of samples.

    Raises:
        DomainError: the text is shorter than one block.
    """
    stream = token_stream(text.texts, tokenizer)
    _check_length(name, stream, seq_len, text.source, "calibration")
    rng = np.random.default_rng([seed, *name.encode()])
    starts = _starts(len(stream), seq_len, rng)
    ids = np.stack(
        [stream[start : start + seq_len] for start, _ in zip(starts, range(samples), strict=False)]
    )
    return TokenBlocks(name, ids, {**text.source, "seed": seed, "tokens_available": len(stream)})


def heldout_blocks(
    name: str, text: DomainText, tokenizer: Any, seq_len: int, limit: int | None = None
) -> TokenBlocks:
    """Non-overlapping blocks from the start of the text, at most `limit`; the rest of the last is dropped.

    Raises:
        DomainError: the text is shorter than one block.
    """
    stream = token_stream(text.texts, tokenizer)
    _check_length(name, stream, seq_len, text.source, "heldout")
    count = min(len(stream) // seq_len, limit or len(stream))
    ids = stream[: count * seq_len].reshape(count, seq_len)
    return TokenBlocks(name, ids, text.source, _predicted_bytes(text.texts, tokenizer, ids))


def _predicted_bytes(texts: Iterable[str], tokenizer: Any, ids: np.ndarray) -> int:
    """UTF-8 bytes of blocks (n_blocks, seq_len) from the start of texts, without the first token of each."""
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
