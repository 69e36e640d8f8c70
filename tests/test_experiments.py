from pathlib import Path

import pandas as pd
import pytest
import yaml

from pruning import RunConfig
from pruning.cli import main
from pruning.config import ConfigError
from pruning.experiment_report import REPORT_FILE, claims, markdown, report
from pruning.experiments import Experiment, carry_out, existing, folder, read
from pruning.results import mixture_label, paper, retention, rise, tidy
from pruning.runs import RunStore
from pruning.visualization import experiment_figure, retention_figure

ROOT = Path(__file__).resolve().parent.parent / "experiments"
SHIPPED = sorted((ROOT / "reports").glob("*"))


@pytest.fixture
def spec(tiny_folder, text_file, tmp_path):
    content = {
        "title": "Several cuts",
        "options": {
            "model": str(tiny_folder),
            "domains": {"words": str(text_file)},
            "mixture": {"words": 1},
            "samples": 3,
            "seq_len": 24,
            "eval_blocks": 2,
            "ratio": 0.3,
            "device": "cpu",
        },
        "grid": [{"iterations": [1, 2], "seed": [0, 1]}, {"iterations": 2, "seed": 1}],
        "x": "iterations",
        "paper": "iterations",
    }
    path = tmp_path / "cuts.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_grid_is_every_combination_once(spec):
    experiment = Experiment.read(spec)
    configs = experiment.configs()
    assert [(c.iterations, c.seed) for c in configs] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert all(c.experiment == "cuts" and not c.save_model for c in configs)


def test_an_experiment_runs_what_is_missing_and_no_more(spec, tmp_path):
    experiment, store = Experiment.read(spec), RunStore(tmp_path / "runs")
    events = []
    runs, problems = carry_out(experiment, store, on_event=events.append)
    assert len(runs) == 4 and not problems and events
    events.clear()
    assert [r.id for r in carry_out(experiment, store, on_event=events.append)[0]] == [r.id for r in runs]
    assert not events
    store.delete(runs[2].id)
    again, _ = carry_out(experiment, store, on_event=events.append)
    assert {r.id for r in again} ^ {r.id for r in runs} == {again[2].id, runs[2].id}

    _, frame = read(folder(store, "cuts"))
    assert set(frame["run_id"]) == {r.id for r in again}
    wanted = again[0].results()["perplexity"]["words"]["pruned"]
    row = frame[
        (frame["run_id"] == again[0].id) & (frame["metric"] == "perplexity") & (frame["name"] == "words")
    ]
    assert row["pruned"].item() == pytest.approx(wanted)
    assert (folder(store, "cuts") / "results.parquet").exists()


def test_an_interrupted_run_goes_on(spec, tmp_path):
    from pruning.engine import Iteration
    from pruning.worker import Cancelled

    experiment, store = Experiment.read(spec), RunStore(tmp_path / "runs")

    def stop(event):
        if isinstance(event, Iteration) and event.number == 1:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Cancelled)):
        carry_out(experiment, store, on_event=stop)
    (interrupted,) = store.all()
    runs, _ = carry_out(experiment, store)
    assert runs[0].id == interrupted.id
    assert len(store.all()) == 4


def test_one_impossible_run_does_not_stop_the_others(spec, tmp_path):
    content = yaml.safe_load(spec.read_text())
    content["grid"] = [{"ratio": [0.3, 0.99], "iterations": 1}]
    spec.write_text(yaml.safe_dump(content))
    runs, problems = carry_out(Experiment.read(spec), RunStore(tmp_path / "runs"))
    assert len(runs) == 1 and len(problems) == 1
    assert "ratio 0.99" in problems[0] and "cannot be reached" in problems[0]


