"""DeciLM folders: what is filled up, what is refused. tests/serving loads them in vLLM and mlx-lm."""

import json
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from pruning.errors import ExportError, RunError
from pruning.formats import deci
from pruning.formats.checkpoint_info import CheckpointInfo
from pruning.formats.format import ExportJob, export_plans
from pruning.formats.verify import logits
from pruning.formats.write import export
from pruning.models.folder import describe
from pruning.models.loading import load
from tests.conftest import llama_geometry


def geometry(*layers, hidden=576, head_dim=64):
    return llama_geometry(hidden_size=hidden, head_dim=head_dim, layers=tuple(shape for shape in layers))


def test_layers_are_filled_up_to_what_the_architecture_has_room_for():
    # nine query heads in all: three, one or nine key-value heads divide them
    own = geometry((3, 3, 1536), (2, 3, 257), (1, 2, 1), (3, 1, 512))
    shapes = [(s["attn"].groups, s["attn"].group, s["mlp"].entries) for s in deci.padded(own).layers]
    assert shapes == [(3, 3, 1536), (3, 3, 512), (1, 9, 256), (3, 3, 512)]
    assert (
        deci.padded(geometry((3, 3, 256), hidden=512, head_dim=64)) is None
    )  # nine heads and room for eight
    assert deci.padded(geometry((2, 2, 256), hidden=100, head_dim=64)) is None


@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
def test_a_folder_says_what_it_filled_up_and_computes_the_same(unit, checkpoint, tmp_path):
    folder, loaded = checkpoint("qwen2", {"head_dim": 4}, attention_unit=unit)
    plan = next(plan for plan in export_plans(CheckpointInfo.read(folder)) if plan.format == "deci")
    lost = sum(8 - layer["attn"].entries for layer in describe(str(folder)).geometry.layers)
    assert (
        f"{lost} removed query heads come back as zeros" in plan.drawback
        and "--round-to 256" in plan.drawback
    )
    done = export(folder, "deci", tmp_path / "deci")
    assert done.difference < 1e-4
    content = json.loads((done.path / "config.json").read_text())
    assert content["attention_bias"] and content["mlp_bias"]
    state = load_file(done.path / "model.safetensors")
    for index, block in enumerate(content["block_configs"]):
        width = state[f"model.layers.{index}.mlp.down_proj.weight"].shape[1]
        assert width % 256 == 0 and round(2 * block["ffn"]["ffn_mult"] * content["hidden_size"] / 3) == width
        keys = state[f"model.layers.{index}.self_attn.k_proj.weight"].shape[0]
        assert keys == 4 * 8 // block["attention"]["n_heads_in_group"]
    assert f"model.layers.{index}.mlp.up_proj.bias" in state  # zeros, where the dense model has none


@pytest.mark.processes
def test_blocks_answer_to_attributes_as_vllm_asks_them(checkpoint, tmp_path):
    done = export(checkpoint("qwen2", {"head_dim": 4})[0], "deci", tmp_path / "deci")
    code = (
        "from transformers import AutoConfig\n"
        f"config = AutoConfig.from_pretrained({str(done.path)!r}, trust_remote_code=True)\n"
        "block = config.block_configs[0]\n"
        "assert not hasattr(block.ffn, 'hidden_act') and not block.attention.no_op\n"
        "config.to_json_string()\n"
        "print(config.model_type, block.attention.n_heads_in_group)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.split()[:1] == ["nemotron-nas"], result.stderr


@pytest.mark.parametrize(
    ("name", "dense", "reason"),
    [
        ("qwen3", {}, "norms of queries and keys"),
        ("mistral_window", {}, "a sliding window"),
        ("qwen2", {"head_dim": 12}, "heads of 12 channels do not fill 32"),
    ],
)
def test_what_decilm_does_not_compute_is_refused_by_name(name, dense, reason, checkpoint, tmp_path):
    with pytest.raises(ExportError, match=f"{reason}.*--format hf"):
        export(checkpoint(name, dense)[0], "deci", tmp_path / "out")


def test_a_tensor_that_is_wrong_is_found(checkpoint, tmp_path):
    folder, loaded = checkpoint("qwen2", {"head_dim": 4})
    done = export(folder, "deci", tmp_path / "deci")
    state = load_file(done.path / "model.safetensors")
    state["model.layers.2.mlp.down_proj.bias"].zero_()
    save_file(state, done.path / "model.safetensors", metadata={"format": "pt"})
    source = ExportJob(folder, None, CheckpointInfo.read(folder), done.plan, None, {}, "x")
    with pytest.raises(RunError, match="computes something else"):
        deci._check(source, done.path, logits(load(str(folder)).model))
