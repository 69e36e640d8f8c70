"""How far a stage is. Long work is a generator that yields `Progress` and returns its result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Step = TypeVar("Step")


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
