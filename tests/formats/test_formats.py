import importlib.util
import json
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pruning.cli.main import main
from pruning.errors import ExportError, ModelError, RunError
from pruning.formats import huggingface
from pruning.formats.checkpoint_info import CheckpointInfo
from pruning.formats.format import export_plans
from pruning.formats.write import export
from pruning.models.checkpoint import save
from pruning.models.folder import describe
from pruning.models.loading import load
from pruning.serving.engines import find_python
from tests.conftest import TINY, tiny_model
from tests.formats.conftest import IDS, changed, rewrite

GREEDY = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 256, "eos_token_id": None}


def no_code(folder):
    """A stock home: nothing in it but weights and what transformers knows."""
    return not list(folder.glob("*.py")) and "auto_map" not in json.loads(
        (folder / "config.json").read_text()
    )


@pytest.mark.parametrize(  # every pair of these three occurs
    ("iterations", "unit", "tied"),
    [(1, "kv_group", True), (1, "query_head", False), (5, "kv_group", False), (5, "query_head", True)],
)
@pytest.mark.parametrize("name", [*TINY, "seed_oss"])
@torch.no_grad()
def test_different_widths_load_with_the_modelling_file(name, iterations, unit, tied, checkpoint, tmp_path):
    options = {"iterations": iterations, "attention_unit": unit}
    folder, loaded = checkpoint(name, {"tie_word_embeddings": tied}, **options)
    layers = describe(str(folder)).geometry.layers
    first = next(iter(layers[0]))  # heads, where they can leave
    assert len({layer[first].entries for layer in layers}) > 1  # they were cut, and not the same everywhere
    if first == "attn" and unit == "query_head" and name != "llama_mha":
        assert len({layer[first].group for layer in layers}) > 1
    else:
        assert len({layer[first].groups for layer in layers}) > 1
    done = export(folder, "hf", tmp_path / "hf")
    assert done.difference == 0
    assert done.plan.architecture.startswith("Pruned")
    back = AutoModelForCausalLM.from_pretrained(done.path, trust_remote_code=True)
    assert type(back).__name__ == done.plan.architecture
    assert torch.equal(back(IDS).logits, loaded.model(IDS).logits)
    # generation with the cache of keys and values, and a batch whose rows are padded
    padding = torch.ones_like(IDS)
    padding[0, :5] = 0
    for model in (back, loaded.model):
        assert model.generate(IDS, attention_mask=padding, **GREEDY).shape == (2, 28)
    assert torch.equal(
        back.generate(IDS, attention_mask=padding, **GREEDY),
        loaded.model.generate(IDS, attention_mask=padding, **GREEDY),
    )
    # and this project reads its own export
    assert torch.equal(load(str(done.path)).model(IDS).logits, loaded.model(IDS).logits)
    assert describe(str(done.path)).geometry == describe(str(folder)).geometry


