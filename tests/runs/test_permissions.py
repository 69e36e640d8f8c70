"""A run from elsewhere is looked at, and worked on only once the person here has agreed."""

import json
import shutil
import time

import pytest

from pruning import RunConfig, prune
from pruning.cli.main import main
from pruning.errors import RunError
from pruning.runs import permissions
from pruning.runs.run import Run, RunStore

TASK = "task: mine\ndataset_path: json\ndoc_to_text: !function utils.text\n"


@pytest.fixture
def options(tiny_folder, text_file):
    return {
        "model": str(tiny_folder), "domains": {"words": str(text_file)}, "mixture": {"words": 1},
        "samples": 3, "seq_len": 24, "eval_blocks": 0, "iterations": 1, "ratio": 0.2, "device": "cpu",
        "save_model": False,
    }  # fmt: skip


@pytest.fixture
def foreign(options, tmp_path):
    """A run that was made on another machine and copied here."""
    run = RunStore(tmp_path / "there").create(RunConfig.create(**options))
    path = RunStore().root / run.id
    shutil.copytree(run.path, path)
    shutil.rmtree(permissions.permissions_for(run.config)[0]._mark.parent)  # what was agreed to there
    return Run(path)


def test_a_run_made_here_needs_no_agreement(options):
    run = prune(RunConfig.create(**options)).run
    assert permissions.permissions_for(run.config) and not permissions.pending(run.config)
    permissions.check(run.id, run.config)


def test_a_foreign_run_is_resumed_once_its_reading_is_agreed_to(foreign, text_file, capsys):
    assert [str(ask) for ask in permissions.pending(foreign.config)] == [f"read {str(text_file)!r}"]
    with pytest.raises(RunError, match=r"was not made here, and would read .*: look at that first"):
        permissions.check(foreign.id, foreign.config)
    assert main(["runs", "resume", foreign.id]) == 2
    assert "was not made here" in capsys.readouterr().err and not foreign.iterations()
    assert main(["runs", "show", foreign.id]) == 0  # it is looked at
    assert main(["runs", "resume", foreign.id, "--yes", "--json"]) == 0
    assert not permissions.pending(foreign.config)


def test_the_worker_of_a_foreign_run_refuses_by_itself(foreign, monkeypatch, capsys):
    from pruning.runs import worker

    monkeypatch.setattr("sys.argv", ["worker", str(foreign.path)])
    monkeypatch.setattr("os.nice", lambda _: None)  # this process goes on
    assert worker.main() == 2
    assert "was not made here" in capsys.readouterr().err and not foreign.iterations()


@pytest.mark.processes
def test_a_worker_knows_what_was_agreed_to_where_the_cache_cannot_be_written(options, monkeypatch):
    monkeypatch.setenv("PRUNESCOPE_CACHE", "/dev/null/cache")
    monkeypatch.setenv(permissions.AGREED, "")  # put back afterwards
    run = RunStore().create(RunConfig.create(**options))
    run.launch()
    deadline = time.time() + 120
    while run.active and time.time() < deadline:
        time.sleep(0.1)
    assert run.status().state == "finished", run.last_output()
    monkeypatch.delenv(permissions.AGREED)  # another process here was told nothing
    with pytest.raises(RunError, match="was not made here"):
        permissions.check(run.id, run.config)


def test_a_folder_of_tasks_is_code_and_asked_about_again_when_it_changes(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "mine.yaml").write_text(TASK)
    (folder / "utils.py").write_text("def text(doc): return 'x'\n")
    config = RunConfig.create(tasks=("mine",), task_folder=str(folder))
    (ask,) = permissions.pending(config)
    assert str(ask) == f"run {str(folder)!r}" and permissions.code_files(ask) == "'mine.yaml', 'utils.py'"
    permissions.agree([ask])
    assert permissions.pending(config) == []
    (folder / "utils.py").write_text("import os\n")
    assert len(permissions.pending(config)) == 1
    assert permissions.permissions_for(RunConfig.create(task_folder=str(folder))) == []  # no task is asked


def test_a_config_from_elsewhere_does_not_run_its_tasks_unseen(tmp_path, capsys):
    folder, mark = tmp_path / "tasks", tmp_path / "ran"
    folder.mkdir()
    (folder / "mine.yaml").write_text(TASK)
    (folder / "utils.py").write_text(f"open({str(mark)!r}, 'w')\n")
    (tmp_path / "run.json").write_text(json.dumps({"tasks": ["mine"], "task_folder": str(folder)}))
    assert main(["prune", "--config", str(tmp_path / "run.json")]) == 2
    assert "would run the code in" in (said := capsys.readouterr().err) and "'mine.yaml', 'utils.py'" in said
    grid = {"title": "x", "options": {"tasks": ["mine"], "task_folder": str(folder)}, "grid": [{"seed": 0}]}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))
    assert main(["experiment", str(tmp_path / "grid.yaml")]) == 2
    assert "would run the code in" in capsys.readouterr().err
    assert not mark.exists() and RunStore().all() == []


def test_the_app_asks_before_a_foreign_run_is_resumed(foreign, monkeypatch):
    from streamlit.testing.v1 import AppTest

    from tests.app.test_pages import ROOT

    launched = []
    monkeypatch.setattr(Run, "launch", lambda run: launched.append(run.id))
    file = foreign.path / "status.json"
    status = {key: value for key, value in json.loads(file.read_text()).items() if key != "checksum"}
    file.write_text(json.dumps({**status, "state": "failed", "message": "interrupted"}))
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    at.switch_page("pages/prune.py").run()
    assert next(b for b in at.button if b.label == "Resume").disabled
    assert any("The run would:" in w.value and "- read " in w.value for w in at.warning)
    next(c for c in at.checkbox if "agree" in c.label).check().run()
    next(b for b in at.button if b.label == "Resume").click().run()
    assert launched == [foreign.id] and not at.exception
