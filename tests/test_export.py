import itertools
import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pruning.checkpoint import save
from pruning.config import ExportError, ModelError
from pruning.export import Traits, export, homes
from pruning.gguf_file import interleave
from pruning.models import describe, load
from tests.conftest import ARCHITECTURES, needs_demo, tiny_folder, tiny_pruned  # noqa: F401

IDS = torch.randint(0, 256, (2, 20), generator=torch.manual_seed(5))
GREEDY = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 256, "eos_token_id": None}


@pytest.fixture
def checkpoint(text_file, tmp_path):
    """Writes the checkpoint of a tiny pruned model."""

    def make(name, **options):
        done = tiny_pruned(name, text_file, **options)
        return save(done.loaded.model, done.loaded.tokenizer, tmp_path / "model", {}, done.mask), done.loaded

    return make


def no_code(folder):
    """A stock home: nothing in it but weights and what transformers knows."""
    return not list(folder.glob("*.py")) and "auto_map" not in json.loads(
        (folder / "config.json").read_text()
    )


@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
@pytest.mark.parametrize("iterations", [1, 5])
@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_different_widths_load_with_the_modelling_file(name, iterations, unit, checkpoint, tmp_path):
    folder, loaded = checkpoint(name, iterations=iterations, attention_unit=unit)
    done = export(folder, "hf", tmp_path / "hf")
    assert done.difference == 0
    assert done.home.architecture.startswith("Pruned")
    back = AutoModelForCausalLM.from_pretrained(done.path, trust_remote_code=True)
    assert type(back).__name__ == done.home.architecture
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


def test_a_modelling_file_needs_the_users_yes(checkpoint, tmp_path):
    done = export(checkpoint("qwen2")[0], "hf", tmp_path / "hf")
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(done.path)


@torch.no_grad()
def test_the_modelling_file_compiles(checkpoint, tmp_path):
    folder, loaded = checkpoint("qwen2")
    done = export(folder, "hf", tmp_path / "hf")
    back = AutoModelForCausalLM.from_pretrained(done.path, trust_remote_code=True)
    compiled = torch.compile(back, backend="eager", fullgraph=True)
    assert torch.equal(compiled(IDS, use_cache=False).logits, loaded.model(IDS).logits)


STOCK = {
    ("qwen2", "bias"): "LlamaForCausalLM",
    ("qwen2", "none"): "Qwen2ForCausalLM",
    ("qwen3", "none"): "Qwen3ForCausalLM",
    ("llama_mha", "bias"): "LlamaForCausalLM",
    ("llama_mha", "none"): "LlamaForCausalLM",
    ("llama_gqa_bias", "bias"): "LlamaForCausalLM",
    ("mistral_window", "none"): "MistralForCausalLM",
}


@pytest.mark.parametrize(("name", "compensation"), STOCK)
@torch.no_grad()
def test_equal_widths_load_in_stock_transformers(name, compensation, checkpoint, tmp_path):
    folder, loaded = checkpoint(name, compensation=compensation, allocation="uniform", ratio=0.5)
    done = export(folder, "hf", tmp_path / "hf")
    assert done.home.architecture == STOCK[name, compensation] and no_code(done.path)
    back, report = AutoModelForCausalLM.from_pretrained(done.path, output_loading_info=True)
    assert type(back).__name__ == done.home.architecture
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(back(IDS).logits, loaded.model(IDS).logits)
    assert torch.equal(back.generate(IDS, **GREEDY), loaded.model.generate(IDS, **GREEDY))
    assert AutoTokenizer.from_pretrained(done.path)("a b").input_ids == loaded.tokenizer("a b").input_ids


