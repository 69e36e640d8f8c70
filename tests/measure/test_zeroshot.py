"""Zero-shot accuracy is the harness's own; differences carry paired error bars."""

import gzip
import io
import json
import math
import os

import numpy as np
import pytest
from huggingface_hub.utils._hf_uris import parse_hf_uri
from scipy import stats

from pruning.checksums import finite
from pruning.errors import ConfigError
from pruning.measure.comparison import ZeroShot
from pruning.measure.significance import average_delta, paired_delta, standard_error
from pruning.measure.tasks import (
    LOCAL_TASKS,
    TaskResult,
    _harness,
    compare,
    expand,
    load_task,
    local_file,
    single_tasks,
    task_manager,
    zero_shot,
)
from pruning.models.loading import load
from pruning.paths import ASSETS
from pruning.progress import drain
from tests.conftest import needs_demo

# Two rows of each of the paper's tasks, with the columns that their data sets have on the hub.
SCIENCE = [
    {
        "id": "1",
        "question": "What floats?",
        "choices": {"text": ["a stone", "a cork", "a nail", "a coin"], "label": ["A", "B", "C", "D"]},
        "answerKey": "B",
    },
    {
        "id": "2",
        "question": "What melts in the sun?",
        "choices": {"text": ["ice", "sand", "iron"], "label": ["1", "2", "3"]},
        "answerKey": "1",
    },
]
STORY = {"activity_label": "Baking", "ctx_a": "A man [title] kneads the dough.", "ctx_b": "he", "ind": 4}
STORY |= {"endings": ["bakes it.", "paints it.", "reads it.", "sells the oven."], "source_id": "wikihow~1"}
BENCHMARKS = {
    "arc_challenge": SCIENCE,
    "arc_easy": SCIENCE[::-1],
    "hellaswag": [STORY | {"label": label, "ctx": "A man kneads the dough. he"} for label in ("0", "3")],
    "openbookqa": [{**row, "question_stem": row["question"]} for row in SCIENCE],
    "piqa": [{"goal": "cool tea", "sol1": "wait", "sol2": "boil it", "label": label} for label in (0, 1)],
    "winogrande": [
        {"sentence": "Jug hit cup and _ broke.", "option1": "jug", "option2": "cup", "answer": answer}
        for answer in ("1", "2")
    ],
    "boolq": [
        {"question": "is the river deep", "passage": "The river is nine metres deep.", "idx": n, "label": n}
        for n in (0, 1)
    ],
}


