"""The client of the process that answers lessons; needs no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from pruning.errors import RunError
from pruning.paths import PROJECT

OnProgress = Callable[[float, str], object]


class Client:
    """One process for all callers, started when first needed and again if it ended.

    Requests wait for each other. Answers are not cached here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process, so that it loads its model before anyone waits for it."""
        with self._lock:
            self._running()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pruning.lessons.serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={
                    **os.environ,
                    "PYTHONPATH": path,
                    "TQDM_DISABLE": "1",
                    "TRANSFORMERS_VERBOSITY": "error",
                },
            )
        return self._process

    def ask(self, name: str, on_progress: OnProgress = lambda share, stage: None, **arguments: Any) -> Any:
        """The answer of an experiment.

        Args:
            name: of the experiment.
            on_progress: called with the share done and the stage, where it takes longer.
            arguments: of the experiment, plain values.

        Raises:
            RunError: the experiment refused, or its process ended.
        """
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps({"name": name, "arguments": arguments}) + "\n")
                process.stdin.flush()
                for line in process.stdout:
                    reply = json.loads(line)
                    if "answer" in reply:
                        return reply["answer"]
                    if "error" in reply:
                        raise RunError(reply["error"])
                    on_progress(reply["progress"], reply["stage"])
            except (BrokenPipeError, json.JSONDecodeError):
                pass
            except RunError:
                raise
            except BaseException:  # the caller has ended: the next must not read the remaining lines
                process.kill()
                raise
            process.kill()
            raise RunError("the computation of this lesson ended without an answer: try it again.")

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None
