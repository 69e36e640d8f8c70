"""The run store and real worker processes."""

import json
import os
import signal
import time

import numpy as np
import pytest

from pruning import PruningError, RunConfig, checksums, prune
from pruning.errors import ConfigError, CorruptFileError, ModelError, RunError
from pruning.runs.run import Run, RunStore
from pruning.runs.worker import Cancelled, execute
from tests.conftest import llama_geometry


@pytest.fixture
def options(tiny_folder, text_file):
    return {
        "model": str(tiny_folder),
        "ratio": 0.4,
        "iterations": 3,
        "mixture": {"words": 1},
        "domains": {"words": str(text_file)},
        "samples": 4,
        "seq_len": 24,
        "eval_blocks": 3,
    }


def wait(run: Run, *states: str, seconds: float = 120) -> str:
    deadline = time.monotonic() + seconds
    while (state := run.status().state) not in states and time.monotonic() < deadline:
        time.sleep(0.1)
    assert state in states, (state, run.last_output())
    return state


def same_masks(a: Run, b: Run) -> bool:
    pairs = zip(a.iterations(), b.iterations(), strict=True)
    return all(np.array_equal(x.mask.kept[s], y.mask.kept[s]) for x, y in pairs for s in x.mask.kept)


def test_prune_leaves_a_whole_run(options):
    result = prune(RunConfig.create(**options))
    run = RunStore().get(result.run.id)
    assert run.status().state == "finished"
    assert [i.number for i in run.iterations()] == [0, 1, 2, 3]
    summary = run.results()
    assert summary.config == run.config.model_dump(mode="json") and summary.zero_shot is None
    assert [it.number for it in summary.iterations] == [1, 2, 3] and summary.tokens["words"] == 3 * 23
    assert summary.achieved_ratio == pytest.approx(0.4, abs=0.03)
    assert summary.parameters.pruned == sum(p.numel() for p in result.loaded.model.parameters())
    assert set(summary.perplexity) == {"words", "mean"}
    assert RunConfig.read(run.path / "config.json") == run.config
    assert json.loads((run.path / "config.json").read_text())["versions"]["torch"]
    events = [e["event"] for e in run.events() if e["event"] != "stage"]
    assert events == ["created", "started", "inputs", *["iteration"] * 4, "finished"]
    assert not list(run.path.rglob("*.prunescope-*"))


def test_what_is_stored_is_what_was_computed(options):
    from pruning.engine.events import Iteration

    seen = []
    run = prune(
        RunConfig.create(**options), on_event=lambda e: isinstance(e, Iteration) and seen.append(e)
    ).run
    for stored, live in zip(run.iterations(), seen, strict=True):
        for site in live.mask.kept:
            np.testing.assert_array_equal(stored.mask.kept[site], live.mask.kept[site])
        if live.number:
            site = next(iter(live.scores))
            np.testing.assert_array_equal(stored.scores[site], live.scores[site])
            np.testing.assert_array_equal(stored.norms[site][0], live.norms[site][0])
            moments = stored.statistics.moments["words"][site]
            np.testing.assert_array_equal(moments.m2, live.statistics.moments["words"][site].m2)


@pytest.mark.processes
def test_a_worker_process_does_the_same_as_this_process(options):
    here = prune(RunConfig.create(**options)).run
    there = RunStore().create(RunConfig.create(**options))
    there.launch()
    wait(there, "finished")
    assert same_masks(here, there)


@pytest.mark.processes
def test_a_cancelled_worker_ends_and_resumes_to_the_same_masks(options):
    whole = prune(RunConfig.create(**options)).run
    run = RunStore().create(RunConfig.create(**options))

    class Stop(Exception):
        pass

    def stop(event):
        if getattr(event, "number", None) == 1:
            raise Stop

    with pytest.raises(Stop):
        execute(run, on_event=stop)
    assert run.status().state == "failed"
    assert [i.number for i in run.iterations()] == [0, 1]
    run.launch()
    wait(run, "finished")
    assert same_masks(whole, run)
    assert run.results().perplexity == whole.results().perplexity


