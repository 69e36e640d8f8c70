"""A delta is all that separates a pruned model from its dense one: named, saved, read, applied."""

import copy

import torch

from pruning.models.delta import Delta
from pruning.models.folder import fingerprint
from pruning.models.layer_view import geometry
from pruning.models.mask import Mask
from tests.conftest import tiny_model, tiny_pruned

IDS = torch.randint(0, 256, (2, 20), generator=torch.manual_seed(5))
NAME = "model.layers.1.mlp.down_proj.weight"


@torch.no_grad()
def test_it_makes_the_pruned_model_of_the_dense_one(text_file, tmp_path):
    done = tiny_pruned("llama_gqa_bias", text_file)
    model = done.loaded.model
    model.get_parameter(NAME).mul_(1.5)  # as a compensation may
    delta = Delta.of(model, done.mask, [NAME])
    delta.write(tmp_path)
    back = Delta.read(tmp_path, geometry(tiny_model("llama_gqa_bias")))
    assert back.digest("x") == delta.digest("x")
    twin = tiny_model("llama_gqa_bias")
    back.apply(twin)
    assert torch.equal(twin(IDS).logits, model(IDS).logits)


def test_its_name_sees_every_tensor(text_file):
    done = tiny_pruned("qwen2", text_file)
    model = done.loaded.model
    name = Delta.of(model, done.mask, [NAME]).digest("dense")
    names = {name, Delta.of(model, done.mask, [NAME]).digest("another")}
    changed = copy.deepcopy(model)
    changed.get_parameter(NAME).data[3, 5] += 1e-3
    names.add(Delta.of(changed, done.mask, [NAME]).digest("dense"))
    changed = copy.deepcopy(model)
    changed.model.layers[0].mlp.down_proj.bias.data[2] += 1e-3
    names.add(Delta.of(changed, done.mask, [NAME]).digest("dense"))
    names.add(Delta.of(model, Mask.full(done.mask.geometry), [NAME]).digest("dense"))
    assert len(names) == 5


def test_models_that_differ_in_a_weight_have_different_names(tmp_path):
    """Even where size and time of the file are the same."""
    import os

    model = tiny_model("qwen2")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        model.save_pretrained(folder)
        os.utime(folder / "model.safetensors", ns=(10**18, 10**18))
        model.model.layers[2].mlp.down_proj.weight.data[-1, -1] += 1e-3
    assert fingerprint(folders[0]) != fingerprint(folders[1])
    assert fingerprint(folders[0]) == fingerprint(folders[0])
    before = fingerprint(folders[0])
    tiny_model("qwen2", seed=3).save_pretrained(folders[0])  # in place, with the time of the old file
    os.utime(folders[0] / "model.safetensors", ns=(10**18, 10**18))
    assert fingerprint(folders[0]) != before
