"""The blocks of text of a config, by domain: for calibration, for validation, and held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pruning.config import RunConfig
from pruning.errors import ModelError, too_long
from pruning.models.family import CausalLM
from pruning.text.blocks import TokenBlocks, heldout_blocks, sample_blocks
from pruning.text.sources import DomainText, Split, load_text

VALIDATION_BLOCKS = 8  # per domain
HELD_OUT = 8  # one of so many blocks of a domain is held out of least squares, to judge them
MOST_HELD_OUT = 4  # blocks per domain


def documents(config: RunConfig, name: str, split: Split, tokenizer: object) -> DomainText:
    """The documents of a domain of a config, with a digest of them as `documents` in their source.

    Raises:
        DomainError: see `load_text`.
    """
    text = load_text(name, config.domains.get(name, "embedded"), split, config.seed, tokenizer)
    digest = hashlib.blake2b(digest_size=16)
    for document in text.texts:
        digest.update(f"{len(document)}:{document}".encode("utf-8", "surrogatepass"))
    return replace(text, source={**text.source, "documents": digest.hexdigest()})


def _draw(
    config: RunConfig,
    tokenizer: object,
    model: CausalLM,
    split: Split,
    names: Iterable[str],
    sample: Callable[[str, DomainText], TokenBlocks],
) -> list[TokenBlocks]:
    """Blocks of the documents of some domains, which fit the model's context and embedding."""
    context = getattr(model.config, "max_position_embeddings", config.seq_len)
    if config.seq_len > context:
        raise too_long(config.seq_len, context)
    rows = model.get_input_embeddings().num_embeddings
    blocks = [sample(name, documents(config, name, split, tokenizer)) for name in names]
    for each in blocks:
        if (last := int(each.ids.max())) >= rows:
            raise ModelError(
                f"the tokenizer gives the id {last:,} for text of domain {each.domain!r}, and the embedding "
                f"has {rows:,} rows: put the tokenizer that belongs to the model into its folder."
            )
    return blocks


def calibration_blocks(
    config: RunConfig, tokenizer: object, model: CausalLM, validation: int = 0
) -> list[TokenBlocks]:
    """The calibration blocks of every domain of a config, and behind them some for validation.

    Raises:
        PruningError: text that cannot be had, or blocks longer than the model's context.
    """

    def sample(name: str, text: DomainText) -> TokenBlocks:
        count = config.samples + validation
        return sample_blocks(name, text, tokenizer, count, config.seq_len, config.seed)

    return _draw(config, tokenizer, model, "calibration", config.mixture, sample)


def evaluation_blocks(config: RunConfig, tokenizer: object, model: CausalLM) -> list[TokenBlocks]:
    """The held-out blocks of every domain that a config measures; see `calibration_blocks`."""

    def sample(name: str, text: DomainText) -> TokenBlocks:
        return heldout_blocks(name, text, tokenizer, config.seq_len, config.eval_blocks)

    names = () if config.eval_blocks == 0 else config.measured_domains
    return _draw(config, tokenizer, model, "heldout", names, sample)


def split_blocks(blocks: Sequence[TokenBlocks], count: int) -> tuple[list[TokenBlocks], list[TokenBlocks]]:
    """The first `count` blocks of every domain, and those drawn after them.

    Of a text too short for both, the two share tokens.
    """
    first = [replace(each, ids=each.ids[:count]) for each in blocks]
    return first, [replace(each, ids=each.ids[count:]) for each in blocks]


def hold_out(blocks: TokenBlocks) -> tuple[TokenBlocks, TokenBlocks]:
    """Blocks to fit a regression to, and a few to judge it on; none of a single block.

    A block is held out by the hash of its tokens, so that the choice does not depend on the blocks' order.
    """
    ids = blocks.ids
    count = min(-(-len(ids) // HELD_OUT), MOST_HELD_OUT) if len(ids) > 1 else 0
    hashes = [hashlib.blake2b(block.astype("<i8").tobytes()).digest() for block in ids]
    held_out = np.zeros(len(ids), bool)
    held_out[sorted(range(len(ids)), key=hashes.__getitem__)[:count]] = True
    return replace(blocks, ids=ids[~held_out]), replace(blocks, ids=ids[held_out])


def describe_blocks(
    calibration: Sequence[TokenBlocks], heldout: Sequence[TokenBlocks]
) -> dict[str, dict[str, Any]]:
    """The source of every domain of a run and the use of its text, as plain values.

    Args:
        calibration: of every domain in the mixture, with the blocks for validation.
        heldout: of every domain that is measured.

    Returns:
        By domain its source, and under `calibration` and `heldout`, as far as it is used for these, the
        revision of its documents, their digest, the number of blocks and tokens, and the digest of the token
        ids.
    """
    domains: dict[str, dict[str, Any]] = {}
    for part, blocks in (("calibration", calibration), ("heldout", heldout)):
        for each in blocks:
            entry = domains.setdefault(
                each.domain, {k: v for k, v in each.source.items() if k != "documents"}
            )
            entry[part] = {
                "split": each.source.get("split", part),
                "revision": each.source.get("revision", each.source["documents"]),
                "documents": each.source["documents"],
                "blocks": len(each.ids),
                "tokens": int(each.ids.size),
                "digest": each.digest,
            }
    return domains
