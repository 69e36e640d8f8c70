from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning import RunConfig
from pruning.engine.budget import check_reachable, dense_scales, first_mask, next_mask, warnings
from pruning.errors import CalibrationError, ConfigError
from pruning.method import allocation as allocations
from pruning.method import units
from pruning.method.normalise import NORMALISERS, Scale
from pruning.method.units import select
from pruning.models.geometry import Geometry, Site, SiteShape
from pruning.models.mask import Mask, chance_jaccard, jaccard
from tests.conftest import llama_geometry

GQA = llama_geometry(
    hidden_size=32, head_dim=4, layers=((4, 2, 60),) * 3, query_bias=True, key_value_bias=True
)
MHA = llama_geometry(hidden_size=32, head_dim=4, layers=((8, 1, 60),) * 3)
# Only the MLP can be cut; attention makes a third of the parameters.
MLP_ONLY = Geometry(32, ({"mlp": SiteShape(60, entry_cost=96)},) * 3, fixed_parameters=3 * 30 * 96)


def random_scores(geometry, seed=0):
    rng = np.random.default_rng(seed)
    return {site: rng.gamma(1.0, 1 + site.layer, geometry.channels(site)) for site in geometry.sites}


def make(geometry, ratio, mask=None, scores=None, **options):
    config = RunConfig.create(**{"min_mlp_share": 0.05, **options})
    scores = scores or random_scores(geometry)
    return next_mask(
        scores, mask or Mask.full(geometry), ratio, config, dense_scales(scores, config.square_attention)
    )


def by_hand(mask):
    """Removed parameters counted from the shapes of the weights that are left."""
    g, total = mask.geometry, 0
    for shape, left in zip(g.layers, mask.pruned.layers, strict=True):
        for s, sign in ((shape, 1), (left, -1)):
            q, kv = 4 * s["attn"].entries, 4 * s["attn"].groups
            weights = 2 * q * g.hidden_size + 2 * kv * g.hidden_size + 3 * s["mlp"].entries * g.hidden_size
            total += sign * (weights + (q + 2 * kv) * (g is GQA))
    return total


@settings(max_examples=120, deadline=None)
@given(
    ratio=st.floats(0, 0.85),
    geometry=st.sampled_from([GQA, MHA]),
    unit=st.sampled_from(["kv_group", "query_head"]),
    allocation=st.sampled_from(["global", "uniform", "equal"]),
    rule=st.sampled_from(["share", "zscore", "zscore_zero", "zscore_first", "none"]),
    round_to=st.sampled_from([1, 4, 7]),
    seed=st.integers(0, 1000),
)
def test_the_ratio_is_met_within_a_unit(ratio, geometry, unit, allocation, rule, round_to, seed):
    try:
        mask = make(
            geometry,
            ratio,
            scores=random_scores(geometry, seed),
            attention_unit=unit,
            allocation=allocation,
            normalise=rule,
            round_to=round_to,
        )
    except ConfigError as error:
        assert "cannot be reached" in str(error)
        assert ratio > float(str(error).split("at most ")[1].split(" ")[0])
        return
    assert mask.removed_parameters == by_hand(mask)
    bias = geometry is GQA
    group = 2 * 4 * (2 * 32 + bias) + 2 * 4 * (32 + bias)
    heads = 8 * 4 * (2 * 32 + bias)
    one_unit = max(group, heads if unit == "query_head" else 0, round_to * 3 * 32)
    if allocation != "global":  # a step is the same in every layer
        one_unit = 3 * round_to * 3 * 32
    assert abs(mask.removed_parameters - ratio * geometry.linear_parameters) <= one_unit
    for shape in mask.pruned.layers:
        assert shape["attn"].groups >= 1
        assert shape["attn"].group >= 1
        assert shape["mlp"].entries >= 3


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.02, 0.7), min_size=2, max_size=5), st.sampled_from(["kv_group", "query_head"]))
def test_what_is_removed_stays_removed(ratios, unit):
    mask = Mask.full(GQA)
    for i, ratio in enumerate(sorted(ratios)):
        after = make(GQA, ratio, mask, random_scores(GQA, i), attention_unit=unit)
        for site in GQA.sites:
            assert not (after.kept[site] & ~mask.kept[site]).any()
        mask = after


