"""A new run, refused where it can be known to fail before there is one. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable

from pruning.config import RunConfig
from pruning.engine.budget import check_reachable
from pruning.errors import RunError, too_long
from pruning.measure.tasks import check_folders
from pruning.models.folder import describe
from pruning.runs.needs import needs
from pruning.runs.run import Run
from pruning.runs.store import RunStore
from pruning.text.sources import check_source
from pruning.words import quoted


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
