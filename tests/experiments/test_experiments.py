from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pruning import RunConfig
from pruning.cli.main import main
from pruning.errors import ConfigError
from pruning.experiments.claims import AGREES, DIFFERS, NOISE, claims, paper
from pruning.experiments.grid import Experiment, carry_out, existing, folder, read
from pruning.experiments.report import REPORT_FILE, _against_best, markdown, report
from pruning.measure.comparison import Rise, TaskRow
from pruning.runs.report import completed, mixture_label, retained, retention, retention_of, rise, table
from pruning.runs.run import RunStore
from pruning.runs.schema import Results
from pruning.visualization import experiment_figure, retention_figure

ROOT = Path(__file__).resolve().parents[2] / "experiments"
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
    wanted = again[0].results().perplexity["words"].pruned
    row = frame[
        (frame["run_id"] == again[0].id) & (frame["metric"] == "perplexity") & (frame["name"] == "words")
    ]
    assert row["pruned"].item() == pytest.approx(wanted)
    assert (folder(store, "cuts") / "results.parquet").exists()


def test_an_interrupted_run_goes_on(spec, tmp_path):
    from pruning.engine.events import Iteration
    from pruning.runs.worker import Cancelled

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


def test_runs_on_text_or_tasks_that_changed_since_are_not_used_again(spec, tmp_path, capsys):
    content = yaml.safe_load(spec.read_text())
    folder = tmp_path / "own"
    folder.mkdir()
    task = {"task": "mine", "dataset_path": "json", "dataset_kwargs": {"data_files": str(folder / "r.jsonl")}}
    task |= {"test_split": "train", "output_type": "multiple_choice", "doc_to_text": "{{q}}"}
    task |= {"doc_to_choice": ["yes", "no"], "doc_to_target": "label"}
    (folder / "mine.yaml").write_text(yaml.safe_dump(task))
    (folder / "r.jsonl").write_text('{"q": "is it?", "label": 0}\n{"q": "was it?", "label": 1}\n')
    content["options"] |= {"tasks": ["mine"], "task_folder": str(folder)}
    content["grid"] = [{"iterations": 1}]
    spec.write_text(yaml.safe_dump(content))
    experiment, store = Experiment.read(spec), RunStore(tmp_path / "runs")

    def carried_out():
        return carry_out(experiment, store)[0][0].id

    first = carried_out()
    assert carried_out() == first
    (folder / "r.jsonl").write_text('{"q": "is it?", "label": 1}\n{"q": "was it?", "label": 1}\n')
    second = carried_out()
    assert second != first and "task 'mine' asks or scores other items" in capsys.readouterr().err
    text = Path(content["options"]["domains"]["words"])
    text.write_text(text.read_text().replace("line", "row"))
    third = carried_out()
    assert third not in (first, second) and "text of domain 'words'" in capsys.readouterr().err
    assert carried_out() == third


def test_one_impossible_run_does_not_stop_the_others(spec, tmp_path):
    content = yaml.safe_load(spec.read_text())
    content["grid"] = [{"ratio": [0.3, 0.99], "iterations": 1}]
    spec.write_text(yaml.safe_dump(content))
    runs, problems = carry_out(Experiment.read(spec), RunStore(tmp_path / "runs"))
    assert len(runs) == 1 and len(problems) == 1
    assert "ratio 0.99" in problems[0] and "cannot be reached" in problems[0]


@pytest.mark.browser
def test_the_command_writes_a_report_that_marks_the_papers_figures(spec, tmp_path, capsys):
    assert main(["experiment", str(spec), "--runs-dir", str(tmp_path / "runs")]) == 0
    assert "4 runs" in capsys.readouterr().out
    text = (tmp_path / "runs/experiments/cuts" / REPORT_FILE).read_text()
    assert "the paper's figures, not ours" in text and "| K = 4 to 6 | 44 |" in text
    assert "| dense |" in text and "±" in text
    assert "Every run was calibrated on 72 tokens" in text and "Retained capability" in text
    assert (tmp_path / "runs/experiments/cuts/report.md").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- 1", "holds no options"),
        ("title: a", "malformed at 'grid'"),
        ("title: a\ngrid: [{ratio: 2}]", "Ratio is 2"),
        ("title: a\ngrid: [{colour: red}]", "Unknown option 'colour'"),
        ("title: a\ngrid: [{}]\nlines: 3", "malformed at 'lines'"),
        (f"title: a\ngrid: [{{seed: {[*range(40)]}, samples: {[*range(1, 40)]}}}]", "more than 1,000 runs"),
        ("title: a\nname: ../../etc\ngrid: [{}]", "malformed at 'name'"),
        ("title: [", "neither JSON nor YAML"),
        (
            "title: a\ngrid: [{}]\nx: colour",
            "'colour' for its figure, which is none of its options: choose from model, method",
        ),
        ("title: a\ngrid: [{}]\nseries: [methods]", "'methods' for its figure"),
        ("title: a\ngrid: [{}]\nx: share_poems", "'share_poems' for its figure"),
        ("title: a\ngrid: [{}]\nseries: []", "malformed at 'series'"),
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