def test_ratio_zero_removes_nothing():
    assert make(GQA, 0.0).removed_parameters == 0


def test_layers_keep_whole_groups_of_equal_size():
    for unit in ("kv_group", "query_head"):
        mask = make(GQA, 0.5, attention_unit=unit)
        for layer in range(3):
            groups = mask.kept[Site(layer, "attn")].reshape(4, 2).sum(axis=1)
            assert len(set(groups[groups > 0])) == 1
            assert set(groups) <= ({0, 2} if unit == "kv_group" else {1, 2})


def test_query_head_units_take_the_lowest_of_each_group():
    scores = random_scores(GQA)
    config = RunConfig.create(attention_unit="query_head", remove=("1.attn.0",))
    mask = next_mask(scores, Mask.full(GQA), 0.0, config, dense_scales(scores, False))
    heads = scores[Site(1, "attn")].reshape(8, 4).sum(axis=1).reshape(4, 2)
    expected = np.ones((4, 2), bool)
    expected[np.arange(4), heads.argmin(axis=1)] = False
    expected[0] = [False, True]  # named by hand, lowest or not
    np.testing.assert_array_equal(mask.kept[Site(1, "attn")], expected.ravel())


@pytest.mark.parametrize("allocation", ["uniform", "equal"])
@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
def test_equal_widths_are_equal(allocation, unit):
    mask = make(GQA, 0.4, allocation=allocation, attention_unit=unit)
    assert mask.pruned.layers.count(mask.pruned.layers[0]) == len(mask.pruned.layers)


@pytest.mark.parametrize("allocation", allocations.ALLOCATIONS)
def test_parameters_that_stay_count_towards_the_ratio(allocation):
    for ratio in (0.0, 0.2, 0.45):
        mask = make(MLP_ONLY, ratio, allocation=allocation)
        removed = sum((~kept).sum() for kept in mask.kept.values()) * 96
        assert abs(removed - ratio * 3 * 90 * 96) <= 3 * 96
    with pytest.raises(ConfigError, match="cannot be reached") as error:
        make(MLP_ONLY, 0.7, allocation=allocation)
    most = float(str(error.value).split("at most ")[1].split(" ")[0])
    assert most == pytest.approx(57 / 90, abs=1e-4)


def test_equal_takes_the_split_that_loses_least():
    for seed in range(5):
        scores = random_scores(GQA, seed)
        mask = make(GQA, 0.4, scores=scores, allocation="equal")
        shape = mask.pruned.layers[0]
        lost = {}
        for kv_heads in range(1, 5):  # every other number of heads, with the channels that meet the budget
            cost = (4 - kv_heads) * (2 * 4 * 33 + 2 * 4 * 65)
            channels = 60 - round((0.4 * GQA.linear_parameters / 3 - cost) / (3 * 32))
            if not 3 <= channels <= 60:
                continue
            total = 0.0
            for site in GQA.sites:
                share = scores[site] / scores[site].sum()
                width, keep = (8, kv_heads) if site.name == "attn" else (1, channels)
                units = np.sort(share.reshape(-1, width).sum(axis=1))
                total += units[: len(units) - keep].sum()
            lost[kv_heads, channels] = total
        assert min(lost, key=lost.get) == (shape["attn"].groups, shape["mlp"].entries)


def test_widths_are_rounded():
    for allocation in ("global", "uniform", "equal"):
        mask = make(GQA, 0.5, allocation=allocation, round_to=8)
        assert [shape["mlp"].entries % 8 for shape in mask.pruned.layers] == [0, 0, 0]


