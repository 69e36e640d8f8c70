"""Disks and processes: leftovers, locks, stopped workers, and what a run says of itself."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from pruning import PruningError, RunConfig, prune
from pruning.cli.main import main
from pruning.errors import RunError
from pruning.files import atomic_write, sweep
from pruning.progress import Progress
from pruning.runs.folder import log, read_log
from pruning.runs.preflight import Needs
from pruning.runs.process import NICE
from pruning.runs.run import Run, RunStore
from pruning.runs.worker import Meter, Reporter, TextProgress, execute
from tests.conftest import tiny_model
from tests.runs.test_runs import options, wait  # noqa: F401 - a fixture

pytestmark = pytest.mark.processes


@pytest.fixture
def run(options):  # noqa: F811
    return RunStore().create(RunConfig.create(**options))


def test_two_that_resume_a_run_at_once_start_one_worker(run):
    with run.held(), pytest.raises(RunError, match="is being worked on"):
        run.launch()
    run.launch()
    with pytest.raises(RunError, match="is being worked on"):
        Run(run.path).launch()
    wait(run, "finished")
    assert [event["event"] for event in run.events()].count("started") == 1


def test_a_suspended_worker_can_be_cancelled_and_the_next_says_for_whom_it_waits(options):  # noqa: F811
    store = RunStore()
    first = store.create(RunConfig.create(**{**options, "iterations": 60, "samples": 64}))
    first.launch()
    wait(first, "running")
    os.kill(first.status().pid, signal.SIGSTOP)
    second = store.create(RunConfig.create(**options))
    second.launch()
    assert second.status().waiting_for == (first.id,)  # from the first second on
    if hasattr(os, "nice"):  # the app and the browser have the processor first
        assert psutil.Process(first.status().pid).nice() == min(os.nice(0) + NICE, 19)
    first.cancel()
    assert wait(first, "cancelled", "finished") == "cancelled"
    wait(second, "finished")


def test_a_worker_says_a_line_a_stage_and_iteration(run, capfd):
    execute(run, TextProgress(run.config.iterations))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "dense model: evaluate" and lines[1].startswith("dense model done: perplexity ")
    assert "iteration 1 of 3: calibrate" in lines
    assert sum(line.startswith("iteration 3 of 3 done: ") for line in lines) == 1
    assert len(lines) == 2 + 3 * 3


def test_time_left_is_known_from_the_first_stage_of_a_second_run(options):  # noqa: F811
    config = RunConfig.create(**options, device="cpu")

    def first_eta():
        status = Reporter(RunStore().create(config), exits=False)
        status.note(device="cpu")
        Meter(status.run, status, -1)(Progress("evaluate", 0, 72))
        shutil.rmtree(status.run.path)  # or the next waits for it
        return status.fields["eta"]

    assert first_eta() is None
    prune(config)
    assert first_eta() > 0


def test_leftovers_of_killed_processes_are_swept(run):
    dead, mine = 2**22 + 1, os.getpid()
    for name in (f".iteration-01.{dead}.prunescope-new", f".iteration-02.{mine}.prunescope-new"):
        (run.path / name).mkdir()
        os.utime(run.path / name, (1, 1))
    (run.path / f".config.json.{dead}.prunescope-old").write_bytes((run.path / "config.json").read_bytes())
    (run.path / f".gone.json.{dead}.prunescope-old").write_text("{}")
    for file in run.path.glob(".*old"):
        os.utime(file, (1, 1))
    sweep(run.path, seconds=60)
    assert [path.name for path in run.path.glob(".*.*.*")] == [f".iteration-02.{mine}.prunescope-new"]
    assert (run.path / "gone.json").exists()  # what was about to be replaced


def test_what_is_half_written_never_takes_its_place(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(OSError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise OSError(errno.EIO, "Input/output error")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_full_cache_costs_time_and_not_the_run(run, monkeypatch):
    monkeypatch.setenv("PRUNESCOPE_CACHE", "/dev/null/cache")
    execute(run)
    assert run.status().state == "finished"


def test_a_log_goes_on_behind_half_a_line(run):
    with (run.path / "events.jsonl").open("a") as stream:
        stream.write('{"event": "sta')
    log(run.path, "later", value=float("nan"))
    assert [event["event"] for event in read_log(run.path / "events.jsonl")] == ["created", "later"]
    assert json.loads((run.path.parent / "log.jsonl").read_text().splitlines()[0])["event"] == "created"


def test_small_sizes_are_not_nothing():
    need = Needs(disk=50_000_000, memory=1, disk_free=40_000_000, memory_free=2, seconds=None, basis="")
    assert "needs about 50.0 MB of disk space and 40.0 MB are free" in need.problem


def test_broken_numbers_behind_the_layers_stop_after_the_dense_model(options, tiny_folder):  # noqa: F811
    model = tiny_model("qwen2")
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(tiny_folder)
    with pytest.raises(PruningError, match="the predictions on domain 'words' are not finite"):
        prune(RunConfig.create(**options))


def test_a_model_of_a_billion_layers_is_a_sentence(tiny_folder, capsys):
    config = json.loads((tiny_folder / "config.json").read_text())
    for change in ({"num_hidden_layers": 10**9}, {"intermediate_size": 10**12}):
        (tiny_folder / "config.json").write_text(json.dumps(config | change))
        assert main(["prune", "--model", str(tiny_folder)]) == 2
        assert "has sizes that no model has" in capsys.readouterr().err


def test_a_run_deleted_while_others_read_it(run, options):  # noqa: F811
    execute(run)
    reader, stored = Run(run.path), run.iterations()[1]
    RunStore().delete(run.id)
    assert reader.iterations() == [] and reader.status().state == "failed" and reader.last_output() == ""
    with pytest.raises(RunError, match="is missing"):
        _ = stored.statistics


def test_the_doctor_names_what_is_damaged(run, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["doctor"]) == 0
    assert "torch" in capsys.readouterr().out
    (run.path / "config.json").write_text("{")
    assert main(["doctor", "--json"]) == 1
    assert run.id in json.loads(capsys.readouterr().out)["problems"][0]


def test_without_a_terminal_a_command_says_where_it_is(options, tmp_path):  # noqa: F811
    call = [sys.executable, "-m", "pruning", "calibrate", "--model", options["model"], "--seq-len", "24"]
    call += ["--domain", f"words={options['domains']['words']}", "--mixture", "words"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "calibrate"


def test_a_store_that_is_read_only_says_so(run, options, monkeypatch):  # noqa: F811
    def closed(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(RunError, match="Read-only file system: make it writable, or name another folder"):
        RunStore().create(RunConfig.create(**options))
    monkeypatch.undo()
    shutil.rmtree(run.path)
