"""The demo model, its domains and its tasks: there, offline, and what they claim to be."""

import json
import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.measure.tasks import DEMO_TASKS, task_manager
from pruning.models.folder import DEMO, describe
from pruning.paths import ASSETS

TASKS = ASSETS / "tasks"


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(DEMO)


def test_the_model_is_what_was_asked_for():
    summary = describe("demo")
    shape = summary.geometry.layers[0]
    assert summary.model_type == "qwen2"
    assert summary.tied
    assert shape["attn"].groups >= 4
    assert shape["attn"].group >= 2
    assert len(summary.geometry.layers) >= 6
    assert 5e6 <= summary.parameters <= 15e6
    assert 4096 <= summary.vocabulary <= 8192
    assert summary.context >= 512
    assert summary.dtype in ("bfloat16", "float16")
    assert sum(f.stat().st_size for f in DEMO.iterdir()) < 32e6
    assert (DEMO / "README.md").exists()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_the_tokenizer_round_trips_arbitrary_bytes(tokenizer, data):
    text = data.decode("latin-1")
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=120))
def test_the_tokenizer_round_trips_text_in_normal_form(tokenizer, text):
    text = unicodedata.normalize("NFC", text)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_model_generates_offline(tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(DEMO)
    prompt = "Question: What is 12 + 7?\nSolution:"
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    out = tokenizer.decode(model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0])
    assert "19" in out[len(prompt) :]


@pytest.mark.parametrize("name", [task.removeprefix("prunescope_") for task in DEMO_TASKS])
def test_tasks_have_one_right_answer_and_balanced_labels(name):
    items = [json.loads(line) for line in (TASKS / f"{name}.jsonl").read_text().splitlines()]
    assert len(items) >= 100
    assert len({item["context"] for item in items}) == len(items)
    for item in items:
        assert len(set(item["choices"])) == len(item["choices"])
        assert 0 <= item["label"] < len(item["choices"])
    counts = Counter(item["label"] for item in items)
    assert set(counts) == set(range(len(items[0]["choices"])))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_continuations_are_true_and_their_rivals_come_from_elsewhere():
    for domain in ("wiki", "web"):
        rows = [
            json.loads(line) for line in (ASSETS / "domains" / f"{domain}.jsonl").read_text().splitlines()
        ]
        texts = [" ".join(row["text"].split()) for row in rows if row["split"] == "heldout"]
        for line in (TASKS / f"{domain}.jsonl").read_text().splitlines():
            item = json.loads(line)
            (document,) = [text for text in texts if item["context"] in text]
            right = item["choices"][item["label"]]
            assert f"{item['context']} {right}" in document
            assert not any(c in document for c in item["choices"] if c != right)


def test_arithmetic_is_right_and_was_kept_from_training(monkeypatch):
    monkeypatch.syspath_prepend(str(ASSETS.parent / "tools"))
    from math_problems import is_reserved

    operations = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
    checked = 0
    for name in ("arithmetic", "answers"):
        for line in (TASKS / f"{name}.jsonl").read_text().splitlines():
            item = json.loads(line)
            assert is_reserved(item["context"].removeprefix("Question: ").partition("\nSolution: ")[0])
            if match := re.search(r"(\d+) ([-+*/]) (\d+) =$", item["context"]):
                a, sign, b = match.groups()
                assert operations[sign](int(a), int(b)) == int(item["choices"][item["label"]])
                checked += 1
    assert checked > 100


def test_the_harness_knows_the_tasks():
    with task_manager() as manager:
        found = manager.load(list(DEMO_TASKS))["tasks"]
    assert set(found) == set(DEMO_TASKS)
    assert all(len(task.test_docs()) >= 100 for task in found.values())
