"""The blocks of text that a config means: calibration and held-out, of each domain."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pruning.config import RunConfig
from pruning.errors import ModelError, too_long
from pruning.models.family import CausalLM
from pruning.text.blocks import TokenBlocks, heldout_blocks, sample_blocks
from pruning.text.sources import DomainText, Split, load_text

ASIDE = 8  # blocks a domain


def _check_length(config: RunConfig, model: CausalLM) -> None:
    context = getattr(model.config, "max_position_embeddings", config.seq_len)
    if config.seq_len > context:
        raise too_long(config.seq_len, context)


def _within(blocks: TokenBlocks, model: CausalLM) -> TokenBlocks:
    """The blocks, if every token of them has a row in the embedding."""
    rows = model.get_input_embeddings().num_embeddings
    if (last := int(blocks.ids.max())) >= rows:
        raise ModelError(
            f"the tokenizer gives the id {last:,} for text of domain {blocks.domain!r}, and the embedding "
            f"has {rows:,} rows: put the tokenizer that belongs to the model into its folder."
        )
    return blocks


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


def calibration_blocks(
    config: RunConfig, tokenizer: object, model: CausalLM, aside: int = 0
) -> list[TokenBlocks]:
    """The calibration blocks of every domain of a config, and so many more that are to be set aside.

    Raises:
        PruningError: text that cannot be had, or blocks longer than the model's context.
    """
    _check_length(config, model)
    return [
        _within(
            sample_blocks(
                name,
                documents(config, name, "calibration", tokenizer),
                tokenizer,
                config.samples + aside,
                config.seq_len,
                config.seed,
            ),
            model,
        )
        for name in config.mixture
    ]


def set_aside(blocks: Sequence[TokenBlocks], samples: int) -> tuple[list[TokenBlocks], list[TokenBlocks]]:
    """The first blocks of every domain, for the statistics, and those drawn behind them.

    Of a text too short for both, the two share tokens.
    """
    first = [replace(each, ids=each.ids[:samples]) for each in blocks]
    return first, [replace(each, ids=each.ids[samples:]) for each in blocks]


def evaluation_blocks(config: RunConfig, tokenizer: object, model: CausalLM) -> list[TokenBlocks]:
    """The held-out blocks of every domain that a config measures.

    Raises:
        PruningError: text that cannot be had, or blocks longer than the model's context.
    """
    _check_length(config, model)
    if config.eval_blocks == 0:
        return []
    return [
        _within(
            heldout_blocks(
                name,
                documents(config, name, "heldout", tokenizer),
                tokenizer,
                config.seq_len,
                config.eval_blocks,
            ),
            model,
        )
        for name in config.measured_domains
    ]


def describe_blocks(
    calibration: Sequence[TokenBlocks], heldout: Sequence[TokenBlocks]
) -> dict[str, dict[str, Any]]:
    """What every domain of a run is and what it serves, as plain values.

    Args:
        calibration: of every domain in the mixture, with the blocks that are set aside.
        heldout: of every domain that is measured.

    Returns:
        By domain its source, and under `calibration` and `heldout` what that part of it is: the revision of
        its documents, their digest, the number of blocks and tokens, and the digest of the token ids. Only a
        domain that serves both has both.
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
