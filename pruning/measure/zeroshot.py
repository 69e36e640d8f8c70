"""Zero-shot accuracy through lm-evaluation-harness, and what a difference of accuracies is worth.

The harness asks and scores; this module keeps what was measured and compares two models item by item.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import ConfigError
from pruning.measure.comparison import Accuracy, TaskRow, ZeroShot
from pruning.measure.scoring import METRICS, check_scored, no_accuracy
from pruning.measure.significance import average_delta, paired_delta, standard_error
from pruning.measure.tasks import (
    DEMO_TASKS,
    LOCAL_TASKS,
    asked_as,
    expand,
    leaves,
    load_task,
    reason,
    task_manager,
)
from pruning.progress import Progress

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

    from pruning.measure.harness import CachedModel
    from pruning.models.folder import LoadedModel


__all__ = ["DEMO_TASKS", "LOCAL_TASKS", "METRICS", "TaskResult", "compare", "expand", "paired_delta"]


__all__ += ["task_manager", "zero_shot"]


@dataclass(frozen=True)
class TaskResult:
    """One model on one task.

    Attributes:
        task: as the harness names it.
        items: how many were asked.
        limit: only the first so many of more were asked; None for all.
        accuracy: by metric (`acc`, `acc_norm`, or the one of them that the task has), between 0 and 1.
        correct: by metric for every item in order 1 or 0, or a probability between them.
        version: of the task, and of the harness.
        digest: names what was asked and how it was scored; see `harness.task_digest`.
    """

    task: str
    items: int
    limit: int | None
    accuracy: dict[str, float]
    correct: dict[str, list[float]]
    version: str
    digest: str = ""

    def standard_error(self, metric: str = "acc") -> float:
        """Of the accuracy, as the harness computes it; infinite where one item was asked."""
        return standard_error(self.correct[metric])


# --- asking ----------------------------------------------------------------------------------------------
def zero_shot(
    loaded: LoadedModel,
    tasks: Sequence[str],
    state: str,
    *,
    data: str | Path | None = None,
    include: str | Path | None = None,
    limit: int | None = None,
) -> Generator[Progress, None, dict[str, TaskResult]]:
    """Ask a model the items of some tasks, without examples.

    The model's log-likelihoods are kept by task, so that an interrupted evaluation goes on after the last
    complete task and a dense model is asked once. Tasks are read, and answers scored, every time.

    Args:
        loaded: model and tokenizer.
        tasks: names of tasks, groups and tags, or `demo` and `paper`.
        state: names the model's weights.
        data: folder with local copies of the tasks' data.
        include: folder with tasks as YAML.
        limit: only the first so many items of each task; for a quick look, not for comparison.

    Yields:
        Progress after every task, in tasks.

    Raises:
        ConfigError: an unknown task, one without an accuracy, or data that are not to be had.
    """
    from pruning.measure.harness import CachedModel

    results: dict[str, TaskResult] = {}
    with task_manager(data, include, expand(tasks)) as manager:
        names = leaves(manager, expand(tasks), include)
        check_scored({name: manager.task_index[asked_as(manager, name)].cfg or {} for name in names})
        model = CachedModel(loaded, state)
        for number, name in enumerate(names):
            yield Progress("zero-shot", number, len(names), name)
            results[name] = _ask(model, name, manager, limit)
    yield Progress("zero-shot", len(names), len(names))
    return results


def task_digests(
    tasks: Sequence[str], data: str | Path | None, include: str | Path | None, limit: int | None
) -> dict[str, str]:
    """What `TaskResult.digest` would be by task, without asking a model; arguments as of `zero_shot`.

    Raises:
        ConfigError: see `zero_shot`.
    """
    from pruning.measure.harness import task_digest

    digests = {}
    with task_manager(data, include, expand(tasks)) as manager:
        for name in leaves(manager, expand(tasks), include):
            task = load_task(manager, name)
            task.set_config(key="num_fewshot", value=0)
            task.build_all_requests(limit=limit)
            digests[name] = task_digest(task)
    return digests


def _ask(model: CachedModel, name: str, manager: TaskManager, limit: int | None) -> TaskResult:
    from lm_eval.api.task import ConfigurableTask

    from pruning.measure.harness import task_digest

    task = load_task(manager, name)
    is_own = type(task).process_results is not ConfigurableTask.process_results
    if is_own or task.config.process_results is not None:  # whatever it returns, one item shows it
        _samples(model, name, task, manager, 1)
    evaluated, samples = _samples(model, name, task, manager, limit)
    asked, filtered = asked_as(manager, name), samples[0]["filter"]
    metrics = [metric for metric in METRICS if metric in samples[0]]
    return TaskResult(
        task=name,
        items=len(samples),
        limit=limit if limit and limit < len(task.eval_docs) else None,
        accuracy={metric: evaluated["results"][asked][f"{metric},{filtered}"] for metric in metrics},
        correct={metric: [float(sample[metric]) for sample in samples] for metric in metrics},
        version=f"{evaluated['versions'].get(asked)}, lm-eval {version('lm_eval')}",
        digest=task_digest(task),
    )


def _samples(
    model: CachedModel, name: str, task: Task, manager: TaskManager, limit: int | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the harness found, and its record of every item in order.

    Raises:
        ConfigError: a row cannot be asked, or the task's own code gives no accuracy of an item.
    """
    import lm_eval
    from jinja2 import TemplateError

    try:
        evaluated = lm_eval.simple_evaluate(
            model=model,
            tasks=[task],
            task_manager=manager,
            num_fewshot=0,
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
        )
    except (TemplateError, LookupError, ValueError, TypeError, ArithmeticError, AssertionError) as error:
        # a row that is not like the first, one that is too long, as the harness asserts, or the task's code
        raise ConfigError(
            f"an item of task {name!r} cannot be asked or scored ({reason(error)}): check its columns, the "
            "task's own code, and that its answers fit into the model's context."
        ) from error
    samples = evaluated["samples"][asked_as(manager, name)]
    samples = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    if not any(isinstance(samples[0].get(metric), Real) for metric in METRICS):
        raise no_accuracy(name, task.config.output_type, samples[0]["metrics"])
    return evaluated, sorted(samples, key=lambda sample: sample["doc_id"])