def test_the_command_writes_a_report_that_marks_the_papers_figures(spec, tmp_path, capsys):
    assert main(["experiment", str(spec), "--runs", str(tmp_path / "runs")]) == 0
    assert "4 runs" in capsys.readouterr().out
    text = (tmp_path / "runs/experiments/cuts" / REPORT_FILE).read_text()
    assert "the paper's figures, not ours" in text and "| K = 4 to 6 | 44 |" in text
    assert "| dense |" in text and "±" in text
    assert (tmp_path / "runs/experiments/cuts/report.md").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- 1", "holds no options"),
        ("title: a", "malformed at 'grid'"),
        ("title: a\ngrid: [{ratio: 2}]", "Ratio is 2"),
        ("title: a\ngrid: [{colour: red}]", "Unknown option 'colour'"),
        ("title: a\ngrid: [{}]\nlines: 3", "malformed at 'lines'"),
        ("title: a\nname: ../../etc\ngrid: [{}]", "malformed at 'name'"),
        ("title: [", "not YAML"),
    ],
)
def test_a_malformed_file_is_one_sentence(content, words, tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    assert main(["experiment", str(path)]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1


def test_every_shipped_experiment_can_be_read():
    found = {path.stem: Experiment.read(path) for path in ROOT.glob("*.yaml")}
    twins = {name.removeprefix("paper_") for name in found if name.startswith("paper_")}
    assert twins == {"main", "domains", "iterations", "samples"}
    assert twins <= {name.removeprefix("demo_") for name in found}
    main_grid = found["paper_main"].configs()
    assert len(main_grid) == 3 * 3 * 2 and all(config.tasks == ("paper",) for config in main_grid)
    assert [config.iterations for config in found["paper_iterations"].configs()] == list(range(1, 9))
    assert {config.samples for config in found["paper_samples"].configs()} == {32, 64, 128, 256, 512}
    for name, experiment in found.items():
        assert experiment.paper is None or experiment.paper in paper(), name


@pytest.mark.parametrize("target", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_report_says_what_its_table_holds(target):
    experiment, frame = read(target)
    kept = (target / REPORT_FILE).read_text(encoding="utf-8")
    text = markdown(experiment, frame)
    for line in text.splitlines():
        assert line.startswith("<!--") or line in kept.splitlines()
    assert experiment == Experiment.read(ROOT / f"{target.name}.yaml")
    assert frame["run_id"].nunique() == len(experiment.configs())


def test_a_folder_without_results_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="no results of an experiment"):
        report(tmp_path)


# --- reading results -------------------------------------------------------------------------------------


def test_claims_are_read_off_the_table():
    rows = [
        {"method": "iterative", "iterations": k, "ratio": 0.5, "metric": "perplexity", "name": "mean"}
        | {"dense": 10.0, "pruned": 10.0 * value, "seed": 0, "mixture": "mixed", "samples": 32}
        for k, value in ((1, 9.0), (2, 5.0), (3, 4.0), (4, 3.0), (5, 2.9), (6, 2.9))
    ]
    experiment = Experiment(name="a", title="a", grid=[{}], paper="iterations")
    assert [agrees for _, _, agrees in claims(experiment, pd.DataFrame(rows))] == [True, True]
    for row in rows:
        row["pruned"] = 10.0 + row["iterations"]
    assert [agrees for _, _, agrees in claims(experiment, pd.DataFrame(rows))] == [False, False]


def test_rise_is_that_of_the_mean_log_perplexity():
    frame = pd.DataFrame(
        [{"metric": "perplexity", "name": "mean", "dense": 10.0, "pruned": 27.18281828}]
        + [{"metric": "perplexity", "name": "wiki", "dense": 10.0, "pruned": 99.0}]
    )
    assert rise(frame)["value"].tolist() == pytest.approx([1.0])


RESULTS = {
    "perplexity": {
        "wiki": {"dense": 10.0, "pruned": 20.0},
        "web": {"dense": 10.0, "pruned": 80.0},
        "code": {"dense": 5.0, "pruned": 5.0},
        "mean": {"dense": 8.0, "pruned": 30.0},
        "own": {"dense": 3.0, "pruned": None},
    },
    "zero_shot": {
        "tasks": {
            "hellaswag": {
                "limit": 50,
                "items": 50,
                "acc": {"dense": 0.5, "pruned": 0.4, "standard_error": 0.05},
            },
            "piqa": {"limit": 50, "items": 50, "acc": {"dense": 0.8, "pruned": 0.4, "standard_error": 0.0}},
        }
    },
}


def test_retention_is_pruned_over_dense_by_capability():
    found = {(row.capability, row.source): row for row in retention(RESULTS)}
    assert set(found) == {("prose", "text"), ("code", "text"), ("common sense", "tasks")}
    assert found["prose", "text"].value == pytest.approx((0.5 * 0.125) ** 0.5)
    assert found["code", "text"].value == 1.0
    tasks = found["common sense", "tasks"]
    assert tasks.value == pytest.approx((0.8 + 0.5) / 2)
    assert tasks.standard_error == pytest.approx(0.1 / 2)
    assert tasks.limit == 50
    figure = retention_figure({"a run": list(found.values())})
    assert "first 50" in figure.data[1].customdata[0][0]


def test_mixtures_have_short_names():
    assert mixture_label({"wiki": 1.0}) == "wiki"
    assert mixture_label({"a": 0.25, "b": 0.25, "c": 0.5}) == "a 0.25, b 0.25, c 0.5"
    assert mixture_label({"code": 0.5, "math": 0.5}) == "code + math"
    assert mixture_label(dict.fromkeys("abcd", 0.25)) == "mixed"


def test_every_seed_is_a_point_of_the_figure(spec, tmp_path):
    runs, _ = carry_out(Experiment.read(spec), RunStore(tmp_path / "runs"))
    frame = pd.DataFrame([row for run in runs for row in tidy(run)])
    figure = experiment_figure(frame, "Cuts", "iterations", ["method"])
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in points) == 4
    assert existing(RunStore(tmp_path / "runs"), [RunConfig.create()]) == {}