def test_the_lowest_scores_go_first():
    mask = make(GQA, 0.5)
    scores = random_scores(GQA)
    site = Site(0, "mlp")
    kept, gone = scores[site][mask.kept[site]], scores[site][~mask.kept[site]]
    assert gone.max() < kept.min()


def test_a_unit_ranks_by_its_damage_per_parameter():
    """With two query heads a group costs 6 head_dim d, as much as 8 channels: they compare as sums."""
    geometry = llama_geometry(hidden_size=32, head_dim=4, layers=((2, 2, 24),))
    scores = {Site(0, "attn"): np.full(16, 1.0), Site(0, "mlp"): np.full(24, 0.9)}
    scales = dict.fromkeys(scores, Scale(0, 1, 1, 1, 1, 1))
    config = RunConfig.create(normalise="none")
    mask = next_mask(scores, Mask.full(geometry), 0.2, config, scales)
    assert mask.kept[Site(0, "attn")].all()  # 8 channels at 1.0 for the cost of 8 channels at 0.9
    scores[Site(0, "attn")] = np.full(16, 0.8)
    mask = next_mask(scores, Mask.full(geometry), 0.2, config, scales)
    assert not mask.kept[Site(0, "attn")].all()


def test_costs_of_the_papers_models():
    """A kv_group in MLP channels: 682.7 for Qwen2.5-7B, 512 for 14B and 32B (biases aside)."""
    for d, kv, group, channels, cost in (
        (3584, 4, 7, 18944, 682.7),
        (5120, 8, 5, 13824, 512),
        (5120, 8, 5, 27648, 512),
    ):
        g = llama_geometry(hidden_size=d, head_dim=128, layers=((kv, group, channels),))
        assert g.layers[0]["attn"].parameters / kv / g.least_cost == pytest.approx(cost, abs=0.05)
    g = llama_geometry(hidden_size=3584, head_dim=128, layers=((4, 7, 18944),) * 28)
    assert g.linear_parameters == pytest.approx(6.53e9, rel=1e-3)


# --- normalisers


def test_share_is_the_part_of_the_dense_total():
    scores = np.array([1.0, 3.0, np.nan])
    np.testing.assert_allclose(
        NORMALISERS["share"](scores, Scale(0, 1, 8.0, 2.0, 2.0, 3))[:2], [1 / 8, 3 / 8]
    )


def test_zscores():
    dense = np.array([1.0, 2.0, 3.0, 10.0])
    left = np.array([np.nan, 2.0, 3.0, 10.0])
    first = Scale.of(dense)
    np.testing.assert_allclose(NORMALISERS["zscore"](dense, first), (dense - 4) / np.std(dense, ddof=1))
    np.testing.assert_allclose(
        NORMALISERS["zscore"](left, first)[1:], (left[1:] - 5) / np.std(left[1:], ddof=1)
    )
    np.testing.assert_allclose(
        NORMALISERS["zscore_first"](left, first)[1:], (left[1:] - 4) / np.std(dense, ddof=1)
    )
    zeroed = np.array([0.0, 2.0, 3.0, 10.0])
    np.testing.assert_allclose(
        NORMALISERS["zscore_zero"](left, first)[1:], (left[1:] - zeroed.mean()) / zeroed.std(ddof=1)
    )


def test_equal_scores_do_not_divide_by_zero():
    assert np.isfinite(NORMALISERS["zscore"](np.ones(4), Scale.of(np.ones(4)))).all()
    assert np.isfinite(NORMALISERS["share"](np.zeros(4), Scale.of(np.zeros(4)))).all()


# --- by hand


