"""`normalise auto`: what is chosen, by what measure, and that it stays with the run."""

import numpy as np
import pytest
import torch

from pruning import RunConfig, prune
from pruning.engine.budget import dense_scales, next_mask, scores, site_stats
from pruning.engine.calibration import calibrate
from pruning.engine.choice import CANDIDATES, MaskTrials, choose
from pruning.experiments.grid import existing
from pruning.method.moments import DomainStatistics
from pruning.models.layer_pass import layer_pass
from pruning.models.mask import Mask
from pruning.models.source import InMemory
from pruning.progress import drain
from pruning.runs.report import provenance
from pruning.runs.run import Run, RunStore
from pruning.text.blocks import TokenBlocks
from tests.conftest import TINY, tiny_loaded, tiny_model

CONFIG = RunConfig.create(mixture={"wiki": 0.25, "code": 0.75}, ratio=0.4, iterations=1, normalise="auto")


def blocks(seed, count=3):
    rng = np.random.default_rng(seed)
    return [TokenBlocks(name, rng.integers(0, 256, (count, 24)), {}) for name in CONFIG.mixture]


@pytest.fixture
def calibrated():
    """Scores and statistics of a tiny model."""

    def make(name):
        loaded = tiny_loaded(name)
        full = Mask.full(loaded.source.geometry())
        result = drain(calibrate(loaded.source, blocks(0), full), lambda _: None)
        statistics = DomainStatistics(result.statistics)
        return loaded, scores(statistics, result.norms, CONFIG), site_stats(statistics, None, CONFIG)

    return make


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_the_divergence_of_a_trial_is_that_of_the_model_cut_for_good(name, calibrated):
    from pruning.engine.cutting import cut

    loaded, site_scores, stats = calibrated(name)
    config = CONFIG.replace(normalise="soft_share")
    scales = dense_scales(site_scores, square_attention=False)
    full = Mask.full(loaded.source.geometry())
    mask = next_mask(site_scores, full, 0.4, config, scales)
    trials = MaskTrials(loaded.source, {"it": mask}, stats, config, blocks(1))
    drain(layer_pass(loaded.source, [trials], "choose"), lambda _: None)
    twin = InMemory(tiny_model(name))
    drain(cut(twin, full, mask, stats, config), lambda _: None)
    expected = 0.0
    for each in blocks(1):
        ids = torch.from_numpy(each.ids)
        dense, pruned = (m(ids).logits.double().log_softmax(-1) for m in (loaded.model, twin.model))
        expected += config.mixture[each.domain] * float((dense.exp() * (dense - pruned)).sum(-1).mean())
    assert trials.divergences()["it"] == pytest.approx(expected, rel=1e-3)
    assert torch.equal(loaded.model(ids).logits, tiny_model(name)(ids).logits)  # it is dense again


def test_the_choice_is_the_least_divergence_and_never_above_that_of_flap(calibrated):
    loaded, site_scores, stats = calibrated("qwen2")
    choice = drain(choose(loaded.source, site_scores, stats, CONFIG, blocks(1)), lambda _: None)
    assert choice.divergences.keys() >= CANDIDATES.keys()
    config = CONFIG.replace(**choice.options)
    scales = dense_scales(site_scores, config.square_attention)
    mask = next_mask(site_scores, Mask.full(loaded.source.geometry()), 0.4, config, scales)
    trials = MaskTrials(loaded.source, {"it": mask}, stats, config, blocks(1))
    drain(layer_pass(loaded.source, [trials], "choose"), lambda _: None)
    assert trials.divergences()["it"] == pytest.approx(
        min(choice.divergences["flap"], trials.divergences()["it"])
    )
    assert trials.divergences()["it"] in [pytest.approx(value) for value in choice.divergences.values()]


def test_a_run_keeps_the_choice_and_resumes_with_it(tiny_folder, text_file):
    options = {"mixture": {"text": 1}, "domains": {"text": str(text_file)}, "samples": 4, "seq_len": 24}
    config = RunConfig.create(
        model=str(tiny_folder), normalise="auto", iterations=3, eval_blocks=2, ratio=0.4, **options
    )
    run = prune(config).run
    again = Run(run.path)
    assert again.config == config.replace(**again.choice.options) and again.config.normalise != "auto"
    (line,) = (line for line in provenance(again) if "normaliser chosen by trials" in line)
    name = again.choice.name
    assert f": {name}, divergence {again.choice.divergences[name]:.3f} nats" in line
    assert again.choice.options.items() >= CANDIDATES[name.partition(",")[0]].items()
    assert existing(RunStore(), [config]).keys() == {config.model_dump_json()}  # an experiment finds it
    fixed = prune(again.config).run  # the same options, named
    for first, second in zip(again.iterations()[1:], Run(fixed.path).iterations()[1:], strict=True):
        assert all(np.array_equal(first.mask.kept[s], second.mask.kept[s]) for s in first.mask.kept)
