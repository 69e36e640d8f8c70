"""Perplexity by domain, and divergence from the dense model, one decoder layer at a time.

The divergence is the Kullback-Leibler divergence KL(p || q) = sum_v p_v (ln p_v - ln q_v) of a model's
next-token distribution q from the dense model's p on the same text. Of p the `TOP` likeliest tokens are kept,
once for a dense model and a text, and all others count as one token. That makes it a lower bound, by the
data-processing inequality, and exact where the vocabulary has no more than `TOP` tokens.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pruning.checksums import read_arrays, read_cached, write_arrays, write_cached
from pruning.errors import CalibrationError
from pruning.files import ignore_write_errors
from pruning.models.cache import cache_file
from pruning.models.layer_pass import Step, TokenStream, layer_pass
from pruning.models.layer_view import LayerView
from pruning.models.source import LayerSource
from pruning.progress import Progress
from pruning.text.blocks import TokenBlocks

LOGIT_TOKENS = 1024  # tokens whose logits are held at once: 0.6 GB at a vocabulary of 152,000
TOP = 256  # likeliest tokens kept of a dense prediction, with log-probabilities: 2 KB per predicted token


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Negative log-likelihood of a text.

    Attributes:
        nll: summed over the predicted tokens, in nats.
        tokens: predicted tokens; the first of each block has no context and is not predicted.
        seq_len: length of the blocks.
        bytes: of the predicted text in UTF-8; 0 where they were not counted.
        blocks: the negative log-likelihood of each block, in nats, in the order of the text.
        divergence: mean divergence of each block from the dense model, in nats per token; empty where it was
            not measured, as for the dense model itself.
    """

    nll: float
    tokens: int
    seq_len: int
    bytes: int = 0
    blocks: tuple[float, ...] = ()
    divergence: tuple[float, ...] = ()

    @classmethod
    def of(cls, blocks: TokenBlocks, losses: np.ndarray, divergences: np.ndarray | None = None) -> Perplexity:
        """The perplexity of blocks from the losses (n,) and divergences (n,) of their predicted tokens."""
        count, length = blocks.ids.shape
        by_block = torch.from_numpy(losses).double().view(count, -1).sum(dim=1).tolist()
        means = () if divergences is None else divergences.reshape(count, -1).mean(axis=1).tolist()
        return cls(sum(by_block), len(losses), length, blocks.bytes, tuple(by_block), tuple(means))

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


def kl_divergence(dense: Tensor, log_p: Tensor) -> Tensor:
    """Divergence (m,) in nats of `log_p`, (m, vocabulary), from `dense`, the same; overwrites `log_p`."""
    return (dense.exp() * log_p.neg_().add_(dense)).sum(dim=-1)


class Predictions(NamedTuple):
    """Next-token distributions of the dense model for the n predicted tokens of a domain's blocks, as arrays.

    Attributes:
        losses: (n,) float32 negative log-likelihood of each token in nats.
        tokens: (n, k) int32 ids of the likeliest next tokens; k is `TOP`, or the vocabulary if it is smaller.
        log_probabilities: (n, k + 1) float32, of these tokens and, last, of all others together.
    """

    losses: np.ndarray
    tokens: np.ndarray
    log_probabilities: np.ndarray

    def divergence(self, rows: slice, log_p: Tensor) -> Tensor:
        """Divergence (m,) in nats of a model's `log_p` (m, vocabulary) at `rows`; overwrites `log_p`."""
        dense = torch.from_numpy(self.log_probabilities[rows]).to(log_p.device)
        difference = dense - _lump(log_p, torch.from_numpy(self.tokens[rows]).to(log_p.device))
        return (dense.exp() * difference).double().sum(dim=-1)