@pytest.mark.processes
@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
def test_loading_warns_of_nothing_and_the_decoder_alone_loads_too(unit, checkpoint, tmp_path):
    """vLLM's Transformers backend builds from the decoder's class, on the config of the whole."""
    folder, loaded = checkpoint("qwen2", attention_unit=unit)
    done = export(folder, "hf", tmp_path / "hf")
    code = (
        "from transformers import AutoModel, AutoModelForCausalLM\n"
        f"options = dict(pretrained_model_name_or_path={str(done.path)!r}, trust_remote_code=True)\n"
        "model = AutoModelForCausalLM.from_pretrained(**options)\n"
        "decoder = AutoModel.from_pretrained(**options)\n"
        "assert set(decoder.state_dict()) == set(model.model.state_dict())\n"
        "assert all(decoder.config is getattr(m, 'config', decoder.config) for m in decoder.modules())\n"
        "print(type(decoder).__name__, decoder.config.per_layer_config[0].num_attention_heads)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    heads = describe(str(folder)).geometry.layers[0]["attn"].entries
    assert result.stdout.split() == ["PrunedQwen2Model", str(heads)], result.stderr
    assert "Reading global config value" not in result.stderr


def test_a_modelling_file_needs_the_users_yes(checkpoint, tmp_path):
    done = export(checkpoint("qwen2")[0], "hf", tmp_path / "hf")
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(done.path)


# The compiler behind it takes minutes the first time: with the engines, where there is a C++ compiler.
INDUCTOR = [
    pytest.mark.engines,
    pytest.mark.skipif(find_python("vllm") is None, reason="vllm is not installed: make engines"),
    pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler"),
]


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=INDUCTOR)])
@torch.no_grad()
def test_the_modelling_file_compiles(backend, checkpoint, tmp_path):
    heads = {"remove": ("0.attn.0",), "keep": ("1.attn",), "attention_unit": "query_head"}
    folder, loaded = checkpoint("llama_gqa_bias", {"num_hidden_layers": 2}, iterations=1, **heads)
    assert {layer["attn"].group for layer in describe(str(folder)).geometry.layers} == {1, 2}
    done = export(folder, "hf", tmp_path / "hf")
    back = AutoModelForCausalLM.from_pretrained(done.path, trust_remote_code=True)
    compiled = torch.compile(back, backend=backend, fullgraph=True)
    ours = loaded.model(IDS).logits
    torch.testing.assert_close(compiled(IDS, use_cache=False).logits, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
@torch.no_grad()
def test_a_static_cache_has_each_layers_own_width(unit, checkpoint, tmp_path):
    folder, loaded = checkpoint("qwen2", attention_unit=unit)
    done = export(folder, "hf", tmp_path / "hf")
    back = AutoModelForCausalLM.from_pretrained(done.path, trust_remote_code=True)
    static = back.generate(IDS, cache_implementation="static", **GREEDY)
    assert torch.equal(static, loaded.model.generate(IDS, **GREEDY))


@pytest.mark.parametrize(
    ("format", "options"), [("hf", {}), ("hf", {"allocation": "equal"}), ("padded", {}), ("deci", {})]
)
def test_the_rotary_base_stands_where_mlx_lm_reads_it(format, options, checkpoint, tmp_path):
    """Without it mlx-lm takes 10,000 in silence: SmolLM2, which has 100,000, wrote other words there."""
    rotary = {"rope_type": "default", "rope_theta": 300.0}
    folder, _ = checkpoint("llama_mha", {"rope_parameters": rotary}, **options)
    content = json.loads((export(folder, format, tmp_path / "out").path / "config.json").read_text())
    assert content["rope_theta"] == 300.0 and content["rope_scaling"] is None
    assert content["rope_parameters"]["rope_theta"] == 300.0


STOCK = {
    ("qwen2", "bias"): "LlamaForCausalLM",
    ("qwen2", "none"): "Qwen2ForCausalLM",
    ("qwen3", "none"): "Qwen3ForCausalLM",
    ("llama_mha", "bias"): "LlamaForCausalLM",
    ("llama_mha", "none"): "LlamaForCausalLM",
    ("llama_gqa_bias", "bias"): "LlamaForCausalLM",
    ("mistral_window", "none"): "MistralForCausalLM",
    ("seed_oss", "bias"): "LlamaForCausalLM",
    ("seed_oss", "none"): "SeedOssForCausalLM",
}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("name", "compensation"), STOCK)
@torch.no_grad()
def test_equal_widths_load_in_stock_transformers(name, compensation, tied, checkpoint, tmp_path):
    options = {"compensation": compensation, "allocation": "uniform", "ratio": 0.5}
    folder, loaded = checkpoint(name, {"tie_word_embeddings": tied}, **options)
    assert describe(str(folder)).geometry.layers[0]["attn"].entries < 8
    done = export(folder, "hf", tmp_path / "hf")
    assert done.plan.architecture == STOCK[name, compensation] and no_code(done.path)
    back, report = AutoModelForCausalLM.from_pretrained(done.path, output_loading_info=True)
    assert type(back).__name__ == done.plan.architecture
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(back(IDS).logits, loaded.model(IDS).logits)
    assert torch.equal(back.generate(IDS, **GREEDY), loaded.model.generate(IDS, **GREEDY))
    assert AutoTokenizer.from_pretrained(done.path)("a b").input_ids == loaded.tokenizer("a b").input_ids


