"""Before a run exists: what is wrong with its config, and what disk, memory and time it takes. No torch."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import psutil

from pruning.config import RunConfig
from pruning.engine.budget import check_reachable
from pruning.errors import PruningError, RunError, too_long
from pruning.formatting import quoted, size_text
from pruning.measure.tasks import check_folders
from pruning.method.allocation import DAMAGE
from pruning.method.compensation import COVARIANCE
from pruning.method.damage import PROBES, STEPS
from pruning.models.folder import Summary, describe
from pruning.runs.run import Run, RunStore
from pruning.text.sources import check_source


def create(config: RunConfig, store: RunStore) -> Run:
    """A new run, refused where it can be known to fail before there is one.

    Raises:
        PruningError: see `check`; or there is too little disk space.
    """
    check(config)
    if problem := needs(config, store).problem:
        raise RunError(problem)
    return store.create(config)


def check(config: RunConfig) -> None:
    """What can be known to be wrong before a run exists: model, ratio, selectors, context, domains, folders.

    Raises:
        PruningError: see its subclasses.
    """
    check_folders(config.task_data, config.task_folder)
    summary = describe(config.model)
    check_reachable(summary.geometry, config)
    if summary.context and config.seq_len > summary.context:
        raise too_long(config.seq_len, summary.context)
    for name in config.measured_domains if config.eval_blocks != 0 else config.mixture:
        check_source(name, config.domains.get(name, "embedded"))


def mixture_notices(names: Iterable[str], measured: bool) -> list[str]:
    """What is said of domains that have text and are not in the mixture, in sentences."""
    use = "is measured and not calibrated on" if measured else "is not used"
    return [
        f"domain {quoted(name)} {use}: it has no weight in the mixture (list it in --mixture beside the "
        "others to calibrate on it)"
        for name in names
    ]


@dataclass(frozen=True)
class Needs:
    """What a run takes, about.

    Attributes:
        disk, memory: bytes.
        disk_free, memory_free: bytes that there are.
        seconds: how long it runs on this machine, zero-shot tasks left out.
        basis: what the seconds were reckoned from.
    """

    disk: int
    memory: int
    disk_free: int
    memory_free: int
    seconds: float
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


def needs(config: RunConfig, store: RunStore) -> Needs:
    """What a run takes, from the model's shape and from what this machine did before.

    Args:
        config: of the run.
        store: where it will lie; its finished runs tell how fast this machine is.

    Raises:
        ModelError: there is no such model.
    """
    summary = describe(config.model)
    channels = sum(summary.geometry.channels(site) for site in summary.geometry.sites)
    itemsize = 4 if config.dtype in ("auto", "float32") else 2
    # a mean and a sum of squares in float64 by domain, scores and norms in float64, by iteration
    statistics = config.iterations * channels * (16 * len(config.mixture) + 24)
    weights = summary.parameters * itemsize
    root = next(folder for folder in (store.root.resolve(), *store.root.resolve().parents) if folder.is_dir())
    usage = shutil.disk_usage(root)
    speed, basis = _speed(config, store, summary)
    return Needs(
        disk=statistics + (weights if config.save_model else 0),
        memory=int(1.3 * weights) + 500_000_000,
        disk_free=usage.free if usage.total else sys.maxsize,  # /proc and its like have no size to run out of
        memory_free=psutil.virtual_memory().available,
        seconds=_work(config, summary) / speed,
        basis=basis,
    )


# --- how long ----------------------------------------------------------------------------------------------
EVALUATED = 4096  # tokens of a domain's held-out text, about, where all of it is measured
REACHED = 0.5  # of a matrix product's speed by a forward pass, about
ALIKE = 4  # times larger or smaller: models beyond have matrices of another speed


def damage_seconds(config: RunConfig, store: RunStore) -> float:
    """How long measuring the damage of a config's dense model takes on this machine, about.

    Raises:
        ModelError: there is no such model.
    """
    summary = describe(config.model)
    return _damage_work(config, summary) / _speed(config, store, summary)[0]


def _work(config: RunConfig, summary: Summary) -> float:
    """Multiplications and additions of a run: two for each token and weight that it meets."""
    linear = summary.geometry.linear_parameters
    left = [1 - config.ratio_at(number) for number in range(config.iterations + 1)]
    left[0] = 1.0
    calibrated = config.samples * config.seq_len * len(config.mixture)
    blocks = config.eval_blocks
    each = EVALUATED if blocks is None else min(blocks * config.seq_len, EVALUATED)
    measured = each * len(config.measured_domains)
    outside = summary.parameters - linear  # embeddings: the head multiplies with them in evaluation
    covariances = config.compensation in COVARIANCE
    of_a_cut = 2 if config.sequential else int(covariances)  # passes over the calibration text
    passes = [(1 + of_a_cut) * calibrated * linear * share for share in left[:-1]]
    passes += [measured * (linear * share + outside) for share in left]
    work = 2 * sum(passes) + config.iterations * _product_work(config, summary)
    return work + (_damage_work(config, summary) if config.allocation in DAMAGE else 0)


def _damage_work(config: RunConfig, summary: Summary) -> float:
    """Of measuring damage: a calibration pass, and trials that run from their layer to the logits."""
    linear, depth = summary.geometry.linear_parameters, len(summary.geometry.layers)
    probed = min(PROBES, config.samples) * config.seq_len * len(config.mixture)
    of_a_layer = 2 * len(STEPS)  # attention and MLP
    trials = of_a_layer * (linear * (depth + 1) / 2 + depth * (summary.parameters - linear))
    calibrated = config.samples * config.seq_len * len(config.mixture)
    return 2 * (calibrated * linear + probed * trials) + _product_work(config, summary)


def _product_work(config: RunConfig, summary: Summary) -> float:
    """Of the products of channels with channels that least squares take in one calibration pass."""
    if config.compensation not in COVARIANCE:
        return 0
    widths = [summary.geometry.channels(site) for site in summary.geometry.sites]
    return 2 * config.samples * config.seq_len * len(config.mixture) * sum(width**2 for width in widths)


def _speed(config: RunConfig, store: RunStore, summary: Summary) -> tuple[float, str]:
    """Multiplications and additions a second of this machine, and how that is known."""
    done = [run for run in store.all() if run.config.device == config.device and run.results()]
    done = [run for run in done if not run.config.tasks]  # whose time is not reckoned
    done.sort(key=lambda run: run.config.model != config.model)  # stable: the newest of this model first
    known = {}
    for run in done[:3]:
        results = run.results()
        try:
            other = describe(run.config.model)
        except PruningError:
            continue  # its model has gone
        if results and results.seconds > 2:
            speed, basis = _work(run.config, other) / results.seconds, f"run {run.id}"
            if 1 / ALIKE <= other.parameters / summary.parameters <= ALIKE:
                return speed, basis
            known[basis] = speed
    known["a matrix product timed on this machine"] = REACHED * _product_speed(int(time.time() // 60))
    best = max(known, key=known.__getitem__)
    return known[best], best


@lru_cache(maxsize=1)
def _product_speed(minute: int) -> float:
    """Multiplications and additions a second of a matrix product in float32, the best of a few.

    Args:
        minute: since the epoch; timed anew in the next one, when the machine may be less busy.
    """
    size, best = 768, 0.0
    matrix = np.ones((size, size), np.float32)
    for _ in range(6):
        began = time.perf_counter()
        matrix @ matrix
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
