"""Model folders as people have them: each is described and loaded right, or refused in one sentence."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pruning.errors import ModelError
from pruning.models import tensors
from pruning.models.checkpoint import save
from pruning.models.folder import describe
from pruning.models.loading import load
from tests.conftest import CONFIGS, byte_tokenizer, tiny_model

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3522871\n"


def change(folder, name="config.json", **changes):
    file = folder / name
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **changes}))


def sized(**changes):
    """A random Qwen2 whose config differs from the usual one."""
    config = CONFIGS["qwen2"]()
    for key, value in changes.items():
        setattr(config, key, value)
    return AutoModelForCausalLM.from_config(config).eval()


def refused(folder, says, functions=(describe, load)):
    for function in functions:
        with pytest.raises(ModelError, match=says) as error:
            function(str(folder))
        assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.fixture
def sharded(tiny_folder, tmp_path):
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    tiny_model("qwen2").save_pretrained(folder, max_shard_size="20KB")
    return folder


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "'gptq', 4 bits"),
        ({"quant_method": "awq", "bits": 4}, "'awq', 4 bits"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "'bitsandbytes'"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "'compressed-tensors'"),
        ({"quant_method": "fp8"}, "'fp8'"),
        ({"bits": "four"}, "of an unnamed kind"),
        (["odd"], "of an unnamed kind"),
    ],
)
def test_quantised_checkpoints_are_refused_from_the_config(tiny_folder, said, names):
    change(tiny_folder, quantization_config=said)
    (tiny_folder / "model.safetensors").unlink()  # no weight is looked at
    refused(tiny_folder, f"is quantised \\(.*{names}.*: give the model that it was quantised from")


@pytest.mark.parametrize("kind", ["LlamaForSequenceClassification", "Qwen2ForTokenClassification"])
def test_other_heads_are_refused(tiny_folder, kind):
    change(tiny_folder, architectures=[kind])
    refused(tiny_folder, f"is a '{kind}', and only causal language models")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_git_lfs_pointer_is_named(tiny_folder, name):
    (tiny_folder / name).write_text(LFS)
    refused(tiny_folder, f"{name}' is a Git LFS pointer .*git lfs pull")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_a_pointer_is_named(tiny_folder, name):
    (tiny_folder / name).write_text(LFS)
    refused(tiny_folder, f"{name}' is a Git LFS pointer", [load])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_dangling_link_is_named(tiny_folder, tmp_path, name):
    (tiny_folder / name).unlink()
    (tiny_folder / name).symlink_to(tmp_path / "blobs" / "0123")
    refused(tiny_folder, f"{name}' is a link to .*0123', which is not there", [load])


def test_shards_are_counted_by_their_index(sharded, tiny_folder):
    truth = sum(parameter.numel() for parameter in tiny_model("qwen2").parameters())
    assert describe(str(sharded)).parameters == describe(str(tiny_folder)).parameters == truth
    index = json.loads((sharded / tensors.INDEX).read_text())
    shard = index["weight_map"]["model.embed_tokens.weight"]
    shutil.copy(sharded / shard, sharded / "model-00001-of-00007.safetensors")  # of an earlier download
    shutil.copy(tiny_folder / "model.safetensors", sharded / "model.fp16.safetensors")  # a variant
    assert describe(str(sharded)).parameters == truth
    load(str(sharded))
    (sharded / tensors.INDEX).unlink()
    refused(sharded, "a part of a model, and no model.safetensors.index.json")


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "sub/model.safetensors", "..", "a\0b"]
)
def test_an_index_that_points_outside_is_refused(sharded, name):
    change(sharded, tensors.INDEX, weight_map={"model.embed_tokens.weight": name})
    refused(sharded, "which is not a file of its folder")


@pytest.mark.parametrize("named", [None, [], {}, {"a": 3}])
def test_an_index_without_files_is_refused(sharded, named):
    change(sharded, tensors.INDEX, weight_map=named)
    refused(sharded, "names no files of weights")


def test_a_shard_that_is_not_there_is_named(sharded):
    lost = next(sharded.glob("model-00002-*"))
    lost.unlink()
    refused(sharded, f"{lost.name}' is not there: copy or download it again")


def test_a_tied_head_that_is_stored_counts_once(tiny_folder):
    model = sized(tie_word_embeddings=True)
    model.save_pretrained(tiny_folder)
    truth = sum(parameter.numel() for parameter in model.parameters())
    assert describe(str(tiny_folder)).parameters == truth
    file = tiny_folder / "model.safetensors"
    state = load_file(file)
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    save_file(state, file, metadata={"format": "pt"})
    assert describe(str(tiny_folder)).parameters == truth


def test_a_model_without_its_head_is_read_by_its_own_names(tiny_folder):
    model = sized(tie_word_embeddings=True)
    model.model.save_pretrained(tiny_folder)
    change(tiny_folder, architectures=["Qwen2Model"])
    assert not any(name.startswith("model.") for name in load_file(tiny_folder / "model.safetensors"))
    assert describe(str(tiny_folder)).parameters == sum(p.numel() for p in model.parameters())
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(load(str(tiny_folder)).model(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("key", "value", "tensor"),
    [
        ("intermediate_size", 50, "model.layers.0.mlp.gate_proj.weight"),
        ("vocab_size", 300, "model.embed_tokens.weight"),
        ("num_key_value_heads", 1, "model.layers.0.self_attn.k_proj.weight"),
        ("hidden_size", 64, "model.embed_tokens.weight"),
    ],
)
def test_sizes_that_do_not_fit_the_config_name_the_tensor(tiny_folder, key, value, tensor):
    config = json.loads((tiny_folder / "config.json").read_text())
    assert config[key] != value
    change(tiny_folder, **{key: value})
    refused(tiny_folder, f"'{tensor}' in .*model.safetensors' has the shape .*, and .* by the config: give")


def test_more_layers_than_there_are_weights(tiny_folder):
    change(tiny_folder, num_hidden_layers=4, layer_types=["full_attention"] * 4)
    refused(tiny_folder, "lack 'model.layers.3.self_attn.q_proj.weight'")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 10**400),
        ("intermediate_size", 10**12),
        ("head_dim", 10**15),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", "many"),
        ("num_attention_heads", [4]),
    ],
)
def test_sizes_that_no_model_has(tiny_folder, key, value):
    change(tiny_folder, **{key: value})
    refused(tiny_folder, "copy the model's own config again", [describe])


@pytest.mark.parametrize("content", ["", "[]", "17", "[" * 100_000, '{"a": ' * 100_000, "{"])
@pytest.mark.parametrize("name", ["config.json", tensors.INDEX])
def test_json_that_is_none(sharded, name, content):
    (sharded / name).write_text(content)
    refused(sharded, name)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 50_000,
        b'{"a":' * 50_000,
        b"{}",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 80000000000]}}',
        b'{"a": {"dtype": "F32", "shape": [99999999999], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": "x", "data_offsets": [0]}}',
    ],
)
def test_headers_that_lie(tiny_folder, header):
    (tiny_folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    refused(tiny_folder, "copy or download")


def test_a_header_longer_than_the_format_allows_is_not_read(tiny_folder, monkeypatch):
    monkeypatch.setattr(tensors, "HEADER_BYTES", 100)
    refused(tiny_folder, "is no safetensors file", [describe])


def test_packed_weights_without_a_word_in_the_config(tiny_folder):
    file = tiny_folder / "model.safetensors"
    state = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight"
    state[name] = state[name].to(torch.int8)
    save_file(state, file, metadata={"format": "pt"})
    refused(tiny_folder, f"'{name}' in .* is packed as 'I8'")


def test_an_adapter_alone_and_beside_weights(tiny_folder, tmp_path):
    change(tiny_folder, "adapter_config.json", base_model_name_or_path="owner/base", peft_type="LORA")
    refused(tiny_folder, "an adapter of 'owner/base' beside its weights: remove adapter_config.json")
    (tmp_path / "adapter").mkdir()
    shutil.copy(tiny_folder / "adapter_config.json", tmp_path / "adapter")
    refused(tmp_path / "adapter", "an adapter of 'owner/base' and no model: merge it")


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows(tiny_folder):
    model = sized(vocab_size=200, pad_token_id=None)
    model.save_pretrained(tiny_folder)
    refused(tiny_folder, r"has ids up to 256 .* and the embedding 200 rows: give the tokenizer", [load])


def test_a_padding_id_without_a_row_is_a_sentence(tiny_folder):
    change(tiny_folder, pad_token_id=100_000)
    refused(tiny_folder, "cannot be loaded: Padding_idx must be within", [load])


def test_a_tokenizer_that_is_none(tiny_folder):
    (tiny_folder / "tokenizer.json").write_text("{}")
    refused(tiny_folder, "tokenizer.json|cannot be loaded", [load])


def test_no_code_of_a_folder_is_run(tiny_folder, tmp_path):
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w')\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py"):
        (tiny_folder / name).write_text(code)
    own = {"AutoConfig": "configuration_evil.C", "AutoModelForCausalLM": "modeling_evil.M"}
    change(tiny_folder, auto_map=own)
    change(tiny_folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.T", None]})
    load(str(tiny_folder))
    assert not mark.exists()


def test_a_head_of_its_own_is_saved_although_the_config_ties_it(tmp_path):
    model = tiny_model("llama_mha")
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    loaded = load(str(tmp_path / "model"), "cpu")
    again = load(str(save(loaded.source, loaded.tokenizer, tmp_path / "saved")), "cpu")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, model(ids).logits)
        assert torch.equal(again.model(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_multiplier", 0.5),
        ("logits_scaling", 8.0),
        ("partial_rotary_factor", 0.5),
        ("sliding_window", 7),
        ("layer_types", ["linear_attention", "full_attention", "full_attention"]),
        ("final_logit_softcapping", 30.0),
        ("query_pre_attn_scalar", 64),
        ("use_qk_norm", True),
        ("no_rope_layers", [1]),
        ("num_local_experts", 8),
        ("rope_parameters", {"full_attention": {"rope_type": "linear", "factor": 4.0}}),
        ("rope_scaling", {"factor": 4.0}),
    ],
)
def test_what_a_config_asks_for_and_nothing_computes_is_refused_by_name(key, value, tmp_path):
    folder = tmp_path / "model"
    tiny_model("llama_mha").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    if key == "rope_scaling":
        del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ModelError, match="rope_type" if key.startswith("rope") else key):
        load(str(folder), "cpu")


@pytest.mark.parametrize(
    "name", ["model.embed_norm.weight", "lm_head.scale", "base_model.q_proj.lora_A.weight"]
)
def test_a_tensor_without_a_place_is_refused_by_name(name, tmp_path):
    folder = tmp_path / "model"
    tiny_model("llama_mha").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    state = load_file(folder / "model.safetensors") | {name: torch.ones(3)}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load(str(folder), "cpu")
