"""What pruning brings: size, memory and speed of models, measured side by side in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pruning.calibration import Progress
from pruning.config import ConfigError
from pruning.models import LoadedModel
from pruning.sites import geometry

WARM_UP = 2


@dataclass(frozen=True)
class Size:
    """What a model takes.

    Attributes:
        parameters: of the whole model.
        linear_parameters: of the decoder layers' projections, which is what is pruned.
        file_bytes: of its weight files; 0 for a model that is only in memory.
        memory_bytes: of its weights in memory.
        cache_bytes: of the keys and values of one token, all layers.
    """

    parameters: int
    linear_parameters: int
    file_bytes: int
    memory_bytes: int
    cache_bytes: int


@dataclass(frozen=True)
class Speed:
    """Tokens per second over the repeats of one measurement.

    Attributes:
        median, lowest, highest: of the repeats.
    """

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, tokens: int, seconds: Sequence[float]) -> Speed:
        """From the seconds that each repeat took for so many tokens."""
        return cls(tokens / statistics.median(seconds), tokens / max(seconds), tokens / min(seconds))


@dataclass(frozen=True)
class Measurement:
    """One model at one batch size and length.

    Attributes:
        model: as it was named.
        batch: sequences at once.
        length: tokens of a prompt.
        prefill: reading the prompts.
        decode: writing, one token of each sequence after another, behind prompts of this length.
    """

    model: str
    batch: int
    length: int
    prefill: Speed
    decode: Speed

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def size(loaded: LoadedModel) -> Size:
    """What a model takes, read off its weights."""
    shapes = geometry(loaded.model)
    weights = list(loaded.model.parameters())
    itemsize = weights[0].element_size()
    files = loaded.path.glob("model*.safetensors") if loaded.path.name else []
    return Size(
        parameters=sum(w.numel() for w in weights),
        linear_parameters=shapes.linear_parameters,
        file_bytes=sum(file.stat().st_size for file in files),
        memory_bytes=sum(w.numel() * w.element_size() for w in weights),
        cache_bytes=shapes.cache_values * itemsize,
    )


def _seconds(device: torch.device, work: Callable[[], Any]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


@torch.no_grad()
def bench(
    models: Sequence[LoadedModel],
    batches: Sequence[int] = (1, 8),
    lengths: Sequence[int] = (128,),
    new_tokens: int = 16,
    repeats: int = 5,
) -> Generator[Progress, None, list[Measurement]]:
    """Time prefill and decode of models, turn by turn: what else the machine does meets all alike.

    Args:
        models: on the same device.
        batches: sequences at once.
        lengths: tokens of a prompt.
        new_tokens: written in a repeat of decode.
        repeats: after two rounds of warm-up, which are not counted.

    Yields:
        Progress after every round.

    Raises:
        ConfigError: a length beyond a model's context.
    """
    for loaded in models:
        context = loaded.model.config.max_position_embeddings
        if max(lengths) + new_tokens > context:
            raise ConfigError(
                f"prompts of {max(lengths)} and {new_tokens} new tokens are longer than the context of "
                f"{loaded.name!r}, {context}: give a shorter --lengths."
            )
    found: list[Measurement] = []
    cells = [(batch, length) for length in lengths for batch in batches]
    rounds = WARM_UP + repeats
    for number, (batch, length) in enumerate(cells):
        prefill: list[list[float]] = [[] for _ in models]
        decode: list[list[float]] = [[] for _ in models]
        for turn in range(rounds):
            yield Progress(
                "bench", number * rounds + turn, len(cells) * rounds, f"batch {batch}, length {length}"
            )
            for index, loaded in enumerate(models):
                model = loaded.model
                device = next(model.parameters()).device
                generator = torch.Generator().manual_seed(turn)
                ids = torch.randint(0, model.config.vocab_size, (batch, length), generator=generator)
                ids = ids.to(device)
                cache: list[Any] = []

                def read(model: Any = model, ids: Any = ids, cache: list[Any] = cache) -> None:
                    out = model(ids, use_cache=True, logits_to_keep=1)
                    cache.append(out.past_key_values)

                def write(model: Any = model, ids: Any = ids, cache: list[Any] = cache) -> None:
                    token = ids[:, -1:]
                    for _ in range(new_tokens):
                        logits = model(token, past_key_values=cache[0], use_cache=True).logits
                        token = logits[:, -1:].argmax(-1)

                took = _seconds(device, read), _seconds(device, write)
                if turn >= WARM_UP:
                    prefill[index].append(took[0])
                    decode[index].append(took[1])
        for index, loaded in enumerate(models):
            found.append(
                Measurement(
                    loaded.name,
                    batch,
                    length,
                    Speed.of(batch * length, prefill[index]),
                    Speed.of(batch * new_tokens, decode[index]),
                )
            )
    yield Progress("bench", len(cells) * rounds, len(cells) * rounds)
    return found
