"""Zero-shot accuracy through lm-evaluation-harness: tasks and their data, asking, and comparing two models.

The harness asks and scores. Nothing here imports torch before a task is loaded.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import ConfigError, reason_of
from pruning.formatting import quoted
from pruning.measure.comparison import Accuracy, TaskRow, ZeroShot
from pruning.measure.significance import Difference, average_delta, paired_delta, standard_error
from pruning.paths import ASSETS, exists
from pruning.progress import Progress

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

    from pruning.measure.harness import CachedModel
    from pruning.models.folder import LoadedModel

METRICS = ("acc", "acc_norm")
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
_FILE_FORMATS = ("json", "csv", "text", "parquet", "arrow", "xml")  # data sets that are local files
_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


def expand(tasks: Sequence[str]) -> list[str]:
    """Task names, with `demo` and `paper` replaced by the tasks that they stand for."""
    sets = {"demo": DEMO_TASKS, "paper": tuple(PAPER_TASKS)}
    return list(dict.fromkeys(name for task in tasks for name in sets.get(task, (task,))))


def check_folders(data: str | Path | None, include: str | Path | None) -> None:
    """Refuse folders of task data and of task definitions that do not exist.

    Raises:
        ConfigError: a folder does not exist.
    """
    for folder, option, content in (
        (data, "--task-data", "local copies of the task data"),
        (include, "--task-folder", "task definitions"),
    ):
        if folder is not None and not (exists(Path(folder)) and Path(folder).is_dir()):
            raise ConfigError(
                f"there is no folder {quoted(folder)}: give {option} an existing folder with {content}."
            )


@cache
def _harness() -> TaskManager:
    """The harness's own tasks; reading their thousands of files takes seconds, once a process."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


@contextlib.contextmanager
def task_manager(
    data: str | Path | None = None, include: str | Path | None = None, names: Sequence[str] = ()
) -> Iterator[TaskManager]:
    """The harness's tasks, the demo's, and those of a folder.

    Args:
        data: folder with `<task>.jsonl[.gz]` that have the columns of the hub's data sets; the harness's own
            tasks then read these, with its own prompts.
        include: folder with more tasks as YAML.
        names: tasks to load; if none is the harness's, its thousands of files are not read.

    Raises:
        ConfigError: a folder does not exist.
    """
    check_folders(data, include)
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as generated:
        if data is not None:
            _write_local_tasks(Path(data).resolve(), Path(generated))
        paths = [str(ASSETS / "tasks"), *([str(include)] if include else []), generated]
        manager = TaskManager(include_path=paths, include_defaults=False)
        if not names or not all({name, f"local_{name}"} & set(manager.task_index) for name in names):
            for name, entry in _harness().task_index.items():
                manager.task_index.setdefault(name, entry)
        yield manager


def local_file(data: Path, task: str) -> Path | None:
    """The file with a task's rows in a folder; None if there is none."""
    files = (data / f"{task}{ending}" for ending in (".jsonl", ".jsonl.gz"))
    return next((file for file in files if file.exists()), None)


def _write_local_tasks(data: Path, folder: Path) -> None:
    """Write the harness's own configurations with local files as their data."""
    for task, split in LOCAL_TASKS.items():
        if file := local_file(data, task):
            changes = dict.fromkeys(_SPLITS[:3]) | {f"{split}_split": split}
            changes |= _dataset("json", {split: str(file)})
            _write_variant(_harness(), task, f"local_{task}", folder, changes)


def _dataset(kind: str, files: Mapping[str, str]) -> dict[str, Any]:
    """The keys of a task's configuration that read its rows from files by split."""
    return {"dataset_path": kind, "dataset_name": None, "dataset_kwargs": {"data_files": files}}


def _write_variant(
    manager: TaskManager, task: str, name: str, folder: Path, changes: Mapping[str, Any]
) -> None:
    """Write a task's own configuration, with changes such as where its data are read, under a name."""
    import yaml

    config = {"include": str(manager.task_index[task].yaml_path), "task": name, **changes}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


