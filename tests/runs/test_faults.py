"""Whatever lies in a store: one bad run harms no other, nothing damaged is believed, and a run goes on."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pruning import PruningError, RunConfig, checksums, prune
from pruning.checksums import read_arrays
from pruning.cli.main import main
from pruning.errors import CorruptFileError, RunError
from pruning.models.geometry import Site
from pruning.models.tensors import weights_digest
from pruning.paths import cache_folder
from pruning.runs import permissions
from pruning.runs.repair import repair
from pruning.runs.run import Run, RunStore
from pruning.runs.worker import Cancelled, execute

ROOT = Path(__file__).resolve().parents[2]
# Folders beside a run, and what lies in them.
CONFIG = '{"config": {"model": "demo", "ratio": 0.5}}'
MARKUP = '{"config": {"model": "![p](http://[::1]:9/p.png)", "mixture": {"<img src=x onerror=alert(1)>": 1}}}'
NEIGHBOURS = {
    "20261101-120000-iterative-aaa1": {"config.json": '{"config": {"model": 2020-13-45}}'},
    "20261101-120000-iterative-aaa2": {"config.json": CONFIG, "status.json": '{"pid": 3}'},
    "20261101-120000-iterative-aaa3": {
        "config.json": CONFIG,
        "status.json": '{"state": "running", "heartbeat": null, "pid": "x"}',
    },
    "20261101-120000-iterative-aaa4": {"config.json": '{"config": ' + "[" * 3000 + "]" * 3000 + "}"},
    "20261101-120000-iterative-aaa5": {"config.json": "{}"},
    "20261101-120000-iterative-aaa6": {"config.json": MARKUP, "status.json": '{"state": "finished"}'},
    "99999999-999999-iterative-abcd": {"config.json": CONFIG, "status.json": '{"state": "finished"}'},
}
WRONG = {
    "empty": "",
    "half": '{"config": {"model": "de',
    "null": "null",
    "list": "[[]]",
    "object": "{}",
    "text": '"text"',
    "no date": '{"config": {"model": 2020-13-45}}',
    "digits": '{"config": {"seed": ' + "9" * 5000 + "}}",
    "nested": "[" * 100_000,
    "nested object": '{"config": ' + '{"a": ' * 5000 + "1" + "}" * 5001,
    "surrogate": '{"config": {"model": "\\ud800"}}',
    "no state": '{"pid": 3}',
    "no heartbeat": '{"state": "running", "heartbeat": null, "pid": "x"}',
    "pid of a list": '{"state": "running", "heartbeat": 1e999, "pid": [1]}',
    "huge pid": '{"state": "running", "heartbeat": 1, "pid": 99999999999999999999}',
    "negative": '{"number": 0, "ratio": -1, "seconds": -1, "hidden_size": 0, "layers": []}',
    "wide": '{"hidden_size": 8, "head_dim": 8, "layers": [{"kv_heads": 1, "group": 1, "channels": 1e18}]}',
    "not UTF-8": b"\xff\xfe{}",
}
FILES = ("config.json", "status.json", "results.json", "geometry.json", "sources.json", "events.jsonl")
FILES += ("log.txt", "iteration-00/metrics.json", "iteration-01/metrics.json", "model/pruning.json")


def put(file: Path, content: str | bytes | None) -> None:
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


def flip(file: Path) -> None:
    """One bit in the middle of a file, with the times of the old one."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of a tiny model, and the store that it lies in."""
    from tests.conftest import byte_tokenizer, tiny_model

    base = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNESCOPE_CACHE", str(base / "cache"))
        tiny_model("qwen2").save_pretrained(base / "tiny")
        byte_tokenizer().save_pretrained(base / "tiny")
        (base / "words.txt").write_text("\n".join(f"line {i}: {i * i}" for i in range(600)))
        options = {"model": str(base / "tiny"), "mixture": {"words": 1}, "ratio": 0.4, "iterations": 2}
        options |= {"domains": {"words": str(base / "words.txt")}, "samples": 4, "seq_len": 24}
        return prune(RunConfig.create(**options, eval_blocks=3, device="cpu"), base / "runs").run