@pytest.mark.parametrize("multiple", [8, 64, 128])
@torch.no_grad()
def test_equal_and_rounded_widths_load_in_stock_transformers(multiple, checkpoint, tmp_path):
    options = {"allocation": "equal", "round_to": multiple, "iterations": 1}
    folder, loaded = checkpoint("qwen2", {"intermediate_size": 5 * multiple}, **options)
    width = describe(str(folder)).geometry.layers[0]["mlp"].entries
    assert width % multiple == 0 and width < 5 * multiple
    done = export(folder, "hf", tmp_path / "hf")
    back = AutoModelForCausalLM.from_pretrained(done.path)
    assert no_code(done.path) and back.config.intermediate_size == width
    assert torch.equal(back(IDS).logits, loaded.model(IDS).logits)


def test_a_layer_of_which_nothing_else_is_cut_is_rounded_as_well(checkpoint):
    folder, _ = checkpoint("qwen2", {"intermediate_size": 60}, round_to=8, keep=("1.mlp.8-59",))
    widths = [layer["mlp"].entries for layer in describe(str(folder)).geometry.layers]
    assert widths[1] == 56 and all(width % 8 == 0 for width in widths)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "mistral_window"])
@torch.no_grad()
def test_heads_that_do_not_divide_the_width_keep_their_architecture_without_biases(
    name, checkpoint, tmp_path
):
    folder, loaded = checkpoint(name, allocation="uniform", ratio=0.3, compensation="none")
    assert describe(str(folder)).geometry.layers[0]["attn"].entries == 6
    back = AutoModelForCausalLM.from_pretrained(export(folder, "hf", tmp_path / "hf").path)
    assert back.config.model_type == name.split("_")[0]
    assert torch.equal(back(IDS).logits, loaded.model(IDS).logits)


@torch.no_grad()
def test_heads_that_do_not_divide_the_width_go_to_seed_oss(checkpoint, tmp_path):
    # three of four key-value heads left with two query heads each: 32 / 6 is not whole
    folder, loaded = checkpoint("qwen2", allocation="uniform", ratio=0.3)
    assert describe(str(folder)).geometry.layers[0]["attn"].entries == 6
    done = export(folder, "hf", tmp_path / "hf")
    assert done.plan.architecture == "SeedOssForCausalLM" and no_code(done.path)
    back = AutoModelForCausalLM.from_pretrained(done.path)
    assert torch.equal(back(IDS).logits, loaded.model(IDS).logits)
    assert torch.equal(load(str(done.path)).model(IDS).logits, loaded.model(IDS).logits)


@pytest.mark.parametrize("name", ["qwen2", "llama_mha", "llama_gqa_bias"])
@torch.no_grad()
def test_padding_is_exact_and_stock(name, checkpoint, tmp_path):
    folder, loaded = checkpoint(name)
    done = export(folder, "padded", tmp_path / "padded")
    back = AutoModelForCausalLM.from_pretrained(done.path)
    assert no_code(done.path)
    assert torch.allclose(back(IDS).logits, loaded.model(IDS).logits, atol=1e-5)