# --- names -----------------------------------------------------------------------------------------------
def single_tasks(manager: TaskManager, names: Sequence[str], include: str | Path | None = None) -> list[str]:
    """The single tasks that names of tasks, groups and tags stand for, each once.

    Args:
        manager: holds the tasks.
        names: of tasks, groups and tags.
        include: folder of the person's own tasks, to name a file there that is malformed.

    Raises:
        ConfigError: there is no such task.
    """
    index = manager.task_index

    def members(name: str, group: str = "") -> Iterator[str]:
        entry = index.get(name)
        if f"local_{name}" in index or (entry and entry.kind.name in ("TASK", "PY_TASK")):
            yield name
        elif entry and entry.kind.name == "TAG":
            for member in sorted(entry.tags):
                yield from members(member, name)
        elif entry and entry.cfg:
            yield from group_members(entry.cfg, name)
        elif group:
            raise ConfigError(
                f"group {group!r} lists {name!r}, which has no task file of its own: name tasks that have "
                "one."
            )
        else:
            raise _unknown_task(name, include)

    def group_members(config: Mapping[str, Any], group: str) -> Iterator[str]:
        for member in config["task"]:
            if isinstance(member, str):
                yield from members(member, group)
            elif isinstance(member.get("task"), list):
                yield from group_members(member, group)  # a group written within a group
            else:
                yield from members(member.get("task") or member.get("group"), group)

    return list(dict.fromkeys(task for name in names for task in members(name)))


@contextlib.contextmanager
def _open_tasks(
    names: Sequence[str], data: str | Path | None, include: str | Path | None
) -> Iterator[tuple[TaskManager, list[str]]]:
    """The manager of some tasks, and the names of the single ones."""
    names = expand(names)
    with task_manager(data, include, names) as manager:
        yield manager, single_tasks(manager, names, include)


def check_tasks(
    tasks: Sequence[str], data: str | Path | None = None, include: str | Path | None = None
) -> None:
    """Refuse tasks that do not exist or have no accuracy, before anything is loaded.

    Raises:
        ConfigError: there is no such task, it has no accuracy, or a folder does not exist.
    """
    if tasks:
        with _open_tasks(tasks, data, include) as (manager, names):
            _check_accuracy(manager, names)


def _unknown_task(name: str, include: str | Path | None) -> ConfigError:
    """The error for a name that no task has, or whose file in the person's own folder is malformed."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    for file in sorted(Path(include).rglob("*.yaml")) if include else []:
        try:
            load_yaml(file, resolve_func=False)
        except (yaml.YAMLError, OSError, ValueError) as error:
            return ConfigError(
                f"there is no task {name!r}, and the task definition {str(file)!r} cannot be read "
                f"({reason_of(error)}): correct it."
            )
    return ConfigError(
        f"there is no task {name!r}: give demo, paper, a task of lm-eval, or one that --task-folder defines."
    )


def _index_name(manager: TaskManager, name: str) -> str:
    """The name in the manager's index of a task, that of its variant with local data if there is one."""
    return f"local_{name}" if f"local_{name}" in manager.task_index else name


# --- data ------------------------------------------------------------------------------------------------
def load_task(manager: TaskManager, name: str) -> Task:
    """Load a task with its rows, to be asked without examples.

    Raises:
        ConfigError: the rows cannot be read, are not what the task needs, or its YAML is malformed.
    """
    from datasets.exceptions import DatasetGenerationError

    try:
        task = _load(manager, _index_name(manager, name))
    except DatasetGenerationError as error:
        raise ConfigError(
            f"the data of task {name!r} are broken ({reason_of(error.__cause__ or error)}): "
            "a local file must be JSON Lines."
        ) from error
    except FileNotFoundError as error:
        raise ConfigError(
            f"the data of task {name!r} are not found ({reason_of(error)}): check the paths in its YAML, or "
            f"{_local_data(name)}."
        ) from error
    except OSError as error:  # the hub's client raises several kinds of it, offline or for a missing data set
        raise ConfigError(
            f"the data of task {name!r} cannot be read ({type(error).__name__}): check the network, or "
            f"{_local_data(name)}."
        ) from error
    except Exception as error:  # a YAML's functions and templates raise errors of any type on other rows
        raise ConfigError(
            f"task {name!r} does not fit its data ({reason_of(error)}): check its YAML and the columns of "
            "its rows."
        ) from error
    task.set_config(key="num_fewshot", value=0)
    return task


