"""What a run does, one line a stage and iteration: where there is no bar, and in the log of a worker."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pruning.words import number, seconds_text

if TYPE_CHECKING:
    from pruning.engine.events import Event, Iteration


class Lines:
    """Call it with every event of the engine; it writes to standard error.

    Args:
        iterations: of the run.
        complete: the last one that is complete, 0 for the dense model; -1 for none.
    """

    def __init__(self, iterations: int, complete: int = -1) -> None:
        self.iterations, self.complete, self._said = iterations, complete, ""

    @property
    def where(self) -> str:
        """Which part of the run is at work."""
        if self.complete < 0:
            return "dense model"
        if self.complete < self.iterations:
            return f"iteration {self.complete + 1} of {self.iterations}"
        return "pruned model"

    def __call__(self, event: Event) -> None:
        """Say where a stage begins, and what an iteration came to."""
        from pruning.engine.events import Iteration
        from pruning.progress import Progress

        if isinstance(event, Iteration):
            self.complete = event.number
            self._say(_outcome(event, self.iterations))
        elif isinstance(event, Progress):
            self._say(f"{self.where}: {event.stage}")

    def _say(self, line: str) -> None:
        if line != self._said:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - what it is for
        self._said = line


def _outcome(iteration: Iteration, iterations: int) -> str:
    from pruning.measure.comparison import mean_perplexity

    done = f"iteration {iteration.number} of {iterations}" if iteration.number else "dense model"
    parts = [f"{iteration.mask.ratio:.1%} removed"] if iteration.number else []
    if values := {name: found.value for name, found in iteration.perplexity.items()}:
        parts.append(f"perplexity {number(mean_perplexity(values))}")
    return f"{done} done: {', '.join([*parts, seconds_text(iteration.seconds)])}"
