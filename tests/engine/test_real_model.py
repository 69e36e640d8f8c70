"""On a real pre-trained model: massive activations are there, and the default copes with them."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from pruning import RunConfig
from pruning.engine import budget
from pruning.engine.blocks import calibration_blocks
from pruning.engine.budget import first_mask, warnings
from pruning.engine.calibration import calibrate
from pruning.engine.events import Iteration
from pruning.engine.loop import prune_loaded
from pruning.measure.comparison import mean_perplexity
from pruning.method.moments import DomainStatistics
from pruning.models.layer_view import geometry
from pruning.models.mask import Mask
from pruning.progress import drain
from tests.models.test_gguf_input import needs_smollm2

pytestmark = needs_smollm2
CONFIG = RunConfig.create(model="smollm2", ratio=0.25, samples=2, seq_len=128, eval_blocks=0)


@pytest.fixture(scope="module")
def scored(smollm2):
    """Scores of the dense model by statistic, from 1,024 tokens."""
    blocks = calibration_blocks(CONFIG, smollm2.tokenizer, smollm2.model)
    full = Mask.full(geometry(smollm2.model))
    kinds = ("moments", "relative_moments")
    source = smollm2.source
    results = {kind: drain(calibrate(source, blocks, full, kind), lambda _: None) for kind in kinds}
    return {
        kind: budget.scores(DomainStatistics(result.statistics), result.norms, CONFIG)
        for kind, result in results.items()
    }


def test_single_channels_exceed_the_median_of_their_site_ten_thousand_times(scored):
    wild = {
        str(site): values.max() / np.median(values)
        for site, values in scored["moments"].items()
        if site.name == "mlp"
    }
    assert sum(ratio > 1e4 for ratio in wild.values()) >= 2
    assert np.median(list(wild.values())) < 1e4  # and most layers have none


def test_share_empties_the_layers_that_have_them_and_says_so(scored):
    config = CONFIG.replace(normalise="share", token_weights="equal")
    mask = first_mask(scored["moments"], geometry_of(scored), config)
    found = warnings(mask, scored["moments"], config)
    assert any("MLP keeps 2%: one channel carries" in warning for warning in found)


def test_the_default_empties_no_layer_and_keeps_the_massive_channels(scored):
    scores = scored["relative_moments"]
    mask = first_mask(scores, geometry_of(scored), CONFIG)
    assert warnings(mask, scores, CONFIG) == []
    assert min(mask.kept[site].mean() for site in mask.kept) > 0.3
    for site, values in scored["moments"].items():
        if values.max() > 1e4 * np.median(values):
            assert mask.channels(site)[values.argmax()]


def geometry_of(scored):
    from pruning.models.folder import describe

    return describe("smollm2").geometry


def test_a_cut_leaves_a_model_that_still_knows_what_comes_next(smollm2):
    loaded = replace(smollm2, model=copy.deepcopy(smollm2.model))
    config = CONFIG.replace(ratio=0.1, iterations=1, eval_blocks=1)
    dense, pruned = (event for event in prune_loaded(loaded, config) if isinstance(event, Iteration))
    assert pruned.mask.ratio == pytest.approx(0.1, abs=0.01)
    before, after = (
        mean_perplexity({name: p.value for name, p in event.perplexity.items()}) for event in (dense, pruned)
    )
    assert 1 < after / before < 1.6