def _local_data(name: str) -> str:
    """Advice on how to run a task without the network."""
    if name in LOCAL_TASKS:
        return f"give --task-data a folder with {name}.jsonl"
    return "define it in --task-folder with dataset_path: json and local data_files"


def _load(manager: TaskManager, name: str) -> Task:
    config = manager.task_index[name].cfg or {}
    dataset = "" if "custom_dataset" in config else str(config.get("dataset_path") or "")
    if dataset in _FILE_FORMATS or (dataset and Path(dataset).is_dir()):
        return _load_local(manager, name)
    try:
        return manager.load([name])["tasks"][name]
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        return _load_parquet(manager, name)


def _load_parquet(manager: TaskManager, name: str) -> Task:
    """Load a task whose data set is a script, which is never run, from the hub's Parquet copy of it.

    The hub converts every script's data to `CONFIG/SPLIT/*.parquet` in a branch of its own. A task that names
    no configuration means the only one there is, whatever its name.
    """
    config = manager.task_index[name].cfg or {}
    branch = f"hf://datasets/{config['dataset_path']}@refs%2Fconvert%2Fparquet"
    splits = dict.fromkeys(config[key] for key in _SPLITS if config.get(key))
    files = {split: f"{branch}/{config.get('dataset_name') or '*'}/{split}/*.parquet" for split in splits}
    return _load_variant(manager, name, _dataset("parquet", files))


@cache
def _copies() -> tempfile.TemporaryDirectory:
    """Folder for the library's copies of local rows, which lives as long as this process."""
    return tempfile.TemporaryDirectory(prefix="prunescope-", ignore_cleanup_errors=True)


def _load_local(manager: TaskManager, name: str) -> Task:
    """Load a task from local files, read anew.

    The library's own cache knows a file by the time of its last change, which another file may share.
    """
    options = (manager.task_index[name].cfg or {}).get("dataset_kwargs") or {}
    copy = tempfile.mkdtemp(dir=_copies().name)
    return _load_variant(manager, name, {"dataset_kwargs": {**options, "cache_dir": copy}})


def _load_variant(manager: TaskManager, name: str, changes: Mapping[str, Any]) -> Task:
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        _write_variant(manager, name, name, Path(folder), changes)
        return TaskManager(include_path=folder, include_defaults=False).load([name])["tasks"][name]


# --- accuracy --------------------------------------------------------------------------------------------
def _check_accuracy(manager: TaskManager, names: Iterable[str]) -> None:
    """Refuse tasks whose YAML says that no item of theirs is right or wrong.

    What a task's own code makes of an item shows only when one is asked; an output type or a metric list that
    is malformed is for the harness to refuse.

    Raises:
        ConfigError: a task has no accuracy.
    """
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

    for name in names:
        config = manager.task_index[_index_name(manager, name)].cfg or {}
        kind, rows = config.get("output_type", "generate_until"), config.get("metric_list")
        if "class" in config or kind not in DEFAULT_METRIC_REGISTRY:
            continue
        if rows and not all(isinstance(row, Mapping) and "metric" in row for row in rows):
            continue
        metrics = [str(row["metric"]) for row in rows] if rows else DEFAULT_METRIC_REGISTRY[kind]
        by_item = kind in ("multiple_choice", "loglikelihood") or "process_results" in config
        if not by_item or not {metric.rpartition(".")[2] for metric in metrics} & set(METRICS):
            raise _no_accuracy(name, kind, metrics)


