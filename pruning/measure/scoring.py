"""Whether a task is scored by accuracy, item by item: the only tasks on which two models can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pruning.errors import ConfigError

METRICS = ("acc", "acc_norm")


def check_scored(configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse tasks whose YAML says that no item of theirs is right or wrong.

    What a task's own code makes of an item shows only when one is asked; an output type or a metric list that
    is malformed is for the harness to refuse.

    Args:
        configs: content of the YAML of single tasks, by name.

    Raises:
        ConfigError: a task has no accuracy.
    """
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

    for name, config in configs.items():
        kind, rows = config.get("output_type", "generate_until"), config.get("metric_list")
        if "class" in config or kind not in DEFAULT_METRIC_REGISTRY:
            continue
        if rows and not all(isinstance(row, Mapping) and "metric" in row for row in rows):
            continue
        metrics = [str(row["metric"]) for row in rows] if rows else DEFAULT_METRIC_REGISTRY[kind]
        by_item = kind in ("multiple_choice", "loglikelihood") or "process_results" in config
        if not by_item or not {metric.rpartition(".")[2] for metric in metrics} & set(METRICS):
            raise no_accuracy(name, kind, metrics)


def no_accuracy(name: str, kind: str, metrics: Iterable[str]) -> ConfigError:
    """The error for a task that is not scored by accuracy."""
    return ConfigError(
        f"task {name!r} has no accuracy by item: it is of type {kind} and is scored by "
        f"{', '.join(metrics) or 'nothing'}; choose tasks with {' or '.join(METRICS)}."
    )
