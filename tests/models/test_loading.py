import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning.errors import ModelError
from pruning.models import hub
from pruning.models.folder import DEMO, describe, fingerprint, locate
from pruning.models.loading import load
from pruning.models.tensors import weights_digest
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


def test_a_hub_model_is_described_without_its_weights(monkeypatch):
    import types

    import huggingface_hub

    def refuse(*_, **options):
        assert options.get("local_files_only"), "the weights are not to be downloaded for a look"
        raise FileNotFoundError

    counts = types.SimpleNamespace(parameter_count={"BF16": 123, "F32": 4})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: str(DEMO / "config.json"))
    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", lambda _: counts)
    hub.outline.cache_clear()
    summary = describe("owner/a-large-model")
    hub.outline.cache_clear()
    assert summary.parameters == 127
    assert summary.geometry == describe("demo").geometry


def test_a_hub_model_offline_says_so_plainly():
    with pytest.raises(ModelError, match="'owner/name' cannot be read from the hub .* network"):
        load("owner/name")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("NotASafetensorsRepoError", "has no safetensors weights"),
        ("GatedRepoError", "log in with 'hf auth login'"),
    ],
)
def test_a_hub_model_that_is_there_and_cannot_be_had_is_not_blamed_on_the_network(monkeypatch, kind, says):
    import huggingface_hub

    def refuse(*_, **__):
        raise type(kind, (Exception,), {})

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    hub.outline.cache_clear()
    with pytest.raises(ModelError, match=says) as caught:
        hub.outline("owner/name")
    assert "network" not in str(caught.value)


def test_a_run_s_folder_names_the_model_within(tmp_path, tiny_folder):
    tiny_folder.rename(tmp_path / "model")
    for content in (None, "{}"):
        if content:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(ModelError, match=r"give its folder '.*/model'"):
            load(str(tmp_path))


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
        with pytest.raises(ModelError, match="supported are "):
            function(str(tiny_folder))


def test_a_broken_config(tiny_folder):
    (tiny_folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json"):
        load(str(tiny_folder))


def test_a_device_that_is_not_there(tiny_folder):
    with pytest.raises(ModelError, match="'cuda:77' is not available on this machine: use auto or cpu"):
        load(str(tiny_folder), device="cuda:77")


def test_the_fingerprint_changes_with_the_weights(tiny_folder):
    before = fingerprint(tiny_folder)
    assert fingerprint(tiny_folder) == before
    tiny_model("qwen2", seed=1).save_pretrained(tiny_folder)
    assert fingerprint(tiny_folder) != before


def rewritten(folder, change):
    """The weights of a folder with something changed."""
    file = folder / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})


def test_a_missing_weight_is_not_made_up(tiny_folder):
    rewritten(tiny_folder, lambda state: state.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelError, match=r"lack 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        load(str(tiny_folder))


@pytest.mark.parametrize("name", ["mlp.down_proj.bias", "self_attn.q_norm.weight"])
def test_a_weight_without_a_place_is_not_skipped(name, tiny_folder):
    """A bias-compensated model under the name of Qwen2 would be a worse model that loads without a word."""
    rewritten(tiny_folder, lambda state: state.update({f"model.layers.0.{name}": torch.ones(32)}))
    with pytest.raises(ModelError, match="Qwen2ForCausalLM has no place"):
        load(str(tiny_folder))


def test_what_old_checkpoints_hold_besides_is_no_mistake(tiny_folder):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewritten(tiny_folder, lambda state: state.update({name: torch.ones(2)}))
    load(str(tiny_folder))


def test_a_folder_without_a_tokenizer(tiny_folder):
    (tiny_folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="holds no tokenizer: copy"):
        load(str(tiny_folder))


@pytest.mark.parametrize(
    "change", [{"num_attention_heads": None}, {"vocab_size": "many"}, {"hidden_size": 0}]
)
def test_a_config_without_widths(change, tiny_folder):
    config = json.loads((tiny_folder / "config.json").read_text()) | change
    config = {key: value for key, value in config.items() if value is not None}
    (tiny_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="copy the model's own config"):
        describe(str(tiny_folder))


@pytest.mark.parametrize("byte", [b"\xff", b"[", b"0"])
def test_a_bad_byte_in_a_header(byte, tiny_folder):
    file = tiny_folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[8:9] = byte
    file.write_bytes(bytes(content))
    for function in (describe, load):
        with pytest.raises(ModelError, match="copy or download"):
            function(str(tiny_folder))


def test_the_digest_names_the_weights_and_not_the_files(tiny_folder, tmp_path):
    tiny_model("qwen2").save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert weights_digest(tmp_path / "sharded") == weights_digest(tiny_folder)
    tiny_model("qwen2", seed=1).save_pretrained(tiny_folder)
    assert weights_digest(tmp_path / "sharded") != weights_digest(tiny_folder)