def test_every_demo_experiment_has_its_report():
    for path in ROOT.glob("demo_*.yaml"):
        assert (ROOT / "reports" / path.stem / REPORT_FILE).is_file(), path.stem


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


def rows_of(metric="perplexity", name="mean", **columns):
    """Rows of the tidy table with one column for each of `columns`; one value stands for all."""
    common = {"ratio": 0.5, "seed": 0, "mixture": "mixed", "samples": 32, "dense": 10.0, "model": "demo"}
    common |= {"method": "iterative", "iterations": 5, "metric": metric, "name": name}
    return pd.DataFrame({**common, **columns})


def verdicts(paper, frame):
    experiment = Experiment(name="a", title="a", grid=[{}], paper=paper)
    return [claim.verdict for claim in claims(experiment, frame)]


def test_claims_are_read_off_the_table():
    frame = rows_of(iterations=[1, 2, 3, 4, 5, 6], pruned=[90.0, 50, 40, 30, 29, 29])
    assert verdicts("iterations", frame) == [AGREES, AGREES]
    assert verdicts("iterations", frame.assign(pruned=10.0 + frame["iterations"])) == [DIFFERS, DIFFERS]
    noisy = pd.concat([frame.assign(seed=s, pruned=30.0 + (frame["iterations"] * s) % 5) for s in (1, 2, 3)])
    assert verdicts("iterations", noisy) == [NOISE, NOISE]


def test_a_table_that_has_no_word_on_a_claim_makes_none():
    answers = rows_of("acc", "average", pruned=[0.5, 0.4], method=["iterative", "flap"])
    for paper_figure in ("main", "domains", "iterations", "samples"):
        assert verdicts(paper_figure, answers) == []
        assert verdicts(paper_figure, answers.iloc[:0]) == []
    assert verdicts("iterations", rows_of(method=["flap", "flap"], pruned=20.0)) == []


def test_a_difference_within_the_items_error_is_noise():
    methods = ["wanda_sp", "flap", "iterative"]
    frame = rows_of("acc", "average", method=methods, pruned=[0.40, 0.41, 0.60], standard_error=0.02)
    assert verdicts("main", frame) == [AGREES, NOISE]
    assert verdicts("main", frame.assign(standard_error=0.001)) == [AGREES, AGREES]
    assert verdicts("main", frame.assign(standard_error=0.001, pruned=[0.41, 0.40, 0.3])) == [DIFFERS] * 2


def test_only_the_papers_model_is_held_against_the_paper():
    methods = ["wanda_sp", "flap", "iterative"] * 2
    models = ["Qwen/Qwen2.5-7B"] * 3 + ["Qwen/Qwen2.5-32B"] * 3
    frame = rows_of("acc", "average", method=methods, model=models, pruned=[0.6, 0.5, 0.4, 0.3, 0.4, 0.5])
    assert verdicts("main", frame.assign(standard_error=0.001)) == [AGREES, AGREES]
    assert verdicts("main", frame[frame["model"] != models[-1]]) == [
        DIFFERS,
        DIFFERS,
    ]  # the only model speaks


def test_the_samples_claim_is_made_at_the_papers_number_and_shows_the_calibrated_domain():
    parts = []
    for samples, flap in ((4, 1000.0), (32, 100.0)):
        for name, iterative in (("mean", 20.0), ("wiki", 120.0)):
            both = {"method": ["flap", "iterative"], "mixture": ["wiki", "mixed"]}
            parts.append(rows_of(name=name, samples=samples, pruned=[flap, iterative], **both))
    experiment = Experiment(name="a", title="a", grid=[{}], paper="samples")
    (claim,) = claims(experiment, pd.concat(parts))
    assert "100.0 against 20.0, 5.0 times" in claim.ours
    assert "on wiki, which FLAP was calibrated on, 100.0 against 120.0, 0.8 times" in claim.ours


