"""A run goes on with the model, the tokenizer, the text and the tasks that it began with, or not at all."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pruning import RunConfig, prune
from pruning.checksums import read_json, write_json
from pruning.cli.main import main
from pruning.errors import ModelError, RunError
from pruning.runs import inputs as run_inputs
from pruning.runs.checkpoints import checkpoint_after, move_model
from pruning.runs.repair import repair
from pruning.runs.report import provenance
from pruning.runs.run import Run, RunStore
from pruning.runs.worker import execute, measure_sensitivity


@pytest.fixture
def options(tiny_folder, text_file, tmp_path):
    (tmp_path / "notes.txt").write_text("".join(f"note {i} of {i % 13}\n" for i in range(400)))
    return {
        "model": str(tiny_folder),
        "ratio": 0.4,
        "iterations": 3,
        "mixture": {"words": 1},
        "domains": {"words": str(text_file), "notes": str(tmp_path / "notes.txt")},
        "samples": 4,
        "seq_len": 24,
        "eval_blocks": 3,
        "device": "cpu",
    }


def interrupted(options, after=1):
    """A run that was stopped when an iteration was complete."""
    run = RunStore().create(RunConfig.create(**options))

    def stop(event):
        if getattr(event, "number", None) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(run, stop)
    return run


def change(file, edit):
    Path(file).write_text(edit(Path(file).read_text()))


def refused(run, match):
    """Its iterations stay as they are, and the sentence tells the way out."""
    before = {file: file.read_bytes() for file in run.path.glob("iteration-*/*")}
    with pytest.raises(RunError, match=match) as caught:
        execute(Run(run.path))
    assert "start another run from its config" in str(caught.value) and "\n" not in str(caught.value)
    assert before == {file: file.read_bytes() for file in run.path.glob("iteration-*/*")}
    assert run.status().state == "failed"


def test_a_run_on_the_same_goes_on_to_the_same_numbers(options):
    whole, run = prune(RunConfig.create(**options)).run, interrupted(options)
    execute(run)
    assert run.results().perplexity == whole.results().perplexity
    assert run.inputs == whole.inputs and not run.results().notes
    assert (run.results().dtype, run.results().device) == ("float32", "cpu")
    assert set(run.results().heldout) == {"words", "notes"}


@pytest.mark.parametrize("domain", ["words", "notes"])
def test_another_text_is_refused_whether_it_is_calibrated_or_measured_on(options, domain):
    run = interrupted(options)
    change(options["domains"][domain], lambda text: text.replace("1", "7"))
    refused(run, rf"text of domain '{domain}' \('.*{domain}.txt'\) has changed since run")


def test_text_that_differs_behind_the_blocks_is_another_text_as_well(options):
    run = interrupted(options, after=0)
    change(options["domains"]["notes"], lambda text: f"{text}one more line, of which no block is made")
    refused(run, "held-out text of domain 'notes' .* has changed")


def test_a_run_without_an_iteration_begins_anew_on_another_text(options):
    run = RunStore().create(RunConfig.create(**options))
    with pytest.raises(KeyboardInterrupt):
        execute(run, lambda event: (_ for _ in ()).throw(KeyboardInterrupt))
    change(options["domains"]["words"], lambda text: text * 2)
    result = execute(run)
    assert result.summary.perplexity == prune(RunConfig.create(**options)).perplexity


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}),
        ("tokenizer_config.json", {"chat_template": "{{ messages }}"}),
        ("chat_template.jinja", None),
    ],
)
def test_another_tokenizer_or_chat_template_is_refused(options, tiny_folder, name, content):
    run, file = interrupted(options), tiny_folder / name
    if content is None:
        file.write_text("{{ messages }}")
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | content))
    refused(run, "the tokenizer of model .* or its chat template, is no longer the one")


def test_tokens_that_differ_for_no_reason_on_disk_are_refused(options):
    run = interrupted(options)
    content = read_json(run.path / "inputs.json")
    content["text"]["words"]["calibration"]["digest"] = "another"
    write_json(run.path / "inputs.json", content)
    refused(run, "calibration text of domain 'words' .* gives other tokens now")


@pytest.mark.parametrize("what", ["rows", "prompt", "score"])
def test_other_tasks_are_refused(options, tmp_path, monkeypatch, what):
    from pruning.measure import tasks

    folder = tmp_path / "own"
    folder.mkdir()
    rows, code = folder / "rows.jsonl", folder / "parts.py"
    rows.write_text("".join(json.dumps({"q": f"{i} is", "label": i % 2}) + "\n" for i in range(4)))
    code.write_text("def score(doc, results):\n    return {'acc': float(doc['label'])}\n")
    task = {"task": "mine", "dataset_path": "json", "dataset_kwargs": {"data_files": str(rows)}}
    task |= {"test_split": "train", "output_type": "multiple_choice", "doc_to_text": "{{q}}"}
    task |= {"doc_to_choice": ["even", "odd"], "doc_to_target": "label", "metric_list": [{"metric": "acc"}]}
    text = yaml.safe_dump(task) + "process_results: !function parts.score\n"
    (folder / "mine.yaml").write_text(text)
    run = interrupted({**options, "tasks": ("mine",), "task_folder": str(folder)}, after=0)
    if what == "rows":
        rows.write_text(rows.read_text().replace("0 is", "2 is"))
    elif what == "prompt":
        (folder / "mine.yaml").write_text(text.replace("{{q}}", "Say: {{q}}"))
    else:
        code.write_text(code.read_text().replace("float", "0.5 * float"))
    with monkeypatch.context() as patch:  # it is known before the model answers all of it again
        patch.setattr(tasks, "_ask", None)
        refused(run, "task 'mine' asks or scores other items than when run .* files .'.*own'")


def test_a_run_goes_on_in_the_dtype_that_it_began_with(options):
    """As where `auto` means another dtype on another device."""
    run = interrupted({**options, "dtype": "bfloat16"})
    content = read_json(run.path / "config.json")
    content["config"]["dtype"] = "auto"
    write_json(run.path / "config.json", content)
    result = execute(Run(run.path))
    assert result.summary.dtype == "bfloat16" and not result.summary.notes


def test_other_versions_are_noted_and_not_refused(options, monkeypatch, capsys):
    run = interrupted(options)
    now = run_inputs.versions() | {"torch": "9.9"}
    monkeypatch.setattr(run_inputs, "versions", lambda: now)
    result = execute(run)
    (note,) = result.summary.notes
    assert "From iteration 2 on" in note and "-> 9.9" in note and "torch" in note
    assert note in capsys.readouterr().err and note in provenance(run)


def test_a_run_of_an_earlier_version_goes_on_with_a_word(options, capsys):
    run = interrupted(options)
    (run.path / "inputs.json").unlink()
    log = run.path / "events.jsonl"
    log.write_text("".join(line for line in log.open() if '"inputs"' not in line))
    for file in run.path.glob("iteration-*/metrics.json"):
        content = read_json(file)
        write_json(file, {key: value for key, value in content.items() if key != "computed"})
    result = execute(run)
    assert "did not record its text" in capsys.readouterr().err
    assert result.summary.heldout == {} and run.inputs is None


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("{")])
def test_the_record_is_restored_from_the_log(options, damage):
    run = interrupted(options)
    recorded = run.inputs
    damage(run.path / "inputs.json")
    assert any("restored from events.jsonl" in words for words in repair(run))
    assert run.inputs == recorded


def test_every_domain_is_recorded_with_what_it_serves(options, capsys):
    run = prune(RunConfig.create(**options)).run
    assert "domain 'notes' is measured and not calibrated on" in capsys.readouterr().err
    sources = run.sources
    assert set(sources) == {"words", "notes"}
    assert set(sources["words"].parts) == {"calibration", "heldout"} and sources["notes"].calibration is None
    assert sources["notes"].heldout.revision and sources["words"].calibration.blocks == 4
    lines = "\n".join(provenance(run))
    assert "measured on 3 blocks, not calibrated on" in lines
    assert "calibrated on 4 blocks, measured on 3 blocks" in lines
    assert "computed in float32 on cpu" in lines


# --- the dense model


def test_a_moved_model_is_named_when_the_run_goes_on(options, tiny_folder, tmp_path, capsys):
    whole, run = prune(RunConfig.create(**options)).run, interrupted(options)
    shutil.move(tiny_folder, tmp_path / "moved")
    assert main(["runs", "resume", run.id]) == 2
    assert f"'runs resume {run.id} --model PATH'" in capsys.readouterr().err
    assert main(["runs", "resume", run.id, "--model", str(tmp_path / "moved")]) == 0
    run = Run(run.path)
    assert run.config.model == str(tmp_path / "moved")
    assert run.results().perplexity == whole.results().perplexity
    (run.path / "config.json").unlink()
    repair(Run(run.path))
    assert Run(run.path).config.model == str(tmp_path / "moved")


def test_another_model_is_not_taken_for_a_moved_one(options, tmp_path):
    from tests.conftest import byte_tokenizer, tiny_model

    run = interrupted(options)
    tiny_model("qwen2", seed=1).save_pretrained(tmp_path / "other")
    byte_tokenizer().save_pretrained(tmp_path / "other")
    with pytest.raises(RunError, match="other' is not the one that run .* began with: name a copy of"):
        move_model(run, str(tmp_path / "other"))
    with pytest.raises(ModelError, match="there is no model"):
        move_model(run, str(tmp_path / "nowhere"))
    assert Run(run.path).config == run.config


def test_what_is_made_of_a_run_later_is_made_of_its_own_model_and_text(options, tiny_folder, tmp_path):
    from pruning.progress import drain
    from tests.conftest import tiny_model

    run = prune(RunConfig.create(**options)).run
    change(options["domains"]["words"], lambda text: text * 2)
    with pytest.raises(RunError, match="text of domain 'words' .* has changed"):
        drain(measure_sensitivity(run), lambda _: None)
    tiny_model("qwen2", seed=1).save_pretrained(tiny_folder)
    with pytest.raises(RunError, match="is no longer the one that run"):
        checkpoint_after(run, 1)
