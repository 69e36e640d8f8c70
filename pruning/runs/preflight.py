"""Before a run exists: what is wrong with its config, and what disk, memory and time it takes. No torch."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import psutil

from pruning.config import RunConfig
from pruning.engine.budget import check_reachable
from pruning.errors import PruningError, RunError, too_long
from pruning.formatting import quoted, size_text
from pruning.measure.tasks import check_folders
from pruning.method.allocation import NEED_CURVES
from pruning.method.compensation import COVARIANCE
from pruning.method.sensitivity import PROBES, STEPS
from pruning.models.folder import Summary, describe
from pruning.runs.run import Run, RunStore
from pruning.text.sources import check_source


def create(config: RunConfig, store: RunStore) -> Run:
    """A new run, refused if it is known to fail.

    Raises:
        PruningError: see `check`; or there is too little disk space.
    """
    check(config)
    if problem := needs(config, store).problem:
        raise RunError(problem)
    return store.create(config)


def check(config: RunConfig) -> None:
    """Check model, ratio, selectors, context length, domains and folders of a config.

    Raises:
        PruningError: one of them is wrong.
    """
    check_folders(config.task_data, config.task_folder)
    summary = describe(config.model)
    check_reachable(summary.geometry, config)
    if summary.context and config.seq_len > summary.context:
        raise too_long(config.seq_len, summary.context)
    for name in config.measured_domains if config.eval_blocks != 0 else config.mixture:
        check_source(name, config.domains.get(name, "embedded"))


def mixture_notices(config: RunConfig, measured: bool = True) -> list[str]:
    """Notices on domains that have text and no weight in the mixture, in sentences.

    Args:
        config: config of a run.
        measured: whether perplexities are measured at all.
    """
    use = "is measured and not calibrated on" if measured and config.eval_blocks != 0 else "is not used"
    return [
        f"domain {quoted(name)} {use}: it has no weight in the mixture (list it in --mixture beside the "
        "others to calibrate on it)"
        for name in config.domains.keys() - config.mixture.keys()
    ]


@dataclass(frozen=True)
class Needs:
    """Estimated needs of a run.

    Attributes:
        disk, memory: needed bytes.
        disk_free, memory_free: available bytes.
        seconds: duration on this machine without zero-shot tasks.
        basis: origin of the speed behind the duration.
    """

    disk: int
    memory: int
    disk_free: int
    memory_free: int
    seconds: float
    basis: str

    @property
    def problem(self) -> str:
        """What prevents the run, in one sentence; empty where there is enough disk space."""
        return self._short("disk space", self.disk, self.disk_free)

    @property
    def warning(self) -> str:
        """What may slow the run down or end it, in one sentence; empty where there is enough memory."""
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
    """Estimated needs of a run, from the model's shape and from earlier runs on this machine.

    Args:
        config: config of the run.
        store: store of the run; finished runs in it tell the speed of this machine.

    Raises:
        ModelError: there is no such model.
    """
    summary = describe(config.model)
    channels = sum(summary.geometry.channels(site) for site in summary.geometry.sites)
    itemsize = 4 if config.dtype in ("auto", "float32") else 2
    # per iteration: mean and sum of squares by domain, scores and norms, all in float64
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


# --- duration ----------------------------------------------------------------------------------------------
EVALUATED = 4096  # approximate tokens of a domain's whole held-out text
FORWARD_SPEED = 0.5  # approximate speed of a forward pass relative to a matrix product
SIMILAR = 4  # factor in size up to which models have matrices of similar speed


def sensitivity_seconds(config: RunConfig, store: RunStore) -> float:
    """Estimated seconds to measure the sensitivity of a config's dense model on this machine.

    Raises:
        ModelError: there is no such model.
    """
    summary = describe(config.model)
    return _sensitivity_work(config, summary) / _speed(config, store, summary)[0]


def _calibration_tokens(config: RunConfig) -> int:
    return config.samples * config.seq_len * len(config.mixture)


def _work(config: RunConfig, summary: Summary) -> float:
    """Multiplications and additions of a run: two for each pair of token and weight."""
    linear = summary.geometry.linear_parameters
    sizes = [1.0, *(1 - config.ratio_at(number) for number in range(1, config.iterations + 1))]
    blocks = config.eval_blocks
    each = EVALUATED if blocks is None else min(blocks * config.seq_len, EVALUATED)
    evaluated = each * len(config.measured_domains)
    head = summary.parameters - linear  # the output projection multiplies with the embeddings
    passes = 1 + (2 if config.sequential else int(config.compensation in COVARIANCE))  # to calibrate and cut
    work = 2 * linear * passes * _calibration_tokens(config) * sum(sizes[:-1])
    work += 2 * evaluated * sum(linear * size + head for size in sizes)
    work += config.iterations * _covariance_work(config, summary)
    return work + (_sensitivity_work(config, summary) if config.allocation in NEED_CURVES else 0)


def _sensitivity_work(config: RunConfig, summary: Summary) -> float:
    """Work of measuring sensitivity: a calibration pass, and trials from their layer to the logits."""
    linear, depth = summary.geometry.linear_parameters, len(summary.geometry.layers)
    probed = min(PROBES, config.samples) * config.seq_len * len(config.mixture)
    trials_per_layer = len(summary.geometry.names) * len(STEPS)
    trials = trials_per_layer * (linear * (depth + 1) / 2 + depth * (summary.parameters - linear))
    calibration = _calibration_tokens(config) * linear
    return 2 * (calibration + probed * trials) + _covariance_work(config, summary)


def _covariance_work(config: RunConfig, summary: Summary) -> float:
    """Work of the covariances of channels for least squares in one calibration pass."""
    if config.compensation not in COVARIANCE:
        return 0
    widths = [summary.geometry.channels(site) for site in summary.geometry.sites]
    return 2 * _calibration_tokens(config) * sum(width**2 for width in widths)


def _speed(config: RunConfig, store: RunStore, summary: Summary) -> tuple[float, str]:
    """Multiplications and additions a second of this machine, and the origin of the number."""
    # runs with tasks do not count, since the work of tasks is not estimated
    runs = [run for run in store.all() if run.config.device == config.device and not run.config.tasks]
    finished = [(run, results) for run in runs if (results := run.results())]
    finished.sort(
        key=lambda item: item[0].config.model != config.model
    )  # stable: the newest of this model first
    speeds = {}
    for run, results in finished[:3]:
        try:
            other = describe(run.config.model)
        except PruningError:
            continue  # its model is missing
        if results.seconds > 2:
            speed, basis = _work(run.config, other) / results.seconds, f"run {run.id}"
            if 1 / SIMILAR <= other.parameters / summary.parameters <= SIMILAR:
                return speed, basis
            speeds[basis] = speed
    speeds["a matrix product timed on this machine"] = FORWARD_SPEED * _product_speed(int(time.time() // 60))
    best = max(speeds, key=speeds.__getitem__)
    return speeds[best], best


@lru_cache(maxsize=1)
def _product_speed(minute: int) -> float:
    """Multiplications and additions a second of a float32 matrix product, the best of a few.

    Args:
        minute: minutes since the epoch: it is timed again in the next one, as the machine may be less busy.
    """
    size, best = 768, 0.0
    matrix = np.ones((size, size), np.float32)
    for _ in range(6):
        began = time.perf_counter()
        matrix @ matrix
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
