"""Zero-shot accuracy is the harness's own; differences carry paired error bars."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pruning.config import ConfigError
from pruning.domains import ASSETS
from pruning.engine import drain
from pruning.models import load
from pruning.zeroshot import (
    LOCAL_TASKS,
    TaskResult,
    compare,
    expand,
    paired_delta,
    task_manager,
    zero_shot,
)
from tests.conftest import needs_demo

BENCHMARKS = (
    Path(os.environ.get("PRUNESCOPE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    / "benchmarks"
)
needs_benchmarks = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="no local benchmark data (PRUNESCOPE_DATA)"
)


def ask(tasks, **options):
    return drain(zero_shot(load("demo"), tasks, "demo", **options), lambda _: None)


@needs_demo
def test_accuracies_are_the_harnesss_own_item_by_item():
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    loaded = load("demo")
    mine = ask(["prunescope_arithmetic"], limit=40)["prunescope_arithmetic"]
    with task_manager() as manager:
        theirs = lm_eval.simple_evaluate(
            model=HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=7),
            tasks=["prunescope_arithmetic"],
            task_manager=manager,
            limit=40,
        )
    found = theirs["results"]["prunescope_arithmetic"]
    assert mine.items == 40
    assert mine.accuracy["acc"] == pytest.approx(found["acc,none"])
    assert mine.accuracy["acc_norm"] == pytest.approx(found["acc_norm,none"])
    assert mine.standard_error() == pytest.approx(found["acc_stderr,none"])
    samples = sorted(theirs["samples"]["prunescope_arithmetic"], key=lambda s: s["doc_id"])
    assert mine.correct["acc"] == [int(s["acc"]) for s in samples]


@needs_demo
def test_what_was_asked_once_is_not_asked_again(monkeypatch):
    import lm_eval

    first = ask(["prunescope_agreement"], limit=10)
    monkeypatch.setattr(lm_eval, "simple_evaluate", None)
    assert ask(["prunescope_agreement"], limit=10) == first
    with pytest.raises(TypeError):
        ask(["prunescope_agreement"], limit=11)


@needs_demo
def test_other_items_are_asked_again(monkeypatch, tmp_path):
    import shutil

    from pruning import zeroshot

    (tmp_path / "assets").mkdir()
    shutil.copytree(zeroshot.ASSETS / "tasks", tmp_path / "assets" / "tasks")
    monkeypatch.setattr(zeroshot, "ASSETS", tmp_path / "assets")
    first = ask(["prunescope_agreement"], limit=20)["prunescope_agreement"]
    items = tmp_path / "assets" / "tasks" / "agreement.jsonl"
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    items.write_text("".join(json.dumps({**row, "label": 1 - row["label"]}) + "\n" for row in rows))
    again = ask(["prunescope_agreement"], limit=20)["prunescope_agreement"]
    assert again.correct["acc"] == [1 - right for right in first.correct["acc"]]


@needs_demo
@needs_benchmarks
def test_local_copies_make_the_harnesss_own_requests():
    """Built from the harness's own functions on the same rows, and counted against the published sizes."""
    sizes = {"arc_challenge": 1172, "arc_easy": 2376, "hellaswag": 10042, "openbookqa": 500, "piqa": 1838}
    sizes |= {"winogrande": 1267, "boolq": 3270}
    with task_manager(BENCHMARKS) as manager:
        for name in LOCAL_TASKS:
            task = manager.load([f"local_{name}"])["tasks"][f"local_{name}"]
            assert len(task.eval_docs) == sizes[name]
            task.build_all_requests(limit=3)
            requests = [instance.args for instance in task.instances]
            assert all(context and continuation.strip() for context, continuation in requests)
            assert requests[0][0] == expected_context(name, task.eval_docs[0])


def expected_context(name, row):
    """The prompts as the harness's YAML writes them (lm-evaluation-harness 0.4.13)."""
    if name.startswith("arc"):
        return f"Question: {row['question']}\nAnswer:"
    if name == "piqa":
        return f"Question: {row['goal']}\nAnswer:"
    if name == "openbookqa":
        return row["question_stem"]
    if name == "boolq":
        return f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    if name == "winogrande":
        return row["sentence"][: row["sentence"].index("_")] + row["option1"]
    return row["query"]


@needs_demo
@needs_benchmarks
def test_the_papers_tasks_run_offline():
    results = ask(["paper"], data=BENCHMARKS, limit=4)
    assert set(results) == set(expand(["paper"]))
    assert all(result.items == 4 and result.limit == 4 for result in results.values())


@needs_demo
def test_unknown_tasks_and_missing_data_are_one_sentence():
    with pytest.raises(ConfigError, match="no task 'nonsense'"):
        ask(["nonsense"])
    with pytest.raises(ConfigError, match="no folder"):
        ask(["paper"], data="/no/such/folder")
    with pytest.raises(ConfigError, match="'piqa' cannot be read .* local copies"):
        ask(["piqa"])


# --- what a difference is worth


def test_the_paired_delta_is_that_of_the_differences():
    rng = np.random.default_rng(0)
    dense = (rng.random(300) < 0.6).astype(int)
    pruned = np.where(rng.random(300) < 0.2, 1 - dense, dense)
    delta = paired_delta(dense.tolist(), pruned.tolist())
    difference = pruned - dense
    assert delta.value == pytest.approx(difference.mean())
    assert delta.standard_error == pytest.approx(difference.std(ddof=1) / math.sqrt(300))
    lost, won = int((difference < 0).sum()), int((difference > 0).sum())
    assert delta.p_value == pytest.approx(stats.binomtest(lost, lost + won, 0.5).pvalue)


def test_noise_is_not_called_a_gain():
    assert not paired_delta([1, 0, 1, 0] * 10, [0, 1, 1, 0] * 10).significant
    assert paired_delta([1] * 30, [0] * 30).significant
    assert paired_delta([1, 0], [1, 0]).p_value == 1


def test_the_average_is_the_plain_mean_over_tasks():
    def result(name, right, n, norm=True):
        items = [1] * right + [0] * (n - right)
        correct = {"acc": items} | ({"acc_norm": items} if norm else {})
        return TaskResult(name, n, None, dict.fromkeys(correct, right / n), correct, "1")

    found = compare(
        {"a": result("a", 8, 10), "b": result("b", 50, 100, norm=False)},
        {"a": result("a", 5, 10), "b": result("b", 40, 100, norm=False)},
    )
    for metric in ("acc", "acc_norm"):
        assert found["average"][metric]["dense"] == pytest.approx(0.65)
        assert found["average"][metric]["delta"] == pytest.approx(-0.2)
    json.dumps(found)


@needs_demo
def test_tasks_of_a_folder_are_asked(tmp_path, capsys):
    """A user's own YAML: one of the demo's tasks under another name, so that the answers must be the same."""
    import yaml

    from pruning.cli import main

    content = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(ASSETS / "tasks" / "code.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    arguments = ["evaluate", "--eval-blocks", "1", "--limit", "12", "--task-folder", str(tmp_path)]
    assert main([*arguments, "--tasks", "mine,prunescope_code", "--device", "cpu", "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    assert tasks["mine"]["acc"] == tasks["prunescope_code"]["acc"]
    assert tasks["mine"]["limit"] == tasks["mine"]["items"] == 12
