import json

import pytest
import torch

from pruning.config import ModelError
from pruning.models import describe, fingerprint, load, locate
from tests.conftest import needs_demo, tiny_model


def test_a_folder_loads(tiny_folder):
    loaded = load(str(tiny_folder))
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(loaded.model(ids).logits, tiny_model("qwen2")(ids).logits)
    assert loaded.tokenizer("ab")["input_ids"]
    assert not loaded.model.training


def test_dtype_is_taken(tiny_folder):
    assert load(str(tiny_folder), dtype="bfloat16").model.dtype == torch.bfloat16


@needs_demo
def test_the_demo_loads_offline_and_describes_itself_without_weights():
    summary = describe("demo")
    assert summary.model_type == "qwen2"
    assert summary.parameters == sum(p.numel() for p in load("demo").model.parameters())


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder", "../..//x", "a/b/c", "http://x/y"])
def test_unknown_models(name):
    with pytest.raises(ModelError, match="there is no model"):
        locate(name)


def test_a_hub_model_offline_says_so_plainly():
    with pytest.raises(ModelError, match="'owner/name' cannot be read from the hub .* network"):
        load("owner/name")


def test_folders_without_a_model(tmp_path, tiny_folder):
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(str(tmp_path))
    (tiny_folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load(str(tiny_folder))
    (tiny_folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"'pytorch_model\.bin', which can run code"):
        load(str(tiny_folder))


def test_truncated_weights(tiny_folder):
    file = tiny_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ModelError) as error:
        load(str(tiny_folder))
    assert "\n" not in str(error.value)


def test_other_architectures(tiny_folder):
    config = json.loads((tiny_folder / "config.json").read_text())
    (tiny_folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    for function in (load, describe):
        with pytest.raises(ModelError, match="supported are qwen2, qwen3, llama, mistral"):
            function(str(tiny_folder))


def test_a_broken_config(tiny_folder):
    (tiny_folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json"):
        load(str(tiny_folder))


def test_a_device_that_is_not_there(tiny_folder):
    with pytest.raises(ModelError, match="'cuda:77' is not there"):
        load(str(tiny_folder), device="cuda:77")


def test_the_fingerprint_changes_with_the_weights(tiny_folder):
    before = fingerprint(tiny_folder)
    assert fingerprint(tiny_folder) == before
    tiny_model("qwen2", seed=1).save_pretrained(tiny_folder)
    assert fingerprint(tiny_folder) != before
