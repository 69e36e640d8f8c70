"""Zero-shot accuracy through lm-evaluation-harness, and what a difference of accuracies is worth.

The harness asks and scores; this module keeps what was measured and compares two models item by item.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import ConfigError
from pruning.measure.comparison import Accuracy, TaskRow, ZeroShot
from pruning.measure.significance import average_delta, paired_delta, standard_error
from pruning.measure.tasks import (
    DEMO_TASKS,
    LOCAL_TASKS,
    asked_as,
    expand,
    leaves,
    load_task,
    local_file,
    reason,
    task_manager,
)
from pruning.paths import ASSETS, cache_folder
from pruning.progress import Progress
from pruning.sealed import read_cached, write_cached

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from pruning.models.folder import LoadedModel


__all__ = ["DEMO_TASKS", "LOCAL_TASKS", "METRICS", "TaskResult", "compare", "expand", "paired_delta"]


__all__ += ["task_manager", "zero_shot"]


METRICS = ("acc", "acc_norm")
BATCH = 32  # sequences at once


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
    """

    task: str
    items: int
    limit: int | None
    accuracy: dict[str, float]
    correct: dict[str, list[float]]
    version: str

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

    What has been measured is kept by task, so that an interrupted evaluation goes on after the last whole
    task and a dense model is asked once.

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
    results: dict[str, TaskResult] = {}
    parameter = next(loaded.model.parameters())
    where = (str(parameter.dtype), parameter.device.type)
    with task_manager(data, include, expand(tasks)) as manager:
        names = leaves(manager, expand(tasks), include)
        model: HFLM | None = None
        for number, name in enumerate(names):
            yield Progress("zero-shot", number, len(names), name)
            key = _key(state, asked_as(manager, name), data, include, limit, *where)
            file = cache_folder() / "zeroshot" / f"{key}.json"
            result = read_cached(file, TaskResult)
            if result is None:
                model = model or _harness_model(loaded)
                result = _ask(model, name, manager, limit)
                write_cached(file, result)
            results[name] = result
    yield Progress("zero-shot", len(names), len(names))
    return results


def _harness_model(loaded: LoadedModel) -> HFLM:
    from lm_eval.models.huggingface import HFLM

    model = HFLM(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=BATCH, trust_remote_code=False
    )
    model.loglikelihood = partial(model.loglikelihood, disable_tqdm=True)  # its bars would break ours
    return model


def _ask(model: HFLM, name: str, manager: TaskManager, limit: int | None) -> TaskResult:
    import lm_eval
    from jinja2 import TemplateError

    task = load_task(manager, name)
    try:
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=[task],
            task_manager=manager,
            num_fewshot=0,
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
        )
    except (TemplateError, LookupError, ValueError, AssertionError) as error:
        # a row that is not like the first, or, as the harness asserts, one that is too long
        raise ConfigError(
            f"a row of task {name!r} cannot be asked ({reason(error)}): check its columns, and that its "
            "answers fit into the model's context."
        ) from error
    asked = asked_as(manager, name)
    samples = found["samples"][asked]
    filtered = samples[0]["filter"]
    samples = sorted((s for s in samples if s["filter"] == filtered), key=lambda sample: sample["doc_id"])
    metrics = [m for m in METRICS if isinstance(samples[0].get(m), Real)]
    if not metrics:
        raise ConfigError(f"task {name!r} has no accuracy by item: choose multiple-choice tasks.")
    return TaskResult(
        task=name,
        items=len(samples),
        limit=limit if limit and limit < len(task.eval_docs) else None,
        accuracy={metric: found["results"][asked][f"{metric},{filtered}"] for metric in metrics},
        correct={metric: [float(sample[metric]) for sample in samples] for metric in metrics},
        version=f"{found['versions'].get(asked)}, lm-eval {version('lm_eval')}",
    )


def _key(state: str, task: str, data: object, include: object, limit: int | None, *where: str) -> str:
    """A name for an answer: the weights, the task with its files, and what computes."""
    parts: list[Any] = [3, version("lm_eval"), state, task, limit, *where]
    files = [local_file(Path(str(data)), task.removeprefix("local_"))] if data else []
    for folder in (Path(str(folder)) for folder in (include, ASSETS / "tasks") if folder):
        files += sorted(f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    parts += [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


# --- comparing -------------------------------------------------------------------------------------------
def compare(dense: dict[str, TaskResult], pruned: dict[str, TaskResult]) -> ZeroShot:
    """Dense against pruned by task, with paired error bars, and plain averages over tasks as in the paper."""
    tasks = {}
    for name, before in dense.items():
        after = pruned[name]
        measures = {metric: _accuracy(before, after, metric) for metric in before.accuracy}
        counts = {"items": before.items, "limit": before.limit, "version": before.version}
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
