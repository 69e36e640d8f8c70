"""The live canvas: its arithmetic in a real Chromium against the engine's."""

import base64
import os
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from pruning.config import METHODS, RunConfig, choices
from pruning.engine.budget import first_mask
from pruning.method.normalise import NORMALISERS
from pruning.method.scores import score_sites
from pruning.paths import ASSETS
from pruning.runs.run import Run
from pruning.visualization import live

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from install_browser import find  # noqa: E402
from screenshots import browser  # noqa: E402

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not os.environ.get("CI") and find() is None, reason="no Chromium is installed"),
]

MIXTURES = (
    {"wiki": 0.25, "web": 0.25, "code": 0.25, "math": 0.25},
    {"wiki": 0.07, "code": 0.61, "math": 0.32},
    {"code": 1.0},
)
# The options of the method, one by one, and together with what they decide.
OPTIONS = [
    *({"method": method} for method in METHODS),
    *({"normalise": name} for name in NORMALISERS),
    *({"allocation": name} for name in choices("allocation")),
    {"fusion": "total"},
    {"worst_domain": 0.4},
    {"fusion": "total", "score": "input_variance", "worst_domain": 1.0},
    {"attention_unit": "query_head"},
    {"attention_unit": "query_head", "allocation": "equal", "unit_score": "mean"},
    {"round_to": 16},
    {"round_to": 64, "allocation": "uniform"},
    {"round_to": 32, "allocation": "equal"},
    {"keep": ("2.mlp", "0-1.attn.0"), "remove": ("3.mlp.5-400", "1.attn.3")},
    {"keep": ("2.mlp.7-90",), "allocation": "uniform", "attention_unit": "query_head"},
    {"min_mlp_share": 0.3, "min_attention_units": 2},
]


@pytest.fixture(scope="module")
def page():
    with browser() as page:
        page.add_script_tag(path=ASSETS / "live" / "arithmetic.js")
        page.evaluate(
            """() => {
                window.load = (text) => {
                    window.live = unpack(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
                };
                window.answer = (shares, ratio, withScores) => {
                    const found = preview(live, shares, ratio);
                    return {
                        ratio: found.ratio,
                        kept: found.sites.map((each) => Array.from(each.kept)),
                        score: withScores ? found.sites.map((each) => Array.from(each.site.score)) : null,
                    };
                };
            }"""
        )
        yield page


@lru_cache
def dense(name):
    """The first iteration of a shipped run, read once: its statistics are the dense model's."""
    return Run(ASSETS / name).iterations()[1]


def ask(page, it, config, with_scores=False):
    """The browser's preview of a config."""
    data = live.live_data(it, live.arrays_of(config), config.seed)
    page.evaluate("text => load(text)", base64.b64encode(live.pack(data, config, it.geometry)).decode())
    shares = [config.mixture.get(name, 0.0) for name in data.header["domains"]]
    return data, page.evaluate("args => answer(...args)", [shares, config.ratio, with_scores])


def scores(it, config):
    """The engine's scores of a config."""
    fused = it.statistics.fuse(config.mixture, config.fusion, worst_domain=config.worst_domain)
    return score_sites(config.score, fused, it.norms, config.seed)


@pytest.mark.parametrize("name", ["demo-run", "smollm2-run"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_browser_scores_and_cuts_as_the_engine_does(page, name, options):
    it = dense(name)
    most = 0.4 if "min_mlp_share" in options else 1.0
    cases = list(zip(MIXTURES, (0.5, 0.23, 0.71), strict=True))
    if name == "smollm2-run":  # takes longer: another of them for each of the options
        cases = [cases[OPTIONS.index(options) % 3]]
    for mixture, ratio in cases:
        config = RunConfig.create(**options, ratio=min(ratio, most)).replace(mixture=mixture)
        expected = scores(it, config)
        data, found = ask(page, it, config, with_scores=ratio < 0.7)
        assert not data.header["grouped"]
        if found["score"]:
            exact = 1e-7 if config.score == "random" else 1e-14  # it is drawn in Python, and sent in float32
            for site, values in zip(it.geometry.sites, found["score"], strict=True):
                np.testing.assert_allclose(values, expected[site], rtol=exact, atol=0)
        mask = first_mask(expected, it.geometry, config)
        for site, kept in zip(it.geometry.sites, found["kept"], strict=True):
            assert np.array_equal(np.array(kept, bool), mask.retained[site]), site
        assert found["ratio"] == mask.ratio
