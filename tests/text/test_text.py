import gzip
import json

import numpy as np
import pytest

from pruning.errors import DomainError
from pruning.paths import ASSETS
from pruning.text.blocks import TokenBlocks, heldout_blocks, sample_blocks, token_stream
from pruning.text.sources import EMBEDDED_DOMAINS, DomainText, check_source, load_text
from tests.conftest import byte_tokenizer

TOKENIZER = byte_tokenizer()
TEXT = DomainText([f"document {i} " + "abc" * (i % 9) for i in range(80)], {"kind": "test"})


def test_blocks_are_full_and_cut_from_the_text():
    blocks = sample_blocks("a", TEXT, TOKENIZER, 12, 50, seed=0)
    stream = token_stream(TEXT.texts, TOKENIZER).tolist()
    assert blocks.ids.shape == (12, 50)
    windows = {tuple(stream[i : i + 50]) for i in range(len(stream) - 49)}
    assert all(tuple(row) in windows for row in blocks.ids.tolist())


def test_the_text_is_covered_before_it_is_read_again():
    stream = token_stream(TEXT.texts, TOKENIZER)
    cells = len(stream) // 50 - 1
    blocks = sample_blocks("a", TEXT, TOKENIZER, cells, 50, seed=3)
    text = TOKENIZER.decode(stream)
    starts = sorted(text.find(TOKENIZER.decode(row)) for row in blocks.ids)
    assert all(b - a >= 50 for a, b in zip(starts, starts[1:], strict=False))


def test_the_seed_decides_and_more_samples_begin_with_the_same():
    few, many = (sample_blocks("a", TEXT, TOKENIZER, n, 40, seed=1).ids for n in (5, 30))
    np.testing.assert_array_equal(few, many[:5])
    other = sample_blocks("a", TEXT, TOKENIZER, 5, 40, seed=2)
    assert not np.array_equal(few, other.ids)
    assert other.source["seed"] == 2


def test_heldout_blocks_follow_each_other():
    stream = token_stream(TEXT.texts, TOKENIZER)
    blocks = heldout_blocks("a", TEXT, TOKENIZER, 64)
    np.testing.assert_array_equal(blocks.ids.ravel(), stream[: len(stream) // 64 * 64])
    assert len(heldout_blocks("a", TEXT, TOKENIZER, 64, limit=3).ids) == 3


def test_other_blocks_of_the_same_tokens_have_another_name():
    ids = np.arange(24)
    long, short = (TokenBlocks("a", ids.reshape(shape), {}) for shape in ((3, 8), (6, 4)))
    assert long.digest != short.digest
    assert long.digest == TokenBlocks("b", ids.reshape(3, 8).copy(), {"kind": "another"}).digest


def test_text_shorter_than_a_block_says_both_numbers():
    text = DomainText(["tiny"], {})
    for make, part in (
        (lambda text: sample_blocks("a", text, TOKENIZER, 1, 50, 0), ("first nine tenths", "calibration")),
        (lambda text: heldout_blocks("a", text, TOKENIZER, 50), ("held-out tenth", "held-out")),
    ):
        with pytest.raises(DomainError, match=f"'a': its {part[1]} text has 5 tokens, and a block needs 50"):
            make(text)
        with pytest.raises(DomainError, match=f"the {part[0]} of its text has 5 tokens, and a block needs"):
            make(DomainText(["tiny"], {"heldout_share": 0.1}))


def test_files_of_every_kind_give_their_documents(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    documents = [f"text number {i}" for i in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in documents))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps({"text": t, "id": 1}) + "\n" for t in documents))
    pq.write_table(pa.table({"content": documents}), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text("\n".join(documents))
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet", "d.txt"):
        parts = [load_text("x", str(tmp_path / name), split) for split in ("calibration", "heldout")]
        joined = "".join("".join(part.texts) for part in parts)
        assert joined.replace("\n", "") == "".join(documents)
        assert parts[0].source["revision"]
        calibration = "".join(parts[0].texts)
        assert 0.85 * len(joined) < len(calibration) < 0.95 * len(joined)


def test_unknown_embedded_text_is_refused():
    with pytest.raises(DomainError, match="'poems'"):
        check_source("poems", "embedded")


def test_offline_a_hub_data_set_says_so_plainly():
    with pytest.raises(DomainError, match="cannot be read from the hub .* check the name and the network"):
        load_text("x", "hub:gsm8k", "calibration")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("hub:a/b::words", "'a/b' has no column 'words': its columns are 'text', 'n'"),
        ("hub:a/b::n", "'a/b' has no text in n: write hub:ID:CONFIG:COLUMN"),
        ("hub:a/b:odd", "as configuration odd, split train .BuilderConfig 'odd' not found"),
        ("hub:a/script", "scripts are no longer supported"),
        ("hub:a/far", r"cannot be read from the hub \(ConnectionError\): check the name and the network"),
    ],
)
def test_what_a_hub_data_set_lacks_is_said(monkeypatch, source, says):
    import datasets
    import huggingface_hub

    def load_dataset(repo, configuration, **_):
        if configuration == "odd":
            raise ValueError("BuilderConfig 'odd' not found. Available: ['default']\nmore")
        if repo == "a/script":
            raise RuntimeError("Dataset scripts are no longer supported, but found script.py")
        if repo == "a/far":
            raise ConnectionError("no route")
        return datasets.Dataset.from_list([{"text": "a", "n": 1}]).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    info = type("Info", (), {"sha": "abc"})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_: info)
    with pytest.raises(DomainError, match=says) as error:
        load_text("x", source, "calibration")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", EMBEDDED_DOMAINS)
def test_embedded_domains_are_large_enough_and_their_splits_do_not_overlap(name):
    rows = [json.loads(line) for line in (ASSETS / "domains" / f"{name}.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    texts = {
        split: [row["text"] for row in rows if row["split"] == split] for split in ("calibration", "heldout")
    }
    assert {row["split"] for row in rows} == set(texts)
    assert sum(len(row["text"].encode()) for row in rows) >= 60_000
    assert sum(len(t.encode()) for t in texts["heldout"]) >= 20_000

    def pieces(split):  # sentences, lines of code, and whole problems
        parts = (part.strip() for text in texts[split] for part in text.replace(". ", ".\n").split("\n"))
        return {part for part in parts if len(part) > 60}

    assert not pieces("calibration") & pieces("heldout")


def test_of_a_hub_data_set_no_more_is_read_than_the_limit(monkeypatch):
    import datasets
    import huggingface_hub

    from pruning.text import columns, sources

    rows = [{"doc": {"body": f"row {number} 河水" + "x" * 90}, "n": number} for number in range(50)]
    stream = datasets.Dataset.from_list(rows).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stream)
    info = type("Info", (), {"sha": "abc"})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_: info)
    everything = load_text("x", "hub:a/b::doc.body", "calibration")
    assert everything.source["rows"] == 50 and "cut_at" not in everything.source
    monkeypatch.setattr(sources, "Documents", lambda: columns.Documents(1000))
    first = load_text("x", "hub:a/b::doc.body", "calibration")
    assert first.source["rows"] == 10
    assert first.texts == everything.texts[: len(first.texts)] and first.source["characters"] <= 1000
    assert first.source["cut_at"] and first.source["column"] == "doc.body"
    assert first.source["digest"] != everything.source["digest"]