@pytest.fixture
def benchmarks(tmp_path):
    """A folder with local copies of the tasks' data."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name, rows in BENCHMARKS.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


def ask(tasks, **options):
    return drain(zero_shot(load("demo"), tasks, "demo", **options), lambda _: None)


@needs_demo
@pytest.mark.processes  # the harness describes the machine with them
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
    scores = theirs["results"]["prunescope_arithmetic"]
    assert mine.items == 40
    assert mine.accuracy["acc"] == pytest.approx(scores["acc,none"])
    assert mine.accuracy["acc_norm"] == pytest.approx(scores["acc_norm,none"])
    assert mine.standard_error() == pytest.approx(scores["acc_stderr,none"])
    samples = sorted(theirs["samples"]["prunescope_arithmetic"], key=lambda s: s["doc_id"])
    assert mine.correct["acc"] == [int(s["acc"]) for s in samples]


def passes(loaded):
    """Grows by one with every forward pass of a model."""
    calls = []
    loaded.model.model.layers[0].register_forward_hook(lambda *_: calls.append(1))
    return calls


@needs_demo
def test_what_was_asked_once_is_not_computed_again():
    loaded = load("demo")
    calls = passes(loaded)

    def again(limit):
        return drain(zero_shot(loaded, ["prunescope_agreement"], "demo", limit=limit), lambda _: None)

    first, computed = again(10), len(calls)
    assert again(10) == first and len(calls) == computed > 0
    again(11)
    assert len(calls) > computed


@needs_demo
def test_the_same_questions_with_other_labels_are_scored_anew(monkeypatch, tmp_path):
    import shutil

    from pruning.measure import tasks

    (tmp_path / "assets").mkdir()
    shutil.copytree(ASSETS / "tasks", tmp_path / "assets" / "tasks")
    monkeypatch.setattr(tasks, "ASSETS", tmp_path / "assets")
    first = ask(["prunescope_agreement"], limit=20)["prunescope_agreement"]
    items = tmp_path / "assets" / "tasks" / "agreement.jsonl"
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    items.write_text("".join(json.dumps({**row, "label": 1 - row["label"]}) + "\n" for row in rows))
    again = ask(["prunescope_agreement"], limit=20)["prunescope_agreement"]
    assert again.correct["acc"] == [1 - right for right in first.correct["acc"]]
    assert again.digest != first.digest


@pytest.mark.parametrize("name", LOCAL_TASKS)
def test_local_copies_make_the_harnesss_own_requests(name, benchmarks, tmp_path, monkeypatch):
    """The unmodified task of the harness, given the same rows by whatever loads its data from the hub."""
    import datasets
    from lm_eval.api import task as harness

    load_dataset = datasets.load_dataset
    repositories = []

    def local_rows(path, *_, **__):
        repositories.append(path)
        file, cache = str(local_file(benchmarks, name)), str(tmp_path / "datasets")
        rows = load_dataset("json", data_files=file, split="train", cache_dir=cache)
        return datasets.DatasetDict(dict.fromkeys(("train", "validation", "test"), rows))

    with task_manager(benchmarks, names=[name]) as manager:
        mine = load_task(manager, name)
        monkeypatch.setattr(harness.datasets, "load_dataset", local_rows)
        theirs = _harness().load([name])["tasks"][name]
    assert repositories and repositories[0] != "json"
    assert len(mine.eval_docs) == len(theirs.eval_docs) == len(BENCHMARKS[name])
    for task in (mine, theirs):
        task.build_all_requests()
    assert len(mine.instances) == len(theirs.instances) >= 4
    for ours, wanted in zip(mine.instances, theirs.instances, strict=True):
        assert ours.args == wanted.args and ours.request_type == wanted.request_type
        assert ours.doc == wanted.doc and ours.idx == wanted.idx
    assert [mine.doc_to_target(row) for row in mine.eval_docs] == [
        theirs.doc_to_target(row) for row in theirs.eval_docs
    ]


@needs_demo
def test_the_papers_tasks_run_offline(benchmarks):
    results = ask(["paper"], data=benchmarks, limit=1)
    assert set(results) == set(expand(["paper"]))
    assert all(result.items == 1 and result.limit == 1 for result in results.values())


@needs_demo
def test_unknown_tasks_and_missing_data_are_one_sentence():
    with pytest.raises(ConfigError, match="no task 'nonsense'"):
        ask(["nonsense"])
    with pytest.raises(ConfigError, match="no folder"):
        ask(["paper"], data="/no/such/folder")
    with pytest.raises(
        ConfigError, match="'piqa' cannot be read .* give --task-data a folder with piqa.jsonl"
    ):
        ask(["piqa"])
    with pytest.raises(ConfigError, match="'sciq' cannot be read .* define it in --task-folder"):
        ask(["sciq"])


@pytest.fixture
def task_folder(tmp_path):
    """Writes a task of two-way choices; `rows` are its data, `changes` go into its YAML."""
    import yaml

    def write(name, rows, **changes):
        file = tmp_path / f"{name}.jsonl"
        file.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
        content = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(file)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{context}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "label",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content | changes))
        return tmp_path

    return write


ROWS = [{"context": f"{i} and", "choices": [" one", " two"], "label": i % 2} for i in range(8)]


@needs_demo
@pytest.mark.parametrize(
    ("rows", "changes", "says"),
    [
        ('{"context": "a", "choi', {}, "data of task 'mine' are broken .* JSON Lines"),
        ([{"question": "a", "label": 0}], {}, "'mine' does not fit its data .*undefined"),
        (
            [*ROWS, {"context": "a", "choices": [], "label": 3}],
            {},
            "an item of task 'mine' cannot be asked or scored",
        ),
        (ROWS, {"output_type": "guess"}, "'mine' does not fit its data .*guess"),
        (ROWS, {"metric_list": [{"metric": "brier_score"}]}, "'mine' has no accuracy"),
    ],
)
def test_what_is_wrong_with_a_task_is_said(task_folder, rows, changes, says):
    folder = task_folder("mine", rows, **changes)
    with pytest.raises(ConfigError, match=says) as caught:
        ask(["mine"], include=folder)
    assert "network" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_broken_yaml_is_named(task_folder):
    folder = task_folder("mine", ROWS)
    (folder / "mine.yaml").write_text("task: [mine")
    with (
        task_manager(include=folder, names=["mine"]) as manager,
        pytest.raises(ConfigError, match="the task definition '.*mine.yaml' cannot be read .*: correct it"),
    ):
        single_tasks(manager, ["mine"], folder)


@needs_demo
def test_a_task_with_another_accuracy_alone_is_compared(task_folder):
    folder = task_folder("mine", ROWS, metric_list=[{"metric": "acc_norm"}])
    results = ask(["mine", "prunescope_code"], include=folder, limit=8)
    assert set(results["mine"].accuracy) == {"acc_norm"}
    assert results["mine"].limit is None and results["prunescope_code"].limit == 8  # eight is all that it has
    both = compare(results, results)
    assert both.tasks["mine"].measures.keys() == {"acc_norm"}
    wanted = (results["mine"].accuracy["acc_norm"] + results["prunescope_code"].accuracy["acc"]) / 2
    assert both.average.acc.dense == pytest.approx(wanted)
    assert (both.average.items, both.average.limit) == (16, 8)


@needs_demo
def test_probabilities_are_kept_as_they_are(task_folder):
    (folder := task_folder("mine", ROWS, process_results="!")).joinpath("parts.py").write_text(
        "def score(doc, results):\n    return {'acc': 0.125 * doc['label'] + 0.5}\n"
    )
    text = (
        (folder / "mine.yaml")
        .read_text()
        .replace("process_results: '!'", "process_results: !function parts.score")
    )
    (folder / "mine.yaml").write_text(text)
    result = ask(["mine"], include=folder)["mine"]
    assert result.correct["acc"] == [0.5, 0.625] * 4
    assert result.accuracy["acc"] == pytest.approx(0.5625)
    assert result.standard_error() == pytest.approx(np.std([0.5, 0.625] * 4, ddof=1) / 8**0.5)


def test_groups_and_tags_are_spelled_out(task_folder):
    import yaml

    task_folder("one", ROWS, tag="pair")
    folder = task_folder("two", ROWS, tag=["pair"])
    inner = {"group": "inner", "task": ["one"]}
    (folder / "all.yaml").write_text(yaml.safe_dump({"group": "all", "task": [inner, {"task": "two"}]}))
    (folder / "odd.yaml").write_text(yaml.safe_dump({"group": "odd", "task": [{"task": "own", "a": 1}]}))
    with task_manager(include=folder, names=["pair", "all", "odd"]) as manager:
        assert single_tasks(manager, ["pair"]) == single_tasks(manager, ["all"]) == ["one", "two"]
        with pytest.raises(ConfigError, match="group 'odd' lists 'own', which has no task file of its own"):
            single_tasks(manager, ["odd"])
    with task_manager(names=["mmlu", "ai2_arc"]) as manager:
        assert single_tasks(manager, ["ai2_arc"]) == ["arc_challenge", "arc_easy"]
        assert len(single_tasks(manager, ["mmlu"])) == 57


@needs_demo
def test_an_answer_is_kept_for_what_computed_it(monkeypatch, task_folder):
    from dataclasses import replace

    import torch
    from tokenizers import normalizers

    from pruning.models import cache

    loaded, other = load("demo"), load("demo")
    other.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("and", "nor")
    folder, calls = task_folder("mine", ROWS), passes(loaded)

    def computed(model, state="a"):
        before = len(calls)
        drain(zero_shot(model, ["mine"], state, include=folder), lambda _: None)
        return len(calls) > before

    assert computed(loaded) and not computed(loaded)
    assert computed(loaded, "b")
    assert computed(replace(loaded, tokenizer=other.tokenizer))
    monkeypatch.setattr(cache, "versions", lambda: {"torch": "another"})
    assert computed(loaded)
    assert computed(replace(loaded, model=loaded.model.to(torch.bfloat16)))


@needs_demo
def test_rows_that_changed_within_one_clock_tick_are_read(task_folder):
    """The library that reads them knows a file by its path and the time of its last change."""
    digests = []
    for word in ("and", "nor"):
        rows = [{**row, "context": row["context"].replace("and", word)} for row in ROWS]
        folder = task_folder("mine", rows)
        os.utime(folder / "mine.jsonl", ns=(10**18, 10**18))
        digests.append(ask(["mine"], include=folder)["mine"].digest)
    assert digests[0] != digests[1]


@needs_demo
def test_what_scores_the_answers_is_never_kept(task_folder):
    """Its own code, a module beside it, and a YAML in another folder decide; none is asked of the model."""
    loaded = load("demo")
    folder, elsewhere = task_folder("mine", ROWS), task_folder("mine", ROWS).parent / "base.yml"
    text = (folder / "mine.yaml").read_text()
    (folder / "mine.yaml").unlink()
    elsewhere.write_text(f"{text}process_results: !function {folder.name}.parts.score\n")
    (folder / "own.yaml").write_text(f"include: {elsewhere}\ntask: mine\n")
    calls, results, computed = passes(loaded), [], []
    for value in (0.25, 0.75):
        (folder / "parts.py").write_text(f"def score(doc, results):\n    return {{'acc': {value}}}\n")
        results.append(drain(zero_shot(loaded, ["mine"], "a", include=folder), lambda _: None)["mine"])
        computed.append(len(calls))
    assert [each.accuracy["acc"] for each in results] == [0.25, 0.75] and computed[0] == computed[1]
    assert results[0].digest != results[1].digest


@needs_demo
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"output_type": "generate_until", "metric_list": [{"metric": "exact_match"}]}, "exact_match"),
        (
            {"output_type": "loglikelihood_rolling", "metric_list": None},
            "word_perp",
        ),
        ({"output_type": "generate_until", "metric_list": [{"metric": "acc"}]}, "of type generate_until"),
    ],
)
def test_a_task_without_accuracy_is_refused_before_any_is_asked(task_folder, changes, says):
    from pruning.measure.tasks import check_tasks

    folder = task_folder("mine", ROWS, **changes)
    with pytest.raises(ConfigError, match=f"task 'mine' has no accuracy by item.*{says}"):
        check_tasks(["prunescope_code", "mine"], include=folder)
    loaded = load("demo")
    calls = passes(loaded)
    with pytest.raises(ConfigError, match="has no accuracy"):
        drain(zero_shot(loaded, ["prunescope_code", "mine"], "a", include=folder), lambda _: None)
    assert not calls


@needs_demo
def test_a_tasks_own_score_is_tried_on_one_item(task_folder):
    folder = task_folder("mine", ROWS)
    (folder / "parts.py").write_text("def score(doc, results):\n    return {'acc': 'yes'}\n")
    with (folder / "mine.yaml").open("a") as file:
        file.write("process_results: !function parts.score\n")
    loaded = load("demo")
    calls = passes(loaded)
    with pytest.raises(
        ConfigError, match="an item of task 'mine' cannot be asked or scored .unsupported operand"
    ):
        drain(zero_shot(loaded, ["mine"], "a", include=folder), lambda _: None)
    assert len(calls) == 1


def test_two_models_are_compared_on_the_same_questions_only():
    def answers(digest):
        return {"a": TaskResult("a", 2, None, {"acc": 0.5}, {"acc": [0.0, 1.0]}, "1", digest)}

    assert compare(answers("x"), answers("x")).tasks["a"].digest == "x"
    with pytest.raises(ConfigError, match="task 'a' changed between"):
        compare(answers("x"), answers("y"))


def test_a_data_set_that_is_a_script_comes_from_its_parquet(monkeypatch, task_folder):
    """Offline: what would load the data is handed local rows, and says what it was asked for."""
    import datasets
    from lm_eval.api import task as harness

    asked = []

    def load_dataset(path, name=None, **options):
        asked.append((path, name, options))
        if path != "parquet":
            raise RuntimeError("Dataset scripts are no longer supported, but found piqa.py")
        rows = datasets.Dataset.from_list(ROWS)
        return datasets.DatasetDict(dict.fromkeys(options["data_files"], rows))

    monkeypatch.setattr(harness.datasets, "load_dataset", load_dataset)
    changes = {"dataset_kwargs": {"trust_remote_code": True}, "training_split": "train"}
    for name, configuration in (("one", None), ("two", "plain_text")):
        source = {"dataset_path": f"owner/{name}", "dataset_name": configuration}
        folder = task_folder(name, ROWS, **source, **changes)
        with task_manager(include=folder, names=[name]) as manager:
            task = load_task(manager, name)
        assert task.task_name == name and list(task.eval_docs) == ROWS
        root = f"hf://datasets/owner/{name}@refs%2Fconvert%2Fparquet/{configuration or '*'}"
        files = {split: f"{root}/{split}/*.parquet" for split in ("train", "test")}
        assert asked[-1] == ("parquet", None, {"data_files": files})
        parsed = parse_hf_uri(files["test"])
        assert (parsed.id, parsed.revision) == (f"owner/{name}", "refs/convert/parquet")
        assert parsed.path_in_repo == f"{configuration or '*'}/test/*.parquet"


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


def test_probabilities_are_compared_by_a_permutation_test():
    rng = np.random.default_rng(1)
    dense = rng.random(60)
    shifted = np.clip(dense - 0.1 + 0.1 * rng.standard_normal(60), 0, 1)
    assert paired_delta(dense.tolist(), shifted.tolist()).significant
    noise = np.clip(dense + 0.1 * rng.standard_normal(60), 0, 1)
    delta = paired_delta(dense.tolist(), noise.tolist())
    wanted = stats.permutation_test(
        (noise - dense,), np.mean, permutation_type="samples", n_resamples=9999, rng=0
    )
    assert delta.p_value == pytest.approx(wanted.pvalue, abs=0.03) and not delta.significant


def test_few_items_are_never_significant():
    alone = paired_delta([1], [0])
    assert alone.standard_error == math.inf and alone.p_value == 1
    average = average_delta([([1], [0])] * 4)
    assert average.value == -1 and average.standard_error == math.inf and not average.significant
    assert average.p_value == pytest.approx(2 / 2**4, abs=0.02)
    assert standard_error([1.0]) == math.inf
    assert average_delta([([1] * 6, [0] * 6)] * 2).significant


def test_the_average_weighs_tasks_alike():
    rng = np.random.default_rng(2)
    pairs = [((rng.random(n) < 0.6) * 1, (rng.random(n) < 0.5) * 1) for n in (50, 400)]
    delta = average_delta([(a.tolist(), b.tolist()) for a, b in pairs])
    assert delta.value == pytest.approx(np.mean([(b - a).mean() for a, b in pairs]))
    error = math.sqrt(sum((b - a).var(ddof=1) / len(a) for a, b in pairs)) / 2
    assert delta.standard_error == pytest.approx(error)
    normal = 2 * stats.norm.sf(abs(delta.value) / error)
    assert delta.p_value == pytest.approx(normal, abs=0.03)


def test_the_average_is_the_plain_mean_over_tasks():
    def result(name, right, n, norm=True):
        items = [1] * right + [0] * (n - right)
        correct = {"acc": items} | ({"acc_norm": items} if norm else {})
        return TaskResult(name, n, None, dict.fromkeys(correct, right / n), correct, "1")

    comparison = compare(
        {"a": result("a", 8, 10), "b": result("b", 50, 100, norm=False)},
        {"a": result("a", 5, 10), "b": result("b", 40, 100, norm=False)},
    )
    for metric in ("acc", "acc_norm"):
        assert comparison.average.measures[metric].dense == pytest.approx(0.65)
        assert comparison.average.measures[metric].delta == pytest.approx(-0.2)
    assert ZeroShot.model_validate_json(json.dumps(finite(comparison.model_dump()))) == comparison


@needs_demo
def test_tasks_of_a_folder_are_asked(tmp_path, capsys):
    """A user's own YAML: one of the demo's tasks under another name, so that the answers must be the same."""
    import yaml

    from pruning.cli.main import main

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
    arguments = ["evaluate", "--eval-blocks", "1", "--task-limit", "12", "--task-folder", str(tmp_path)]
    assert main([*arguments, "--tasks", "mine,prunescope_code", "--device", "cpu", "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    assert tasks["mine"]["acc"] == tasks["prunescope_code"]["acc"]
    assert tasks["mine"]["limit"] == tasks["mine"]["items"] == 12


def test_a_limit_is_said_beside_every_number():
    """Of one item no error is known; of a task without acc its other accuracy is shown, under its name."""
    from rich.console import Console

    from pruning.cli.terminal import results_table
    from pruning.runs.schema import Results
    from pruning.visualization import accuracy_figure

    def result(name, metric, items):
        return TaskResult(name, len(items), len(items), {metric: float(np.mean(items))}, {metric: items}, "1")

    dense = {"a": result("a", "acc", [1.0]), "b": result("b", "acc_norm", [1.0, 0.0])}
    pruned = {"a": result("a", "acc", [0.0]), "b": result("b", "acc_norm", [1.0, 1.0])}
    answers = compare(dense, pruned)
    content = {
        "run_id": "r",
        "config": {},
        "achieved_ratio": 0.5,
        "parameters": {"dense": 10, "pruned": 5},
        "perplexity": {"wiki": {"dense": 10.0, "pruned": None}},
        "seconds": 1.0,
        "zero_shot": finite(answers.model_dump()),
    }
    summary = Results.model_validate_json(json.dumps(content))  # as results.json holds it
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(results_table(summary))
    lines = console.export_text().splitlines()
    row = {
        name: next(line for line in lines if name in line) for name in ("a, acc", "b, acc", "average", "wiki")
    }
    assert "a, acc (1 items, first 1)" in row["a, acc"] and "-100.0 ± unknown ~" in row["a, acc"]
    assert "b, acc_norm (2 items, first 2)" in row["b, acc"] and "+50.0 ± 98.0 ~" in row["b, acc"]
    assert "average of tasks, acc (3 items, first 2)" in row["average"] and "± unknown ~" in row["average"]
    assert "infinite" in row["wiki"]
    assert set(accuracy_figure({"a run": answers.tasks}).data[0].y) == {
        "a (first 1)",
        "b (acc_norm, first 2)",
    }
