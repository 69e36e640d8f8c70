"""A model in an engine, in a process of its own in the engine's environment."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pruning.errors import RunError
from pruning.serving.engines import ENGINES, needed

WORKER = Path(__file__).with_name("worker.py")


class Served:
    """An open model; `worker.py` has the methods that it can be asked for."""

    def __init__(self, process: subprocess.Popen[str], errors: Any, title: str) -> None:
        self._process, self._errors, self._title = process, errors, title

    def ask(self, method: str, **arguments: Any) -> Any:
        """What a method of the worker returns.

        Raises:
            RunError: the engine failed; the sentence has its last line.
        """
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # it ended before; it is read below
            pipe.write(json.dumps([method, arguments]) + "\n")
            pipe.flush()
        return self.answer().get("answer")

    def answer(self) -> dict[str, Any]:
        """The next line that the worker writes."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        said = [text for text in self._errors.read().splitlines() if text.strip()]
        raise RunError(f"{self._title} failed: {said[-1].rstrip('.') if said else 'it gave no reason'}.")


@contextlib.contextmanager
def served(
    engine: str, model: str | Path, context: int, batch: int = 1, dtype: str = "float32"
) -> Iterator[Served]:
    """Open an export in an engine.

    Args:
        engine: a name in `ENGINES`.
        model: folder or file, as the engine loads it. A folder's own modelling file is run.
        context: tokens of a text, at most.
        batch: texts at once, at most.
        dtype: that is computed in, where the engine can be told.

    Raises:
        RunError: the engine is not installed, or does not load the model.
    """
    options = (engine, Path(model).resolve(), context, batch, dtype)
    command = [str(needed(engine)), str(WORKER), *map(str, options)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=tempfile.gettempdir(),  # where nothing of this project can be imported by accident
        )
        try:
            opened = Served(process, errors, ENGINES[engine].title)
            opened.answer()  # it is loaded
            yield opened
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
