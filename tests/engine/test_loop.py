import itertools

import numpy as np
import pytest
import torch

from pruning import RunConfig
from pruning.engine.budget import dense_scales, scores
from pruning.engine.events import Finished, Iteration, Started, State
from pruning.engine.loop import prune_loaded
from pruning.method.mixture import adapt
from pruning.models.geometry import Site
from pruning.progress import Progress
from tests.conftest import tiny_loaded


@pytest.fixture
def options(text_file):
    return {
        "ratio": 0.4,
        "iterations": 4,
        "mixture": {"words": 2, "same": 1},
        "domains": {"words": str(text_file), "same": str(text_file)},
        "samples": 4,
        "seq_len": 24,
        "eval_blocks": 3,
    }


def events(config, state=None, name="qwen2"):
    return list(prune_loaded(tiny_loaded(name), config, state))


def iterations(config, state=None, name="qwen2"):
    return [event for event in events(config, state, name) if isinstance(event, Iteration)]


def test_events_come_in_order(options):
    seen = events(RunConfig.create(**options))
    kinds = [type(e) for e in seen if not isinstance(e, Progress)]
    assert kinds == [Started, *[Iteration] * 5, Finished]
    assert [e.stage for e in seen if isinstance(e, Progress)][0] == "evaluate"


def test_every_iteration_reaches_its_ratio_and_shrinks_the_mask(options):
    config = RunConfig.create(**options)
    found = iterations(config)
    for before, after in zip(found, found[1:], strict=False):
        assert after.mask.ratio == pytest.approx(config.ratio_at(after.number), abs=0.03)
        assert after.parameters < before.parameters
        for site in after.mask.kept:
            assert not (after.mask.kept[site] & ~before.mask.kept[site]).any()
            gone = ~before.mask.channels(site)
            assert np.isnan(after.scores[site][gone]).all()
            assert np.isfinite(after.scores[site][~gone]).all()


def test_the_domains_named_are_measured_at_every_iteration(options):
    for iteration in iterations(RunConfig.create(**options)):
        assert set(iteration.perplexity) == {"words", "same"}
        assert all(p.tokens == 3 * 23 for p in iteration.perplexity.values())


def test_ratio_zero_changes_nothing(options):
    loaded = tiny_loaded("qwen2")
    state = {name: p.clone() for name, p in loaded.model.state_dict().items()}
    *_, finished = prune_loaded(loaded, RunConfig.create(**{**options, "ratio": 0.0}))
    assert finished.mask.removed_parameters == 0
    after = loaded.model.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[name], state[name]) for name in state)


@pytest.mark.parametrize("score", ["fluctuation", "random"])
def test_the_same_seed_gives_the_same_masks(options, score, monkeypatch, tmp_path):
    config = RunConfig.create(**options, score=score)
    first = iterations(config)[-1].mask
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "another"))  # computed again, not read
    again = iterations(config)[-1].mask
    other = iterations(config.replace(seed=5))[-1].mask
    assert all(np.array_equal(first.kept[s], again.kept[s]) for s in first.kept)
    assert any(not np.array_equal(first.kept[s], other.kept[s]) for s in first.kept)


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_going_on_after_an_interruption_gives_the_same_bits(options, stop):
    config = RunConfig.create(**options)
    whole = iterations(config)
    scales = dense_scales(whole[1].scores, config.square_attention) if stop else None
    state = State(stop, whole[stop].delta, scales)
    resumed = iterations(config, state)
    assert [i.number for i in resumed] == list(range(stop + 1, 5))
    for a, b in zip(whole[stop + 1 :], resumed, strict=True):
        assert all(np.array_equal(a.mask.kept[s], b.mask.kept[s]) for s in a.mask.kept)
        assert all(torch.equal(a.delta.biases[s], b.delta.biases[s]) for s in a.delta.biases)
        assert a.perplexity == b.perplexity


def test_pins_reach_the_engine(options):
    mask = iterations(RunConfig.create(**options, keep=("1",), remove=("0.mlp.0-5",)))[-1].mask
    assert mask.kept[Site(1, "attn")].all()
    assert mask.kept[Site(1, "mlp")].all()
    assert not mask.kept[Site(0, "mlp")][:6].any()


def test_weights_decide(options, tmp_path):
    (tmp_path / "other.txt").write_text("zyxw" * 900)
    options["domains"] = {**options["domains"], "same": str(tmp_path / "other.txt")}
    alone = {name: first_mask_for(options, {name: 1.0}) for name in ("words", "same")}
    for name, other in (("words", "same"), ("same", "words")):
        mask = first_mask_for(options, {name: 0.98, other: 0.02})
        assert overlap(mask, alone[name]) > overlap(mask, alone[other])


def first_mask_for(options, mixture):
    return iterations(RunConfig.create(**{**options, "iterations": 1, "mixture": mixture}))[-1].mask


def overlap(a, b):
    """Share of channels that both masks keep or both remove."""
    return np.mean(np.concatenate([a.kept[site] == b.kept[site] for site in a.kept]))


def test_closing_the_generator_stops_it(options):
    generator = prune_loaded(tiny_loaded("qwen2"), RunConfig.create(**options))
    next(generator)
    generator.close()
    assert list(generator) == []


def test_a_mixture_that_tunes_itself_takes_its_weights_from_the_rises(options):
    config = RunConfig.create(**options, adapt_mixture=True)
    found = iterations(config)[1:]
    assert found[0].mixture == config.mixture
    for before, after in itertools.pairwise(found):
        assert set(before.rises) == {"words", "same"}
        assert after.mixture == adapt(before.mixture, before.rises)
        site = Site(1, "mlp")
        expected = scores(after.statistics, after.norms, config, after.mixture)[site]
        assert np.array_equal(after.scores[site], expected, equal_nan=True)
    assert not iterations(RunConfig.create(**options))[1].rises
