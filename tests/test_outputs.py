"""Paths that a person names for output: what the program did not write is never replaced or deleted."""

import argparse
import json
import os
import shutil
from pathlib import Path

import pytest

from pruning import outputs
from pruning.checksums import digests, write_json
from pruning.cli.main import main, parser
from pruning.errors import RunError
from pruning.files import EXPORT_FILE
from pruning.outputs import output_file, output_folder
from pruning.paths import ASSETS
from pruning.runs.run import RunStore
from tests.conftest import needs_demo

DEMO_RUN = str(ASSETS / "demo-run")
QUICK = ("--calibration-blocks", "1", "--seq-len", "32")
# Every option of the command line that names a file or a folder: written, or only read. Commands that write a
# file, up to its option; `--runs-dir` and `export --out` write folders.
WRITTEN = {
    "--html": ("report", DEMO_RUN, "--html"),
    "--stream-file": ("generate", "The river", "--tokens", "2", "--stream-file"),
    "--out": ("score", *QUICK, "--out"),
}
FOLDERS = {"--runs-dir", "--out"}
READ = {
    *("--config", "--model", "--domain", "--task-data", "--task-folder", "file", "source", "run_id"),
    *("models", "--models", "run_ids"),
}
PATHS = ("FILE", "FOLDER", "SOURCE", "MODEL", "RUN", "ID")


def options(top: argparse.ArgumentParser):
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from options(sub)
        else:
            yield action


def test_every_option_with_a_path_is_tried_here():
    names = set()
    for action in options(parser()):
        metavar = str(action.metavar or "")
        if any(word in metavar for word in PATHS):
            names.add((action.option_strings or [action.dest])[0])
    assert names == {*WRITTEN, *FOLDERS, *READ}


@pytest.fixture
def thesis(tmp_path):
    file = tmp_path / "precious" / "deep" / "thesis.txt"
    file.parent.mkdir(parents=True)
    file.write_text("years of work")
    return file


@needs_demo
@pytest.mark.parametrize("option", WRITTEN)
@pytest.mark.parametrize(
    "kind", ["folder", "file", "link", "here", "slash", "device", "pipe", "nowhere", "within"]
)
def test_what_is_not_ours_stays(option, kind, thesis, tmp_path, capsys, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(thesis)
    monkeypatch.chdir(tmp_path)
    named = {
        "folder": str(thesis.parents[1]),
        "file": str(thesis),
        "link": str(tmp_path / "link"),
        "here": ".",
        "slash": f"{tmp_path}/new/",
        "device": "/dev/null",
        "pipe": str(tmp_path / "pipe"),
        "nowhere": str(tmp_path / "missing" / "new.json"),
        "within": str(thesis / "new.json"),
    }[kind]
    before = sorted(tmp_path.rglob("*"))
    assert main([*WRITTEN[option], named, "--json"]) == 2
    out, error = capsys.readouterr()
    assert "error" in json.loads(out) and error.count("\n") == 1 and Path(named).name in error
    assert thesis.read_text() == "years of work" and Path("/dev/null").is_char_device()
    assert [path for path in sorted(tmp_path.rglob("*")) if "cache" not in path.parts] == before


@needs_demo
@pytest.mark.parametrize("option", WRITTEN)
def test_what_we_wrote_is_replaced_until_it_is_changed(option, tmp_path, capsys):
    file = tmp_path / "output"
    for _ in range(2):
        assert main([*WRITTEN[option], str(file)]) == 0
    with file.open("ab") as stream:
        stream.write(b"a note of mine")
    changed = file.read_bytes()
    assert main([*WRITTEN[option], str(file)]) == 2
    assert file.read_bytes() == changed and "was changed since" in capsys.readouterr().err


def test_a_file_is_ours_whenever_the_process_is_killed(tmp_path):
    file = tmp_path / "output"

    def write(text):
        with output_file(file) as temporary:
            temporary.write_text(text)

    write("first")
    earlier = file.read_bytes()
    write("second")
    file.write_bytes(earlier)  # as if the second had not taken its place
    write("third")
    assert file.read_text() == "third"


def test_a_cache_that_is_gone_makes_nothing_ours(tmp_path, monkeypatch):
    file = tmp_path / "output"
    with output_file(file) as temporary:
        temporary.write_text("first")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(outputs, "_written", {})  # as in another process
    with pytest.raises(RunError, match="no record that this program wrote it"), output_file(file):
        pass


# --- folders -----------------------------------------------------------------------------------------------


def write_export(folder, **files):
    with output_folder(folder, EXPORT_FILE) as temporary:
        for name, text in files.items():
            (temporary / name).write_text(text)
        write_json(temporary / EXPORT_FILE, {"files": digests(temporary)})


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != EXPORT_FILE
    }


def test_a_persons_files_and_folders_stay_in_an_export(tmp_path):
    folder = tmp_path / "export"
    write_export(folder, weights="1", config="1")
    mine = {
        "notes.txt": "a",
        "my_eval.py": "b",
        "results.json": "c",
        "thesis.model/chapter.md": "d",
        ".git/x": "e",
    }
    for name, text in mine.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    write_export(folder, weights="2")
    assert content(folder) == {"weights": "2", **mine}
    assert (folder / "link").readlink() == tmp_path / "elsewhere"
    write_export(folder, weights="3")
    assert content(folder) == {"weights": "3", **mine}
    assert {path.name for path in tmp_path.iterdir()} <= {"export", "cache"}


