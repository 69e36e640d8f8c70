"""Speed of models in the engine that would serve them; all are open at once, and are timed in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pruning.errors import ConfigError
from pruning.formats.write import export
from pruning.measure.speed import Measurement, Target, bench_targets, check_lengths, lengths_within
from pruning.models.checkpoint import save
from pruning.models.folder import LoadedModel
from pruning.progress import Progress
from pruning.serving.engines import ENGINES, require_python
from pruning.serving.process import EngineProcess, open_engine

_TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def bench_engine(
    engine: str,
    models: Sequence[LoadedModel],
    batches: Sequence[int],
    lengths: Sequence[int] | None,
    new_tokens: int,
    repeats: int,
) -> Generator[Progress, None, list[Measurement]]:
    """Time exports of models in an engine, which runs in its own environment.

    Args:
        engine: a name in `ENGINES`.
        models: the models, which are exported in their own dtype.
        batches, lengths, new_tokens, repeats: see `measure.speed.bench_targets`.

    Yields:
        Progress before every export and every round.

    Raises:
        RunError: the engine is not installed, or does not load an export.
        ExportError: a model cannot be exported for it.
    """
    require_python(engine)
    contexts = [model.model.config.max_position_embeddings for model in models]
    lengths = lengths or lengths_within(contexts, new_tokens)
    names = [model.name for model in models]
    check_lengths(zip(names, contexts, strict=True), lengths, new_tokens)  # before anything is exported
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        targets = []
        for number, (model, context) in enumerate(zip(models, contexts, strict=True)):
            yield Progress("bench", 0, 1, f"{model.name} for {ENGINES[engine].title}")
            path, dtype = _export(model, engine, Path(folder) / str(number))
            tokens = min(context, max(lengths) + new_tokens + 1)
            process = stack.enter_context(open_engine(engine, path, tokens, max(batches), dtype))
            targets.append(Target(model.name, context, _timer(process)))
        return (yield from bench_targets(targets, batches, lengths, new_tokens, repeats))


def _export(model: LoadedModel, engine: str, folder: Path) -> tuple[Path, str]:
    """Export a model for an engine; returns the path of the export and its dtype."""
    dtype = str(next(model.model.parameters()).dtype).removeprefix("torch.")
    if dtype not in _TYPES:
        raise ConfigError(f"weights of type {dtype} cannot be exported: give --dtype float32 or bfloat16.")
    checkpoint = save(model.source, model.tokenizer, folder / "model")
    format = ENGINES[engine].format
    kind = _TYPES[dtype] if format == "gguf" else None
    return export(checkpoint, format, folder / format, kind, verify=False).path, dtype


def _timer(process: EngineProcess) -> Callable[[int, int, int], tuple[float, float]]:
    def time_shape(batch: int, length: int, new_tokens: int) -> tuple[float, float]:
        prefill, decode = process.ask("time", batch=batch, length=length, new=new_tokens)
        return prefill, decode

    return time_shape
