"""Speed of models in the engine that would serve them: all are open, and take turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pruning.errors import ConfigError
from pruning.formats.write import export
from pruning.measure.speed import Measurement, Subject, bench_subjects, check_lengths, lengths_within
from pruning.models.checkpoint import save
from pruning.models.folder import LoadedModel
from pruning.progress import Progress
from pruning.serving.engines import ENGINES, needed
from pruning.serving.process import Served, served

_TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def bench_served(
    engine: str,
    models: Sequence[LoadedModel],
    batches: Sequence[int],
    lengths: Sequence[int] | None,
    new_tokens: int,
    repeats: int,
) -> Generator[Progress, None, list[Measurement]]:
    """As `measure.speed.bench`, of exports in an engine in its own environment.

    Args:
        engine: a name in `ENGINES`.
        models: what is exported, in the type that they have.
        batches, lengths, new_tokens, repeats: as there.

    Raises:
        RunError: the engine is not installed, or does not load an export.
        ExportError: a model cannot be exported for it.
    """
    needed(engine)
    contexts = [model.model.config.max_position_embeddings for model in models]
    lengths = lengths or lengths_within(contexts, new_tokens)
    named = [(model.name, context) for model, context in zip(models, contexts, strict=True)]
    check_lengths(named, lengths, new_tokens)  # before anything is exported
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        subjects = []
        for number, (model, context) in enumerate(zip(models, contexts, strict=True)):
            yield Progress("bench", 0, 1, f"{model.name} for {ENGINES[engine].title}")
            path, dtype = _exported(model, engine, Path(folder) / str(number))
            room = min(context, max(lengths) + new_tokens + 1)
            opened = stack.enter_context(served(engine, path, room, max(batches), dtype))
            subjects.append(Subject(model.name, context, _timer(opened)))
        return (yield from bench_subjects(subjects, batches, lengths, new_tokens, repeats))


def _exported(model: LoadedModel, engine: str, folder: Path) -> tuple[Path, str]:
    """Where an engine finds a model, and in which type."""
    dtype = str(next(model.model.parameters()).dtype).removeprefix("torch.")
    if dtype not in _TYPES:
        raise ConfigError(f"weights of type {dtype} cannot be exported: give --dtype float32 or bfloat16.")
    checkpoint = save(model.model, model.tokenizer, folder / "model")
    format = ENGINES[engine].format
    kind = _TYPES[dtype] if format == "gguf" else None
    return export(checkpoint, format, folder / format, kind, verify=False).path, dtype


def _timer(opened: Served) -> Callable[[int, int, int], tuple[float, float]]:
    def time(batch: int, length: int, new_tokens: int) -> tuple[float, float]:
        read, wrote = opened.ask("time", batch=batch, length=length, new=new_tokens)
        return read, wrote

    return time
