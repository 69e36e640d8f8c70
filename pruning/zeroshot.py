"""Zero-shot accuracy through lm-evaluation-harness, and what a difference of accuracies is worth.

The harness asks and scores; this module finds the tasks, keeps what was measured, and compares two models
item by item.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.calibration import Progress, cache_folder
from pruning.config import ConfigError
from pruning.domains import ASSETS

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from pruning.models import LoadedModel

DEMO_TASKS = tuple(f"prunescope_{n}" for n in ("wiki", "web", "code", "arithmetic", "answers", "agreement"))
# The paper's six (arXiv 2601.02674), each with the split that the harness evaluates on.
PAPER_TASKS = {
    "arc_challenge": "test",
    "arc_easy": "test",
    "hellaswag": "validation",
    "openbookqa": "test",
    "piqa": "validation",
    "winogrande": "validation",
}
LOCAL_TASKS = {**PAPER_TASKS, "boolq": "validation"}
METRICS = ("acc", "acc_norm")
BATCH = 32  # sequences at once


@dataclass(frozen=True)
class TaskResult:
    """One model on one task.

    Attributes:
        task: as the harness names it.
        items: how many were asked.
        limit: only the first so many were asked; None for all.
        accuracy: by metric (`acc`, and `acc_norm` where the task has it), between 0 and 1.
        correct: by metric, 1 or 0 for every item in order.
        version: of the task, and of the harness.
    """

    task: str
    items: int
    limit: int | None
    accuracy: dict[str, float]
    correct: dict[str, list[int]]
    version: str

    def standard_error(self, metric: str = "acc") -> float:
        """Of the accuracy, as the harness computes it: the sample deviation over the root of the items."""
        p, n = self.accuracy[metric], self.items
        return math.sqrt(p * (1 - p) / (n - 1)) if n > 1 else math.inf


@dataclass(frozen=True)
class Delta:
    """Pruned minus dense on the same items.

    Attributes:
        value: difference of the accuracies.
        standard_error: of the paired difference; smaller than that of two separate samples.
        p_value: exact McNemar test: how likely so uneven a split of the changed items is by chance.
    """

    value: float
    standard_error: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether it is more than noise, at 5%."""
        return self.p_value < 0.05


def paired_delta(dense: Sequence[int], pruned: Sequence[int]) -> Delta:
    """Compare two models item by item.

    Args:
        dense, pruned: 1 or 0 for every item, in the same order.

    Raises:
        ValueError: the items are not the same number.
    """
    if len(dense) != len(pruned):
        raise ValueError(f"{len(dense)} items against {len(pruned)}: they must be the same")
    n = len(dense)
    lost = sum(d > p for d, p in zip(dense, pruned, strict=True))
    won = sum(p > d for d, p in zip(dense, pruned, strict=True))
    value = (won - lost) / n
    variance = ((won + lost) / n - value**2) * n / max(n - 1, 1)
    return Delta(value, math.sqrt(max(variance, 0) / n), _mcnemar(lost, won))


