"""What a run takes, before it exists: disk, memory and time. Needs no torch."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass

import psutil

from pruning.config import RunConfig
from pruning.runs.run import Run
from pruning.runs.store import RunStore
from pruning.words import size_text


@dataclass(frozen=True)
class Needs:
    """What a run takes, about.

    Attributes:
        disk, memory: bytes.
        disk_free, memory_free: bytes that there are.
        seconds: how long it runs; None where no run of this model has finished.
        basis: what the seconds were reckoned from.
    """

    disk: int
    memory: int
    disk_free: int
    memory_free: int
    seconds: float | None
    basis: str

    @property
    def problem(self) -> str:
        """What the run cannot do without, in one sentence; empty where there is enough."""
        return self._short("disk space", self.disk, self.disk_free)

    @property
    def warning(self) -> str:
        """What may make it slow or end it, in one sentence; empty where there is enough."""
        return self._short("memory", self.memory, self.memory_free)

    @staticmethod
    def _short(what: str, need: int, free: int) -> str:
        if need <= free:
            return ""
        return (
            f"this run needs about {size_text(need)} of {what} and {size_text(free)} are free: "
            "free some, or take a smaller model."
        )


def needs(config: RunConfig, store: RunStore, known: list[Run] | None = None) -> Needs:
    """What a run takes, from the model's shape and from finished runs of it.

    Args:
        config: of the run.
        store: where it will lie.
        known: runs to reckon the time from; those of the store when left out.

    Raises:
        ModelError: there is no such model.
    """
    from pruning.models.folder import describe

    summary = describe(config.model)
    channels = sum(summary.geometry.channels(site) for site in summary.geometry.sites)
    itemsize = 4 if config.dtype in ("auto", "float32") else 2
    # a mean and a sum of squares in float64 by domain, scores and norms in float64, by iteration
    statistics = config.iterations * channels * (16 * len(config.mixture) + 24)
    weights = summary.parameters * itemsize
    root = next(folder for folder in (store.root.resolve(), *store.root.resolve().parents) if folder.is_dir())
    usage = shutil.disk_usage(root)
    seconds, basis = None, ""
    for run in known if known is not None else store.all():
        results = run.results()
        tokens = run.config.samples * run.config.seq_len * len(run.config.mixture)
        if run.config.model == config.model and results and results.iterations:
            mean = sum(it.seconds for it in results.iterations) / len(results.iterations)
            mine = config.samples * config.seq_len * len(config.mixture)
            seconds = config.iterations * mean * mine / tokens
            basis = f"{mean:.1f} s an iteration over {tokens:,} tokens in {run.id}"
            break
    return Needs(
        disk=statistics + (weights if config.save_model else 0),
        memory=int(1.3 * weights) + 500_000_000,
        disk_free=usage.free if usage.total else sys.maxsize,  # /proc and its like have no size to run out of
        memory_free=psutil.virtual_memory().available,
        seconds=seconds,
        basis=basis,
    )