def _lump(log_p: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities (n, k + 1) of `tokens` (n, k) and of all others together; overwrites `log_p`."""
    tokens = tokens.long()
    top = log_p.gather(1, tokens)
    others = log_p.scatter_(1, tokens, -math.inf).logsumexp(dim=1, keepdim=True)
    # finite where nothing is left over, as 0 * inf is no number
    return torch.cat([top, others], dim=1).clamp_min(torch.finfo(log_p.dtype).min)


class Evaluation:
    """A visitor that measures the predictions on non-overlapping blocks, one entry a domain.

    `dense` has the dense model's predictions on the same blocks by domain, to measure the divergence from.
    """

    def __init__(
        self,
        source: LayerSource,
        blocks: Sequence[TokenBlocks],
        dense: Mapping[str, Predictions] | None = None,
    ) -> None:
        self.source, self.blocks, self.dense = source, blocks, dense or {}
        self.stream = TokenStream(source, blocks)
        self.tokens = self.stream.tokens

    def visit(self, index: int, view: LayerView) -> Iterator[Step]:
        for batch in self.stream.push(index, view):
            yield Step(batch.ids.numel())

    @torch.no_grad()
    def perplexities(self) -> dict[str, Perplexity]:
        """Perplexity and divergence by domain, once the blocks have passed the last layer.

        Raises:
            CalibrationError: NaN among the predictions from hidden states that have none.
        """
        columns: dict[str, list[list[np.ndarray]]] = defaultdict(list)
        for domain, rows, loss, log_p in self._predicted():
            dense = self.dense.get(domain)
            tensors = [loss, dense.divergence(rows, log_p)] if dense else [loss]
            columns[domain].append([each.cpu().numpy() for each in tensors])
        return {
            each.domain: Perplexity.of(each, *map(np.concatenate, zip(*columns[each.domain], strict=True)))
            for each in self.blocks
        }

    @torch.no_grad()
    def predictions(self) -> dict[str, Predictions]:
        """The predictions by domain, for other models to be compared with; raises as `perplexities`."""
        parts: dict[str, list[Predictions]] = defaultdict(list)
        for domain, _, loss, log_p in self._predicted():
            tokens = log_p.topk(min(TOP, log_p.shape[1])).indices.int()
            arrays = (each.cpu().numpy() for each in (loss, tokens, _lump(log_p, tokens)))
            parts[domain].append(Predictions(*arrays))
        return {
            domain: Predictions(*map(np.concatenate, zip(*chunks, strict=True)))
            for domain, chunks in parts.items()
        }

    def _predicted(self) -> Iterator[tuple[str, slice, Tensor, Tensor]]:
        """Predicted tokens, `LOGIT_TOKENS` at a time, in the order of the text.

        Yields:
            Their domain and their rows among its predicted tokens, losses (m,), log-probabilities
            (m, vocabulary).
        """
        done: Counter[str] = Counter()
        for number, batch in enumerate(self.stream.batches):
            states = self.stream.states[number][:, :-1].flatten(0, 1)
            targets = batch.ids[:, 1:].flatten().to(self.source.device)
            for part, target in zip(states.split(LOGIT_TOKENS), targets.split(LOGIT_TOKENS), strict=True):
                log_p = self.source.logits(part).log_softmax(dim=-1)
                loss = nn.functional.nll_loss(log_p, target, reduction="none")
                # of activations that are not finite calibration names the layer
                if loss.isnan().any() and part.isfinite().all():
                    raise CalibrationError(
                        f"the predictions on domain {batch.domain!r} are not finite: the model's final norm "
                        "or output projection is broken, or it needs another --dtype."
                    )
                first = done[batch.domain]
                done[batch.domain] += len(part)
                yield batch.domain, slice(first, first + len(part)), loss, log_p


def perplexity(
    source: LayerSource, blocks: Sequence[TokenBlocks], dense: Mapping[str, Predictions] | None = None
) -> Generator[Progress, None, dict[str, Perplexity]]:
    """The perplexity of every domain over non-overlapping blocks, with one pass through the layers.

    `dense` is that of `Evaluation`.

    Raises:
        CalibrationError: NaN among the predictions from hidden states that have none.
    """
    if not blocks:
        return {}
    evaluation = Evaluation(source, blocks, dense)
    yield from layer_pass(source, [evaluation], "evaluate")
    return evaluation.perplexities()


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
        b.domain: replace(
            values[b.domain], bytes=b.bytes, blocks=tuple(values[b.domain].blocks), divergence=()
        )
        for b in blocks
    }


def predictions_cached(
    source: LayerSource, blocks: Sequence[TokenBlocks], state: str
) -> Generator[Progress, None, dict[str, Predictions]]:
    """The predictions of a dense model by domain, cached like `perplexity_cached`; raises as `perplexity`."""
    files = {
        b.domain: cache_file("predictions", source, state, b.digest, suffix=".safetensors") for b in blocks
    }
    values = {
        domain: Predictions(**arrays) for domain, file in files.items() if (arrays := read_arrays(file))
    }
    if missing := [b for b in blocks if b.domain not in values]:
        evaluation = Evaluation(source, missing)
        yield from layer_pass(source, [evaluation], "evaluate")
        for domain, value in evaluation.predictions().items():
            values[domain] = value
            with ignore_write_errors():
                write_arrays(files[domain], value._asdict())
    return values
