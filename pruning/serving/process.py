"""An engine with a model, in a process of its own in the engine's environment."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pruning.errors import RunError
from pruning.serving.engines import ENGINES, require_python

WORKER = Path(__file__).with_name("worker.py")


class EngineProcess:
    """A process in which an engine holds a model; `worker.py` has the methods that it answers."""

    def __init__(self, process: subprocess.Popen[str], errors: Any, title: str) -> None:
        self._process, self._errors, self._title = process, errors, title

    def ask(self, method: str, **arguments: Any) -> Any:
        """Call a method of the worker, and return its result.

        Raises:
            RunError: the engine failed; the sentence ends with the last line of its errors.
        """
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended; its errors are read below
            pipe.write(json.dumps([method, arguments]) + "\n")
            pipe.flush()
        return self.answer().get("answer")

    def answer(self) -> dict[str, Any]:
        """The next line of the worker's output."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        raise RunError(f"{self._title} failed: {lines[-1].rstrip('.') if lines else 'it gave no reason'}.")


@contextlib.contextmanager
def open_engine(
    engine: str, model: str | Path, context: int, batch: int = 1, dtype: str = "float32"
) -> Iterator[EngineProcess]:
    """Start an engine with a model.

    Args:
        engine: a name in `ENGINES`.
        model: folder or file that the engine loads. A folder's own modelling file is run.
        context: maximal number of tokens of a text.
        batch: maximal number of texts at once.
        dtype: type to compute in, for engines with a choice.

    Raises:
        RunError: the engine is not installed, or does not load the model.
    """
    options = (engine, Path(model).resolve(), context, batch, dtype)
    command = [str(require_python(engine)), str(WORKER), *map(str, options)]
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
            client = EngineProcess(process, errors, ENGINES[engine].title)
            client.answer()  # the model is loaded
            yield client
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