@pytest.mark.processes
def test_cancel_ends_a_worker_that_can_be_resumed(options):
    run = RunStore().create(RunConfig.create(**{**options, "iterations": 60, "ratio": 0.5, "samples": 64}))
    run.launch()
    wait(run, "running")
    run.cancel()
    assert wait(run, "cancelled", "finished") == "cancelled"
    before = len(run.iterations())
    run.launch()
    wait(run, "running", "finished")
    deadline = time.monotonic() + 60
    while len(run.iterations()) <= before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(run.iterations()) > before
    run.cancel()
    wait(run, "cancelled", "finished")


def test_a_cancel_in_this_process_is_seen(options):
    run = RunStore().create(RunConfig.create(**{**options, "samples": 64, "iterations": 50}))
    with pytest.raises(Cancelled):
        execute(run, on_event=lambda _: run.cancel())
    assert run.status().state == "cancelled"


@pytest.mark.processes
def test_a_killed_worker_is_seen_as_dead_and_resumes(options):
    run = RunStore().create(RunConfig.create(**{**options, "iterations": 40, "samples": 64}))
    run.launch()
    wait(run, "running")
    os.kill(run.status().pid, signal.SIGKILL)
    wait(run, "dead")
    assert not run.active
    run.launch()
    assert wait(run, "running", "finished")
    run.cancel()
    wait(run, "cancelled", "finished")


@pytest.mark.processes
def test_the_second_run_waits_for_the_first(options):
    store = RunStore()
    first = store.create(RunConfig.create(**{**options, "iterations": 60, "samples": 64}))
    first.launch()
    wait(first, "running")
    second = store.create(RunConfig.create(**options))
    second.launch()
    deadline = time.monotonic() + 60
    while not second.status().ahead and time.monotonic() < deadline:
        time.sleep(0.1)
    assert second.status().state == "queued"
    assert second.status().waiting_for == (first.id,)
    first.cancel()
    wait(second, "finished")
    assert first.status().finished <= second.status().started


@pytest.mark.processes
def test_a_worker_that_fails_says_why(options, tiny_folder):
    run = RunStore().create(RunConfig.create(**options))
    (tiny_folder / "model.safetensors").unlink()
    run.launch()
    wait(run, "failed")
    assert "holds no weights" in run.status().message


def test_the_run_list_knows_only_runs(tmp_path, options):
    store = RunStore(tmp_path / "store")
    assert store.all() == []
    run = store.create(RunConfig.create(**options))
    (store.root / "stranger").mkdir()
    (store.root / "20260101-000000-iterative-zzzz").mkdir()
    assert [r.id for r in store.all()] == [run.id]
    assert store.get(run.id[:-2]).id == run.id


@pytest.mark.parametrize("name", ["", "nope", "../../etc", "20260101-000000-flap-0000"])
def test_ids_that_are_no_runs_are_refused(tmp_path, name):
    with pytest.raises(RunError, match="there is no run"):
        RunStore(tmp_path).get(name)


def test_delete(options):
    store = RunStore()
    run = store.create(RunConfig.create(**options))
    store.delete(run.id)
    assert store.all() == []


def test_a_finished_run_is_not_started_again(options):
    run = prune(RunConfig.create(**options)).run
    with pytest.raises(RunError, match="has finished"):
        run.launch()


