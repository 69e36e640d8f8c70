"""Perplexity by domain, one decoder layer at a time."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pruning.checksums import read_cached, write_cached
from pruning.errors import CalibrationError
from pruning.models.cache import cache_file
from pruning.models.layer_pass import Step, TokenStream, layer_pass
from pruning.models.layer_view import LayerView
from pruning.models.source import LayerSource
from pruning.progress import Progress
from pruning.text.blocks import TokenBlocks

LOGIT_TOKENS = 1024  # tokens whose logits are held at once: 0.6 GB at a vocabulary of 152,000


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Negative log-likelihood of a text.

    Attributes:
        nll: summed over the predicted tokens, in nats.
        tokens: predicted tokens; the first of each block has no context and is not predicted.
        seq_len: length of the blocks.
        bytes: of the predicted text in UTF-8; 0 where they were not counted.
        blocks: the negative log-likelihood of each block, in nats, in the order of the text.
    """

    nll: float
    tokens: int
    seq_len: int
    bytes: int = 0
    blocks: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        """exp of the mean negative log-likelihood; infinite where it overflows."""
        mean = self.nll / self.tokens
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Negative log-likelihood in bits by byte of text: it compares models with different tokenizers."""
        return self.nll / math.log(2) / self.bytes if self.bytes else None

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "value": self.value, "bits_per_byte": self.bits_per_byte}


@torch.no_grad()
def _nll(source: LayerSource, hidden: Tensor, ids: Tensor) -> list[float]:
    """Negative log-likelihood of each row of ids (B, T), from hidden states (B, T, d_model)."""
    states, targets = hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    losses = [
        nn.functional.cross_entropy(source.logits(part), target, reduction="none")
        for part, target in zip(states.split(LOGIT_TOKENS), targets.split(LOGIT_TOKENS), strict=True)
    ]
    return torch.cat(losses).cpu().double().view(len(ids), -1).sum(dim=1).tolist()


class Evaluation:
    """A visitor that measures the perplexity of non-overlapping blocks of some domains."""

    def __init__(self, source: LayerSource, blocks: Sequence[TokenBlocks]) -> None:
        self.source, self.blocks = source, blocks
        self.stream = TokenStream(source, blocks)
        self.tokens = self.stream.tokens

    def visit(self, index: int, view: LayerView) -> Iterator[Step]:
        for batch in self.stream.push(index, view):
            yield Step(batch.ids.numel())

    def perplexities(self) -> list[Perplexity]:
        """The perplexity of each of the `blocks`, once they have passed the last layer.

        Raises:
            CalibrationError: NaN among the predictions from hidden states that have none.
        """
        losses: list[list[float]] = [[] for _ in self.blocks]
        finite = [True] * len(self.blocks)
        for number, batch in enumerate(self.stream.batches):
            hidden = self.stream.states[number]
            losses[batch.part] += _nll(self.source, hidden, batch.ids.to(self.source.device))
            finite[batch.part] &= bool(torch.isfinite(hidden).all())
        values = []
        for each, by_block, is_finite in zip(self.blocks, losses, finite, strict=True):
            nll = sum(by_block)
            if (
                math.isnan(nll) and is_finite
            ):  # of activations that are not finite calibration names the layer
                raise CalibrationError(
                    f"the predictions on domain {each.domain!r} are not finite: the model's final norm or "
                    "output projection is broken, or it needs another --dtype."
                )
            tokens, length = each.ids.size - len(each.ids), each.ids.shape[1]
            values.append(Perplexity(nll, tokens, length, each.bytes, tuple(by_block)))
        return values


def perplexity(
    source: LayerSource, blocks: Sequence[TokenBlocks]
) -> Generator[Progress, None, dict[str, Perplexity]]:
    """The perplexity of every domain over non-overlapping blocks, with one pass through the layers.

    Raises:
        CalibrationError: NaN among the predictions from hidden states that have none.
    """
    if not blocks:
        return {}
    evaluation = Evaluation(source, blocks)
    yield from layer_pass(source, [evaluation], "evaluate")
    return {each.domain: value for each, value in zip(blocks, evaluation.perplexities(), strict=True)}


def perplexity_cached(
    source: LayerSource, blocks: Sequence[TokenBlocks], state: str
) -> Generator[Progress, None, dict[str, Perplexity]]:
    """`perplexity` of every domain, cached by the tokens and by `state`, which names the model's weights."""
    files = {b.domain: cache_file("perplexity", source, state, b.digest) for b in blocks}
    values = {domain: value for domain, file in files.items() if (value := read_cached(file, Perplexity))}
    fresh = yield from perplexity(source, [b for b in blocks if b.domain not in values])
    for domain, value in fresh.items():
        write_cached(files[domain], value)
    values |= fresh
    # the key names tokens; their bytes of text are counted with the blocks
    return {
        b.domain: replace(values[b.domain], bytes=b.bytes, blocks=tuple(values[b.domain].blocks))
        for b in blocks
    }
