"""Sensitivity curves: their hull, and a budget that walks along it."""

import numpy as np
import pytest

from pruning import RunConfig
from pruning.engine.budget import dense_scales, next_mask
from pruning.method.sensitivity import Curve, divergence_at, hull, predict_divergence
from pruning.models.geometry import Site
from pruning.models.mask import Mask
from tests.conftest import llama_geometry

GEOMETRY = llama_geometry(16, 4, ((2, 2, 32), (2, 2, 32)))

MLPS = [site for site in GEOMETRY.sites if site.name == "mlp"]


def test_the_hull_is_below_all_points_and_convex():
    rng = np.random.default_rng(0)
    removed, damage = np.arange(12.0), np.concatenate([[0], rng.random(11).cumsum()])
    x, y = hull(removed, damage)
    assert x[0] == 0 and x[-1] == 11
    assert (np.interp(removed, x, y) <= damage + 1e-12).all()
    assert (np.diff(np.diff(y) / np.diff(x)) >= -1e-12).all()


def test_beyond_the_last_point_the_last_slope_goes_on():
    assert divergence_at(
        np.array([0.0, 1, 2]), np.array([0.0, 1, 3]), np.array([0.5, 2, 4])
    ) == pytest.approx([0.5, 3, 7])


def test_a_curve_survives_json_and_fuses_from_the_mean_to_the_worst_domain():
    curve = Curve(np.array([0.0, 5]), {"a": np.array([0.0, 1]), "b": np.array([0.0, 3])})
    curve = Curve.from_dict(curve.to_dict())
    weights = {"a": 0.75, "b": 0.25}
    assert curve.fused(weights)[1] == 1.5
    assert curve.fused(weights, 1.0)[1] == 3
    assert curve.fused({"a": 1.0}, 1.0)[1] == 1


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6])
def test_no_other_split_of_the_budget_is_predicted_to_cost_less(ratio):
    """Against every split between the MLPs of two layers, heads being kept."""
    rng = np.random.default_rng(1)
    scores = {site: rng.random(GEOMETRY.channels(site)) for site in GEOMETRY.sites}
    curves = {}
    for site in GEOMETRY.sites:
        size = GEOMETRY.parameters(site)
        steep = 100.0 if site.name == "attn" else 1.0 + site.layer
        curves[site] = Curve(np.array([0, size / 2, size]), {"a": steep * np.array([0, 1.0, 4.0])})
    config = RunConfig.create(
        allocation="measured", mixture={"a": 1}, domains={"a": "embedded"}, ratio=ratio, min_mlp_share=0.01
    )
    mask = next_mask(scores, Mask.full(GEOMETRY), ratio, config, dense_scales(scores, False), curves)
    gone = [int((~mask.kept[site]).sum()) for site in MLPS]

    def cost(counts):
        return sum(
            float(divergence_at(c.removed, c.divergence["a"], np.array([n * GEOMETRY.least_cost]))[0])
            for n, c in zip(counts, [curves[site] for site in MLPS], strict=True)
        )

    heads = sum(int((~mask.kept[site]).sum()) for site in GEOMETRY.sites if site.name == "attn")
    if heads == 0:
        total = sum(gone)
        splits = [(n, total - n) for n in range(32) if 0 <= total - n < 32]
        assert cost(gone) == pytest.approx(min(cost(split) for split in splits))
    assert mask.ratio == pytest.approx(ratio, abs=0.05)
    lowest = scores[GEOMETRY.sites[1]]
    assert set(np.flatnonzero(~mask.kept[GEOMETRY.sites[1]])) == set(np.argsort(lowest)[: gone[0]])


def test_what_a_mask_is_foretold_to_cost_is_the_sum_of_its_sites():
    kept = {site: array.copy() for site, array in Mask.full(GEOMETRY).kept.items()}
    for site, gone in zip(MLPS, (8, 16), strict=True):
        kept[site][:gone] = False
    mask = Mask(GEOMETRY, kept)
    sizes = {site: GEOMETRY.parameters(site) for site in GEOMETRY.sites}
    curves = {
        site: Curve(np.array([0, size / 2, size]), {"a": np.array([0, 1.0, 4.0]), "b": np.zeros(3)})
        for site, size in sizes.items()
    }
    assert predict_divergence(curves, mask) == pytest.approx({"a": 0.5 + 1.0, "b": 0.0})  # a quarter, a half
    assert predict_divergence(curves, Mask.full(GEOMETRY)) == pytest.approx({"a": 0, "b": 0})


def test_the_lost_output_is_that_of_a_linear_map_of_independent_channels():
    """Against two passes over samples: variance of the output with and without the removed channels."""
    from pruning.method.moments import DomainStatistics, Moments
    from pruning.method.sensitivity import lost_output
    from pruning.method.statistics import WeightNorms

    rng = np.random.default_rng(0)
    shape = llama_geometry(16, 4, ((2, 2, 12),), True, True)
    mask = Mask.full(shape)
    mask.kept[Site(0, "mlp")][:5] = False
    moments, norms, truth = {}, {}, {}
    for site in shape.sites:
        width = shape.channels(site)
        x = rng.normal(size=(200_000, width)) * rng.uniform(0.2, 3, width) + rng.normal(size=width)
        weight = rng.normal(size=(16, width))
        moments[site] = Moments(len(x), x.mean(axis=0), ((x - x.mean(axis=0)) ** 2).sum(axis=0))
        norms[site] = WeightNorms(np.linalg.norm(weight, axis=0), np.abs(weight).mean(axis=0))
        gone = ~mask.channels(site)
        truth[site] = (x[:, gone] @ weight[:, gone].T).var(axis=0).sum() / (x @ weight.T).var(axis=0).sum()
    found = lost_output(DomainStatistics({"words": moments}), norms, mask)
    assert found["words"] == pytest.approx(np.mean(list(truth.values())), rel=0.02)