def test_layers_can_be_drawn_as_soon_as_they_are_through(options):
    """The scores of every layer, one after another, are those that the whole iteration has in the end."""
    from pruning.progress import Progress
    from pruning.runs.folder import layers_so_far

    seen, counts = {}, []

    def watch(event):
        if isinstance(event, Progress) and event.result is not None:
            seen.update(found := layers_so_far(RunStore().all()[0].path))
            counts.append(len(found) // 2)

    run = prune(RunConfig.create(**options | {"seq_len": 20, "iterations": 1}), on_event=watch).run
    first = run.iterations()[1]
    assert counts == [*range(1, len(first.geometry.layers) + 1)]
    for site, scores in first.scores.items():
        np.testing.assert_array_equal(seen[site], scores)
    assert layers_so_far(run.path) == {}


def test_the_time_left_is_known_from_the_second_step(options, monkeypatch):
    """One second for each of eight steps of a run that calibrates and measures three times as much."""
    from pruning.progress import Progress
    from pruning.runs import worker

    config = RunConfig.create(**options | {"samples": 2, "seq_len": 10, "eval_blocks": 2, "iterations": 2})
    clock = [0.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock[0])
    run = RunStore().create(config)
    status = worker.Reporter(run, exits=False)
    meter = worker.Meter(run, status, -1)
    measured, calibrated = 20 * len(config.measured_domains), 20 * len(config.mixture)
    total = measured + 2 * (measured + calibrated)
    for done in (0, 5, 10):
        clock[0] = float(done)
        meter(Progress("evaluate", 2 * done, 20))
        left = status.fields["eta"]
        assert left is None if done == 0 else left == pytest.approx(10 * total / measured - done)


# --- what a status says


def test_speed_is_in_tokens_through_the_whole_model(options, monkeypatch):
    """Half a second a token-layer: calibration counts each token once a layer."""
    from pruning.engine.events import Started
    from pruning.progress import Progress
    from pruning.runs import worker

    run = RunStore().create(RunConfig.create(**options))
    clock = iter([0.0, 0.0, 0.01, 10.0, 20.0, 30.0])
    monkeypatch.setattr(worker.time, "monotonic", lambda: next(clock))
    status = worker.Reporter(run, exits=False)
    meter = worker.Meter(run, status, -1)
    meter(Started(tiny_geometry(3), 1, "", {}))
    meter(Progress("calibrate", 100, 600, "layer 1 of 3"))
    assert status.fields["per_second"] is None  # of a hundredth of a second it would be noise
    meter(Progress("calibrate", 300, 600, "layer 2 of 3"))
    found = status.fields
    assert (found["per_second"], found["unit"]) == (pytest.approx(10.0), "tokens")
    assert (found["done"], found["total"], found["stage"]) == (300, 600, "calibrate")


def tiny_geometry(layers):

    return llama_geometry(32, 4, ((4, 2, 48),) * layers, True, True)


def test_progress_is_written_whole(options):
    """Whoever reads the fields never sees one stage's `done` beside another's `total`."""
    from pruning.progress import Progress
    from pruning.runs import worker

    run = RunStore().create(RunConfig.create(**options))
    status = worker.Reporter(run, exits=False)
    seen = []

    class Watched(dict):
        def __ior__(self, other):
            dict.update(self, other)
            seen.append((self["done"], self["total"]))
            return self

    status.fields = Watched(status.fields)
    meter = worker.Meter(run, status, 0)
    for done in range(3):
        meter(Progress("evaluate", done, 3))
    meter(Progress("zero-shot", 0, 6))
    assert seen == [(0, 3), (1, 3), (2, 3), (0, 6)]
    assert status.fields["unit"] == "tasks" and status.fields["eta"] is None


@pytest.mark.parametrize(("picked", "name"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_two_names_of_a_device_are_one_lock(options, monkeypatch, picked, name):
    from pruning.models import loading as models
    from pruning.runs import worker

    monkeypatch.setattr(models, "pick_device", lambda _: picked)
    assert worker._device_name(RunConfig.create(**options, device="auto")) == name


@pytest.mark.processes
def test_runs_named_auto_and_cpu_take_turns(options):
    from filelock import FileLock

    store = RunStore()
    run = store.create(RunConfig.create(**options, device="auto"))
    with FileLock(store.root / ".cpu.lock"):  # as a run with device cpu holds it
        run.launch()
        deadline = time.monotonic() + 60
        while run.status().device != "cpu":  # from then on it tries the lock
            assert time.monotonic() < deadline
            time.sleep(0.1)
        released = time.time()
    wait(run, "finished")
    assert run.status().started >= released


def test_the_seconds_of_a_resumed_run_include_the_first_part(options):
    from pruning.engine.events import Iteration

    run = RunStore().create(RunConfig.create(**options))

    def stop(event):
        if isinstance(event, Iteration) and event.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(run, on_event=stop)
    metrics = [run.path / f"iteration-{n:02d}" / "metrics.json" for n in (0, 1, 2)]
    for file in metrics:
        checksums.write_json(file, {**checksums.read_json(file), "seconds": 100.0})
    assert execute(run).summary.seconds > 300


def test_a_lack_of_memory_is_one_sentence(options, capsys, monkeypatch):
    from pruning.cli.main import main
    from pruning.engine import blocks

    def scarce(*_):
        raise MemoryError

    monkeypatch.setattr(blocks, "load_text", scarce)
    arguments = ["--model", options["model"], "--domain", f"words={options['domains']['words']}"]
    for command in ("prune", "calibrate"):
        assert main([command, *arguments, "--mixture", "words", "--seq-len", "24"]) == 2
        error = capsys.readouterr().err
        assert "too little memory" in error and len(error.strip().splitlines()) == 1
        assert "lower --calibration-blocks" in error
    from pruning.measure import speed

    monkeypatch.setattr(speed, "size", scarce)
    assert main(["bench", options["model"]]) == 2
    error = capsys.readouterr().err
    assert "too little memory" in error and "--batch" in error and "--calibration-blocks" not in error


def test_a_cancelled_run_is_one_sentence(options, capsys, monkeypatch):
    from pruning.cli.main import main

    run = RunStore().create(RunConfig.create(**{**options, "samples": 64, "iterations": 60}))
    monkeypatch.setattr(Run, "check_startable", lambda run: (run.path / "cancel").touch())
    assert main(["runs", "resume", run.id[:-2]]) == 130
    assert "runs resume ID" in capsys.readouterr().err
    assert run.status().state == "cancelled"


# --- zero-shot tasks of a run


def test_unknown_tasks_are_refused_before_the_model_is_loaded(options, monkeypatch, tmp_path):
    from pruning.models import loading as models

    monkeypatch.setattr(models, "load", None)
    with pytest.raises(ConfigError, match="there is no task 'nonsense'"):
        prune(RunConfig.create(**options, tasks=("nonsense",)))
    with pytest.raises(ConfigError, match="no folder '/no/such': give --task-data an existing folder"):
        prune(RunConfig.create(**options, tasks=("paper",), task_data="/no/such"))
    assert RunStore().all() == []


@pytest.mark.processes
def test_a_check_of_tasks_needs_no_torch(options):
    import subprocess
    import sys

    code = "import sys; from pruning import RunConfig; from pruning.runs.preflight import check\n"
    code += f"check(RunConfig.create(**{options!r}, tasks=('paper',), task_folder='.'))\n"
    code += "print(sorted({'torch', 'lm_eval', 'datasets'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_dense_model_answers_before_it_is_cut_and_is_read_once(options, monkeypatch):
    from pruning.models import loading as models

    plain, loads, stages = models.load, [], []
    monkeypatch.setattr(models, "load", lambda *args: loads.append(1) or plain(*args))
    config = RunConfig.create(**options, tasks=("prunescope_agreement",), task_limit=3)
    result = prune(
        config, on_event=lambda event: stages.append(getattr(event, "stage", type(event).__name__))
    )
    assert len(loads) == 1
    assert (
        stages.index("Started") < stages.index("zero-shot") < stages.index("Iteration")
        and stages[-1] == "zero-shot"
    )
    found = result.run.results()
    assert found.zero_shot.tasks["prunescope_agreement"].items == 3
    assert found.zero_shot.average.limit == 3
    again = prune(config).run.results()
    assert again.zero_shot == found.zero_shot


def test_perplexities_are_kept_where_the_tasks_fail(options, monkeypatch):
    from pruning.measure import tasks

    plain, asked = tasks._ask, []

    def breaks(*args):
        asked.append(1)
        if len(asked) == 2:  # the pruned model
            raise ConfigError("the data are gone.")
        return plain(*args)

    monkeypatch.setattr(tasks, "_ask", breaks)
    run = RunStore().create(RunConfig.create(**options, tasks=("prunescope_agreement",), task_limit=3))
    with pytest.raises(ConfigError):
        execute(run)
    assert run.results().perplexity["words"].pruned and not run.complete
    execute(run)
    assert run.complete and run.status().state == "finished"


# --- bad input leaves nothing behind


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "no-such-model"}, ModelError),
        ({"ratio": 0.99}, ConfigError),
        ({"keep": ("9.attn",)}, ConfigError),
        ({"seq_len": 65}, ConfigError),
        ({"domains": {"words": "/no/such/file.txt"}}, PruningError),
        ({"samples": 4, "seq_len": 60, "domains": {"words": "SHORT"}}, PruningError),
        ({"device": "cuda:77"}, ModelError),
    ],
)
def test_mistakes_leave_no_run(options, change, error, tmp_path):
    (tmp_path / "short.txt").write_text("short")
    if change.get("domains", {}).get("words") == "SHORT":
        change = {**change, "domains": {"words": str(tmp_path / "short.txt")}}
    with pytest.raises(error) as caught:
        prune(RunConfig.create(**{**options, **change}))
    assert "\n" not in str(caught.value)
    assert RunStore().all() == []


