"""The blocks of text that a config means: calibration and held-out, of each domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pruning.config import RunConfig
from pruning.errors import ModelError, too_long
from pruning.models.architectures import CausalLM
from pruning.text.blocks import TokenBlocks, heldout_blocks, sample_blocks
from pruning.text.sources import load_text

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
            f"has {rows:,} rows: give the tokenizer that belongs to the model."
        )
    return blocks


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
                load_text(name, config.domains.get(name, "embedded"), "calibration", config.seed, tokenizer),
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
                load_text(name, config.domains.get(name, "embedded"), "heldout", config.seed, tokenizer),
                tokenizer,
                config.seq_len,
                config.eval_blocks,
            ),
            model,
        )
        for name in config.measured_domains
    ]
