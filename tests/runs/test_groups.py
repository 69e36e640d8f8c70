"""Runs are compared where they are of the same dense model, measured on the same blocks."""

import pytest

from pruning import RunConfig, prune
from pruning.checksums import read_json, write_json
from pruning.runs.report import count_reasons, groups
from pruning.runs.run import RunStore
from tests.conftest import byte_tokenizer, tiny_model


@pytest.fixture
def measured(tiny_folder, text_file):
    """Makes a run of one iteration, with some options changed."""

    def make(**options):
        plain = {"model": str(tiny_folder), "domains": {"words": str(text_file)}, "mixture": {"words": 1}}
        plain |= {
            "samples": 3,
            "seq_len": 24,
            "eval_blocks": 2,
            "device": "cpu",
            "iterations": 1,
            "ratio": 0.3,
        }
        return prune(RunConfig.create(**plain | options)).run

    return make


def ids(found):
    return [[each.run.id for each in group.members] for group in found]


def test_other_models_texts_lengths_and_dtypes_stand_apart(measured, tmp_path):
    tiny_model("qwen2", seed=1).save_pretrained(tmp_path / "other")
    byte_tokenizer().save_pretrained(tmp_path / "other")
    (tmp_path / "words2.txt").write_text("".join(f"row {i} {i * 7}\n" for i in range(600)))
    same = [measured(ratio=0.5), measured()]
    apart = [
        measured(model=str(tmp_path / "other")),
        measured(domains={"words": str(tmp_path / "words2.txt")}),
        measured(seq_len=12),
        measured(eval_blocks=3),
        measured(dtype="bfloat16"),
    ]
    found, left_out = groups([*same, *apart])
    assert ids(found) == [sorted((run.id for run in same), key=lambda name: mean(same, name)), *one(apart)]
    assert not left_out and len({group.heading for group in found}) == 6
    assert found[0].heading == "tiny, domain words ('words.txt'); 2 blocks of 24 tokens, float32"


def mean(runs, name):
    return next(run.results().mean.pruned for run in runs if run.id == name)


def one(runs):
    return [[run.id] for run in runs]


def test_the_same_file_with_other_text_is_told_apart_by_its_digest(measured, text_file):
    first = measured()
    text_file.write_text(text_file.read_text().replace("line", "rows"))
    second = measured()
    found, _ = groups([first, second])
    assert ids(found) == one([first, second])
    headings = [group.heading for group in found]
    assert headings[0] != headings[1] and all(
        "; weights " in words and "text words " in words for words in headings
    )


def test_a_moved_model_and_another_place_of_the_same_text_compare(measured, tiny_folder, text_file, tmp_path):
    import shutil

    shutil.copytree(tiny_folder, tmp_path / "copy")
    shutil.copy(text_file, tmp_path / "copy.txt")
    runs = [measured(), measured(model=str(tmp_path / "copy"), domains={"words": str(tmp_path / "copy.txt")})]
    assert len(groups(runs)[0]) == 1


def test_runs_of_earlier_versions_are_told_by_their_numbers(measured):
    runs = [measured(), measured(ratio=0.4), measured(seed=1), measured(seq_len=12)]
    for run in runs[1:]:
        content = read_json(run.path / "results.json")
        content |= {"weights": "", "heldout": {}, "dtype": "", "device": ""}
        content["iterations"] = [{**each, "weights": ""} for each in content["iterations"]]
        if run is runs[2]:  # of a text that gave another dense perplexity
            content["perplexity"]["words"]["dense"] *= 1.01
        write_json(run.path / "results.json", content)
    found, _ = groups(runs)
    assert sorted(map(sorted, ids(found))) == sorted([sorted(run.id for run in runs[:2]), *one(runs[2:])])


def test_what_cannot_be_compared_is_left_out_with_the_reason(measured):
    whole, unmeasured, damaged = measured(), measured(eval_blocks=0), measured()
    (damaged.path / "iteration-01" / "metrics.json").unlink()
    begun = RunStore().create(whole.config)
    write_json(begun.path / "status.json", {"state": "cancelled", "created": 1})
    found, left_out = groups([whole, unmeasured, damaged, begun])
    assert ids(found) == [[whole.id]]
    assert list(left_out) == [unmeasured.id, damaged.id, begun.id]
    assert count_reasons(left_out) == "1 without evaluation (--eval-blocks 0), 1 corrupt, 1 unfinished"