def _no_accuracy(name: str, kind: str, metrics: Iterable[str]) -> ConfigError:
    """The error for a task that is not scored by accuracy."""
    return ConfigError(
        f"task {name!r} has no accuracy by item: it is of type {kind} and is scored by "
        f"{', '.join(metrics) or 'nothing'}; choose tasks with {' or '.join(METRICS)}."
    )


@dataclass(frozen=True)
class TaskResult:
    """Results of one model on one task.

    Attributes:
        task: name of the task in the harness.
        items: number of items that were asked.
        limit: `items` if these were only the first of more; None if they were all.
        accuracy: accuracy by metric (`acc`, `acc_norm`, or the one that the task has), between 0 and 1.
        correct: by metric, for every item in order, 1 or 0, or a probability.
        version: versions of the task and of the harness.
        digest: hash of what was asked and how it was scored; see `harness.task_digest`.
    """

    task: str
    items: int
    limit: int | None
    accuracy: dict[str, float]
    correct: dict[str, list[float]]
    version: str
    digest: str = ""

    def standard_error(self, metric: str = "acc") -> float:
        """Standard error of the accuracy, as the harness computes it; infinite for a single item."""
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

    The model's log-likelihoods are cached by task, so that an interrupted evaluation goes on after the last
    complete task and a dense model is asked once. Tasks are read, and answers scored, every time.

    Args:
        loaded: model and tokenizer.
        tasks: names of tasks, groups and tags, or `demo` and `paper`.
        state: identifier of the model's weights.
        data: folder with local copies of the tasks' data.
        include: folder with tasks as YAML.
        limit: number of items of each task, the first ones; for a quick look, not for comparison.

    Yields:
        Progress after every task, in tasks.

    Raises:
        ConfigError: an unknown task, one without an accuracy, or data that cannot be read.
    """
    from pruning.measure.harness import CachedModel

    results: dict[str, TaskResult] = {}
    with _open_tasks(tasks, data, include) as (manager, names):
        _check_accuracy(manager, names)
        model = CachedModel(loaded, state)
        for number, name in enumerate(names):
            yield Progress("zero-shot", number, len(names), name)
            results[name] = _ask(model, name, manager, limit)
    yield Progress("zero-shot", len(names), len(names))
    return results


def task_digests(
    tasks: Sequence[str], data: str | Path | None, include: str | Path | None, limit: int | None
) -> dict[str, str]:
    """`TaskResult.digest` of tasks by name, without asking a model; the arguments are those of `zero_shot`.

    Raises:
        ConfigError: see `zero_shot`.
    """
    from pruning.measure.harness import task_digest

    digests = {}
    with _open_tasks(tasks, data, include) as (manager, names):
        for name in names:
            task = load_task(manager, name)
            task.build_all_requests(limit=limit)
            digests[name] = task_digest(task)
    return digests


def _ask(model: CachedModel, name: str, manager: TaskManager, limit: int | None) -> TaskResult:
    from lm_eval.api.task import ConfigurableTask

    from pruning.measure.harness import task_digest

    task = load_task(manager, name)
    is_own = type(task).process_results is not ConfigurableTask.process_results
    if is_own or task.config.process_results is not None:  # one item shows what such code returns
        _evaluate(model, name, task, manager, 1)
    evaluation, samples = _evaluate(model, name, task, manager, limit)
    entry, filter_name = _index_name(manager, name), samples[0]["filter"]
    metrics = [metric for metric in METRICS if metric in samples[0]]
    return TaskResult(
        task=name,
        items=len(samples),
        limit=limit if limit and limit < len(task.eval_docs) else None,
        accuracy={metric: evaluation["results"][entry][f"{metric},{filter_name}"] for metric in metrics},
        correct={metric: [float(sample[metric]) for sample in samples] for metric in metrics},
        version=f"{evaluation['versions'].get(entry)}, lm-eval {version('lm_eval')}",
        digest=task_digest(task),
    )


def _evaluate(
    model: CachedModel, name: str, task: Task, manager: TaskManager, limit: int | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The harness's evaluation of a model on a task, and its record of every item in order.

    Raises:
        ConfigError: a row cannot be asked, or the task's own code gives no accuracy of an item.
    """
    import lm_eval
    from jinja2 import TemplateError

    try:
        # without `simple_evaluate`, which describes the machine in its results: seconds for every task
        evaluation = lm_eval.evaluate(
            lm=model, task_dict=manager.load([task]), limit=limit, bootstrap_iters=0
        )
    except (TemplateError, LookupError, ValueError, TypeError, ArithmeticError, AssertionError) as error:
        # a row unlike the first, one that is too long (an assertion of the harness), or the task's own code
        raise ConfigError(
            f"an item of task {name!r} cannot be asked or scored ({reason_of(error)}): check its columns, "
            "the task's own code, and that its answers fit into the model's context."
        ) from error
    samples = evaluation["samples"][_index_name(manager, name)]
    samples = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    if not any(isinstance(samples[0].get(metric), Real) for metric in METRICS):
        raise _no_accuracy(name, task.config.output_type, samples[0]["metrics"])
    return evaluation, sorted(samples, key=lambda sample: sample["doc_id"])


