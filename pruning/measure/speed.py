"""Size, memory and speed of models, measured side by side in one run."""

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
LENGTHS = (128, 512)  # tokens of a prompt


@dataclass(frozen=True)
class Size:
    """Size of a model.

    Attributes:
        parameters: number of parameters of the whole model.
        linear_parameters: number of those in the decoder layers' projections, which are pruned.
        file_bytes: bytes of its weight files; 0 for a model that is only in memory.
        memory_bytes: bytes of its weights in memory.
        cache_bytes: bytes of the keys and values of one token in all layers.
    """

    parameters: int
    linear_parameters: int
    file_bytes: int
    memory_bytes: int
    cache_bytes: int


@dataclass(frozen=True)
class Speed:
    """Tokens per second over the repeats of one measurement: median, lowest and highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, tokens: int, seconds: Sequence[float]) -> Speed:
        """The speed at which each repeat processed a number of tokens.

        Args:
            tokens: number of tokens of a repeat.
            seconds: duration of each repeat.
        """
        return cls(tokens / statistics.median(seconds), tokens / max(seconds), tokens / min(seconds))


@dataclass(frozen=True)
class Measurement:
    """Speed of one model at one batch size and length.

    Attributes:
        model: name of the model.
        batch: number of sequences at once.
        length: tokens of a prompt.
        prefill: speed of reading the prompts.
        decode: speed of writing behind prompts of this length, one token of each sequence after another.
    """

    model: str
    batch: int
    length: int
    prefill: Speed
    decode: Speed

    def to_dict(self) -> dict[str, Any]:
        """The measurement as a JSON object."""
        return asdict(self)


def size(loaded: LoadedModel) -> Size:
    """The size of a model, from its weights."""
    shape = geometry(loaded.model)
    weights = list(loaded.model.parameters())
    files = loaded.path.glob("model*.safetensors") if loaded.path.name else []
    return Size(
        parameters=sum(w.numel() for w in weights),
        linear_parameters=shape.linear_parameters,
        file_bytes=sum(file.stat().st_size for file in files),
        memory_bytes=sum(w.numel() * w.element_size() for w in weights),
        cache_bytes=shape.cache_values * weights[0].element_size(),
    )


def seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """Duration of a function call in seconds, on a GPU until its kernels are complete."""
    _synchronize(device)
    start = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def interleave(
    workloads: Sequence[Callable[[], T]], repeats: int, event: Callable[[int], E]
) -> Generator[E, None, list[list[T]]]:
    """Run workloads in turn, round after round, so that what else the machine does affects all alike.

    Args:
        workloads: functions that return what they measured.
        repeats: number of rounds that count, after `WARM_UP` rounds that do not.
        event: makes what is yielded before a round from its number.

    Returns:
        For each workload, the results of the rounds that count.
    """
    rounds = []
    for number in range(WARM_UP + repeats):
        yield event(number)
        rounds.append([workload() for workload in workloads])
    return [list(results) for results in zip(*rounds[WARM_UP:], strict=True)]


@dataclass(frozen=True)
class Target:
    """A model whose speed is measured.

    Attributes:
        name: name of the model.
        context: its longest sequence, in tokens.
        time: returns the seconds of prefill and of decode for a batch size, a length and a number of new
            tokens.
    """

    name: str
    context: int
    time: Callable[[int, int, int], tuple[float, float]]


def lengths_within(contexts: Iterable[int], new_tokens: int) -> tuple[int, ...]:
    """Those of `LENGTHS` that fit into every context with the new tokens, or the longest length that does."""
    context = min(contexts)
    fitting = tuple(length for length in LENGTHS if length + new_tokens <= context)
    return fitting or (max(1, context - new_tokens),)


def check_lengths(contexts: Iterable[tuple[str, int]], lengths: Sequence[int], new_tokens: int) -> None:
    """Refuse prompts that, with the new tokens, exceed the context of a model.

    Args:
        contexts: name and longest sequence of every model.
        lengths: tokens of a prompt.
        new_tokens: number of tokens written behind it.

    Raises:
        ConfigError: a context is exceeded.
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
    """Time prefill and decode of models on the same device in turn; see `bench_targets`."""
    targets = [
        Target(loaded.name, loaded.model.config.max_position_embeddings, _timer(loaded.model))
        for loaded in models
    ]
    return (yield from bench_targets(targets, batches, lengths, new_tokens, repeats))