@torch.no_grad()
def test_heads_that_do_not_divide_the_width_go_to_seed_oss(checkpoint, tmp_path):
    # three of four key-value heads left with two query heads each: 32 / 6 is not whole
    folder, loaded = checkpoint("qwen2", allocation="uniform", ratio=0.3)
    assert describe(str(folder)).geometry.layers[0].heads == 6
    done = export(folder, "hf", tmp_path / "hf")
    assert done.home.architecture == "SeedOssForCausalLM" and no_code(done.path)
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
def test_masks_cut_the_dense_model_again(tiny_folder, text_file, tmp_path):  # noqa: F811
    from pruning import RunConfig
    from pruning.engine import prune_loaded

    settings = {"mixture": {"text": 1}, "domains": {"text": str(text_file)}, "samples": 4, "seq_len": 24}
    config = RunConfig.create(model=str(tiny_folder), ratio=0.4, eval_blocks=0, **settings)
    *_, done = prune_loaded(load(config.model), config)
    record = {"config": config.model_dump(mode="json")}
    folder = save(done.loaded.model, done.loaded.tokenizer, tmp_path / "model", record, done.mask)
    masks = export(folder, "masks", tmp_path / "masks")
    assert masks.difference == 0 and masks.bytes < 20_000
    assert torch.equal(load(str(masks.path)).model(IDS).logits, done.loaded.model(IDS).logits)
    assert describe(str(masks.path)).geometry == describe(str(folder)).geometry

    other = tmp_path / "other"
    other_done = tiny_pruned("llama_mha", text_file, ratio=0)
    other_done.loaded.model.save_pretrained(other)
    other_done.loaded.tokenizer.save_pretrained(other)
    content = json.loads((masks.path / "pruning.json").read_text()) | {"base": str(other)}
    (masks.path / "pruning.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="does not fit"):
        load(str(masks.path))


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
    offered = {home.format: home for home in homes(Traits.read(folder))}
    assert way_out in offered[format].refusal and not offered["hf"].refusal
    with pytest.raises(ExportError, match=way_out):
        export(folder, format, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_types_and_places_that_make_no_sense_are_refused(checkpoint, tmp_path):
    folder, _ = checkpoint("qwen2")
    with pytest.raises(ExportError, match="q8_0"):
        export(folder, "hf", tmp_path / "out", "q8_0")
    with pytest.raises(ExportError, match="the checkpoint itself"):
        export(folder, "hf", folder)
    assert (folder / "model.safetensors").exists()


def test_weights_can_be_written_smaller(checkpoint, tmp_path):
    folder, _ = checkpoint("qwen2")
    whole, half = export(folder, "hf", tmp_path / "a"), export(folder, "hf", tmp_path / "b", "bf16")
    sizes = [(done.path / "model.safetensors").stat().st_size for done in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert half.difference == 0  # against the checkpoint in the same type


# --- GGUF ------------------------------------------------------------------------------------------------


def test_rows_go_from_halves_to_pairs():
    rows = torch.arange(8.0)[:, None]  # one head of 8: halves 0-3 and 4-7
    assert interleave(rows, 8).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_a_gguf_file_holds_every_layers_own_widths(kind, checkpoint, tmp_path):
    from gguf import GGUFReader

    folder, _ = checkpoint("qwen2")
    layers = describe(str(folder)).geometry.layers
    assert len(set(layers)) > 1
    reader = GGUFReader(export(folder, "gguf", tmp_path / "gguf", kind).path)

    def array(name):
        return [int(v) for v in reader.get_field(f"deci.{name}").contents()]

    assert array("feed_forward_length") == [layer.channels for layer in layers]
    assert array("attention.head_count") == [layer.heads for layer in layers]
    assert array("attention.head_count_kv") == [layer.kv_heads for layer in layers]
    names = {tensor.name for tensor in reader.tensors}
    biased = json.loads((folder / "pruning.json").read_text())["biased"]
    parts = {"attn": "attn_output", "mlp": "ffn_down"}
    for site, has_bias in biased.items():
        layer, part = site.split(".")
        assert (f"blk.{layer}.{parts[part]}.bias" in names) == has_bias
    assert {"blk.1.attn_q.bias", "blk.2.ffn_down.bias"} <= names
    assert "output.weight" not in names  # tied


@pytest.mark.parametrize(
    ("name", "unit"),
    list(itertools.product(["qwen2", "llama_mha", "llama_gqa_bias"], ["kv_group", "query_head"])),
)
@torch.no_grad()
def test_llama_cpp_computes_the_same_logits(name, unit, checkpoint, tmp_path):
    folder, loaded = checkpoint(name, attention_unit=unit)
    theirs, _ = _llama(export(folder, "gguf", tmp_path / "gguf", "f32").path, IDS[0].tolist())
    ours = loaded.model(IDS[:1]).logits[0].numpy()
    assert np.abs(theirs - ours).max() < 0.005 * np.abs(ours).max()
    assert (theirs.argmax(1) == ours.argmax(1)).all()


@needs_demo
@torch.no_grad()
def test_llama_cpp_continues_the_pruned_demo_model_alike(tmp_path):
    from pruning import RunConfig
    from pruning.engine import evaluation_blocks, prune_loaded

    config = RunConfig.create(iterations=2, samples=8, eval_blocks=0)
    *_, done = prune_loaded(load("demo", "cpu"), config)
    model, tokenizer = done.loaded.model, done.loaded.tokenizer
    folder = save(model, tokenizer, tmp_path / "model", {}, done.mask)
    path = export(folder, "gguf", tmp_path / "gguf", "f32").path
    prompt = "The river rises in the north.\n\nIt's 12345 metres, na\u00efve?  def f(x):\n    return x"
    for blocks in evaluation_blocks(config.replace(eval_blocks=1), tokenizer, model):
        ids = blocks.ids[0].tolist()
        theirs, llm = _llama(path, ids)
        ours = model(torch.tensor([ids])).logits[0].numpy()
        assert np.abs(theirs - ours).max() < 0.005 * np.abs(ours).max()
        assert (theirs.argmax(1) == ours.argmax(1)).mean() > 0.99
    assert llm.tokenize(prompt.encode(), add_bos=False) == tokenizer(prompt).input_ids
    llm.reset()
    start = tokenizer("The city of", return_tensors="pt")
    ours = model.generate(**start, max_new_tokens=24, do_sample=False)[0, start.input_ids.shape[1] :]
    theirs = list(itertools.islice(llm.generate(start.input_ids[0].tolist(), temp=0), 24))
    assert theirs == ours.tolist()


def _llama(path, ids):
    llama_cpp = pytest.importorskip(
        "llama_cpp", reason="llama-cpp-python is not installed: see requirements-gguf.txt"
    )
    # llama.cpp's AMX kernels crash on some machines (its issue 20824): run without repacked weights
    defaults = llama_cpp.llama_cpp.llama_model_default_params
    llama_cpp.llama_cpp.llama_model_default_params = lambda: _plain(defaults())
    try:
        llm = llama_cpp.Llama(str(path), n_ctx=512, logits_all=True, verbose=False, n_threads=2)
    finally:
        llama_cpp.llama_cpp.llama_model_default_params = defaults
    llm.eval(ids)
    return np.array(llm.scores[: len(ids)]), llm


def _plain(parameters):
    parameters.use_extra_bufts = False
    return parameters