# --- comparing -------------------------------------------------------------------------------------------
def compare(dense: dict[str, TaskResult], pruned: dict[str, TaskResult]) -> ZeroShot:
    """Compare two models by task, with paired error bars, and on plain averages over tasks as in the paper.

    Raises:
        ConfigError: the two were not asked the same items.
    """
    tasks = {}
    for name, before in dense.items():
        after = pruned[name]
        if before.digest != after.digest:
            raise ConfigError(
                f"task {name!r} changed between the questions to the dense and to the pruned model: leave "
                "its data and its files as they are while a run is at work, and start another run."
            )
        counts = {"items": before.items, "limit": before.limit, "version": before.version}
        measures = {metric: _task_accuracy(before, after, metric) for metric in before.accuracy}
        tasks[name] = TaskRow.model_validate({**counts, "digest": before.digest, **measures})
    averages = {metric: _average_accuracy(dense, pruned, metric) for metric in METRICS}
    counts = {
        "items": sum(result.items for result in dense.values()),
        "limit": max((result.limit or 0 for result in dense.values()), default=0) or None,
    }
    return ZeroShot(tasks=tasks, average=TaskRow.model_validate(counts | averages))


def _task_accuracy(before: TaskResult, after: TaskResult, metric: str) -> Accuracy:
    return _accuracy(
        before.accuracy[metric],
        after.accuracy[metric],
        paired_delta(before.correct[metric], after.correct[metric]),
        dense_stderr=before.standard_error(metric),
        pruned_stderr=after.standard_error(metric),
    )


def _average_accuracy(dense: dict[str, TaskResult], pruned: dict[str, TaskResult], metric: str) -> Accuracy:
    metrics = {
        name: metric if metric in result.accuracy else next(iter(result.accuracy))
        for name, result in dense.items()
    }
    before, after = (
        math.fsum(results[name].accuracy[m] for name, m in metrics.items()) / len(metrics)
        for results in (dense, pruned)
    )
    pairs = [(dense[name].correct[m], pruned[name].correct[m]) for name, m in metrics.items()]
    return _accuracy(before, after, average_delta(pairs))


def _accuracy(dense: float, pruned: float, change: Difference, **errors: float) -> Accuracy:
    return Accuracy(
        dense=dense,
        pruned=pruned,
        delta=change.value,
        standard_error=change.standard_error,
        p_value=change.p_value,
        significant=change.significant,
        **errors,
    )
