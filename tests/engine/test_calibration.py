import numpy as np
import pytest
import torch

from pruning.engine.calibration import calibrate, calibrate_cached, observing
from pruning.errors import CalibrationError
from pruning.method.moments import DomainStatistics
from pruning.models import layer_pass
from pruning.models.geometry import Site
from pruning.models.layer_view import geometry, layer_views
from pruning.models.mask import Mask
from pruning.models.source import InMemory
from pruning.paths import cache_folder
from pruning.progress import drain
from pruning.text.blocks import TokenBlocks
from tests.conftest import TINY, tiny_model


def blocks(domain="a", count=5, seq_len=24, seed=0):
    ids = np.random.default_rng(seed).integers(0, 256, (count, seq_len))
    return TokenBlocks(domain, ids, {})


def run(model, domains, mask=None):
    steps = calibrate(InMemory(model), domains, mask or Mask.full(geometry(model)))
    return DomainStatistics(drain(steps, lambda _: None).statistics)


@torch.no_grad()
def hooked(model, ids):
    """What a plain forward of the whole model feeds into the output projections, in float64."""
    taken = {}

    def take(site):
        def hook(_, args):
            taken[site] = args[0].double().flatten(0, 1)

        return hook

    hooks = [
        view.projection(site.name).register_forward_pre_hook(take(site))
        for view in layer_views(model)
        for site in view.sites
    ]
    model(input_ids=torch.from_numpy(ids), use_cache=False)
    for hook in hooks:
        hook.remove()
    return taken


@pytest.mark.parametrize("name", TINY)
def test_layer_by_layer_equals_hooks_on_a_plain_forward(name, monkeypatch):
    """Sliding windows, query-key norms and biases included; ragged batches too."""
    monkeypatch.setitem(layer_pass.BATCH_TOKENS, "cpu", 48)  # batches of 2, 2 and 1 blocks
    model, domain = tiny_model(name), blocks()
    moments = run(model, [domain]).moments["a"]
    for site, x in hooked(model, domain.ids).items():
        assert moments[site].count == len(x)
        np.testing.assert_allclose(moments[site].mean, x.mean(dim=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments[site].variance, x.var(dim=0), rtol=1e-3, atol=1e-8)


@torch.no_grad()
def test_where_no_norm_comes_first_the_stream_is_what_enters_the_module():
    model = tiny_model("olmo2")
    with observing(layer_views(model)[0], ["attn", "mlp"]) as observations:
        inputs = torch.from_numpy(blocks().ids)
        found = model.model(inputs, output_hidden_states=True).hidden_states
    assert torch.equal(observations["attn"].residual, found[0])
    module = model.model.layers[0]
    inside = module.post_feedforward_layernorm(module.mlp(observations["mlp"].residual))
    torch.testing.assert_close(observations["mlp"].residual + inside, found[1])


def test_domains_do_not_mix():
    model = tiny_model("qwen2")
    a, b = blocks("a", seed=1), blocks("b", count=3, seed=2)
    together, alone = run(model, [a, b]), run(model, [b])
    for site, moments in alone.moments["b"].items():
        np.testing.assert_array_equal(together.moments["b"][site].mean, moments.mean)


def test_the_model_is_left_as_it_was():
    model = tiny_model("mistral_window")
    ids = torch.from_numpy(blocks().ids)
    with torch.no_grad():
        before = model(ids).logits
        run(model, [blocks()])
        torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=0)
    assert not any("forward" in vars(view.layer) for view in layer_views(model))


def test_progress_counts_every_token_in_every_layer():
    model = tiny_model("qwen2")
    seen = list(calibrate(InMemory(model), [blocks()], Mask.full(geometry(model))))
    assert seen[-1].done == seen[-1].total == 5 * 24 * 3


def test_every_layer_reports_its_statistics_when_all_batches_have_passed():
    model = tiny_model("qwen2")
    steps = calibrate(InMemory(model), [blocks("a"), blocks("b")], Mask.full(geometry(model)))
    layers = [progress.result for progress in steps if progress.result]
    assert [list(layer.norms) for layer in layers] == [[Site(i, "attn"), Site(i, "mlp")] for i in range(3)]
    whole = run(model, [blocks("a"), blocks("b")]).moments["b"]
    for layer in layers:
        for site, moments in layer.statistics["b"].items():
            np.testing.assert_array_equal(moments.m2, whole[site].m2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_name_the_layer(value):
    model = tiny_model("qwen2")
    model.model.layers[1].mlp.up_proj.weight.data[5] = value
    with pytest.raises(CalibrationError, match=r"layer 1, mlp: .* domain 'a'"):
        run(model, [blocks()])


def test_the_norms_of_the_weight_columns_come_without_any_text():
    model = tiny_model("qwen2")
    steps = calibrate(InMemory(model), [], Mask.full(geometry(model)))
    norm, mean_abs = drain(steps, lambda _: None).norms[Site(2, "mlp")]
    weight = model.model.layers[2].mlp.down_proj.weight.detach().double().numpy()
    np.testing.assert_allclose(norm, np.sqrt((weight**2).sum(axis=0)), rtol=1e-6)
    np.testing.assert_allclose(mean_abs, np.abs(weight).mean(axis=0), rtol=1e-6)


# --- the cache


class Counter:
    def __init__(self, model):
        self.calls = 0
        model.model.layers[0].register_forward_hook(self._count)

    def _count(self, *_):
        self.calls += 1


def cached(model, domains, state="state"):
    steps = calibrate_cached(InMemory(model), domains, Mask.full(geometry(model)), state)
    return drain(steps, lambda _: None)[0]


def test_the_second_look_computes_nothing():
    model = tiny_model("qwen2")
    counter = Counter(model)
    first = cached(model, [blocks()])
    calls = counter.calls
    second = cached(model, [blocks()])
    assert counter.calls == calls > 0
    site = Site(1, "attn")
    np.testing.assert_array_equal(first.moments["a"][site].m2, second.moments["a"][site].m2)


def test_other_tokens_and_other_states_are_computed():
    model = tiny_model("qwen2")
    cached(model, [blocks()])
    counter = Counter(model)
    for change in ({"seed": 1}, {"count": 4}, {"seq_len": 20}):
        calls = counter.calls
        cached(model, [blocks(**change)])
        assert counter.calls > calls
    calls = counter.calls
    cached(model, [blocks()], state="another")
    assert counter.calls > calls


def test_a_broken_cache_file_is_computed_again():
    model = tiny_model("qwen2")
    expected = cached(model, [blocks()])
    (file,) = (cache_folder() / "moments").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    again = cached(model, [blocks()])
    site = Site(0, "mlp")
    np.testing.assert_array_equal(again.moments["a"][site].mean, expected.moments["a"][site].mean)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(monkeypatch):
    monkeypatch.setenv("PRUNESCOPE_CACHE", "/proc/nowhere")
    assert cached(tiny_model("qwen2"), [blocks()]).moments["a"]
