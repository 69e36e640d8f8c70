"""What pruning cost: perplexity by domain."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pruning.checksums import read_cached, write_cached
from pruning.errors import CalibrationError
from pruning.models.cache import cache_file
from pruning.models.family import CausalLM
from pruning.models.layers import Layers, Place, forward
from pruning.progress import Progress, relay
from pruning.text.blocks import TokenBlocks

LOGIT_TOKENS = 1024  # logits of so many tokens are held at once: at a vocabulary of 152,000 they take 0.6 GB


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
def _nll(layers: Layers, hidden: Tensor, ids: Tensor) -> list[float]:
    """Negative log-likelihood of each row of ids (B, T), from hidden states (B, T, d_model)."""
    states, targets = layers.last(hidden)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    losses = [
        nn.functional.cross_entropy(layers.logits(part), wanted, reduction="none")
        for part, wanted in zip(states.split(LOGIT_TOKENS), targets.split(LOGIT_TOKENS), strict=True)
    ]
    return torch.cat(losses).cpu().double().view(len(ids), -1).sum(dim=1).tolist()


def perplexity(
    model: CausalLM, blocks: Sequence[TokenBlocks], place: Place = "device"
) -> Generator[Progress, None, dict[str, Perplexity]]:
    """Perplexity of every domain over non-overlapping blocks, one decoder layer at a time.

    Args:
        model: on its device.
        blocks: of every domain.
        place: where hidden states wait between two layers.

    Yields:
        Progress after every batch, in tokens.

    Returns:
        By domain the summed negative log-likelihood and the tokens it covers.

    Raises:
        CalibrationError: NaN among the predictions from hidden states that have none.
    """
    layers = Layers(model)
    total, done = sum(domain.ids.size for domain in blocks), 0.0
    results = {}
    for domain in blocks:
        batches = torch.from_numpy(domain.ids).split(max(1, layers.batch_tokens // domain.ids.shape[1]))

        def told(
            step: tuple[int, int], batches: Sequence[Tensor] = batches, name: str = domain.domain
        ) -> Progress:
            nonlocal done
            done += batches[step[1]].numel() / len(layers)
            return Progress("evaluate", round(done), total, name)

        stash = yield from relay(forward(layers, batches, place=place), told)
        losses = [_nll(layers, stash[i], ids.to(layers.device)) for i, ids in enumerate(batches)]
        by_block = tuple(chain.from_iterable(losses))
        nll = sum(by_block)
        # where the layers gave such numbers already, calibration names the layer
        broken = math.isnan(nll) and all(torch.isfinite(stash[i]).all() for i in range(len(batches)))
        stash.close()
        if broken:
            raise CalibrationError(
                f"the predictions on domain {domain.domain!r} are not finite: the model's final norm or "
                "output projection is broken, or it needs another --dtype."
            )
        predicted = domain.ids.size - len(domain.ids)
        results[domain.domain] = Perplexity(nll, predicted, domain.ids.shape[1], domain.bytes, by_block)
    return results


def perplexity_cached(
    model: CausalLM, blocks: Sequence[TokenBlocks], state: str
) -> Generator[Progress, None, dict[str, Perplexity]]:
    """`perplexity`, with domains that were measured before on this state of this model read from the cache.

    Args:
        model: on its device.
        blocks: of every domain.
        state: names the model's weights.
    """
    files = {b.domain: cache_file("perplexity", model, state, b.digest) for b in blocks}
    values = {domain: value for domain, file in files.items() if (value := read_cached(file, Perplexity))}
    fresh = yield from perplexity(model, [b for b in blocks if b.domain not in values])
    for domain, value in fresh.items():
        write_cached(files[domain], value)
    values |= fresh
    # the key names tokens; how many bytes of text they stand for is counted with the blocks
    return {
        b.domain: replace(values[b.domain], bytes=b.bytes, blocks=tuple(values[b.domain].blocks))
        for b in blocks
    }
