import copy

import pytest
import torch

from pruning import RunConfig
from pruning.engine.events import Iteration
from pruning.engine.loop import prune_loaded
from pruning.method.compensation import Inputs
from pruning.method.compensation import bias as compensate
from pruning.models.delta import Delta
from pruning.models.layer_view import geometry, layer_views
from pruning.models.mask import Mask
from pruning.models.source import InMemory
from tests.conftest import TINY, tiny_loaded, tiny_model

IDS = torch.randint(0, 256, (3, 20), generator=torch.manual_seed(5))


def pruned(name, text_file, **options):
    loaded = tiny_loaded(name)
    config = RunConfig.create(
        **{
            "ratio": 0.45,
            "iterations": 2,
            "mixture": {"text": 1},
            "domains": {"text": str(text_file)},
            "samples": 4,
            "seq_len": 24,
            "eval_blocks": 0,
            **options,
        }
    )
    *_, finished = prune_loaded(loaded, config)
    return loaded.model, finished.mask


def mask_channels(model, mask):
    """The masked twin of a pruned model: the same function, with zeros in place of removed columns."""
    for view in layer_views(model):
        for site in view.sites:
            view.projection(site.name).weight.data[:, torch.as_tensor(~mask.channels(site))] = 0


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_the_pruned_model_equals_its_masked_twin(name, unit, iterations, text_file):
    model, mask = pruned(name, text_file, attention_unit=unit, iterations=iterations)
    assert mask.removed_parameters > 0
    twin = tiny_model(name)
    mask_channels(twin, mask)
    biases = Delta.of(InMemory(model), mask).biases
    Delta(Mask.full(geometry(twin)), biases).apply(InMemory(twin))
    torch.testing.assert_close(model(IDS).logits, twin(IDS).logits, rtol=1e-4, atol=1e-4)
    assert geometry(model) == mask.pruned


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_generation_with_the_cache_equals_generation_without(name, text_file):
    model, _ = pruned(name, text_file)
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 256, "eos_token_id": None}
    with_cache = model.generate(IDS[:1], use_cache=True, **options)
    without = model.generate(IDS[:1], use_cache=False, **options)
    assert with_cache.tolist() == without.tolist()


@torch.no_grad()
def test_tied_embeddings_stay_tied(text_file):
    model, _ = pruned("qwen2", text_file)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_biases_of_queries_and_keys_are_cut_with_their_rows(text_file):
    model, mask = pruned("qwen2", text_file)
    for layer, shape in enumerate(mask.pruned.layers):
        attention = model.model.layers[layer].self_attn
        assert attention.q_proj.bias.shape == (shape["attn"].entries * 4,)
        assert attention.v_proj.bias.shape == (shape["attn"].groups * 4,)


@torch.no_grad()
def test_compensation_is_exact_where_removed_inputs_equal_their_mean():
    weight, mean = torch.randn(5, 9), torch.randn(9)
    removed = torch.tensor([True, False] * 4 + [True])
    x = torch.randn(7, 9)
    x[:, removed] = mean[removed]
    kept = x[:, ~removed] @ weight[:, ~removed].T
    torch.testing.assert_close(kept + compensate(weight, Inputs(mean), removed).bias, x @ weight.T)


@torch.no_grad()
def test_compensation_adds_over_iterations(text_file):
    """The published code assigns the bias; cutting twice must give the sum of both corrections."""
    model, _ = pruned("llama_gqa_bias", text_file, iterations=4)
    once = tiny_model("llama_gqa_bias").model.layers[0].mlp.down_proj.bias
    assert not torch.equal(model.model.layers[0].mlp.down_proj.bias, once)
    loaded = tiny_loaded("llama_gqa_bias")
    dense = copy.deepcopy(loaded.model.model.layers[0].mlp.down_proj)
    iterations = []

    def watch(event):
        if isinstance(event, Iteration) and event.number:
            iterations.append((event.statistics, event.mask, event.delta.biases["0.mlp"].clone()))

    config = RunConfig.create(
        ratio=0.4,
        iterations=3,
        mixture={"text": 1},
        domains={"text": str(text_file)},
        samples=4,
        seq_len=24,
        eval_blocks=0,
    )
    for event in prune_loaded(loaded, config):
        watch(event)
    from pruning.models.geometry import Site

    site, expected, before = Site(0, "mlp"), dense.bias.double(), Mask.full(iterations[0][1].geometry)
    for statistics, mask, bias in iterations:
        removed = torch.from_numpy(before.kept[site] & ~mask.kept[site])
        mean = torch.from_numpy(statistics.moments["text"][site].mean)
        expected = expected + dense.weight.double()[:, removed] @ mean[removed]
        torch.testing.assert_close(bias.double(), expected, rtol=1e-5, atol=1e-6)
        before = mask


def test_without_compensation_no_bias_appears(text_file):
    model, mask = pruned("qwen3", text_file, compensation="none")
    assert Delta.of(InMemory(model), mask).biases == {}