@torch.no_grad()
def test_masks_cut_the_dense_model_again(tiny_folder, text_file, tmp_path, monkeypatch):  # noqa: F811
    from pruning import RunConfig
    from pruning.engine.loop import prune_loaded

    settings = {"mixture": {"text": 1}, "domains": {"text": str(text_file)}, "samples": 4, "seq_len": 24}
    tiny_model("qwen2").bfloat16().save_pretrained(tiny_folder)  # biases are written in the run's float32
    monkeypatch.chdir(tiny_folder.parent)
    config = RunConfig.create(model=tiny_folder.name, ratio=0.4, eval_blocks=0, **settings)
    *_, done = prune_loaded(load(config.model), config)
    record = {"config": config.model_dump(mode="json")}
    folder = save(done.loaded.source, done.loaded.tokenizer, tmp_path / "model", record, done.mask)
    masks = export(folder, "masks", tmp_path / "masks")
    monkeypatch.chdir("/")  # the dense model was named by a relative path
    assert masks.difference == 0 and masks.bytes < 20_000
    assert torch.equal(load(str(masks.path)).model(IDS).logits, done.loaded.model(IDS).logits)
    assert describe(str(masks.path)).geometry == describe(str(folder)).geometry

    other = tmp_path / "other"  # another seed: only its weights are different
    tiny_model("qwen2", seed=1).save_pretrained(other)
    done.loaded.tokenizer.save_pretrained(other)
    content = json.loads((masks.path / "pruning.json").read_text())
    assert content["base"] == str(tiny_folder)
    rewrite(masks.path, base=str(other))
    with pytest.raises(ModelError, match="was made for another model"):
        load(str(masks.path))
    (masks.path / "pruning.json").write_text(json.dumps(content))
    for name in ("mask.safetensors", "biases.safetensors"):
        content_bytes = (masks.path / name).read_bytes()
        (masks.path / name).write_bytes(content_bytes[:-20])
        with pytest.raises(ModelError, match="cannot be read|is corrupt"):
            load(str(masks.path))
        (masks.path / name).write_bytes(content_bytes)


@pytest.mark.parametrize(
    ("name", "format", "options", "way_out"),
    [
        ("qwen2", "padded", {"allocation": "uniform"}, "--format hf"),
        ("qwen3", "padded", {}, "--format hf"),
        ("qwen3", "gguf", {}, "--format hf"),
        ("mistral_window", "gguf", {}, "--format hf"),
        ("mistral_window", "padded", {}, "--format hf"),
        ("llama_mha", "masks", {}, "--format hf"),
    ],
)
def test_what_cannot_be_is_refused_with_the_form_that_would_do(
    name, format, options, way_out, checkpoint, tmp_path
):
    folder, _ = checkpoint(name, **options)
    offered = {plan.format: plan for plan in export_plans(CheckpointInfo.read(folder))}
    assert way_out in offered[format].unsupported_reason and not offered["hf"].unsupported_reason
    with pytest.raises(ExportError, match=way_out):
        export(folder, format, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "relu"}, "the activation 'relu'"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "the activation 'gelu_pytorch_tanh'"),
    ],
)
def test_what_a_format_does_not_compute_is_refused_by_name(change, words, checkpoint, tmp_path):
    """llama.cpp's deci computes SiLU whatever the config says; transformers does what it says."""
    folder, _ = checkpoint("llama_mha", change)
    with pytest.raises(ExportError, match=f"llama.cpp's deci does not compute {words}: use --format hf"):
        export(folder, "gguf", tmp_path / "out")
    assert export(folder, "padded", tmp_path / "padded").difference < 1e-5
    assert export(folder, "hf", tmp_path / "hf").difference == 0