def test_activations_that_are_not_finite_leave_no_checkpoint(options, tiny_folder):
    from tests.conftest import tiny_model

    model = tiny_model("qwen2")
    model.model.layers[2].mlp.gate_proj.weight.data[0] = float("nan")
    model.save_pretrained(tiny_folder)
    with pytest.raises(PruningError, match="layer 2, mlp"):
        prune(RunConfig.create(**options))
    assert not list(RunStore().root.rglob("model"))


def test_a_store_that_cannot_be_written(options, tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file" / "runs", "/proc/runs"):
        with pytest.raises(RunError, match="cannot be written"):
            prune(RunConfig.create(**options), root)


def test_a_full_disk_is_one_sentence_and_leaves_whole_files(options, monkeypatch):
    import errno

    from pruning import checksums
    from pruning.runs import worker

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    run = RunStore().create(RunConfig.create(**options))
    monkeypatch.setattr(checksums, "save_file", full)  # the statistics of the first iteration do not fit
    with pytest.raises(RunError, match="disk .* is full"):
        worker.execute(run)
    assert [i.number for i in run.iterations()] == [0]
    assert not list(run.path.glob(".iteration*"))
    assert run.status().state == "failed"
    monkeypatch.undo()
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(run.path.parent / "cache"))
    execute(run)
    assert run.status().state == "finished"


def test_records_are_replaced_whole_and_believed_whole_only(tmp_path):
    path = tmp_path / "status.json"
    assert checksums.read_json(path) is None
    checksums.write_json(path, {"value": float("inf"), "list": [1, float("nan")]})
    assert checksums.read_json(path) == {"value": None, "list": [1, None]}
    text = path.read_text()
    for wrong in (
        "",
        "{",
        "[1]",
        text.replace("1", "2", 1),
        "[" * 100_000,
        '{"a": ' + "1" * 5000 + "}",
        '{"a": "\\ud800"}',
    ):
        path.write_text(wrong)
        with pytest.raises(CorruptFileError):
            checksums.read_json(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CorruptFileError, match="it is no file"):
        checksums.read_json(path)
