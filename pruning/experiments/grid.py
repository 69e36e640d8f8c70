"""Grids of runs: an experiment is a file, its runs are ordinary runs, its report a folder.

    python -m pruning experiment experiments/demo_iterations.yaml

A second start reuses complete runs by their config and resumes interrupted ones.
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


# Limit of runs: a few lists of a few values each multiply to more than anybody waits for.
MOST_RUNS = 1_000
RESULTS_FILE, PARQUET_FILE, SPEC_FILE = "results.csv", "results.parquet", "experiment.json"


class Experiment(BaseModel):
    """The runs of an experiment, and how its report is drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,60}$", description="names its folder")
    title: str = Field(description="title of the report")
    about: str = Field("", description="paragraph under the title")
    options: dict[str, Any] = Field({}, description="options of every run, as in a run's config")
    grid: list[dict[str, Any]] = Field(
        min_length=1, description="grids: options with one value or a list of values"
    )
    x: str | None = Field(None, description="option along the axis of the figure; none draws bars")
    series: list[str] = Field(
        ["method"], min_length=1, description="options that tell the lines or bars apart"
    )
    of: str = Field("mean", description="figures show the mean over domains or tasks, each, or the one named")
    paper: Literal["main", "domains", "iterations", "samples"] | None = Field(
        None, description="figure of the paper to compare with"
    )

    @classmethod
    def read(cls, path: str | Path) -> Experiment:
        """The experiment of a YAML file.

        Raises:
            ConfigError: it cannot be read, or says what an experiment does not have.
        """
        content = read_options(path, "experiment")
        try:
            experiment = cls.model_validate({"name": Path(path).stem, **content})
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"the experiment {quoted(path)} is malformed at {quoted('.'.join(map(str, first['loc'])))}: "
                f"{clipped(first['msg'])}."
            ) from None
        experiment._check_axes(path)
        return experiment

    def _check_axes(self, path: str | Path) -> None:
        shares = [f"share_{name}" for config in self.configs() for name in config.measured_domains]
        axes = dict.fromkeys((*OPTIONS, "mixture", *self.varied, *shares))
        for name in filter(None, (self.x, *self.series)):
            if name not in axes:
                raise ConfigError(
                    f"the experiment {quoted(path)} names {quoted(name)} for its figure, which is none of "
                    f"its options: choose from {', '.join(axes)}."
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
        configs: dict[str, RunConfig] = {}
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
                configs.setdefault(config.model_dump_json(), config)
        return list(configs.values())


def command(experiment: Experiment, target: Path = Path()) -> str:
    """The command line that carries out an experiment.

    Args:
        experiment: shipped with the project, or a person's own.
        target: folder of its results, whose `experiment.json` stands in for a file that is not shipped.
    """
    try:
        shipped = Experiment.read(PROJECT / "experiments" / f"{experiment.name}.yaml") == experiment
    except ConfigError:
        shipped = False
    file = f"experiments/{experiment.name}.yaml" if shipped else target / SPEC_FILE
    return f"python -m pruning experiment {file}"


def folder(store: RunStore, name: str) -> Path:
    """The folder of an experiment's results in a store."""
    return store.root / "experiments" / name


def existing(
    store: RunStore, configs: list[RunConfig], usable: Callable[[Run], bool] = lambda _: True
) -> dict[str, Run]:
    """Runs of a store with one of these configs, by config as JSON; complete ones before others.

    `usable` says whether a run's numbers are those that its config gives today.
    """
    wanted = {config.model_dump_json() for config in configs}
    runs: dict[str, Run] = {}
    for run in store.all():
        key = run.requested_config.model_dump_json()
        if key in wanted and (key not in runs or (run.complete and not runs[key].complete)) and usable(run):
            runs[key] = run
    return runs


def carry_out(
    experiment: Experiment,
    store: RunStore,
    on_run: Callable[[int, int, RunConfig], None] = lambda *_: None,
    on_event: Callable[[Event], None] | None = None,
) -> tuple[list[Run], list[str]]:
    """Carry out the runs that are not complete, in this process, and write the results of all complete ones.

    Args:
        experiment: the grid.
        store: runs to reuse and to add to.
        on_run: called before each run with its number, the number of runs, and its config.
        on_event: called with every event of the engine.

    Returns:
        The complete runs, and a sentence for each that cannot be carried out.

    Raises:
        Cancelled: a run was asked to stop; the next start continues with it.
        RunError: a file that is not of this experiment is in the place of its results.
    """
    from pruning.runs.inputs import Reuse
    from pruning.runs.preflight import create
    from pruning.runs.worker import execute

    target = folder(store, experiment.name)
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
    for name in (RESULTS_FILE, PARQUET_FILE, SPEC_FILE):
        check_output_file(target / name)
    configs = [config.replace(model=named_model(config.model, store)) for config in experiment.configs()]
    problems: list[str] = []
    reuse = Reuse()
    runs = existing(store, configs, reuse.usable)
    for note in reuse.notes:
        print(note, file=sys.stderr)  # noqa: T201 - a run that is not reused takes its time again

    def complete() -> list[Run]:
        named = (runs.get(config.model_dump_json()) for config in configs)
        return [run for run in named if run and run.complete]

    for number, config in enumerate(configs, 1):
        on_run(number, len(configs), config)
        run = runs.get(config.model_dump_json())
        if run and run.complete:
            continue
        try:
            if run is None:
                run = create(config, store)
            run.check_startable()
            execute(run, on_event)
        except PruningError as error:
            problems.append(f"{describe(experiment, config)}: {error}")
            gc.collect()  # memory of a run that ran out of it, for the next
            continue
        runs[config.model_dump_json()] = run
        write(experiment, complete(), store)
    if complete():
        write(experiment, complete(), store)
    return complete(), problems


def describe(experiment: Experiment, config: RunConfig) -> str:
    """The options that distinguish a run from the others of its experiment."""
    return ", ".join(f"{key} {getattr(config, key)}" for key in experiment.varied)


# --- results ---------------------------------------------------------------------------------------------
def write(experiment: Experiment, runs: list[Run], store: RunStore) -> Path:
    """Write the tidy table of runs as CSV and Parquet, and the experiment."""
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
    """The experiment and the tidy table that `write` has written.

    Raises:
        ConfigError: the folder does not hold them, or they are corrupt.
    """
    import pandas as pd

    try:
        experiment = Experiment.model_validate_json((target / SPEC_FILE).read_text(encoding="utf-8"))
        return experiment, completed(pd.read_csv(target / RESULTS_FILE))
    except (OSError, ValueError, KeyError):
        raise ConfigError(
            f"the folder {str(target)!r} holds no results of an experiment: 'experiment FILE' writes them."
        ) from None
