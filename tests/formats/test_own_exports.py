"""What this program exports it takes again, and exports are compared exactly as their users load them."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pruning import RunConfig, RunStore, prune
from pruning.cli.main import main
from pruning.errors import ExportError, ModelError
from pruning.formats.write import export
from pruning.models.folder import describe
from pruning.models.loading import load
from tests.conftest import byte_tokenizer, tiny_model
from tests.formats.conftest import IDS

QUICK = {"samples": 2, "seq_len": 24, "iterations": 1, "eval_blocks": 1, "ratio": 0.4}


def logits(folder):
    with torch.no_grad():
        return load(str(folder), "cpu", "float32").model(IDS).logits


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama_mha", "llama_gqa_bias", "mistral_window"])
@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
def test_what_was_trained_from_an_export_loads_again(name, unit, checkpoint, tmp_path):
    folder, _ = checkpoint(name, attention_unit="kv_group" if name == "llama_mha" else unit)
    done = export(folder, "hf", tmp_path / "hf")
    options = {"trust_remote_code": True}
    model = AutoModelForCausalLM.from_pretrained(done.path, **options)
    model.save_pretrained(tmp_path / "tuned")  # as a trainer does
    AutoTokenizer.from_pretrained(done.path, **options).save_pretrained(tmp_path / "tuned")
    close(logits(tmp_path / "tuned"), logits(folder))
    assert describe(str(tmp_path / "tuned")).geometry == describe(str(folder)).geometry


@pytest.mark.parametrize("name", ["qwen2", "llama_mha", "llama_gqa_bias"])
def test_deci_loads_again(name, checkpoint, tmp_path):
    folder, _ = checkpoint(name)
    close(logits(export(folder, "deci", tmp_path / "deci").path), logits(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block_configs": [{"attention": {"no_op": True}, "ffn": {"ffn_mult": 6.0}}] * 3}, "only one of"),
        (
            {"block_configs": [{"attention": {"n_heads_in_group": 0}, "ffn": {"ffn_mult": 6.0}}] * 3},
            "how wide",
        ),
        ({"block_configs": "wide"}, "how wide"),
        ({"per_layer_config": {"0": {"num_key_value_heads": 3}}}, "8 heads on 3 key-value heads"),
        ({"per_layer_config": 7}, "how wide"),
    ],
)
def test_widths_that_cannot_be_are_one_sentence(change, words, tmp_path):
    folder = tmp_path / "model"
    tiny_model("llama_mha").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    kind = "nemotron-nas" if "block_configs" in change else "pruned_llama"
    (folder / "config.json").write_text(json.dumps({**config, "model_type": kind, **change}))
    with pytest.raises(ModelError, match=words):
        load(str(folder), "cpu")


def test_a_run_is_a_model_in_every_command(tiny_folder, text_file, tmp_path, capsys):
    text = {"domains": {"words": str(text_file)}, "mixture": {"words": 1.0}}
    run = prune(RunConfig(model=str(tiny_folder), **text, **QUICK)).run
    quick = [
        "--domain",
        f"words={text_file}",
        "--mixture",
        "words=1",
        "--seq-len",
        "24",
    ]
    two = ["--calibration-blocks", "2"]
    for command in (
        [
            "prune",
            *quick,
            *two,
            "--iterations",
            "1",
            "--eval-blocks",
            "1",
            "--ratio",
            "0.2",
            "--model",
            run.id,
        ],
        ["evaluate", *quick, "--eval-blocks", "1", "--model", run.id],
        ["calibrate", *quick, *two, "--model", f"{run.id}:1"],
        ["score", *quick, *two, "--model", run.id],
        ["generate", "a", "--tokens", "2", "--models", run.id],
        ["export", run.id, "--format", "hf"],
    ):
        assert main([*command, "--json"]) == 0, capsys.readouterr().err
    assert len(RunStore().all()) == 2


# --- as a user loads it ------------------------------------------------------------------------------------


def stored_as(folder, dtype, scale=1.0):
    model = tiny_model("llama_mha")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(scale)
    model.to(dtype).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def pruned(folder, text_file, **options):
    text = {"domains": {"words": str(text_file)}, "mixture": {"words": 1.0}}
    return prune(RunConfig(model=str(folder), **text, **QUICK, **options)).run.checkpoint


def test_activations_beyond_float16_are_refused_with_another_type(text_file, tmp_path):
    dense = stored_as(tmp_path / "model", torch.float32, scale=400.0)
    folder = pruned(dense, text_file, compensation="none")
    with pytest.raises(ExportError, match="activations leave the range .* --weights bf16 or f32"):
        export(folder, "hf", tmp_path / "half", "f16")
    assert not (tmp_path / "half").exists()
    done = export(folder, "hf", tmp_path / "brain", "bf16")
    model = AutoModelForCausalLM.from_pretrained(done.path, dtype="auto", trust_remote_code=True)
    assert torch.isfinite(model(IDS).logits).all()


def test_a_weight_beyond_float16_is_named(text_file, tmp_path):
    folder = stored_as(tmp_path / "model", torch.float32, scale=1e6)
    with pytest.raises(ExportError, match=r"the weight 'model\.layers.* beyond the range of f16"):
        export(folder, "hf", tmp_path / "half", "f16")


@pytest.mark.parametrize(
    ("dtype", "kind"), [(torch.bfloat16, "bf16"), (torch.float16, "f16"), (torch.float32, "f32")]
)
@pytest.mark.parametrize("format", ["hf", "padded", "deci"])
def test_an_export_has_the_dense_models_type(dtype, kind, format, text_file, tmp_path):
    folder = pruned(stored_as(tmp_path / "model", dtype), text_file)
    done = export(folder, format, tmp_path / "export")
    assert done.kind == kind
    weights = load(str(done.path), "cpu", "stored").model.dtype
    assert weights == dtype


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 4},
        {"num_return_sequences": 3, "do_sample": True},
        {"temperature": 0.1, "do_sample": False},
    ],
)
def test_generation_settings_travel_as_they_came(settings, text_file, tmp_path, capsys):
    folder = stored_as(tmp_path / "model", torch.float32)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 256, **settings}))
    checkpoint = pruned(folder, text_file)
    for format in ("hf", "padded", "deci"):
        done = export(checkpoint, format, tmp_path / format)
        assert settings.items() <= json.loads((done.path / "generation_config.json").read_text()).items()
        command = ["generate", "a b", "--tokens", "3", "--models", str(done.path), "--json"]
        assert main([*command, "--stream-file", str(tmp_path / f"{format}.json")]) == 0
        assert main([*command, "--temperature", "0"]) == 0


def test_a_checkpoint_of_another_type_than_the_dense_model_is_not_written_without_a_word(
    text_file, tmp_path, capsys
):
    pruned(stored_as(tmp_path / "same", torch.float32), text_file)
    assert "stored in" not in capsys.readouterr().err
    folder = pruned(stored_as(tmp_path / "other", torch.bfloat16), text_file)
    assert "checkpoint is stored in float32" in capsys.readouterr().err
    assert any("bfloat16" in event.get("what", "") for event in RunStore().get(folder.parent.name).events())