def bench_targets(
    targets: Sequence[Target],
    batches: Sequence[int] = (1, 8),
    lengths: Sequence[int] | None = None,
    new_tokens: int = 16,
    repeats: int = 5,
) -> Generator[Progress, None, list[Measurement]]:
    """Time prefill and decode of targets in turn.

    Args:
        targets: the models to compare.
        batches: numbers of sequences at once.
        lengths: tokens of a prompt; None for those of `LENGTHS` that fit into every context.
        new_tokens: number of tokens written in a repeat of decode.
        repeats: number of rounds that count.

    Yields:
        Progress before every round.

    Raises:
        ConfigError: a length exceeds a model's context, or there is nothing to time.
    """
    contexts = [(target.name, target.context) for target in targets]
    lengths = lengths or lengths_within((context for _, context in contexts), new_tokens)
    counts = {"repeats": repeats, "new tokens": new_tokens, "batches": min(batches, default=0)}
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"the number of {name} is {count}: give 1 or more.")
    check_lengths(contexts, lengths, new_tokens)
    measurements = []
    shapes = [(batch, length) for length in lengths for batch in batches]
    rounds = WARM_UP + repeats
    total = len(shapes) * rounds
    for shape, (batch, length) in enumerate(shapes):
        progress = Progress("bench", shape * rounds, total, f"batch {batch}, length {length}")
        workloads = [partial(target.time, batch, length, new_tokens) for target in targets]
        times = yield from interleave(workloads, repeats, partial(_advance, progress))
        for target, seconds_by_round in zip(targets, times, strict=True):
            prefill, decode = zip(*seconds_by_round, strict=True)
            speeds = Speed.of(batch * length, prefill), Speed.of(batch * new_tokens, decode)
            measurements.append(Measurement(target.name, batch, length, *speeds))
    yield Progress("bench", total, total)
    return measurements


def _advance(progress: Progress, rounds: int) -> Progress:
    return replace(progress, done=progress.done + rounds)


def _timer(model: CausalLM) -> Callable[[int, int, int], tuple[float, float]]:
    """A function that returns the seconds in which a model reads prompts and writes behind them."""
    device = next(model.parameters()).device

    @torch.no_grad()
    def time_shape(batch: int, length: int, new_tokens: int) -> tuple[float, float]:
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

    return time_shape


def drop_layers(loaded: LoadedModel, parameters: int) -> LoadedModel:
    """Drop a model's last decoder layers in place, down to about a number of parameters: depth pruning.

    Which layers are dropped decides the quality, which is not measured here, and not the speed.

    Raises:
        ConfigError: the model has fewer parameters, or no layer would remain.
    """
    model = loaded.model
    total = sum(p.numel() for p in model.parameters())
    layers = len(layer_views(model))
    layer_parameters = sum(p.numel() for p in layer_views(model)[-1].layer.parameters())
    kept = layers - round((total - parameters) / layer_parameters)
    if not 1 <= kept < layers:
        raise ConfigError(
            f"dropping whole layers does not bring {loaded.name!r} from {total:,} to {parameters:,} "
            "parameters: name the dense model first and a smaller model last."
        )
    model.model.layers = model.model.layers[:kept]
    model.config.num_hidden_layers = kept
    if layer_types := getattr(model.config, "layer_types", None):
        model.config.layer_types = layer_types[:kept]
    return replace(loaded, name=f"{loaded.name}, {kept} of {layers} layers")
