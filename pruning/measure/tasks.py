"""Zero-shot tasks by name: the demo's, those of a folder, and lm-evaluation-harness's with their data.

Nothing here needs torch before a task is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import ConfigError
from pruning.formatting import quoted
from pruning.measure.scoring import check_scored
from pruning.paths import ASSETS, exists

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager


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
FILES = ("json", "csv", "text", "parquet", "arrow", "xml")  # data sets that are files of that kind
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


def expand(tasks: Sequence[str]) -> list[str]:
    """Task names with `demo` and `paper` spelled out."""
    sets = {"demo": DEMO_TASKS, "paper": tuple(PAPER_TASKS)}
    return list(dict.fromkeys(name for task in tasks for name in sets.get(task, (task,))))


def check_folders(data: str | Path | None, include: str | Path | None) -> None:
    """What can be known of the folders of task data and of task definitions without the harness.

    Raises:
        ConfigError: one is not there.
    """
    for folder, option, holds in (
        (data, "--task-data", "local copies of the task data"),
        (include, "--task-folder", "task definitions"),
    ):
        if folder is not None and not (exists(Path(folder)) and Path(folder).is_dir()):
            raise ConfigError(
                f"there is no folder {quoted(folder)}: give {option} an existing folder with {holds}."
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
        names: tasks that are wanted; where none is the harness's, its thousands of files are not read.

    Raises:
        ConfigError: a folder is not there.
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
    """A task's rows in a folder; None where it has none."""
    files = (data / f"{task}{ending}" for ending in (".jsonl", ".jsonl.gz"))
    return next((file for file in files if file.exists()), None)


def _write_local_tasks(data: Path, folder: Path) -> None:
    """The harness's own configurations, pointed at local files."""
    for task, split in LOCAL_TASKS.items():
        if file := local_file(data, task):
            splits = dict.fromkeys(SPLITS[:3]) | {f"{split}_split": split}
            rows: dict[str, Any] = {"dataset_path": "json", "dataset_name": None}
            rows["dataset_kwargs"] = {"data_files": {split: str(file)}}
            _write_variant(_harness(), task, f"local_{task}", folder, rows | splits)


def _write_variant(
    manager: TaskManager,
    task: str,
    name: str,
    folder: Path,
    changes: Mapping[str, Any],
) -> None:
    """A task's own configuration with some changes, such as where its data are read, under a name."""
    import yaml

    config = {"include": str(manager.task_index[task].yaml_path), "task": name, **changes}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


