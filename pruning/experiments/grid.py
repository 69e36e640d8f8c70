"""Grids of runs: an experiment is a file, its runs are ordinary runs, its report a folder.

    python -m pruning experiment experiments/demo_iterations.yaml

Runs that are done are found again by their config, interrupted ones go on, and whoever stops an experiment
loses no more than the iteration it was in.
"""

from __future__ import annotations

import gc
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pruning.config import RunConfig
from pruning.errors import ConfigError, PruningError
from pruning.files import writing
from pruning.formatting import clipped, quoted
from pruning.options import read_options
from pruning.outputs import check_output_file, output_file
from pruning.paths import PROJECT
from pruning.runs.checkpoints import named_model
from pruning.runs.report import OPTIONS, completed, table
from pruning.runs.run import Run, RunStore

if TYPE_CHECKING:
    import pandas as pd

    from pruning.engine.events import Event


# Runs of an experiment: a few lists of a few values each would multiply to more than anybody waits for.
MOST_RUNS = 1_000
RESULTS_FILE, PARQUET_FILE, SPEC_FILE = "results.csv", "results.parquet", "experiment.json"


class Experiment(BaseModel):
    """What an experiment runs, and how its report is drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,60}$", description="names its folder")
    title: str = Field(description="what the report is headed with")
    about: str = Field("", description="a paragraph under the title")
    options: dict[str, Any] = Field({}, description="options of every run, as in a run's config")
    grid: list[dict[str, Any]] = Field(
        min_length=1, description="each entry is a grid: options with one value or a list of values"
    )
    x: str | None = Field(None, description="the option along the axis of the figure; none draws bars")
    series: list[str] = Field(
        ["method"], min_length=1, description="options that tell the lines or bars apart"
    )
    of: str = Field("mean", description="figures show the mean over domains or tasks, each, or the one named")
    paper: Literal["main", "domains", "iterations", "samples"] | None = Field(
        None, description="which of the paper's figures stands beside"
    )

    @classmethod
    def read(cls, path: str | Path) -> Experiment:
        """The experiment of a YAML file.

        Raises:
            ConfigError: it cannot be read, or says what an experiment does not have.
        """
        content = read_options(path, "experiment")
        try:
            experiment = cls(**{"name": Path(path).stem, **content})
        except (ValidationError, TypeError) as error:
            where, message = "", str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                where, message = ".".join(map(str, first["loc"])), first["msg"]
            raise ConfigError(
                f"the experiment {quoted(path)} is malformed at {quoted(where)}: {clipped(message)}."
            ) from None
        experiment._check_axes(path)
        return experiment

    def _check_axes(self, path: str | Path) -> None:
        shares = [f"share_{name}" for config in self.configs() for name in config.measured_domains]
        known = tuple(dict.fromkeys((*OPTIONS, "mixture", *self.varied, *shares)))
        for name in filter(None, (self.x, *self.series)):
            if name not in known:
                choices = ", ".join(known)
                raise ConfigError(
                    f"the experiment {quoted(path)} names {quoted(name)} for its figure, which is none of "
                    f"its options: choose from {choices}."
                )

    @property
    def varied(self) -> tuple[str, ...]:
        """The options that its grids name."""
        return tuple(dict.fromkeys(key for entry in self.grid for key in entry))

    def configs(self) -> list[RunConfig]:
        """The config of every run, each once.

        Raises:
            ConfigError: an option of a run cannot be carried out, or there are more than `MOST_RUNS` runs.
        """
        fixed = {"save_model": False, "experiment": self.name, **self.options}
        found: dict[str, RunConfig] = {}
        grids = [
            {key: value if isinstance(value, list) else [value] for key, value in entry.items()}
            for entry in self.grid
        ]
        if sum(math.prod(map(len, lists.values())) for lists in grids) > MOST_RUNS:
            raise ConfigError(
                f"the grid of experiment {quoted(self.name)} has more than {MOST_RUNS:,} runs: give "
                "fewer values."
            )
        for lists in grids:
            for values in itertools.product(*lists.values()):
                config = RunConfig.create(**{**fixed, **dict(zip(lists, values, strict=True))})
                found.setdefault(config.model_dump_json(), config)
        return list(found.values())


def command(experiment: Experiment, target: Path = Path()) -> str:
    """The command line that carries out an experiment.

    Args:
        experiment: shipped, or a person's own.
        target: the folder of its results, whose `experiment.json` is as good as the file that it came from.
    """
    try:
        shipped = Experiment.read(PROJECT / "experiments" / f"{experiment.name}.yaml") == experiment
    except ConfigError:
        shipped = False
    file = f"experiments/{experiment.name}.yaml" if shipped else target / SPEC_FILE
    return f"python -m pruning experiment {file}"


def folder(store: RunStore, name: str) -> Path:
    """Where an experiment's results lie in a store."""
    return store.root / "experiments" / name


