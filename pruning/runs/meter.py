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


UNITS = {"calibrate": "tokens", "evaluate": "tokens", "zero-shot": "tasks"}  # what stages count
SHORTEST = 0.3  # seconds: a rate over less is noise
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
            # both count every token once a layer
            counted = self.layers if event.stage in self.rates else 1
            done, total = event.done / counted, event.total / counted
            if event.stage in self.rates:
                self._learn(event, done, total, elapsed)
            self.status.note(
                stage=event.stage,
                detail=event.detail,
                done=event.done,
                total=event.total,
                current=min(self.iteration + 1, self.run.config.iterations),
                per_second=done / elapsed if event.stage in UNITS and elapsed > SHORTEST else None,
                unit=UNITS.get(event.stage, ""),
                eta=self._eta(event.stage, done, total - done, elapsed),
            )

    def _learn(self, event: Progress, done: float, total: float, elapsed: float) -> None:
        if event.stage == "evaluate":
            self.tokens["evaluate"] = max(self.tokens["evaluate"], round(total))
        whole = event.done >= event.total
        if done and (whole or elapsed > SETTLED_SECONDS or not self.rates[event.stage]):
            self.rates[event.stage] = done / elapsed
        if whole:
            write_cached(self.file, Speed(**self.rates))

    def _eta(self, stage: str, done: float, left: float, elapsed: float) -> float | None:
        """Seconds left in the run; None where no speed is known yet."""
        config, here = self.run.config, elapsed * left / done if done else None
        if stage == "zero-shot" and here is not None:
            self.asking = elapsed + here
            if self.iteration >= config.iterations:
                return here
        known = {name: rate for name, rate in self.rates.items() if rate}
        if not known or (here is None and stage not in self.rates):
            return None
        # both are passes through the same layers: the one stands for the other until it has run
        rates = {name: known.get(name) or next(iter(known.values())) for name in self.rates}
        seconds = {name: self.tokens[name] / rates[name] for name in rates}
        found = left / rates[stage] if stage in rates else here or 0.0
        found += seconds["evaluate"] * (stage != "evaluate") + self.asking
        rounds = config.iterations - max(self.iteration, 0) - (self.iteration >= 0)
        return found + max(rounds, 0) * sum(seconds.values())
