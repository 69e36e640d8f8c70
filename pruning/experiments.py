"""Grids of runs: an experiment is a file, its runs are ordinary runs, its report a folder.

    python -m pruning experiment experiments/demo_iterations.yaml

Runs that are done are found again by their config, interrupted ones go on, and whoever stops an experiment
loses no more than the iteration it was in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pruning.config import ConfigError, PruningError, RunConfig
from pruning.results import tidy
from pruning.runs import Run, RunStore, write_json, writing

if TYPE_CHECKING:
    import pandas as pd

    from pruning.engine import Event

RESULTS_FILE, SPEC_FILE = "results.csv", "experiment.json"


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
    series: list[str] = Field(["method"], description="options that tell the lines or bars apart")
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
        import yaml

        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read the experiment {str(path)!r}: {error.strerror}.") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise ConfigError(f"the experiment {str(path)!r} is not YAML.") from None
        if not isinstance(content, dict):
            raise ConfigError(f"the experiment {str(path)!r} holds no options.")
        try:
            experiment = cls(**{"name": Path(path).stem, **content})
        except (ValidationError, TypeError) as error:
            where, message = "", str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                where, message = ".".join(map(str, first["loc"])), first["msg"]
            raise ConfigError(f"the experiment {str(path)!r} is malformed at {where!r}: {message}.") from None
        experiment.configs()
        return experiment

    def configs(self) -> list[RunConfig]:
        """The config of every run, each once.

        Raises:
            ConfigError: an option of a run cannot be carried out.
        """
        fixed = {"save_model": False, "experiment": self.name, **self.options}
        found: dict[str, RunConfig] = {}
        for entry in self.grid:
            lists = {key: value if isinstance(value, list) else [value] for key, value in entry.items()}
            for values in itertools.product(*lists.values()):
                config = RunConfig.create(**{**fixed, **dict(zip(lists, values, strict=True))})
                found.setdefault(config.model_dump_json(), config)
        return list(found.values())


def folder(store: RunStore, name: str) -> Path:
    """Where an experiment's results lie in a store."""
    return store.root / "experiments" / name


def existing(store: RunStore, configs: list[RunConfig]) -> dict[str, Run]:
    """Runs of a store that were told one of these, by config; finished ones before others."""
    wanted = {config.model_dump_json() for config in configs}
    found: dict[str, Run] = {}
    for run in store.all():
        if (key := run.config.model_dump_json()) in wanted and (key not in found or run.results()):
            found[key] = run
    return found


def carry_out(
    experiment: Experiment,
    store: RunStore,
    on_run: Callable[[int, int, RunConfig], None] = lambda *_: None,
    on_event: Callable[[Event], None] | None = None,
) -> tuple[list[Run], list[str]]:
    """Run what is not done yet, in this process, and write the results.

    Args:
        experiment: what to run.
        store: that holds the runs.
        on_run: called before each run with its number, how many there are, and its config.
        on_event: called with every event of the engine.

    Returns:
        The finished runs, and a sentence for each that cannot be carried out.
    """
    from pruning.worker import check, execute

    configs = experiment.configs()
    done, problems = existing(store, configs), []
    runs: list[Run] = []
    for number, config in enumerate(configs, 1):
        on_run(number, len(configs), config)
        run = done.get(config.model_dump_json())
        if run is None or not run.results():
            try:
                if run is None:
                    check(config)
                    run = store.create(config)
                run.check_startable()
                execute(run, on_event)
            except PruningError as error:
                problems.append(f"{describe(experiment, config)}: {error}")
                continue
        runs.append(run)
        write(experiment, runs, store)
    return runs, problems


def describe(experiment: Experiment, config: RunConfig) -> str:
    """What tells a run from the others of its experiment."""
    fields = dict.fromkeys(key for entry in experiment.grid for key in entry)
    return ", ".join(f"{key} {getattr(config, key)}" for key in fields)


# --- results ---------------------------------------------------------------------------------------------


def write(experiment: Experiment, runs: list[Run], store: RunStore) -> Path:
    """The tidy table as CSV and Parquet, and what was run."""
    import pandas as pd

    target = folder(store, experiment.name)
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame([row for run in runs for row in tidy(run)])
        frame.to_csv(target / RESULTS_FILE, index=False)
        frame.to_parquet(target / "results.parquet", index=False)
        write_json(target / SPEC_FILE, experiment.model_dump(mode="json"))
    return target


def read(target: Path) -> tuple[Experiment, pd.DataFrame]:
    """What `write` wrote.

    Raises:
        ConfigError: it is not there, or broken.
    """
    import pandas as pd

    try:
        experiment = Experiment.model_validate_json((target / SPEC_FILE).read_text(encoding="utf-8"))
        return experiment, pd.read_csv(target / RESULTS_FILE)
    except (OSError, ValueError):
        raise ConfigError(f"the folder {str(target)!r} holds no results of an experiment.") from None
