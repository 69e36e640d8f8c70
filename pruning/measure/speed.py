"""What pruning brings: size, memory and speed of models, measured side by side in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch

from pruning.errors import ConfigError
from pruning.models.family import CausalLM
from pruning.models.folder import LoadedModel
from pruning.models.layer_view import geometry, layer_views
from pruning.progress import Progress

T = TypeVar("T")
E = TypeVar("E")
WARM_UP = 2  # rounds
LENGTHS = (128, 512)


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


def seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """How long some work takes; on a GPU until it has really been done."""
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def turns(
    works: Sequence[Callable[[], T]], repeats: int, event: Callable[[int], E]
) -> Generator[E, None, list[list[T]]]:
    """Carry works out turn by turn, so that what else the machine does meets all alike.

    Args:
        works: each returns what it measured.
        repeats: rounds that count, after `WARM_UP` rounds that do not.
        event: makes of a round's number what is yielded before it.

    Returns:
        By work, what each counted round returned.
    """
    found: list[list[T]] = [[] for _ in works]
    for turn in range(WARM_UP + repeats):
        yield event(turn)
        for work, results in zip(works, found, strict=True):
            results.append(work())
    return [results[WARM_UP:] for results in found]


@dataclass(frozen=True)
class Subject:
    """What is timed.

    Attributes:
        name: of the model.
        context: its length.
        time: seconds of prefill and of decode, of a batch, a length and a number of new tokens.
    """

    name: str
    context: int
    time: Callable[[int, int, int], tuple[float, float]]


def lengths_within(contexts: Iterable[int], new_tokens: int) -> tuple[int, ...]:
    """The default lengths of a prompt, as far as every model's context goes."""
    context = min(contexts)
    fitting = tuple(length for length in LENGTHS if length + new_tokens <= context)
    return fitting or (max(1, context - new_tokens),)


def check_lengths(contexts: Iterable[tuple[str, int]], lengths: Sequence[int], new_tokens: int) -> None:
    """Whether prompts and what is written after them fit into the context of every model.

    Args:
        contexts: name and longest sequence of every model.
        lengths: tokens of a prompt.
        new_tokens: written after it.

    Raises:
        ConfigError: they do not.
    """
    for name, context in contexts:
        if max(lengths) + new_tokens > context:
            raise ConfigError(
                f"prompts of {max(lengths):,} tokens and {new_tokens:,} new tokens are longer than the "
                f"context of {name!r}, {context:,}: give a shorter --lengths or fewer --new-tokens."
            )


def bench(
    models: Sequence[LoadedModel],
    batches: Sequence[int] = (1, 8),
    lengths: Sequence[int] | None = None,
    new_tokens: int = 16,
    repeats: int = 5,
) -> Generator[Progress, None, list[Measurement]]:
    """Time prefill and decode of models on the same device, turn by turn; as `bench_subjects`."""
    subjects = [
        Subject(loaded.name, loaded.model.config.max_position_embeddings, _timer(loaded.model))
        for loaded in models
    ]
    return (yield from bench_subjects(subjects, batches, lengths, new_tokens, repeats))


def bench_subjects(
    subjects: Sequence[Subject],
    batches: Sequence[int] = (1, 8),
    lengths: Sequence[int] | None = None,
    new_tokens: int = 16,
    repeats: int = 5,
) -> Generator[Progress, None, list[Measurement]]:
    """Time prefill and decode, turn by turn.

    Args:
        subjects: that take turns.
        batches: sequences at once.
        lengths: tokens of a prompt; 128 and 512 as far as the context goes when left out.
        new_tokens: written in a repeat of decode.
        repeats: rounds that count.

    Yields:
        Progress before every round.

    Raises:
        ConfigError: a length beyond a model's context, or nothing to time.
    """
    contexts = [(subject.name, subject.context) for subject in subjects]
    lengths = lengths or lengths_within((context for _, context in contexts), new_tokens)
    for what, count in (
        ("repeats", repeats),
        ("new tokens", new_tokens),
        ("batches", min(batches, default=0)),
    ):
        if count < 1:
            raise ConfigError(f"the number of {what} is {count}: give 1 or more.")
    check_lengths(contexts, lengths, new_tokens)
    found: list[Measurement] = []
    cells = [(batch, length) for length in lengths for batch in batches]
    rounds = WARM_UP + repeats
    for number, (batch, length) in enumerate(cells):

        def event(
            turn: int, before: int = number * rounds, what: str = f"batch {batch}, length {length}"
        ) -> Progress:
            return Progress("bench", before + turn, len(cells) * rounds, what)

        works = [partial(subject.time, batch, length, new_tokens) for subject in subjects]
        times = yield from turns(works, repeats, event)
        for subject, took in zip(subjects, times, strict=True):
            prefill, decode = zip(*took, strict=True)
            speeds = Speed.of(batch * length, prefill), Speed.of(batch * new_tokens, decode)
            found.append(Measurement(subject.name, batch, length, *speeds))
    yield Progress("bench", len(cells) * rounds, len(cells) * rounds)
    return found


def _timer(model: CausalLM) -> Callable[[int, int, int], tuple[float, float]]:
    """Reads prompts and writes behind them; returns the seconds of each."""
    device = next(model.parameters()).device

    @torch.no_grad()
    def work(batch: int, length: int, new_tokens: int) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, model.config.vocab_size, (batch, length), generator=generator).to(device)
        cache: Any = None

        def read() -> None:
            nonlocal cache
            cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values

        def write() -> None:
            token = ids[:, -1:]
            for _ in range(new_tokens):
                logits = model(token, past_key_values=cache, use_cache=True).logits
                token = logits[:, -1:].argmax(-1)

        return seconds(device, read), seconds(device, write)

    return work


def shortened(loaded: LoadedModel, parameters: int) -> LoadedModel:
    """A model without its last decoder layers, of about so many parameters: depth pruning, for speed.

    Which layers go decides quality, and not speed; quality is not asked here. The model itself is changed.

    Raises:
        ConfigError: it has fewer parameters than that, or no layer would be left.
    """
    model = loaded.model
    total = sum(p.numel() for p in model.parameters())
    layers = len(layer_views(model))
    one = sum(p.numel() for p in layer_views(model)[-1].layer.parameters())
    kept = layers - round((total - parameters) / one)
    if not 1 <= kept < layers:
        raise ConfigError(
            f"dropping whole layers does not bring {loaded.name!r} from {total:,} to {parameters:,} "
            "parameters: name the dense model first and a smaller model last."
        )
    model.model.layers = model.model.layers[:kept]
    model.config.num_hidden_layers = kept
    if kinds := getattr(model.config, "layer_types", None):
        model.config.layer_types = kinds[:kept]
    return replace(loaded, name=f"{loaded.name}, {kept} of {layers} layers")
