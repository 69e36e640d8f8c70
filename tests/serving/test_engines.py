"""Exports in the engines, against the pruned model itself: log-probabilities and greedy tokens."""

import functools

import numpy as np
import pytest
import torch

from pruning.formats.write import export
from pruning.models.folder import describe
from pruning.serving import engines
from pruning.serving.process import open_engine
from tests.conftest import CONFIGS

pytestmark = pytest.mark.engines
PROMPTS = [list(range(1, 20)), list(range(40, 60)), [5, 5, 5]]
NEW = 8
# Wide enough for the attention kernels of vLLM on a CPU: heads of 32 channels. The rotary base is no engine's
# default, so that one that does not read it shows.
WIDE = {"hidden_size": 256, "intermediate_size": 512, "max_position_embeddings": 128}
WIDE |= {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}


@functools.cache
def absent(name):
    return engines.find_python(name) is None


def in_engine(name):
    """Marks a test that needs an engine."""
    return pytest.mark.skipif(absent(name), reason=f"{name} is not installed: make engines")


@torch.no_grad()
def truth(model):
    """What the worker's `score` and `generate` have to give, from the model in this process."""
    scores, tokens = [], []
    for ids in map(torch.tensor, PROMPTS):
        log_probabilities = model(ids[None]).logits[0, :-1].log_softmax(-1)
        scores.append(log_probabilities.gather(1, ids[1:, None])[:, 0].numpy())
        options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        tokens.append(model.generate(ids[None], **options)[0, len(ids) :].tolist())
    return scores, tokens


def agree(engine, path, model, runs_as="", tolerance=1e-3):
    """An export gives the model's log-probabilities and its greedy tokens; without its biases it does not."""
    scores, tokens = truth(model)
    with open_engine(engine, path, 64, len(PROMPTS)) as opened:
        answers = opened.ask("score", prompts=PROMPTS)
        for ours, theirs in zip(scores, answers, strict=True):
            assert np.abs(ours - theirs).max() < tolerance
        assert opened.ask("generate", prompts=PROMPTS, new=NEW) == tokens
        if runs_as:
            assert opened.ask("architecture") == runs_as
    biases = {
        name: p for name, p in model.named_parameters() if name.endswith(("o_proj.bias", "down_proj.bias"))
    }
    if biases:  # or the comparison could not tell
        for parameter in biases.values():
            parameter.data.zero_()
        changed, _ = truth(model)
        assert max(np.abs(a - b).max() for a, b in zip(scores, changed, strict=True)) > 100 * tolerance


@pytest.fixture
def wide(checkpoint, monkeypatch):
    """A pruned checkpoint with heads of 32 channels."""

    def make(name, **options):
        original = CONFIGS[name]

        def config():
            made = original()
            return type(made)(**made.to_dict() | WIDE | {"head_dim": 32, **options.pop("dense", {})})

        monkeypatch.setitem(CONFIGS, name, config)
        return checkpoint(name, **options)

    return make


# Different widths: fewer groups in two layers, or fewer query heads in one. Equal widths: Llama where heads
# divide the hidden size, SeedOss otherwise.
HF = [
    ("qwen2", {}, "PrunedQwen2ForCausalLM"),
    ("llama_mha", {"attention_unit": "query_head"}, "PrunedLlamaForCausalLM"),
    ("qwen2", {"allocation": "uniform", "ratio": 0.5}, "LlamaForCausalLM"),
    ("qwen2", {"allocation": "uniform", "ratio": 0.3}, "SeedOssForCausalLM"),
]
# What each engine runs them as: a class of vLLM, a module of mlx-lm.
RUNS_AS = {
    "vllm": [
        "TransformersForCausalLM",
        "TransformersForCausalLM",
        "LlamaForCausalLM",
        "TransformersForCausalLM",
    ],
    "mlx": [None, None, "llama", "seed_oss"],
}


@pytest.mark.parametrize(
    ("engine", "case"),
    [
        pytest.param(engine, case, marks=in_engine(engine))
        for engine, case in [
            *(("transformers", case) for case in range(4)),
            *(("vllm", case) for case in range(4)),
            *(("mlx", case) for case in (2, 3)),
        ]
    ],
)
def test_a_folder_gives_the_same_in_an_engine(engine, case, wide, tmp_path):
    name, options, architecture = HF[case]
    folder, loaded = wide(name, **options)
    done = export(folder, "hf", tmp_path / "hf")
    assert done.plan.architecture == architecture
    runs_as = RUNS_AS[engine][case] if engine in RUNS_AS else ""
    agree(engine, done.path, loaded.model, runs_as)


@pytest.mark.parametrize(
    ("engine", "rounded"),
    [pytest.param(e, r, marks=in_engine(e)) for e, r in [("mlx", 1), ("mlx", 256), ("vllm", 1)]],
)
def test_a_deci_folder_gives_the_same_in_an_engine(engine, rounded, wide, tmp_path):
    folder, loaded = wide("qwen2", round_to=rounded, dense={"intermediate_size": 1024})
    layers = describe(str(folder)).geometry.layers
    assert len(set(layers)) > 1
    done = export(folder, "deci", tmp_path / "deci")
    agree(engine, done.path, loaded.model, {"vllm": "DeciLMForCausalLM", "mlx": "nemotron-nas"}[engine])


@in_engine("llamacpp")
@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
def test_a_gguf_file_gives_the_same_in_llama_cpp(unit, wide, tmp_path):
    folder, loaded = wide("qwen2", attention_unit=unit)
    agree("llamacpp", export(folder, "gguf", tmp_path / "gguf", "f32").path, loaded.model, tolerance=5e-3)


@pytest.mark.parametrize(
    "engine", [pytest.param(engine, marks=in_engine(engine)) for engine in ("transformers", "llamacpp")]
)
def test_an_engine_is_timed(engine, tiny_folder, capsys):
    import json

    from pruning.cli.main import main

    command = ["bench", str(tiny_folder), str(tiny_folder), "--engine", engine, "--json", "--repeats", "1"]
    assert main([*command, "--batch", "1,2", "--lengths", "8", "--new-tokens", "3"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["engine"] == engine
    assert [(cell["batch"], cell["length"]) for cell in output["speed"]] == [(1, 8)] * 2 + [(2, 8)] * 2
    assert all(cell["prefill"]["median"] > 0 and cell["decode"]["median"] > 0 for cell in output["speed"])


@in_engine("vllm")
def test_vllm_is_timed(tiny_folder, wide, tmp_path):
    folder, _ = wide("qwen2")
    path = export(folder, "hf", tmp_path / "hf", verify=False).path
    with open_engine("vllm", path, 64, 2) as opened:
        assert all(seconds > 0 for seconds in opened.ask("time", batch=2, length=16, new=4))


def test_depth_pruning_ends_at_the_same_number_of_parameters(text_file):
    from pruning.errors import ConfigError
    from pruning.measure.speed import drop_layers
    from tests.conftest import tiny_loaded

    dense = tiny_loaded("qwen2")
    total = sum(p.numel() for p in dense.model.parameters())
    layer = sum(p.numel() for p in dense.model.model.layers[0].parameters())
    short = drop_layers(tiny_loaded("qwen2"), total - layer)
    assert sum(p.numel() for p in short.model.parameters()) == total - layer
    assert short.name == "qwen2, 2 of 3 layers" and short.model(torch.arange(5)[None]).logits.isfinite().all()
    with pytest.raises(ConfigError, match="name the dense model first"):
        drop_layers(dense, total)