def test_selectors():
    chosen = select(GQA, ["0", "1.mlp.3-5", "1-2.attn.7"])
    assert chosen[Site(0, "attn")].all()
    assert chosen[Site(0, "mlp")].all()
    assert np.flatnonzero(chosen[Site(1, "mlp")]).tolist() == [3, 4, 5]
    assert np.flatnonzero(chosen[Site(1, "attn")]).tolist() == [7]
    assert np.flatnonzero(chosen[Site(2, "attn")]).tolist() == [7]
    assert not chosen[Site(2, "mlp")].any()


@pytest.mark.parametrize(
    "selector", ["", "x", "3", "0.attn.8", "0.mlp.60", "0.ffn", "1-0", "0.mlp.5-2", "-1"]
)
def test_wrong_selectors_are_refused(selector):
    with pytest.raises(ConfigError):
        select(GQA, [selector])


def test_a_selector_of_what_stays_is_refused_with_what_can_leave():
    with pytest.raises(ConfigError, match=r"'1\.attn' names what cannot leave this model: name mlp"):
        select(MLP_ONLY, ["1.attn"])


@pytest.mark.parametrize("unit", ["kv_group", "query_head"])
def test_pins_and_cuts_are_honoured_and_the_budget_is_redistributed(unit):
    free = make(GQA, 0.5, attention_unit=unit)
    gone = int(np.flatnonzero(~free.kept[Site(0, "mlp")])[0])
    kept = int(np.flatnonzero(free.kept[Site(0, "mlp")])[0])
    mask = make(
        GQA,
        0.5,
        attention_unit=unit,
        keep=(f"0.mlp.{gone}", "2.attn"),
        remove=(f"0.mlp.{kept}", "1.attn.2"),
    )
    assert mask.kept[Site(0, "mlp")][gone]
    assert not mask.kept[Site(0, "mlp")][kept]
    assert mask.kept[Site(2, "attn")].all()
    assert not mask.kept[Site(1, "attn")][2]
    assert abs(mask.ratio - free.ratio) < 0.1


def test_contradictions_and_floors_are_refused():
    for options in (
        {"keep": ("0.mlp.1",), "remove": ("0.mlp.1",)},
        {"keep": ("0.attn.0",), "remove": ("0.attn.1",)},  # one key-value group
        {"remove": ("0.attn",)},
        {"remove": ("2.mlp",)},
        {"keep": ("2.mlp.9-2",)},
    ):
        with pytest.raises(ConfigError):
            check_reachable(GQA, RunConfig.create(ratio=0.1, **options))


def test_an_unreachable_ratio_says_what_can_be_reached():
    for allocation in ("global", "uniform", "equal"):
        with pytest.raises(ConfigError, match="cannot be reached") as error:
            check_reachable(GQA, RunConfig.create(ratio=0.97, allocation=allocation, min_mlp_share=0.2))
        most = float(str(error.value).split("at most ")[1].split(" ")[0])
        check_reachable(GQA, RunConfig.create(ratio=most, allocation=allocation, min_mlp_share=0.2))


# --- comparison


def test_overlap():
    a, b = Mask.full(GQA), make(GQA, 0.5)
    site = Site(0, "mlp")
    assert jaccard(a, a, site) == 1
    assert jaccard(a, b, site) == pytest.approx(b.kept[site].mean())
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(300):
        masks = [Mask(GQA, {site: rng.permutation(np.arange(60) < 30)}) for _ in range(2)]
        pairs.append((jaccard(*masks, site), chance_jaccard(*masks, site)))
    assert np.mean([p[0] for p in pairs]) == pytest.approx(pairs[0][1], abs=0.02)