def test_an_export_to_gguf_says_whether_it_was_compared_by_logits(checkpoint, tmp_path, capsys):
    folder, _ = checkpoint("qwen2")
    assert main(["export", str(folder), "--format", "gguf", "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    if importlib.util.find_spec("llama_cpp"):
        assert "largest logit difference" in output
    else:
        assert "Logits were not compared, as llama-cpp-python is missing" in output


def test_types_and_places_that_make_no_sense_are_refused(checkpoint, tmp_path):
    folder, _ = checkpoint("qwen2")
    with pytest.raises(ExportError, match="q8_0"):
        export(folder, "hf", tmp_path / "out", "q8_0")
    with pytest.raises(ExportError, match="the checkpoint itself"):
        export(folder, "hf", folder)
    assert (folder / "model.safetensors").exists()


def test_an_export_replaces_an_earlier_one_and_nothing_else(checkpoint, tmp_path, monkeypatch):
    folder, _ = checkpoint("qwen2")
    for format in ("hf", "padded", "gguf", "hf"):
        export(folder, format, tmp_path / "out")
    thesis = tmp_path / "documents" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    monkeypatch.chdir(thesis.parent)
    for out in (thesis.parent, thesis, ".", ".."):
        with pytest.raises((RunError, ExportError)) as error:
            export(folder, "hf", out)
        assert "\n" not in str(error.value)
    assert thesis.read_text() == "years of work" and (folder / "model.safetensors").exists()


def test_what_computes_something_else_is_not_kept(checkpoint, tmp_path, monkeypatch):
    folder, _ = checkpoint("qwen2")
    faithful = huggingface.padded_state

    def faulty(*arguments):
        state = faithful(*arguments)
        return state | {"model.norm.weight": 1.1 * state["model.norm.weight"]}

    monkeypatch.setattr(huggingface, "padded_state", faulty)
    with pytest.raises(RunError, match="computes something else: a logit differs by"):
        export(folder, "padded", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_without_finite_logits_is_not_exported(checkpoint, tmp_path):
    folder, _ = checkpoint("qwen2")
    changed(folder, "model.layers.0.mlp.up_proj.weight", float("nan"))
    for format, reason in (("hf", "own logits reach nan"), ("gguf", "cannot hold its values")):
        with pytest.raises(ExportError, match=reason):
            export(folder, format, tmp_path / "out")


def test_an_export_says_where_it_comes_from(checkpoint, tmp_path):
    folder, _ = checkpoint("qwen2")
    for format, file in (("hf", "pruning.json"), ("padded", "prunescope.json"), ("gguf", "prunescope.json")):
        out = export(folder, format, tmp_path / format).path
        record = json.loads(((out.parent if format == "gguf" else out) / file).read_text())
        assert record["config"]["mixture"] == {"text": 1.0} and "torch" in record["versions"]
    custom = tmp_path / "hf"
    assert "mask" not in json.loads((custom / "pruning.json").read_text())
    stock = export(custom, "padded", tmp_path / "again").path
    assert json.loads((stock / "prunescope.json").read_text())["config"]["method"] == "iterative"
    config = json.loads((stock / "config.json").read_text())
    assert not {"output_bias", "allow_global_per_layer_attribute_access", "per_layer_config"} & config.keys()


def test_how_a_model_generates_goes_with_it(checkpoint, tmp_path):
    folder, _ = checkpoint("qwen2")
    generation = {"eos_token_id": [5, 256], "repetition_penalty": 1.25}
    rewrite(folder)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    for format in ("hf", "padded"):
        written = export(folder, format, tmp_path / format).path / "generation_config.json"
        assert generation.items() <= json.loads(written.read_text()).items()


def test_our_loader_runs_no_code_and_json_is_alone_on_standard_output(
    checkpoint, tmp_path, capfd, monkeypatch
):
    custom = export(checkpoint("qwen2")[0], "hf", tmp_path / "hf").path
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    capfd.readouterr()
    assert main(["export", str(custom), "--out", str(tmp_path / "again"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["architecture"] == "PrunedQwen2ForCausalLM"


@pytest.mark.processes
def test_the_snippet_of_a_custom_export_asks_nothing(checkpoint, tmp_path):
    done = export(checkpoint("qwen2")[0], "hf", tmp_path / "hf")
    command = [sys.executable, "-c", done.snippet + '\nprint(tokenizer("a").input_ids)']
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.startswith("["), result.stderr


def test_weights_can_be_written_smaller(checkpoint, tmp_path):
    folder, _ = checkpoint("qwen2")
    full, half = export(folder, "hf", tmp_path / "a"), export(folder, "hf", tmp_path / "b", "bf16")
    sizes = [(done.path / "model.safetensors").stat().st_size for done in (full, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert 0 < half.difference < 0.05  # what the type rounds, as its own config loads it
