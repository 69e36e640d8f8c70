"""Layers are handed out one at a time, and all computations pass them in order."""

import numpy as np
import pytest
import torch

from pruning import RunConfig
from pruning.engine import loop
from pruning.engine.calibration import calibrate
from pruning.engine.events import Iteration
from pruning.measure.perplexity import perplexity
from pruning.models import layer_pass
from pruning.models.layer_pass import ActivationCache, TokenStream
from pruning.models.layer_view import geometry
from pruning.models.mask import Mask
from pruning.models.source import InMemory
from pruning.progress import drain
from pruning.text.blocks import TokenBlocks
from tests.conftest import TINY, tiny_loaded, tiny_model

IDS = torch.randint(0, 256, (5, 24), generator=torch.manual_seed(0))


def blocks(*domains):
    return [TokenBlocks(domain, IDS.numpy(), {}) for domain in domains]


class CountingSource(InMemory):
    """Counts how often every layer is asked for."""

    requests: list[int]

    def layer(self, index):
        type(self).requests[index] += 1
        return super().layer(index)


@pytest.fixture
def requests():
    CountingSource.requests = [0, 0, 0]
    return CountingSource.requests


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_passing_layer_by_layer_is_the_models_own_forward(name, monkeypatch):
    monkeypatch.setitem(layer_pass.BATCH_TOKENS, "cpu", 48)
    model = tiny_model(name)
    source = InMemory(model)
    stream = TokenStream(source, blocks("a"))
    for index in range(len(source)):
        with source.layer(index) as view:
            assert [len(batch.ids) for batch in stream.push(index, view)] == [2, 2, 1]
    logits = torch.cat([source.logits(stream.states[number]) for number in range(3)])
    assert torch.equal(logits, torch.cat([model(part).logits for part in IDS.split(2)]))


def test_states_that_wait_on_the_cpu_change_nothing(monkeypatch):
    cached = ActivationCache(torch.device("meta"))
    monkeypatch.setattr(layer_pass, "free_share", lambda device: 0.1)
    moved = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: moved.append(self) or torch.zeros(self.shape))
    cached[0] = torch.empty(2, 3, device="meta")
    assert len(moved) == 1 and cached._states[0].device.type == "cpu" and cached[0].device.type == "meta"
    monkeypatch.setattr(layer_pass, "free_share", lambda device: 0.9)
    cached[0] = torch.empty(2, 3, device="meta")
    assert len(moved) == 1 and cached._states[0].device.type == "meta"


def test_the_memory_of_a_cpu_is_never_short():
    assert layer_pass.free_share(torch.device("cpu")) == 1


@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_is_handed_out_once(tied):
    model = tiny_model("qwen2" if tied else "llama_gqa_bias")
    names = [name for name, _ in InMemory(model).tensors()]
    expected = set(model.state_dict()) - set(model.all_tied_weights_keys)
    assert len(names) == len(set(names)) and set(names) == expected


# --- how often layers are asked for


def test_statistics_and_norms_of_all_domains_take_one_pass(requests):
    source = CountingSource(tiny_model("qwen2"))
    drain(calibrate(source, blocks("a", "b"), Mask.full(geometry(source.model))), lambda _: None)
    assert requests == [1, 1, 1]


def test_the_perplexity_of_all_domains_takes_one_pass(requests):
    source = CountingSource(tiny_model("qwen2"))
    both = drain(perplexity(source, blocks("a", "b")), lambda _: None)
    assert requests == [1, 1, 1]
    assert both["a"] == both["b"] == drain(perplexity(source, blocks("a")), lambda _: None)["a"]


@pytest.mark.parametrize(
    "options", [{}, {"method": "flap"}, {"method": "prunescope"}, {"adapt_mixture": True}]
)
def test_an_iteration_asks_for_every_layer_twice(options, text_file, requests):
    """Once for statistics and norms, once to cut, repair and measure, with fresh statistics as well."""
    config = RunConfig.create(
        ratio=0.4,
        mixture={"words": 1, "same": 1},
        domains={"words": str(text_file), "same": str(text_file)},
        samples=4,
        seq_len=24,
        eval_blocks=3,
        **options,
    )
    counts = []
    loaded = tiny_loaded("qwen2")
    vars(loaded)["source"] = CountingSource(loaded.model)
    for event in loop.prune_loaded(loaded, config):
        if isinstance(event, Iteration):
            counts.append(list(requests))
            assert set(event.perplexity) == {"words", "same"}
    assert len(counts) == config.iterations + 1
    asked = np.diff(counts, axis=0)
    assert (asked == 2).all()
