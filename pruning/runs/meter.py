"""How fast a run is and how long it still takes, from its stages and from what this machine did before."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pruning.paths import cache_folder
from pruning.runs import log
from pruning.sealed import read_cached, write_cached

if TYPE_CHECKING:
    from pathlib import Path

    from pruning.engine.events import Event
    from pruning.progress import Progress
    from pruning.runs.run import Run
    from pruning.runs.status import Reporter


SETTLED_SECONDS = 2.0  # a stage's own speed counts from here on; before, that of earlier ones


@dataclass(frozen=True)
class Speed:
    """Tokens a second through a whole model on this machine; 0 where it is not known."""

    calibrate: float = 0.0
    evaluate: float = 0.0


def speed_file(run: Run, device: str) -> Path:
    """Where the speed of a run's model on a device is kept."""
    named = hashlib.blake2b(f"{run.config.model} {run.config.dtype} {device}".encode(), digest_size=16)
    return cache_folder() / "speed" / f"{named.hexdigest()}.json"


class Meter:
    """Turns the engine's progress into fields of the status."""

    def __init__(self, run: Run, status: Reporter, iteration: int) -> None:
        self.run, self.status, self.iteration = run, status, iteration
        self.layers, self.stage, self.began = 1, "", time.monotonic()
        self.file = speed_file(run, str(status.fields.get("device")))
        learned = read_cached(self.file, Speed) or Speed()
        self.rates = {"calibrate": learned.calibrate, "evaluate": learned.evaluate}
        config, done = run.config, run.iterations()
        # of one iteration; what the caches know is measured as soon as it is skipped
        self.tokens = {
            "calibrate": config.samples * config.seq_len * len(config.mixture),
            "evaluate": sum(text.tokens for text in done[0].metrics.perplexity.values()) if done else 0,
        }
        self.asking = 0.0  # seconds of all tasks

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        from pruning.engine.events import Iteration, Started
        from pruning.progress import Progress

        if isinstance(event, Started):
            self.layers = len(event.geometry.layers)
        elif isinstance(event, Iteration):
            self.iteration, self.stage = event.number, ""
        elif isinstance(event, Progress):
            if event.stage != self.stage:
                self.stage, self.began = event.stage, time.monotonic()
                log.log(self.run.path, "stage", stage=event.stage, after=self.iteration, total=event.total)
            elapsed = max(time.monotonic() - self.began, 1e-6)
            asking = event.stage == "zero-shot"
            # calibration counts every token once a layer
            counted = self.layers if event.stage == "calibrate" else 1
            done, total = event.done / counted, event.total / counted
            if not asking:
                self._learn(event, done, total, elapsed)
            self.status.note(
                stage=event.stage,
                detail=event.detail,
                done=event.done,
                total=event.total,
                current=min(self.iteration + 1, self.run.config.iterations),
                per_second=done / elapsed,
                unit="tasks" if asking else "tokens",
                eta=self._asked(event, elapsed) if asking else self._eta(event.stage, total - done),
            )

    def _learn(self, event: Progress, done: float, total: float, elapsed: float) -> None:
        if event.stage == "evaluate":
            self.tokens["evaluate"] = max(self.tokens["evaluate"], round(total))
        whole = event.done >= event.total
        if done and (whole or elapsed > SETTLED_SECONDS or not self.rates[event.stage]):
            self.rates[event.stage] = done / elapsed
        if whole:
            write_cached(self.file, Speed(**self.rates))

    def _eta(self, stage: str, left: float) -> float | None:
        """Seconds left, when so many tokens of a stage are; None where no speed is known yet."""
        known = {name: rate for name, rate in self.rates.items() if rate}
        if not known:
            return None
        # both stages are passes through the same layers: the one stands for the other until it has run
        rates = {name: known.get(name) or next(iter(known.values())) for name in self.rates}
        seconds = {name: self.tokens[name] / rates[name] for name in rates}
        found = left / rates[stage] + self.asking
        if self.iteration >= 0 or stage == "calibrate":
            found += seconds["evaluate"] * (stage == "calibrate")
            rounds = self.run.config.iterations - self.iteration - 1
        else:
            rounds = self.run.config.iterations
        return found + max(rounds, 0) * sum(seconds.values())

    def _asked(self, event: Progress, elapsed: float) -> float | None:
        """Seconds left while tasks are asked: of the dense model first, and after the last cut once more."""
        if not event.done:
            return None
        each = elapsed / event.done
        self.asking = each * event.total
        rest = each * (event.total - event.done)
        if self.iteration >= self.run.config.iterations:
            return rest
        pruning = self._eta("evaluate", self.tokens["evaluate"])
        return None if pruning is None else rest + pruning
