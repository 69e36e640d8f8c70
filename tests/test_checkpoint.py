import pytest
import torch

from pruning import RunConfig
from pruning.checkpoint import save
from pruning.config import ModelError, RunError
from pruning.engine import prune_loaded
from pruning.models import describe, load
from pruning.sites import geometry
from tests.conftest import ARCHITECTURES, tiny_loaded

IDS = torch.randint(0, 256, (2, 20), generator=torch.manual_seed(5))


def pruned(name, text_file, **options):
    config = RunConfig.create(
        ratio=0.45,
        iterations=2,
        mixture={"text": 1},
        domains={"text": str(text_file)},
        samples=4,
        seq_len=24,
        eval_blocks=0,
        **options,
    )
    *_, finished = prune_loaded(tiny_loaded(name), config)
    return finished.loaded


@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_a_pruned_model_comes_back_bit_for_bit(name, unit, text_file, tmp_path):
    loaded = pruned(name, text_file, attention_unit=unit)
    folder = save(loaded.model, loaded.tokenizer, tmp_path / "model")
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
    folder = save(loaded.model, loaded.tokenizer, tmp_path / "model")
    other = save(tiny_loaded("qwen2").model, loaded.tokenizer, tmp_path / "other")
    (other / "pruning.json").write_text((folder / "pruning.json").read_text())
    with pytest.raises(ModelError) as error:
        load(str(other))
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    loaded = tiny_loaded("qwen2")
    with pytest.raises(RunError, match="cannot be written"):
        save(loaded.model, loaded.tokenizer, tmp_path / "file" / "model")