def existing(
    store: RunStore, configs: list[RunConfig], usable: Callable[[Run], bool] = lambda _: True
) -> dict[str, Run]:
    """Runs of a store that have one of these configs, by config; finished ones before others.

    Args:
        store: that holds the runs.
        configs: wanted.
        usable: whether a run's numbers would be what its config means now.
    """
    wanted = {config.model_dump_json() for config in configs}
    found: dict[str, Run] = {}
    for run in store.all():
        key = run.config.model_dump_json()
        if key in wanted and (key not in found or (is_done(run) and not is_done(found[key]))) and usable(run):
            found[key] = run
    return found


def is_done(run: Run) -> bool:
    """Whether a run has measured all that it was told to."""
    return run.complete


def carry_out(
    experiment: Experiment,
    store: RunStore,
    on_run: Callable[[int, int, RunConfig], None] = lambda *_: None,
    on_event: Callable[[Event], None] | None = None,
) -> tuple[list[Run], list[str]]:
    """Run what is not done yet, in this process, and write the results of all that is done.

    Args:
        experiment: what to run.
        store: that holds the runs.
        on_run: called before each run with its number, how many there are, and its config.
        on_event: called with every event of the engine.

    Returns:
        The finished runs, and a sentence for each that cannot be carried out.

    Raises:
        Cancelled: a run was asked to stop; the experiment goes on from there when it is carried out again.
        RunError: a file stands where its results are to be written, which is not one of them.
    """
    from pruning.runs.inputs import Reuse
    from pruning.runs.preflight import create
    from pruning.runs.worker import execute

    target = folder(store, experiment.name)
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
    for name in (RESULTS_FILE, PARQUET_FILE, SPEC_FILE):
        check_output_file(target / name)
    named = experiment.configs()
    configs = [config.replace(model=named_model(config.model, store)) for config in named]
    problems: list[str] = []
    reuse = Reuse()
    found = existing(store, configs, reuse.usable)
    for words in reuse.notes:
        print(words, file=sys.stderr)  # noqa: T201 - said, since it takes the time of a run

    def finished() -> list[Run]:
        runs = [found.get(config.model_dump_json()) for config in configs]
        return [run for run in runs if run and is_done(run)]

    for number, config in enumerate(configs, 1):
        on_run(number, len(configs), config)
        run = found.get(config.model_dump_json())
        if run and is_done(run):
            continue
        try:
            if run is None:
                run = create(config, store)
            run.check_startable()
            execute(run, on_event)
        except PruningError as error:
            problems.append(f"{describe(experiment, config)}: {error}")
            gc.collect()  # what ran out of memory must not keep it from the next
            continue
        found[config.model_dump_json()] = run
        write(experiment, finished(), store)
    if runs := finished():
        write(experiment, runs, store)
    return runs, problems


def describe(experiment: Experiment, config: RunConfig) -> str:
    """What tells a run from the others of its experiment."""
    return ", ".join(f"{key} {getattr(config, key)}" for key in experiment.varied)


# --- results ---------------------------------------------------------------------------------------------
def write(experiment: Experiment, runs: list[Run], store: RunStore) -> Path:
    """The tidy table as CSV and Parquet, and what was run."""
    target = folder(store, experiment.name)
    frame = table(runs, [name for name in experiment.varied if name != "mixture"])
    with output_file(target / RESULTS_FILE) as temporary:
        frame.to_csv(temporary, index=False)
    with output_file(target / PARQUET_FILE) as temporary:
        frame.to_parquet(temporary, index=False)
    with output_file(target / SPEC_FILE) as temporary:
        temporary.write_text(experiment.model_dump_json(indent=1), encoding="utf-8")
    return target


def read(target: Path) -> tuple[Experiment, pd.DataFrame]:
    """What `write` wrote.

    Raises:
        ConfigError: it is not there, or broken.
    """
    import pandas as pd

    try:
        experiment = Experiment.model_validate_json((target / SPEC_FILE).read_text(encoding="utf-8"))
        return experiment, completed(pd.read_csv(target / RESULTS_FILE))
    except (OSError, ValueError, KeyError):
        raise ConfigError(
            f"the folder {str(target)!r} holds no results of an experiment: 'experiment FILE' writes them."
        ) from None
