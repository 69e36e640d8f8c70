import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pruning.errors import ModelError, RunError
from pruning.models import checkpoint
from pruning.models.checkpoint import save
from pruning.models.folder import describe
from pruning.models.layer_view import geometry
from pruning.models.loading import load
from tests.conftest import TINY, tiny_loaded, tiny_pruned

IDS = torch.randint(0, 256, (2, 20), generator=torch.manual_seed(5))


def pruned(name, text_file, **options):
    return tiny_pruned(name, text_file, **options).loaded


@pytest.mark.parametrize("iterations", [1, 5])
@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_a_pruned_model_comes_back_bit_for_bit(name, unit, iterations, text_file, tmp_path):
    loaded = pruned(name, text_file, attention_unit=unit, iterations=iterations)
    folder = save(loaded.source, loaded.tokenizer, tmp_path / "model")
    back = load(str(folder))
    assert torch.equal(back.model(IDS).logits, loaded.model(IDS).logits)
    assert geometry(back.model) == geometry(loaded.model) == describe(str(folder)).geometry
    assert not list(tmp_path.glob("*.tmp"))
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 256, "eos_token_id": None}
    assert (
        back.model.generate(IDS[:1], **options).tolist() == loaded.model.generate(IDS[:1], **options).tolist()
    )


def test_a_checkpoint_that_does_not_fit_its_record_is_refused(text_file, tmp_path):
    loaded = pruned("qwen2", text_file)
    folder = save(loaded.source, loaded.tokenizer, tmp_path / "model")
    other = save(tiny_loaded("qwen2").source, loaded.tokenizer, tmp_path / "other")
    record = json.loads((folder / "pruning.json").read_text())
    del record["checksum"], record["files"]  # which would tell the same in other words
    (other / "pruning.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"does not fit its pruning\.json: .*model\.layers") as error:
        load(str(other))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record["geometry"]["layers"].pop(), "names 2 layers and the config 3"),
        (lambda record: record["biased"].pop("0.attn"), r"does not say whether 0\.attn has a bias"),
        (lambda record: record["biased"].update({"0.mlp": False}), "for which it has no place"),
        (lambda record: record["geometry"].update(head_dim=0), "not the record"),
        (lambda record: record.update(config=None), "not the record"),
    ],
)
def test_what_does_not_fit_is_said_in_words(change, reason, text_file, tmp_path):
    loaded = pruned("qwen2", text_file)
    folder = save(loaded.source, loaded.tokenizer, tmp_path / "model")
    record = json.loads((folder / "pruning.json").read_text())
    change(record)
    record.pop("checksum")  # as of an earlier version
    (folder / "pruning.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=reason):
        load(str(folder))


def test_how_a_model_generates_is_kept(text_file, tmp_path):
    loaded = pruned("qwen2", text_file)
    loaded.model.generation_config.eos_token_id = [5, 256]
    loaded.model.generation_config.repetition_penalty = 1.25
    kept = load(str(save(loaded.source, loaded.tokenizer, tmp_path / "model"))).model.generation_config
    assert (kept.eos_token_id, kept.repetition_penalty) == ([5, 256], 1.25)


def test_a_checkpoint_replaces_an_earlier_one_and_nothing_else(text_file, tmp_path, monkeypatch):
    loaded = pruned("qwen2", text_file)

    def write(folder):
        return save(loaded.source, loaded.tokenizer, folder)

    assert load(str(write(write(tmp_path / "model")))).model
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    thesis = tmp_path / "documents" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(RunError, match=r"holds 'thesis\.tex' and is no earlier checkpoint"):
        write(thesis.parent)
    (tmp_path / "model" / ".git").mkdir()
    write(tmp_path / "model")
    assert (tmp_path / "model" / ".git").is_dir()
    monkeypatch.chdir(thesis.parent)
    for folder in (".", "..", "/"):
        with pytest.raises(RunError, match="the folder you work in, or holds it"):
            write(folder)
    assert thesis.read_text() == "years of work"


def test_a_full_disk_is_one_sentence(text_file, tmp_path, monkeypatch):
    loaded = pruned("qwen2", text_file)

    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match="the disk that holds .* is full"):
        save(loaded.source, loaded.tokenizer, tmp_path / "model")
    assert not list(tmp_path.glob(".model*"))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    loaded = tiny_loaded("qwen2")
    with pytest.raises(RunError, match="cannot be written"):
        save(loaded.source, loaded.tokenizer, tmp_path / "file" / "model")


def test_large_weights_are_written_in_shards_and_read_again(text_file, tmp_path):
    loaded = pruned("qwen2", text_file)
    folder = save(loaded.source, loaded.tokenizer, tmp_path / "model", shard=30_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert torch.equal(load(str(folder)).model(IDS).logits, loaded.model(IDS).logits)


def test_the_record_names_the_run_the_mask_and_the_versions(text_file, tmp_path):
    finished = tiny_pruned("qwen2", text_file)
    record = {"run": "x", "config": {"mixture": {"text": 1.0}}}
    folder = save(finished.loaded.source, finished.loaded.tokenizer, tmp_path / "m", record, finished.mask)
    written = json.loads((folder / "pruning.json").read_text())
    assert written["run"] == "x" and written["versions"]["torch"] == torch.__version__
    arrays = load_file(folder / written["mask"])
    assert all((arrays[str(site)] == array).all() for site, array in finished.mask.kept.items())


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "not the record"), ("[1]", "not the record"), ('{"geometry": 3, "biased": {}}', "not the record")],
)
def test_a_foreign_record_is_refused(content, reason, text_file, tmp_path):
    loaded = pruned("qwen2", text_file)
    folder = save(loaded.source, loaded.tokenizer, tmp_path / "model")
    (folder / "pruning.json").write_text(content)
    with pytest.raises(ModelError, match=reason):
        load(str(folder))


def test_truncated_weights_are_refused(text_file, tmp_path):
    loaded = pruned("qwen2", text_file)
    folder = save(loaded.source, loaded.tokenizer, tmp_path / "model")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="broken"):
        load(str(folder))