def full_table(**columns):
    return completed(rows_of(run_id="r", seconds=1.0, seq_len=256, **columns))


def test_an_overflowed_seed_makes_its_row_infinite():
    frame = full_table(share_wiki=1.0, seed=[0, 1], pruned=[20.0, None])
    assert frame["pruned"].tolist() == [20.0, float("inf")]
    text = markdown(Experiment(name="a", title="a", grid=[{}]), frame)
    assert "| infinite |" in text
    figure = experiment_figure(frame.assign(iterations=5), "a", "iterations", ["method"])
    assert "1 infinite values not drawn" in figure.layout.yaxis.title.text


def test_a_run_without_a_share_of_a_domain_is_in_the_table():
    frame = full_table(share_wiki=[1.0, 0.5], share_code=[None, 0.5], pruned=[30.0, 20.0])
    experiment = Experiment(name="a", title="a", grid=[{}], x="share_code")
    text = markdown(experiment, frame)
    assert "| iterative | 0 | 0.5 | 8,192 | 30.00 |" in text and "| iterative | 0.5 | 0.5 | 16,384 |" in text
    assert "not calibrated on the same amount of text" in text and "8,192 to 16,384" in text


def test_every_model_has_its_dense_row():
    frame = full_table(share_wiki=1.0, model=["a", "b"], dense=[10.0, 30.0], pruned=[20.0, 60.0])
    text = markdown(Experiment(name="a", title="a", grid=[{}]), frame)
    assert "| dense a | | | | 10.00 |" in text and "| dense b | | | | 30.00 |" in text
    assert "| iterative | 0.5 | a | 8,192 | 20.00 |" in text


def test_a_change_that_not_every_seed_shows_says_in_how_many():
    columns = {"share_wiki": 1.0, "name": "piqa", "items": 50, "dense": 0.6, "standard_error": 0.05}
    columns |= {"seed": [0, 1, 2], "pruned": [0.5, 0.4, 0.58], "delta": [-0.1, -0.2, -0.02]}
    text = markdown(Experiment(name="a", title="a", grid=[{}]), full_table(metric="acc", **columns))
    assert "| -10.7 ± 9.8, more than noise in 2 of 3 seeds |" in text


def test_a_change_within_its_error_is_called_noise():
    columns = {"share_wiki": 1.0, "name": ["piqa", "average"], "items": [50, 50], "limit": 50}
    columns |= {"dense": 0.6, "pruned": [0.58, 0.3], "delta": [-0.02, -0.3], "standard_error": 0.05}
    frame = full_table(metric="acc", **columns)  # a table that holds no p values yet
    assert frame["significant"].tolist() == [False, True]
    text = markdown(Experiment(name="a", title="a", grid=[{}], paper="main"), frame)
    assert "-2.0 ± 9.8, within noise | -30.0 ± 9.8 |" in text
    assert "piqa (50 items)" in text and text.count("only the first 50 items") == 3
    assert text.index("| iterative | 46.65") < text.index("Change of accuracy")  # the paper's beside ours
    title = experiment_figure(frame, "a", "iterations", ["method"], "acc").layout.yaxis.title.text
    assert "first 50 items" in title
    kept = retained(frame)
    assert kept["capability"].tolist() == ["common sense"] and kept["value"].item() == pytest.approx(
        0.58 / 0.6
    )


def test_rise_is_that_of_the_mean_log_perplexity():
    frame = pd.DataFrame(
        [{"metric": "perplexity", "name": "mean", "dense": 10.0, "pruned": 27.18281828}]
        + [{"metric": "perplexity", "name": "wiki", "dense": 10.0, "pruned": 99.0}]
    )
    assert rise(frame)["value"].tolist() == pytest.approx([1.0])


