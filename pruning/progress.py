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
Step = TypeVar("Step")


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
    """How far a stage is; `done` and `total` count token-layers in calibration and tokens in evaluation.

    `found` is what a step has brought to its end, such as the statistics of a layer; None in most.
    """

    stage: str
    done: int
    total: int
    detail: str = ""
    found: object = None


def drain(events: Generator[Progress, None, T], on_progress: Callable[[Progress], None]) -> T:
    """Run a stage to its end, showing its progress."""
    while True:
        try:
            on_progress(next(events))
        except StopIteration as stop:
            return stop.value


def relay(steps: Generator[Step, None, T], told: Callable[[Step], Progress]) -> Generator[Progress, None, T]:
    """A stage's own steps as `Progress`, and its result."""
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return stop.value
        yield told(step)