@pytest.mark.parametrize("name", ["weights", EXPORT_FILE])
def test_an_export_with_a_changed_file_is_not_replaced(name, tmp_path):
    folder = tmp_path / "export"
    write_export(folder, weights="1")
    (folder / name).write_text('{"mine": true}')
    with pytest.raises(RunError, match="was changed"):
        write_export(folder, weights="2")
    assert (folder / name).read_text() == '{"mine": true}'


def test_a_new_part_of_an_export_does_not_take_the_place_of_a_persons_file(tmp_path):
    folder = tmp_path / "export"
    write_export(folder, weights="1")
    (folder / "config").write_text("mine")
    with pytest.raises(RunError, match="no part of the earlier export"):
        write_export(folder, weights="2", config="2")
    assert content(folder) == {"weights": "1", "config": "mine"}


def test_a_crash_while_a_folder_is_replaced_loses_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "export"
    write_export(folder, weights="1")
    (folder / "notes.txt").write_text("mine")
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_export(folder, weights="2")
    assert content(folder) == {"weights": "1", "notes.txt": "mine"}


@needs_demo
def test_an_export_does_not_replace_a_checkpoint(tmp_path, capsys):
    assert main(["prune", *QUICK, "--iterations", "1", "--eval-blocks", "0", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    model = Path(run["path"]) / "model"
    before = sorted(path.name for path in model.iterdir())
    assert main(["export", "demo", "--out", str(model)]) == 2
    assert "is no earlier export" in capsys.readouterr().err
    assert sorted(path.name for path in model.iterdir()) == before


@needs_demo
def test_a_store_cannot_be_a_file_and_leaves_a_persons_files(tmp_path, capsys):
    (tmp_path / "runs.txt").write_text("mine")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "log.jsonl").write_text("mine\n")
    command = ["prune", *QUICK, "--iterations", "1", "--eval-blocks", "0", "--runs-dir"]
    assert main([*command, str(tmp_path / "runs.txt")]) == 2
    assert (tmp_path / "runs.txt").read_text() == "mine"
    assert main([*command, str(tmp_path / "store")]) == 0
    assert (tmp_path / "store" / "log.jsonl").read_text() == "mine\n"


def exported_run(folder, capsys):
    """A store, and a finished run in it with an export."""
    store = RunStore(folder / "store")
    runs = ["--runs-dir", str(store.root)]
    assert main(["prune", *QUICK, "--iterations", "1", "--eval-blocks", "0", *runs, "--json"]) == 0
    run = store.get(json.loads(capsys.readouterr().out)["run_id"])
    assert main(["export", run.id, *runs]) == 0
    return store, run


@needs_demo
@pytest.mark.parametrize(
    "name", ["notes.txt", "model/chapter.md", "iteration-01/thesis.txt", "modelling/a.md"]
)
def test_a_run_with_a_persons_file_is_not_deleted(name, tmp_path, capsys):
    store, run = exported_run(tmp_path, capsys)
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).write_text("mine")
    with pytest.raises(RunError, match="nothing is deleted"):
        store.delete(run.id)
    assert (run.path / name).read_text() == "mine"
    (run.path / name).unlink()
    store.delete(run.id)
    assert not run.path.exists()


def test_what_a_person_adds_while_an_export_is_written_stays(tmp_path):
    folder = tmp_path / "export"
    write_export(folder, weights="1")
    with output_folder(folder, EXPORT_FILE) as temporary:
        (temporary / "weights").write_text("2")
        write_json(temporary / EXPORT_FILE, {"files": digests(temporary)})
        (folder / "thesis.txt").write_text("mine")  # minutes later
    assert content(folder) == {"weights": "2", "thesis.txt": "mine"}
    with pytest.raises(RunError, match="was changed"), output_folder(folder, EXPORT_FILE):
        (folder / "weights").write_text("trained on")
    assert content(folder) == {"weights": "trained on", "thesis.txt": "mine"}


def test_a_folder_that_a_killed_process_had_set_aside_is_put_back(tmp_path):
    folder = tmp_path / "export"
    write_export(folder, weights="1")
    (folder / "thesis.txt").write_text("mine")
    folder.rename(tmp_path / f".export.{2**22 + 1}.prunescope-old")
    write_export(folder, weights="2")
    assert content(folder) == {"weights": "2", "thesis.txt": "mine"}


@needs_demo
@pytest.mark.parametrize("where", ["model", "exports/hf", "exports/mine"])
def test_a_model_that_a_person_changed_or_put_into_a_run_is_not_deleted(where, tmp_path, capsys):
    store, run = exported_run(tmp_path, capsys)
    folder = run.path / where
    if not folder.exists():
        shutil.copytree(run.path / "exports" / "hf", folder)
        (folder / EXPORT_FILE).unlink()
    weights = folder / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(RunError, match="nothing is deleted"):
        store.delete(run.id)
    assert weights.read_bytes() == changed
    if where == "model":  # repaired, it stands beside the one that is written again
        assert main(["runs", "repair", run.id, "--runs-dir", str(store.root)]) == 0
        assert (run.path / "model.changed-1" / "model.safetensors").read_bytes() == changed
