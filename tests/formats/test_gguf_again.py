"""Our own GGUF files as models: evaluated, described and pruned further, with the same logits."""

import importlib.util

import pytest
import torch

from pruning import RunConfig, prune
from pruning.formats.checkpoint_info import CheckpointInfo
from pruning.formats.format import export_plans
from pruning.formats.llamacpp import logits, open_gguf
from pruning.formats.write import export
from pruning.models.families import FAMILIES
from pruning.models.folder import describe, locate, read_record
from pruning.models.loading import load
from tests.conftest import CONFIGS, TINY, needs_demo
from tests.formats.conftest import IDS

# Root mean square of the difference of logits over their standard deviation.
ROUNDING = {"f32": 1e-6, "f16": 2e-3, "bf16": 2e-2, "q8_0": 2e-2}


@torch.no_grad()
def apart(model, other, ids):
    ours, theirs = model(ids).logits, other(ids).logits
    return float((ours - theirs).pow(2).mean().sqrt() / theirs.std())


@pytest.mark.parametrize("kind", ROUNDING)
@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("qwen2", "kv_group"),
        ("qwen2", "query_head"),
        ("llama_mha", "kv_group"),
        ("llama_gqa_bias", "query_head"),
        ("seed_oss", "kv_group"),
    ],
)
def test_a_pruned_model_comes_back_from_its_gguf_file(name, unit, kind, checkpoint, tmp_path):
    folder, loaded = checkpoint(name, attention_unit=unit)
    file = str(export(folder, "gguf", tmp_path / "gguf", kind).path)
    again = load(file, "cpu")
    assert apart(again.model, loaded.model, IDS) < ROUNDING[kind]
    summary, dense = describe(file), describe(str(folder))
    assert (summary.geometry, summary.parameters) == (dense.geometry, dense.parameters)
    assert len(set(map(str, summary.geometry.layers))) > 1
    assert again.tokenizer("a b").input_ids == loaded.tokenizer("a b").input_ids
    if name != "llama_gqa_bias" and name != "seed_oss":  # whose biases are all the architecture's own
        biased = read_record(locate(file))["biased"]
        assert biased == read_record(folder)["biased"] and any(biased.values())


@pytest.mark.parametrize("name", TINY)
def test_every_family_comes_back_from_its_gguf_file_or_is_refused(name, checkpoint, tmp_path):
    layout = FAMILIES[CONFIGS[name]().model_type].gguf
    by_layer = layout is not None and layout.by_layer
    options = {} if by_layer else {"allocation": "equal", "ratio": 0.4, "compensation": "none"}
    folder, loaded = checkpoint(name, **options)
    plan = next(plan for plan in export_plans(CheckpointInfo.read(folder)) if plan.format == "gguf")
    if plan.unsupported_reason:
        assert "--format hf" in plan.unsupported_reason
        return
    file = export(folder, "gguf", tmp_path / "gguf", "f32").path
    again = load(str(file), "cpu")
    assert apart(again.model, loaded.model, IDS) < ROUNDING["f32"]
    if importlib.util.find_spec("llama_cpp"):
        llm = open_gguf(file)
        theirs = torch.from_numpy(logits(llm, IDS[0].tolist()))
        llm.close()
        ours = loaded.model(IDS[:1]).logits[0].detach()
        assert (ours - theirs).pow(2).mean().sqrt() / theirs.std() < 2e-3


def test_a_gguf_file_of_a_pruned_model_is_pruned_further_and_exported_again(checkpoint, text_file, tmp_path):
    folder, _ = checkpoint("qwen2")
    file = export(folder, "gguf", tmp_path / "gguf", "f32").path
    options = {"mixture": {"text": 1}, "domains": {"text": str(text_file)}, "samples": 4, "seq_len": 24}
    config = RunConfig.create(model=str(file), ratio=0.3, iterations=1, eval_blocks=2, **options)
    done = prune(config)
    before, after = describe(str(file)).geometry, describe(str(done.run.checkpoint)).geometry
    assert after.linear_parameters < 0.75 * before.linear_parameters
    written = export(done.run.checkpoint, "gguf", tmp_path / "further", "f32").path
    assert apart(load(str(written), "cpu").model, done.loaded.model, IDS) < ROUNDING["f32"]


@needs_demo
@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_the_pruned_demo_model_comes_back_from_its_gguf_file(kind, tmp_path):
    done = prune(RunConfig.create(ratio=0.3, iterations=1, samples=1, seq_len=64, eval_blocks=0))
    again = load(str(export(done.run.checkpoint, "gguf", tmp_path / "gguf", kind).path), "cpu")
    text = "The river rises in the north.\n\nIt's 12345 metres, na\u00efve?  def f(x):\n    return x"
    ids = done.loaded.tokenizer(text, return_tensors="pt").input_ids
    assert again.tokenizer(text).input_ids == ids[0].tolist()
    assert apart(again.model, done.loaded.model, ids) < ROUNDING[kind]
