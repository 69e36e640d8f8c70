"""Least squares against an independent solver, its guard, and runs that use it."""

import numpy as np
import pytest
import torch

from pruning import RunConfig, prune
from pruning.engine import sensitivity
from pruning.engine.blocks import hold_out
from pruning.engine.budget import dense_scales
from pruning.engine.loop import prune_loaded
from pruning.method.compensation import Inputs, bias, least_squares
from pruning.method.moments import SecondMoments
from pruning.models.geometry import Site
from pruning.models.loading import load
from pruning.progress import Progress
from pruning.runs.worker import stored_state
from pruning.text.blocks import TokenBlocks
from tests.conftest import needs_demo, tiny_loaded


def inputs_of(x, heldout=None):
    moments = SecondMoments.of(x)
    matrix = moments.m2 / moments.count
    return Inputs(moments.mean, matrix, matrix, heldout or {})


@pytest.fixture
def drawn():
    torch.manual_seed(1)
    x = (torch.randn(400, 12) @ torch.randn(12, 12) + 2).double()
    return x, torch.randn(5, 12).double(), torch.tensor([False] * 8 + [True] * 4)


def test_without_a_ridge_it_is_what_lstsq_finds(drawn, monkeypatch):
    x, weight, removed = drawn
    monkeypatch.setattr("pruning.method.compensation.RIDGES", (0.0, 0.0, 0.0))
    repair = least_squares(weight, inputs_of(x), removed)
    design = torch.cat([x[:, ~removed], torch.ones(len(x), 1, dtype=torch.double)], dim=1)
    truth = torch.linalg.lstsq(design, x @ weight.T).solution.T
    found = (weight + repair.weight)[:, ~removed]
    torch.testing.assert_close(found.double(), truth[:, :-1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(repair.bias.double(), truth[:, -1], rtol=1e-3, atol=2e-3)


def test_without_correlation_it_is_the_bias(drawn):
    _, weight, removed = drawn
    mean = torch.arange(12.0, dtype=torch.double)
    matrix = torch.eye(12, dtype=torch.double)
    inputs = Inputs(mean, matrix, matrix)
    repair = least_squares(weight, inputs, removed)
    assert repair.weight.abs().max() == 0
    torch.testing.assert_close(repair.bias, bias(weight, inputs, removed).bias)


def test_the_guard_takes_the_bias_where_a_domain_would_be_worse_off(drawn):
    x, weight, removed = drawn
    centred = (x - x.mean(0)).float()
    good = least_squares(weight.float(), inputs_of(x, {"a": centred}), removed)
    assert good.ridge is not None and good.error["a"] < 1
    turned = centred.clone()
    turned[:, ~removed] *= -1  # a domain in which the channels say the opposite of one another
    refused = least_squares(weight.float(), inputs_of(x, {"a": centred, "b": turned}), removed)
    assert refused.weight is None and refused.error == {"a": 1.0, "b": 1.0}
    torch.testing.assert_close(refused.bias, bias(weight.float(), inputs_of(x), removed).bias)


@pytest.fixture
def options(text_file):
    return {
        "domains": {"text": str(text_file)},
        "mixture": {"text": 1},
        "seq_len": 24,
        "samples": 16,
        "ratio": 0.3,
        "eval_blocks": 0,
        "iterations": 2,
    }


def finished(options, **more):
    loaded = tiny_loaded("qwen2")
    *_, last = prune_loaded(loaded, RunConfig.create(**options, **more))
    return last


@needs_demo
@pytest.mark.long
def test_on_the_demo_model_it_keeps_more_than_the_bias_in_every_domain():
    def kept(compensation):
        config = RunConfig.create(iterations=1, samples=8, eval_blocks=4, compensation=compensation)
        *_, last, _ = (e for e in prune_loaded(load("demo"), config) if not isinstance(e, Progress))
        return {name: p.value for name, p in last.perplexity.items()}

    squares, bias_alone = kept("least_squares"), kept("bias")
    assert all(squares[name] < bias_alone[name] for name in squares)


def test_a_sequential_cut_removes_as_many_units_of_every_site(options):
    one = options | {"iterations": 1}
    plain, fresh = finished(one), finished(one, sequential=True)
    for site in plain.mask.kept:
        assert plain.mask.kept[site].sum() == fresh.mask.kept[site].sum()
    first = Site(0, "attn")  # nothing in front of it was cut
    np.testing.assert_array_equal(plain.mask.kept[first], fresh.mask.kept[first])


def test_sensitivity_is_measured_on_text_that_the_regression_has_not_seen(options, monkeypatch):
    blocks = {}
    for name in ("InputCollector", "TokenStream"):
        real = getattr(sensitivity, name)

        def spy(source, parts, *rest, real=real, name=name):
            (blocks[name],) = parts
            return real(source, parts, *rest)

        monkeypatch.setattr(sensitivity, name, spy)
    finished(options | {"iterations": 1}, allocation="measured", compensation="least_squares")
    fitted, probed = ({tuple(ids) for ids in blocks[name].ids} for name in ("InputCollector", "TokenStream"))
    assert len(fitted) == 14 and len(probed) == sensitivity.PROBES and not fitted & probed


def test_the_blocks_held_out_do_not_depend_on_the_order_of_the_blocks():
    ids = np.random.default_rng(0).integers(0, 256, (20, 24))
    shuffled = np.random.default_rng(1).permutation(ids)
    (fit, held_out), (other_fit, other_held_out) = (
        hold_out(TokenBlocks("a", x, {})) for x in (ids, shuffled)
    )
    assert len(held_out.ids) == 3 and len(fit.ids) == 17
    assert {tuple(block) for block in held_out.ids} == {tuple(block) for block in other_held_out.ids}
    assert {tuple(block) for block in fit.ids} == {tuple(block) for block in other_fit.ids}
    assert sorted(map(tuple, [*fit.ids, *held_out.ids])) == sorted(map(tuple, ids))
    assert len(hold_out(TokenBlocks("a", ids[:1], {}))[1].ids) == 0


def test_measured_sensitivity_is_stored_and_a_resumed_run_goes_on_with_it(options, tmp_path, tiny_folder):
    more = {"allocation": "measured", "compensation": "least_squares", "model": str(tiny_folder)}
    result = prune(RunConfig.create(**options, **more), tmp_path / "runs")
    first, last = result.run.iterations()[1], result.run.iterations()[-1]
    assert set(first.curves) == set(result.mask.kept)
    for curve in first.curves.values():
        assert (
            curve.removed[0] == 0 and curve.divergence["text"][0] == 0 and (np.diff(curve.removed) > 0).all()
        )
        assert curve.divergence["text"][-1] > 0
    assert first.metrics.repairs
    state = stored_state(result.run)
    assert {str(s): c.to_dict() for s, c in state.curves.items()} == {
        str(s): c.to_dict() for s, c in first.curves.items()
    }
    assert state.scales == dense_scales(first.scores, False)
    # what is stored makes the same model again
    assert last.delta().digest("x") == result.delta.digest("x")
