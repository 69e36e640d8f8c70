"""How far a stage is. Long work is a generator that yields `Progress` and returns its result.

What is done in one piece, such as loading a model, is `announced` in the log `pruning`, which the command
line and the process of a run show on standard error.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


log = logging.getLogger("pruning")
MOMENT = 2.0  # seconds: what is over sooner is not announced


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Says in the log what is being done, once it takes longer than a moment."""
    timer = threading.Timer(MOMENT, log.info, [f"{what} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def log_on_stderr() -> Iterator[None]:
    """Shows the log `pruning` on standard error, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a stage; `done` and `total` count token-layers where tokens pass the layers of a model.

    `result` is what a step has completed, such as the statistics of a layer; None in most.
    """

    stage: str
    done: int
    total: int
    detail: str = ""
    result: object = None


def drain(events: Generator[Progress, None, T], on_progress: Callable[[Progress], None]) -> T:
    """Run a stage to its end, showing its progress."""
    while True:
        try:
            on_progress(next(events))
        except StopIteration as stop:
            return stop.value