@pytest.fixture
def run(made, tmp_path):
    """A copy of it in a store of its own."""
    # its text is a file, and this test's cache knows of no agreement
    permissions.agree(permissions.permissions_for(made.config))
    return Run(shutil.copytree(made.path, tmp_path / "runs" / made.id))


def assert_same(run: Run, other: Run) -> None:
    """Every number that two runs came to is the same."""
    assert run.results().perplexity == other.results().perplexity
    assert checksums.digests(run.path / "model").keys() == checksums.digests(other.path / "model").keys()
    assert weights_digest(run.path / "model") == weights_digest(other.path / "model")
    for mine, theirs in zip(run.iterations(), other.iterations(), strict=True):
        files = mine.metrics.files, theirs.metrics.files
        assert files[0].keys() == files[1].keys()  # safetensors writes what stands beside arrays in any order
        assert all(files[0][name] == files[1][name] for name in files[0] if not name.startswith("moments"))
        for site in mine.geometry.sites if mine.number else ():
            moments = [each.statistics.moments["words"][site] for each in (mine, theirs)]
            np.testing.assert_equal(moments[0].arrays(), moments[1].arrays())


def look(run: Run) -> None:
    """All that pages, commands and workers ask of runs."""
    store = RunStore(run.path.parent)
    for each in store.all():
        assert each.status().state and each.config and each.ahead() is not None
        (
            each.results(),
            each.iterations(),
            each.events(),
            each.last_output(),
            each.corruption(),
            each.resumable,
        )
    assert all(why.startswith("run '") for why in store.broken().values())


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bad_file_gives_at_worst_one_row(run, made, wrong, capsys):
    healthy = Run(shutil.copytree(made.path, run.path.with_name("20260101-000000-iterative-0000")))
    for name in FILES:
        content = (run.path / name).read_bytes() if (run.path / name).exists() else None
        put(run.path / name, WRONG[wrong])
        look(run)
        assert main(["runs", "list", "--runs-dir", str(run.path.parent)]) == 0
        assert healthy.id[:20] in capsys.readouterr().out
        for command in (["runs", "show"], ["compare"]):
            assert main([*command, run.id, "--runs-dir", str(run.path.parent)]) in (0, 2)
        copy = shutil.copytree(run.path, run.path.parent.parent / name.replace("/", "-") / run.id)
        with contextlib.suppress(PruningError):
            repair(Run(copy))
            assert not Run(copy).corruption() or Run(copy).resumable
        put(run.path / name, content)
    assert healthy.status().state == "finished" and not healthy.corruption()


def test_damaged_folders_beside_a_run(run, capsys):
    for folder, files in NEIGHBOURS.items():
        (run.path.parent / folder).mkdir()
        for name, content in files.items():
            put(run.path.parent / folder / name, content)
    look(run)
    assert main(["runs", "list", "--json", "--runs-dir", str(run.path.parent)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in found["runs"] if row["run_id"] == run.id} == {"finished"}
    assert "99999999-999999-iterative-abcd" in found["broken"]


def test_folders_and_pipes_in_place_of_files(run):
    for name in FILES:
        (run.path / name).unlink(missing_ok=True)
    for name in FILES[:3]:
        (run.path / name).mkdir()
    for name in FILES[3:]:
        os.mkfifo(run.path / name)
    look(run)
    with pytest.raises(PruningError):
        repair(run)
    RunStore(run.path.parent).delete(run.id)
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("iteration-00/metrics.json", "empty"),
        ("iteration-01/mask.safetensors", "flip"),
        ("iteration-02/biases.safetensors", "flip"),
        ("iteration-02/moments-words.safetensors", "half"),
        ("iteration-01/scores.safetensors", "missing"),
        ("iteration-02", "missing"),
        ("geometry.json", "flip"),
        ("results.json", "empty"),
        ("model/model.safetensors", "flip"),
        ("model", "missing"),
        ("status.json", "half"),
        ("config.json", "flip"),
    ],
)
def test_a_damaged_run_is_taken_up_again_at_its_last_whole_state(run, made, name, how, capsys):
    file = run.path / name
    match how:
        case "missing":
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        case "flip":
            flip(file)
        case _:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 * (how == "half")])
    assert main(["runs", "repair", run.id, "--runs-dir", str(run.path.parent)]) == 0
    said = capsys.readouterr().out
    restored = name in ("config.json", "geometry.json")
    run = Run(run.path)
    assert run.resumable == ("runs resume" in said) == (not restored)
    assert restored or main(["runs", "resume", run.id, "--runs-dir", str(run.path.parent)]) == 0
    assert run.status().state == "finished" and not run.corruption()
    assert_same(run, made)