ERRORS = {"delta": -0.1, "dense_stderr": 0.07, "pruned_stderr": 0.06, "standard_error": 0.05}
RESULTS = {
    "run_id": "r",
    "config": {},
    "achieved_ratio": 0.5,
    "parameters": {"dense": 2, "pruned": 1},
    "seconds": 1.0,
    "perplexity": {
        "wiki": {"dense": 10.0, "pruned": 20.0},
        "web": {"dense": 10.0, "pruned": 80.0},
        "code": {"dense": 5.0, "pruned": 5.0},
        "mean": {"dense": 8.0, "pruned": 30.0},
        "own": {"dense": 3.0, "pruned": None},
    },
    "zero_shot": {
        "tasks": {
            "hellaswag": {"limit": 50, "items": 50, "acc_norm": {"dense": 0.5, "pruned": 0.4, **ERRORS}},
            "piqa": {"limit": 50, "items": 50, "acc": {"dense": 0.8, "pruned": 0.4, **ERRORS}},
        },
        "average": {},
    },
}


def test_retention_is_pruned_over_dense_by_capability():
    found = {(row.capability, row.source): row for row in retention(Results.model_validate(RESULTS))}
    assert set(found) == {("prose", "text"), ("code", "text"), ("common sense", "tasks")}
    assert found["prose", "text"].value == pytest.approx((0.5 * 0.125) ** 0.5)
    assert found["code", "text"].value == 1.0
    tasks = found["common sense", "tasks"]
    assert tasks.value == pytest.approx((0.8 + 0.5) / 2)
    assert tasks.limit == 50
    figure = retention_figure({"a run": list(found.values())})
    assert "first 50" in figure.data[1].customdata[0][0]


def test_the_error_of_retention_is_that_of_the_ratio():
    """Against a bootstrap over the items, dense and pruned drawn together."""
    rng = np.random.default_rng(0)
    dense = (rng.random(400) < 0.7) * 1.0
    pruned = np.where(rng.random(400) < 0.3, (rng.random(400) < 0.4) * 1.0, dense)
    delta = pruned - dense
    errors = {
        key: values.std(ddof=1) / 20
        for key, values in (("dense_stderr", dense), ("pruned_stderr", pruned), ("standard_error", delta))
    }
    row = {
        "limit": None,
        "items": 400,
        "acc": {"dense": dense.mean(), "pruned": pruned.mean(), "delta": delta.mean(), **errors},
    }
    (kept,) = retention_of({}, {"piqa": TaskRow.model_validate(row)})
    draws = rng.integers(400, size=(4000, 400))
    wanted = (pruned[draws].mean(axis=1) / dense[draws].mean(axis=1)).std()
    assert kept.standard_error == pytest.approx(wanted, rel=0.05)
    row["acc"]["standard_error"] = None  # one item
    assert retention_of({}, {"piqa": TaskRow.model_validate(row)})[0].standard_error is None


def test_mixtures_have_short_names():
    assert mixture_label({"wiki": 1.0}) == "wiki"
    assert mixture_label({"a": 0.25, "b": 0.25, "c": 0.5}) == "a 0.25, b 0.25, c 0.5"
    assert mixture_label({"code": 0.5, "math": 0.5}) == "code + math"
    four = ("wiki", "web", "code", "math")
    assert mixture_label(dict.fromkeys(four, 0.25)) == "mixed"
    assert mixture_label(dict.fromkeys(four[1:], 1 / 3)) == "web + code + math"
    assert mixture_label(dict.fromkeys("abc", 1 / 3), ("a", "b", "c")) == "mixed"
    assert mixture_label(dict.fromkeys("abc", 1 / 3), ("a", "b", "c", "d")) == "a + b + c"


def test_every_option_of_a_grid_is_a_column(spec, tmp_path):
    content = yaml.safe_load(spec.read_text())
    content["grid"] = [{"fusion": ["within", "total"], "eval_blocks": [2, None], "iterations": 1}]
    content |= {"x": "eval_blocks", "series": ["fusion"]}
    spec.write_text(yaml.safe_dump(content))
    experiment, store = Experiment.read(spec), RunStore(tmp_path / "runs")
    carry_out(experiment, store)
    _, frame = read(folder(store, "cuts"))
    assert set(frame["fusion"]) == {"within", "total"} and set(frame["eval_blocks"]) == {"2", "none"}
    text = report(folder(store, "cuts"), figures=False).read_text()
    assert "| total | none | 0.3 |" in text and "| within | 2 | 0.3 |" in text
    assert "python -m pruning experiment experiment.json" in text  # a person's own file
    assert Experiment.read(folder(store, "cuts") / "experiment.json") == experiment


