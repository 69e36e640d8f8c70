import json
import time

import pytest

from pruning import RunConfig
from pruning.checksums import read_json, write_json
from pruning.cli.main import main
from pruning.errors import RunError
from pruning.runs.jobs import job
from pruning.runs.preflight import needs, sensitivity_seconds
from pruning.runs.run import RunStore
from pruning.runs.worker import prune


def ended(task, seconds=120):
    deadline = time.monotonic() + seconds
    while task.state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    return task.state


@pytest.mark.processes
def test_a_job_answers_in_a_file_of_its_own(tiny_folder, tmp_path):
    task = job(RunStore(tmp_path), "generate-x")
    assert task.state == "none"
    arguments = ["generate", "a b", "--models", str(tiny_folder), str(tiny_folder), "--tokens", "4"]
    task.start([*arguments, "--device", "cpu"])
    with pytest.raises(RunError, match="already"):
        task.start(arguments)
    assert ended(task) == "finished"
    assert task.output["prompt"] == "a b"
    first, second = task.output["continuations"]
    assert first["tokens"] <= 4 and first["text"] == second["text"]  # the same model and the same seed
    assert task.arguments[0] == "generate"


@pytest.mark.processes
def test_the_words_so_far_are_those_of_the_end(tiny_folder, tmp_path):
    file = tmp_path / "so-far.json"
    arguments = ["generate", "a b", "--models", str(tiny_folder), str(tiny_folder), "--tokens", "8"]
    task = job(RunStore(tmp_path), "generate-s")
    task.start([*arguments, "--stream-file", str(file)])
    assert ended(task) == "finished"
    content = read_json(file)
    assert content["texts"] == [found["text"] for found in task.output["continuations"]]


@pytest.mark.processes
def test_a_job_that_fails_says_the_command_lines_sentence(tmp_path):
    task = job(RunStore(tmp_path), "generate-y")
    task.start(["generate", "a", "--models", "no/such/model/here"])
    assert ended(task) == "failed"
    assert "There is no model" in task.problem


@pytest.mark.processes
def test_a_job_can_be_cancelled(tiny_folder, tmp_path):
    task = job(RunStore(tmp_path), "z")
    task.start(["generate", "a", "--models", str(tiny_folder), "--tokens", "40"])
    task.cancel()
    assert ended(task, 10) == "failed"


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b", ".x"])
def test_names_of_jobs_stay_in_their_folder(name, tmp_path):
    with pytest.raises(RunError, match="cannot name"):
        job(RunStore(tmp_path), name)


@pytest.mark.parametrize(
    ("prompt", "words"), [("  ", "The prompt is empty"), ("word " * 200, " tokens and fills the context of ")]
)
def test_prompts_that_cannot_be_continued_are_one_sentence(prompt, words, tiny_folder, capsys):
    assert main(["generate", prompt, "--models", str(tiny_folder), "--device", "cpu"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert words in error[-1]


# --- what a run takes --------------------------------------------------------------------------------------


def test_needs_are_reckoned_from_the_shape_and_from_runs_before(
    tiny_folder, text_file, tmp_path, monkeypatch
):
    options = {"model": str(tiny_folder), "domains": {"words": str(text_file)}, "mixture": {"words": 1}}
    options |= {"samples": 4, "seq_len": 24, "eval_blocks": 2, "device": "cpu", "ratio": 0.3}
    store = RunStore(tmp_path / "runs")
    config = RunConfig.create(**options, iterations=2)
    before = needs(config, store)
    assert before.seconds > 0 and "matrix product" in before.basis and before.problem == ""
    run = prune(config, store.root).run
    written = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    assert 0.3 * written < before.disk < 3 * written
    # the same run again takes as long; one that calibrates three times as often takes longer
    results = run.results().model_copy(update={"seconds": 40.0})
    write_json(run.path / "results.json", results.model_dump())
    again, more = needs(config, store), needs(config.replace(iterations=6), store)
    assert again.seconds == pytest.approx(40) and run.id in again.basis
    assert 2 * again.seconds < more.seconds < 3.5 * again.seconds
    # damage comes on top of it
    measured = needs(config.replace(allocation="measured"), store)
    assert measured.seconds == pytest.approx(again.seconds + sensitivity_seconds(config, store))
    assert sensitivity_seconds(config, store) > again.seconds
    # a model of another size has matrices of another speed: the faster of both is taken
    monkeypatch.setattr("pruning.runs.preflight._product_speed", lambda minute: 1e30)
    assert needs(config, store).basis == again.basis
    assert "matrix product" in needs(config.replace(model="demo"), store).basis
    # tasks are not reckoned, so the time of a run that had some tells nothing
    stored = json.loads((run.path / "config.json").read_text())
    stored["config"]["tasks"] = ["demo"]
    (run.path / "config.json").write_text(json.dumps(stored))
    assert "matrix product" in needs(config, store).basis


def test_a_full_disk_is_said_before_anything_is_written(tiny_folder, text_file, tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("pruning.runs.worker.shutil.disk_usage", lambda _: usage._replace(free=10))
    config = RunConfig.create(
        model=str(tiny_folder), domains={"words": str(text_file)}, mixture={"words": 1}, seq_len=24
    )
    with pytest.raises(RunError, match="disk space"):
        prune(config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