@given(
    ranks=st.lists(st.integers(-3, 12), min_size=1, max_size=60),
    share=st.floats(0, 1.2),
    seed=st.integers(0, 9),
)
def test_the_cut_is_where_sorting_everything_would_put_it(ranks, share, seed):
    """With many ties, and costs that differ, as heads' and channels' do."""
    rng = np.random.default_rng(seed)
    rank, cost = np.array(ranks, float), rng.choice([3, 3, 3, 50], len(ranks))
    rank[rank < -2] = -np.inf
    budget = share * cost.sum()
    order = np.argsort(rank, kind="stable")
    spent = np.concatenate([[0], np.cumsum(cost[order])])
    best = np.abs(spent - budget).min()
    with mock.patch.object(allocations, "SORTED_AT_ONCE", 4):
        found = allocations._nearest(rank, cost, budget)
    assert abs(cost[found].sum() - budget) == pytest.approx(best)
    assert sorted(found) == sorted(order[: len(found)])  # the lowest, and among equals the first


@given(
    ranks=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    floor=st.integers(1, 45),
    width=st.sampled_from([1, 4]),
)
def test_the_last_of_a_layer_are_its_highest(ranks, floor, width):
    rank, size = np.array(ranks, float), np.full(len(ranks), width)
    size[0] = 1
    ranking = np.argsort(rank, kind="stable")[::-1]
    expected = ranking[: int(np.searchsorted(np.cumsum(size[ranking]), floor)) + 1]
    assert units._highest(rank, size, floor).tolist() == expected.tolist()


# --- warnings


def test_a_site_that_falls_to_its_floor_beside_others_is_said():
    """One channel a million times the others, as in trained models: it takes its layer's whole share."""
    rng = np.random.default_rng(0)
    geometry = llama_geometry(32, 4, ((4, 2, 200),) * 6)
    scores = {site: rng.lognormal(size=geometry.channels(site)) for site in geometry.sites}
    scores[Site(2, "mlp")][17] = 1e6
    found, mask_of = {}, {}
    for rule in ("share", "robust_share", "soft_share"):
        config = RunConfig.create(normalise=rule, ratio=0.25, keep=("0-5.attn",))
        mask = mask_of[rule] = first_mask(scores, geometry, config)
        found[rule] = warnings(mask, scores, config)
        assert mask.kept[Site(2, "mlp")][17]
    assert found["robust_share"] == found["soft_share"] == []
    (warning,) = found["share"]
    assert warning.startswith("layer 2 MLP keeps 2%: one channel carries 100.0% of its fluctuation")
    assert "try --normalise soft_share" in warning
    (other,) = warnings(mask_of["share"], scores, RunConfig.create(normalise="soft_share"))
    assert "soft_share" not in other and other.endswith("keep the whole module with --keep 2.mlp.")
    config = RunConfig.create(normalise="share", ratio=0.25, remove=("2.mlp.0-150",), keep=("0-5.attn",))
    assert warnings(Mask.full(geometry), scores, config) == []


def test_robust_share_is_share_where_no_channel_stands_out():
    scores = np.full(50, 3.0)
    scale = Scale.of(scores)
    rules = [NORMALISERS[rule](scores, scale) for rule in ("share", "robust_share")]
    np.testing.assert_allclose(*rules)
    dense = np.arange(1.0, 52.0)
    wild = dense.copy()
    wild[-1] = 1e9
    calm = NORMALISERS["robust_share"](dense, Scale.of(dense))
    np.testing.assert_allclose(NORMALISERS["robust_share"](wild, Scale.of(wild))[:-1], calm[:-1])
    assert np.isfinite(NORMALISERS["robust_share"](np.zeros(4), Scale.of(np.zeros(4)))).all()


@pytest.mark.parametrize("share", [0.01, 0.9, 1.0])
def test_scores_that_are_not_finite_are_a_sentence(share):
    """With more than half of them NaN, the search for the cut never ended."""
    geometry = llama_geometry(64, 8, ((4, 2, 20_000),))
    scores = {site: np.ones(geometry.channels(site)) for site in geometry.sites}
    site = Site(0, "mlp")
    scores[site][: int(share * len(scores[site]))] = np.nan
    with pytest.raises(CalibrationError, match="layer 0, mlp: the scores are not finite"):
        first_mask(scores, geometry, RunConfig.create(ratio=0.3))