def test_what_is_damaged_is_not_believed(run):
    flip(run.path / "iteration-01" / "moments-words.safetensors")
    with pytest.raises(CorruptFileError, match="computed again"):
        _ = run.iterations()[1].statistics
    with pytest.raises(CorruptFileError):
        run.iterations()[1].statistics_of(Site(0, "mlp"))
    flip(run.path / "iteration-02" / "mask.safetensors")
    with pytest.raises(CorruptFileError):
        _ = run.iterations()[2].mask
    flip(run.path / "model" / "model.safetensors")
    from pruning.models.loading import load

    with pytest.raises(PruningError, match="the checkpoint is broken"):
        load(str(run.path / "model"))


@pytest.mark.parametrize("kind", ["moments", "predictions"])
def test_a_damaged_cache_costs_time_and_changes_nothing(made, monkeypatch, tmp_path, kind):
    cache = Path(shutil.copytree(made.path.parent.parent / "cache", tmp_path / "copy"))
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(cache))
    files = sorted((cache_folder() / kind).iterdir())
    for file in files:
        flip(file)
    assert_same(prune(made.config).run, made)
    for file in files:  # made anew
        assert read_arrays(file) is not None


def test_a_config_without_a_copy_is_said(run):
    (run.path / "config.json").write_text("{")
    for name in ("events.jsonl", "results.json", "model/pruning.json"):
        (run.path / name).unlink()
    with pytest.raises(RunError, match="no copy of it is left"):
        repair(Run(run.path))


def test_a_run_cancelled_while_its_tasks_are_asked_goes_on(made, tmp_path):
    config = made.config.replace(tasks=("prunescope_agreement",), task_limit=3)
    run = RunStore(tmp_path / "runs").create(config)

    def stop(event):
        if getattr(event, "stage", "") == "zero-shot" and run.results():
            run.cancel()

    with pytest.raises(Cancelled):
        execute(run, on_event=stop)
    assert run.resumable and run.results().zero_shot is None
    assert main(["runs", "resume", run.id, "--runs-dir", str(run.path.parent)]) == 0
    assert run.results().zero_shot.tasks["prunescope_agreement"].items == 3


def test_another_models_weights_are_not_gone_on_with(run, made, tmp_path):
    from tests.conftest import byte_tokenizer, tiny_model

    tiny_model("qwen2", seed=1).save_pretrained(tmp_path / "tiny")
    byte_tokenizer().save_pretrained(tmp_path / "tiny")
    config = made.config.replace(model=str(tmp_path / "tiny"))
    checksums.write_json(run.path / "config.json", {"config": config.model_dump(mode="json")})
    shutil.rmtree(run.path / "iteration-02")
    with pytest.raises(RunError, match="no longer the one"):
        execute(Run(run.path))


@pytest.mark.parametrize("name", ["mean", "Mean", "Wiki"])
def test_domains_whose_names_collide_are_refused(name):
    with pytest.raises(PruningError, match="cannot name a domain|some file systems do not tell the domains"):
        RunConfig.create(mixture={"wiki": 1, name: 1}, domains={name: "text.txt"})


@pytest.mark.processes
@pytest.mark.parametrize(("kind", "cases"), [("kills", 6), ("matrix", 6), ("disks", 2), ("changes", 3)])
def test_faults_lose_nothing_and_change_nothing(kind, cases, tmp_path):
    """The short version of `benchmarks/faults.py`: no case ends lost or wrong."""
    samples = {"kills": ["--count", "6", "--sample", "19"], "matrix": ["--sample", "29"]}
    samples["changes"] = ["--sample", "5"]
    call = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), kind, "--json"]
    call += samples.get(kind, ["--sample", "7"])
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    found = json.loads(done.stdout or "{}")
    assert done.returncode == 0, (found, done.stderr[-2000:])
    assert found["counts"] == {"right": len(found["cases"])} and len(found["cases"]) >= cases