def test_a_finished_table_does_not_shrink(spec, tmp_path):
    experiment, store = Experiment.read(spec), RunStore(tmp_path / "runs")
    runs, _ = carry_out(experiment, store)
    store.delete(runs[0].id)

    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(experiment, store, on_event=stop)
    assert set(read(folder(store, "cuts"))[1]["run_id"]) == {run.id for run in runs}
    carry_out(experiment, store)
    assert read(folder(store, "cuts"))[1]["run_id"].nunique() == 4


def test_a_run_that_finds_too_little_memory_does_not_stop_the_others(spec, tmp_path, monkeypatch):
    from pruning.engine import loop as engine

    class OutOfMemoryError(RuntimeError):
        """As torch names it."""

    plain, calls = engine.calibrate_cached, []

    def scarce(*args):
        calls.append(1)
        if len(calls) == 1:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return plain(*args)

    monkeypatch.setattr(engine, "calibrate_cached", scarce)
    runs, problems = carry_out(Experiment.read(spec), RunStore(tmp_path / "runs"))
    assert len(runs) == 3 and len(problems) == 1
    assert "too little memory" in problems[0] and "lower --calibration-blocks" in problems[0]


def test_a_cancelled_run_stops_the_experiment_in_one_sentence(spec, tmp_path, capsys, monkeypatch):
    from pruning.experiments import grid as experiments

    content = yaml.safe_load(spec.read_text())
    content["options"]["samples"], content["grid"] = 64, [{"iterations": [60, 61]}]  # time to be cancelled
    spec.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(experiments.Run, "check_startable", lambda run: (run.path / "cancel").touch())
    assert main(["experiment", str(spec), "--runs-dir", str(tmp_path / "runs")]) == 130
    error = capsys.readouterr().err
    assert "Traceback" not in error and "the same command continues the experiment" in error.splitlines()[-1]
    assert len(RunStore(tmp_path / "runs").all()) == 1


def test_every_seed_is_a_point_of_the_figure(spec, tmp_path):
    runs, _ = carry_out(Experiment.read(spec), RunStore(tmp_path / "runs"))
    frame = table(runs)
    figure = experiment_figure(frame, "Cuts", "iterations", ["method"])
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in points) == 4
    assert existing(RunStore(tmp_path / "runs"), [RunConfig.create()]) == {}


def test_the_page_averages_over_nothing_unsaid(monkeypatch):
    from streamlit.testing.v1 import AppTest

    monkeypatch.chdir(ROOT.parent)
    at = AppTest.from_file(str(ROOT.parent / "app.py"), default_timeout=60).run()
    at.switch_page("pages/experiments.py").run()
    at.selectbox(key="experiment").set_value("demo_samples, ships with the app").run()
    along = next(box for box in at.selectbox if box.label == "Horizontal axis")
    along.set_value("iterations").run()
    assert not at.exception
    apart = at.multiselect[0]
    assert apart.value == ["method", "samples"]
    apart.set_value(["method"]).run()
    assert any("means over seeds, samples;" in caption.value for caption in at.caption)
    assert "experiments/demo_samples.yaml" in at.code[0].value


def test_lines_are_compared_with_the_best_block_by_block(spec, tmp_path):
    experiment, store = Experiment.read(spec), RunStore(tmp_path / "runs")
    runs, _ = carry_out(experiment, store)
    experiment, frame = read(folder(store, "cuts"))
    text = markdown(experiment, frame)
    assert text.index("Divergence from the dense model (KL, nats per token)") < text.index("**Perplexity**")
    blocks = {
        k: np.mean(
            [
                run.results().iterations[-1].perplexity["words"].divergence
                for run in runs
                if run.config.iterations == k
            ],
            axis=0,
        )
        for k in (1, 2)
    }
    best, other = sorted(blocks.values(), key=np.mean)
    differences = _against_best(experiment, frame[frame["metric"] == "divergence"])
    assert sorted(differences.values()) == sorted(["", Rise.between([(best, other)]).text("divergence")])
    assert Rise.between([(best, other)]).text("divergence") in text
    earlier = frame[frame["metric"] != "divergence"].drop(columns="blocks")
    assert "against the best" not in markdown(experiment, completed(earlier))
