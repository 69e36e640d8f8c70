"""Layers are handed out one at a time, and hidden states may wait anywhere."""

import numpy as np
import pytest
import torch

from pruning.engine.calibration import calibrate
from pruning.measure.perplexity import perplexity
from pruning.models.layer_view import geometry
from pruning.models.layers import Layers, Stash, forward
from pruning.models.mask import Mask
from pruning.progress import drain
from pruning.text.blocks import TokenBlocks
from tests.conftest import TINY, tiny_model

IDS = torch.randint(0, 256, (5, 24), generator=torch.manual_seed(0))


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_going_by_layers_is_the_models_own_forward(name):
    model = tiny_model(name)
    layers = Layers(model)
    steps = forward(layers, IDS.split(2))
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            stash = stop.value
            break
    assert seen == [(layer, batch) for layer in range(len(layers)) for batch in range(3)]
    logits = torch.cat([layers.logits(layers.last(stash[i])) for i in range(len(stash))])
    assert torch.equal(logits, torch.cat([model(part).logits for part in IDS.split(2)]))


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_where_hidden_states_wait_changes_nothing(place):
    model, blocks = tiny_model("qwen2"), [TokenBlocks("a", IDS.numpy(), {})]

    def moments(where):
        found = drain(calibrate(model, blocks, Mask.full(geometry(model)), place=where), lambda _: None)
        return found["moments"]["a"]

    here, there = moments("device"), moments(place)
    assert all(np.array_equal(here[site].m2, there[site].m2) for site in here)
    values = [drain(perplexity(model, blocks, where), lambda _: None) for where in ("device", place)]
    assert values[0] == values[1]


def test_a_stash_on_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stash = Stash(torch.device("cpu"), "disk")
    stash.append(torch.ones(2, 3))
    assert torch.equal(stash[0], torch.ones(2, 3)) and list(tmp_path.iterdir())
    stash.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_is_handed_out_once(tied):
    model = tiny_model("qwen2" if tied else "llama_gqa_bias")
    names = [name for name, _ in Layers(model).tensors()]
    expected = set(model.state_dict()) - set(model.all_tied_weights_keys)
    assert len(names) == len(set(names)) and set(names) == expected