# --- names -----------------------------------------------------------------------------------------------
def leaves(manager: TaskManager, names: Sequence[str], include: str | Path | None = None) -> list[str]:
    """The single tasks that names stand for, groups and tags spelled out.

    Args:
        manager: that knows them.
        names: of tasks, groups and tags.
        include: folder of the person's own tasks, to say which file there is broken.

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
            yield from grouped(entry.cfg, name)
        elif group:
            raise ConfigError(
                f"group {group!r} lists {name!r}, which has no task file of its own: name tasks that have "
                "one."
            )
        else:
            raise _unknown(name, include)

    def grouped(config: Mapping[str, Any], group: str) -> Iterator[str]:
        for member in config["task"]:
            if isinstance(member, str):
                yield from members(member, group)
            elif isinstance(member.get("task"), list):
                yield from grouped(member, group)  # a group written within a group
            else:
                yield from members(member.get("task") or member.get("group"), group)

    return list(dict.fromkeys(leaf for name in names for leaf in members(name)))


def check_tasks(
    tasks: Sequence[str], data: str | Path | None = None, include: str | Path | None = None
) -> None:
    """Refuse tasks that nobody knows or that have no accuracy, before anything is loaded.

    Raises:
        ConfigError: there is no such task, it has no accuracy, or a folder is not there.
    """
    if tasks:
        names = expand(tasks)
        with task_manager(data, include, names) as manager:
            single = leaves(manager, names, include)
            check_scored({name: manager.task_index[asked_as(manager, name)].cfg or {} for name in single})


def _unknown(name: str, include: str | Path | None) -> ConfigError:
    """Why a name is not known: it is nobody's, or the person's own file cannot be read."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    for file in sorted(Path(include).rglob("*.yaml")) if include else []:
        try:
            load_yaml(file, resolve_func=False)
        except (yaml.YAMLError, OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            return ConfigError(
                f"there is no task {name!r}, and the task definition {str(file)!r} cannot be read "
                f"({reason}): correct it."
            )
    return ConfigError(
        f"there is no task {name!r}: give demo, paper, a task of lm-eval, or one that --task-folder defines."
    )


def asked_as(manager: TaskManager, name: str) -> str:
    """The name of a task with its local data where there are some."""
    return f"local_{name}" if f"local_{name}" in manager.task_index else name


# --- data ------------------------------------------------------------------------------------------------
def load_task(manager: TaskManager, name: str) -> Task:
    """A task with its rows.

    Args:
        manager: that knows it.
        name: as a person names it.

    Raises:
        ConfigError: the rows are not to be had, are not what the task needs, or its YAML is malformed.
    """
    from datasets.exceptions import DatasetGenerationError

    asked = asked_as(manager, name)
    try:
        try:
            config = manager.task_index[asked].cfg or {}
            kind = "" if "custom_dataset" in config else str(config.get("dataset_path") or "")
            local = kind in FILES or (kind and Path(kind).is_dir())
            return _from_files(manager, asked) if local else manager.load([asked])["tasks"][asked]
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            return _from_parquet(manager, asked)
    except DatasetGenerationError as error:
        raise ConfigError(
            f"the data of task {name!r} are broken ({reason(error.__cause__ or error)}): "
            "a local file must be JSON Lines."
        ) from error
    except FileNotFoundError as error:
        raise ConfigError(
            f"the data of task {name!r} are not found ({reason(error)}): check the paths in its YAML, or "
            f"{_local_data(name)}."
        ) from error
    except OSError as error:  # the hub's client and data sets raise several kinds of it, offline or not there
        raise ConfigError(
            f"the data of task {name!r} cannot be read ({type(error).__name__}): check the network, or "
            f"{_local_data(name)}."
        ) from error
    except Exception as error:  # whatever the YAML's functions and templates raise on rows they do not know
        raise ConfigError(
            f"task {name!r} does not fit its data ({reason(error)}): check its YAML and the columns of its "
            "rows."
        ) from error


def _local_data(name: str) -> str:
    """How a task is asked without the network."""
    if name in LOCAL_TASKS:
        return f"give --task-data a folder with {name}.jsonl"
    return "define it in --task-folder with dataset_path: json and local data_files"


def reason(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0][:200].rstrip('.')}" if words else type(error).__name__


def _from_parquet(manager: TaskManager, asked: str) -> Task:
    """A task whose data set is a script, which nothing runs any more, from the hub's Parquet of it.

    The hub converts every script's data to `CONFIG/SPLIT/*.parquet` in a branch of its own. A task that names
    no configuration means the only one there is, whatever its name.
    """
    config = manager.task_index[asked].cfg or {}
    root = (
        f"hf://datasets/{config['dataset_path']}@refs%2Fconvert%2Fparquet/{config.get('dataset_name') or '*'}"
    )
    splits = dict.fromkeys(config[key] for key in SPLITS if config.get(key))
    files = {split: f"{root}/{split}/*.parquet" for split in splits}
    rows = {"dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    return _variant(manager, asked, rows)


def _variant(manager: TaskManager, asked: str, changes: Mapping[str, Any]) -> Task:
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        _write_variant(manager, asked, asked, Path(folder), changes)
        return TaskManager(include_path=folder, include_defaults=False).load([asked])["tasks"][asked]


@cache
def _copies() -> tempfile.TemporaryDirectory:
    """Where the library puts its copies of local rows, for as long as this process lives."""
    return tempfile.TemporaryDirectory(prefix="prunescope-", ignore_cleanup_errors=True)


def _from_files(manager: TaskManager, asked: str) -> Task:
    """A task whose rows are local files, read anew.

    The library's own cache knows a file by the time of its last change, which another file may share.
    """
    options = (manager.task_index[asked].cfg or {}).get("dataset_kwargs") or {}
    copy = tempfile.mkdtemp(dir=_copies().name)
    return _variant(manager, asked, {"dataset_kwargs": {**options, "cache_dir": copy}})