def _mcnemar(lost: int, won: int) -> float:
    """Two-sided exact binomial test that items are as likely lost as won."""
    changed = lost + won
    tail = sum(math.comb(changed, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**changed)


# --- tasks -----------------------------------------------------------------------------------------------


def expand(tasks: Sequence[str]) -> list[str]:
    """Task names with `demo` and `paper` spelled out."""
    sets = {"demo": DEMO_TASKS, "paper": tuple(PAPER_TASKS)}
    return list(dict.fromkeys(name for task in tasks for name in sets.get(task, (task,))))


@contextlib.contextmanager
def task_manager(
    data: str | Path | None = None, include: str | Path | None = None, names: Sequence[str] = ()
) -> Iterator[TaskManager]:
    """The harness's tasks, the demo's, and those of a folder.

    Args:
        data: folder with `<task>.jsonl[.gz]` that have the columns of the hub's data sets; the harness's own
            tasks then read these, with its own prompts.
        include: folder with more tasks as YAML.
        names: tasks that are wanted; where none is the harness's, its thousands of files are not read.

    Raises:
        ConfigError: a folder is not there.
    """
    from lm_eval.tasks import TaskManager

    for folder in (data, include):
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(f"there is no folder {str(folder)!r} with task data: give one that exists.")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as generated:
        if data is not None:
            _write_local_tasks(Path(data).resolve(), Path(generated))
        paths = [str(ASSETS / "tasks"), *([str(include)] if include else []), generated]
        manager = TaskManager(include_path=paths, include_defaults=False)
        known = set(manager.all_tasks)
        if not names or not all({name, f"local_{name}"} & known for name in names):
            manager = TaskManager(include_path=paths)
        yield manager


def _local_file(data: Path, task: str) -> Path | None:
    files = (data / f"{task}{ending}" for ending in (".jsonl", ".jsonl.gz"))
    return next((file for file in files if file.exists()), None)


def _write_local_tasks(data: Path, folder: Path) -> None:
    """The harness's own configurations, pointed at local files."""
    import yaml
    from lm_eval.tasks import TaskManager

    found = {task: file for task in LOCAL_TASKS if (file := _local_file(data, task))}
    own = TaskManager() if found else None
    for task, file in found.items():
        assert own is not None
        split = LOCAL_TASKS[task]
        config = {
            "include": str(own.task_index[task].yaml_path),
            "task": f"local_{task}",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {split: str(file)}},
            "training_split": None,
            "validation_split": split if split == "validation" else None,
            "test_split": split if split == "test" else None,
        }
        (folder / f"local_{task}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


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
        tasks: names, or `demo` and `paper`.
        state: names the model's weights.
        data: folder with local copies of the tasks' data.
        include: folder with tasks as YAML.
        limit: only the first so many items of each task; for a quick look, not for comparison.

    Yields:
        Progress after every task.

    Raises:
        ConfigError: an unknown task, or data that are not to be had.
    """
    names = expand(tasks)
    results: dict[str, TaskResult] = {}
    with task_manager(data, include, names) as manager:
        for number, name in enumerate(names):
            yield Progress("zero-shot", number, len(names), name)
            asked = f"local_{name}" if f"local_{name}" in manager.all_tasks else name
            if asked not in manager.all_tasks:
                raise ConfigError(f"there is no task {name!r}: give demo, paper, or a task of lm-eval.")
            file = cache_folder() / "zeroshot" / f"{_key(state, asked, data, include, limit)}.json"
            results[name] = _read(file) or _ask(loaded, name, asked, manager, limit)
            _write(file, results[name])
    yield Progress("zero-shot", len(names), len(names))
    return results


def _ask(loaded: LoadedModel, name: str, asked: str, manager: TaskManager, limit: int | None) -> TaskResult:
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=BATCH)
    model.loglikelihood = partial(model.loglikelihood, disable_tqdm=True)  # its bars would break ours
    try:
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=[asked],
            task_manager=manager,
            num_fewshot=0,
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
        )
    except Exception as error:
        # Whatever the harness and the hub raise when data cannot be had; a defect of ours would too.
        if not isinstance(error, ConnectionError | OSError | ValueError):
            raise
        raise ConfigError(
            f"the data of task {name!r} cannot be read ({type(error).__name__}): check the network, or "
            "give a folder with local copies (--task-data)."
        ) from error
    samples = sorted(found["samples"][asked], key=lambda sample: sample["doc_id"])
    metrics = [metric for metric in METRICS if metric in samples[0]]
    if not metrics:
        raise ConfigError(f"task {name!r} has no accuracy: choose multiple-choice tasks.")
    return TaskResult(
        task=name,
        items=len(samples),
        limit=limit,
        accuracy={metric: found["results"][asked][f"{metric},none"] for metric in metrics},
        correct={metric: [int(sample[metric]) for sample in samples] for metric in metrics},
        version=f"{found['versions'].get(asked)}, lm-eval {lm_eval.__version__}",
    )


def _key(state: str, task: str, data: object, include: object, limit: int | None) -> str:
    parts: list[Any] = [2, state, task, limit]
    for folder in (Path(str(f)).resolve() for f in (data, include, ASSETS / "tasks") if f):
        files = [_local_file(folder, task.removeprefix("local_").removeprefix("prunescope_"))]
        parts += [
            (str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in (*files, *folder.glob("*.yaml")) if f
        ]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _read(file: Path) -> TaskResult | None:
    try:
        return TaskResult(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write(file: Path, result: TaskResult) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the run
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(result)), encoding="utf-8")
        temporary.replace(file)


# --- comparing -------------------------------------------------------------------------------------------


def compare(dense: dict[str, TaskResult], pruned: dict[str, TaskResult]) -> dict[str, Any]:
    """Dense against pruned by task, with paired error bars, and plain averages over tasks as in the paper.

    Returns:
        A JSON object: `tasks` by name with items, limit, and by metric `dense`, `pruned`, `delta`, its
        `standard_error`, `p_value` and `significant`; `average` by metric. A task without `acc_norm` enters
        that average with its `acc`.
    """
    tasks: dict[str, Any] = {}
    for name, before in dense.items():
        after = pruned[name]
        row: dict[str, Any] = {"items": before.items, "limit": before.limit, "version": before.version}
        for metric, value in before.accuracy.items():
            delta = paired_delta(before.correct[metric], after.correct[metric])
            row[metric] = {
                "dense": value,
                "dense_stderr": before.standard_error(metric),
                "pruned": after.accuracy[metric],
                "pruned_stderr": after.standard_error(metric),
                "delta": delta.value,
                "standard_error": delta.standard_error,
                "p_value": delta.p_value,
                "significant": delta.significant,
            }
        tasks[name] = row
    average = {}
    for metric in METRICS:
        rows = [row.get(metric, row["acc"]) for row in tasks.values()]
        error = math.sqrt(sum(row["standard_error"] ** 2 for row in rows)) / len(rows)
        average[metric] = {
            **{side: sum(row[side] for row in rows) / len(rows) for side in ("dense", "pruned", "delta")},
            "standard_error": error,
            "significant": abs(sum(row["delta"] for row in rows) / len(rows)) > 1.96 * error,
        }
    return {"tasks": tasks, "average": average}