# --- comparing -------------------------------------------------------------------------------------------
def compare(dense: dict[str, TaskResult], pruned: dict[str, TaskResult]) -> ZeroShot:
    """Dense against pruned by task, with paired error bars, and plain averages over tasks as in the paper.

    Raises:
        ConfigError: the two were not asked the same.
    """
    tasks = {}
    for name, before in dense.items():
        after = pruned[name]
        if before.digest != after.digest:
            raise ConfigError(
                f"task {name!r} changed between the questions to the dense and to the pruned model: leave "
                "its data and its files as they are while a run is at work, and start another run."
            )
        measures = {metric: _accuracy(before, after, metric) for metric in before.accuracy}
        counts = {"items": before.items, "limit": before.limit, "version": before.version}
        counts["digest"] = before.digest
        tasks[name] = TaskRow.model_validate(counts | measures)
    averages = {metric: _average(dense, pruned, metric) for metric in METRICS}
    counts = {
        "items": sum(result.items for result in dense.values()),
        "limit": max((result.limit or 0 for result in dense.values()), default=0) or None,
    }
    average = TaskRow.model_validate(counts | averages)
    return ZeroShot(tasks=tasks, average=average)


def _accuracy(before: TaskResult, after: TaskResult, metric: str) -> Accuracy:
    change = paired_delta(before.correct[metric], after.correct[metric])
    return Accuracy(
        dense=before.accuracy[metric],
        dense_stderr=before.standard_error(metric),
        pruned=after.accuracy[metric],
        pruned_stderr=after.standard_error(metric),
        delta=change.value,
        standard_error=change.standard_error,
        p_value=change.p_value,
        significant=change.significant,
    )


def _average(dense: dict[str, TaskResult], pruned: dict[str, TaskResult], metric: str) -> Accuracy:
    chosen = {
        name: metric if metric in result.accuracy else next(iter(result.accuracy))
        for name, result in dense.items()
    }
    sides = [
        math.fsum(results[name].accuracy[m] for name, m in chosen.items()) / len(chosen)
        for results in (dense, pruned)
    ]
    change = average_delta([(dense[n].correct[m], pruned[n].correct[m]) for n, m in chosen.items()])
    return Accuracy(
        dense=sides[0],
        pruned=sides[1],
        delta=change.value,
        standard_error=change.standard_error,
        p_value=change.p_value,
        significant=change.significant,
    )
