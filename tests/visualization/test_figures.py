"""The numbers behind the figures; the figures are drawn to see that they can be."""

import math

import numpy as np
import pytest

from pruning import RunConfig, prune
from pruning import visualization as viz
from pruning.measure.comparison import Accuracy, Pair, Rise, TaskRow
from pruning.models.geometry import Site
from pruning.models.mask import Mask
from pruning.runs.schema import Results
from pruning.visualization.style import log_ticks
from tests.conftest import llama_geometry


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from tests.conftest import byte_tokenizer, tiny_model

    root = tmp_path_factory.mktemp("viz")
    tiny_model("qwen2").save_pretrained(root / "model")
    byte_tokenizer().save_pretrained(root / "model")
    for name in "ab":
        (root / f"{name}.txt").write_text("".join(f"{name * (i % 9)} {i}\n" for i in range(900)))
    config = RunConfig.create(
        model=str(root / "model"),
        mixture={"a": 1, "b": 2},
        domains={name: str(root / f"{name}.txt") for name in "ab"},
        samples=4,
        seq_len=24,
        iterations=2,
        eval_blocks=4,
    )
    return prune(config, root / "runs").run


def test_bins_hold_the_maximum_and_the_mean_of_what_is_there():
    matrix = np.array([[1.0, 5.0, np.nan, 2.0, np.nan, np.nan], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
    cells, first, last = viz.binned(matrix, 3, "max")
    np.testing.assert_array_equal(cells, [[5, 2, np.nan], [1, 3, 5]])
    assert (first.tolist(), last.tolist()) == ([0, 2, 4], [1, 3, 5])
    np.testing.assert_array_equal(viz.binned(matrix, 3, "mean")[0], [[3, 2, np.nan], [0.5, 2.5, 4.5]])


def test_uneven_bins_cover_every_channel_once():
    _, first, last = viz.binned(np.zeros((1, 101)), 7)
    assert first[0] == 0
    assert last[-1] == 100
    np.testing.assert_array_equal(first[1:], last[:-1] + 1)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.3), (1.0, 8.0), (0.2, 900.0)])
def test_logarithmic_axes_have_several_ticks_however_narrow_their_range(low, high):
    ticks = []
    log_ticks(lambda **options: ticks.extend(options["tickvals"]), np.array([low, high]))
    assert 3 <= len(ticks) <= 9


def test_the_dense_model_alone_is_at_iteration_0_of_an_axis_without_negative_ones(run):
    figure = viz.perplexity_figure(viz.perplexity_data(run.iterations()[:1]))
    assert -0.5 < figure.layout.xaxis.range[0] <= 0 and figure.layout.xaxis.range[1] >= 1


def test_importance_at_full_width_is_the_logarithm_of_the_scores(run):
    scores = run.iterations()[1].scores
    data = viz.importance_data(scores, "mlp")
    np.testing.assert_allclose(data.values[1], np.log10(scores[Site(1, "mlp")]), rtol=1e-5)
    ordered = viz.importance_data(scores, "mlp", viz.View(ordered=True))
    np.testing.assert_allclose(ordered.values[2], np.sort(data.values[2])[::-1], rtol=1e-6)
    part = viz.importance_data(scores, "mlp", viz.View(channels=(10, 19)))
    np.testing.assert_array_equal(part.values, data.values[:, 10:20])
    assert part.first[0] == 10


def test_a_difference_with_itself_is_zero_and_what_is_gone_stays_gone(run):
    first, second = (iteration.scores for iteration in run.iterations()[1:])
    same = viz.importance_data(first, "mlp", against=first)
    assert np.nanmax(np.abs(same.values)) == 0
    assert same.diverging
    later = viz.importance_data(second, "mlp", against=first)
    gone = ~run.iterations()[1].mask.kept[Site(0, "mlp")]
    assert np.isnan(later.values[0][gone]).all()


def test_a_column_opens_the_channel_of_its_maximum(run):
    scores = run.iterations()[1].scores
    for ordered in (False, True):
        data = viz.importance_data(scores, "mlp", viz.View(bins=7, ordered=ordered, scale="linear"))
        for row, cells in enumerate(data.values):
            found = scores[Site(row, "mlp")][data.peak[row].astype(int)]
            np.testing.assert_allclose(found, cells, rtol=1e-6)
    figure = viz.importance_figure(data, choosable=True)
    np.testing.assert_array_equal(figure.data[1].customdata[:, 0], data.peak.ravel())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"allocation": "uniform"},
        {"allocation": "equal"},
        {"normalise": "zscore", "unit_score": "mean"},
        {"attention_unit": "query_head"},
    ],
)
def test_what_lies_below_the_cut_is_what_goes(run, options):
    """For every channel of every site, whatever ranks: the sign of the distance is the mask of the engine."""
    from pruning.engine.budget import first_mask, next_mask

    one, two = run.iterations()[1:3]
    config = run.config.replace(ratio=0.4, **options)
    cut = viz.cut_data(one.scores, one.scores, Mask.full(one.geometry), config)
    expected = first_mask(one.scores, one.geometry, config)
    for site in one.geometry.sites:
        np.testing.assert_array_equal(cut.mask.kept[site], expected.kept[site])
        np.testing.assert_array_equal(cut.distance[site] > 0, expected.channels(site))
    assert "are removed" in viz.cut_title(cut, "mlp", Mask.full(one.geometry))
    later = viz.cut_data(two.scores, one.scores, one.mask, run.config)
    gone = ~one.mask.channels(Site(1, "mlp"))
    assert np.isnan(later.distance[Site(1, "mlp")][gone]).all()
    from pruning.engine.budget import dense_scales

    scales = dense_scales(one.scores, False)
    same = next_mask(two.scores, one.mask, run.config.ratio, run.config, scales)
    assert all((later.mask.kept[s] == same.kept[s]).all() for s in same.kept)


def test_where_damage_ranks_the_cut_is_drawn_in_it():
    from pruning.engine.budget import first_mask
    from pruning.paths import ASSETS
    from pruning.runs.run import Run

    it = Run(ASSETS / "demo-run").iterations()[1]
    config = Run(ASSETS / "demo-run").config.replace(ratio=0.4, allocation="measured")
    assert it.curves
    cut = viz.cut_data(it.scores, it.scores, Mask.full(it.geometry), config, it.curves)
    expected = first_mask(it.scores, it.geometry, config, it.curves)
    for site in it.geometry.sites:
        np.testing.assert_array_equal(cut.distance[site] > 0, expected.channels(site))


def test_a_sorted_layer_has_the_cut_where_its_last_kept_channel_is(run):
    it = run.iterations()[1]
    cut = viz.cut_data(it.scores, it.scores, Mask.full(it.geometry), run.config)
    data = viz.cut_map(cut, "mlp", viz.View(ordered=True))
    line = viz.cut_figure(data, cut, "", choosable=True).data[-1]
    for row in range(len(data.rows)):
        width = int(cut.mask.kept[Site(row, "mlp")].sum())
        assert line.x[2 * row] == width - 0.5
        assert (data.values[row, :width] > 0).all() and (data.values[row, width:] <= 0).all()


def test_massive_channels_are_named():
    values = {Site(0, "mlp"): np.ones(50), Site(1, "mlp"): np.ones(50)}
    values[Site(1, "mlp")][7] = 5e4
    assert viz.massive(values) == [(Site(1, "mlp"), 7, 5e4)]


def test_mask_map_and_shares(run):
    mask = run.iterations()[-1].mask
    data = viz.mask_map_data(mask, "mlp")
    np.testing.assert_array_equal(data.values[1], mask.kept[Site(1, "mlp")])
    shares = viz.kept_share_data(mask)
    assert shares["mlp"][1] == pytest.approx(mask.pruned.layers[1]["mlp"].entries / 48)
    assert shares["attn"][0] == pytest.approx(mask.pruned.layers[0]["attn"].entries / 8)
    parameters = viz.parameters_data(mask.geometry, mask)
    dense, pruned = (sum(pair[i] for pair in parameters.values()) for i in (0, 1))
    assert (dense - pruned) / dense == pytest.approx(mask.ratio)


def test_perplexity_by_iteration_is_what_the_run_measured(run):
    data = viz.perplexity_data(run.iterations())
    results = run.results().perplexity
    assert data["a"][1][0] == results["a"].dense
    assert data["mean"][1][-1] == pytest.approx(results["mean"].pruned)
    assert data["mean"][0].tolist() == [0, 1, 2]


def drawn(figure):
    """The values of every trace by its name, along the axis that has them."""
    return {trace.name: list(trace.x if trace.orientation == "h" else trace.y) for trace in figure.data}


def test_bars_are_as_long_as_the_numbers_given():
    shares = {"a": 0.25, "b": 0.75}
    assert drawn(viz.mixture_figure(shares)) == {"a": [0.25], "b": [0.75]}
    sizes = viz.parameters_figure({"attention": (10, 6), "MLP": (30, 9)})
    assert drawn(sizes) == {"dense": [10, 30], "pruned": [6, 9]}
    pairs = {"a": Pair(dense=10.0, pruned=15.0), "b": Pair(dense=4.0, pruned=math.inf)}
    earlier = Results.model_construct(perplexity=pairs)
    now = Results.model_construct(perplexity=pairs, divergence={"a": Rise.over([[0.25, 0.75]])})
    assert drawn(viz.domain_cost_figure({"flap": earlier, "own": now}))["flap"] == [1.5, None]
    assert drawn(viz.domain_cost_figure({"own": now})) == {"own": [0.5]}
    accuracy = Accuracy(dense=0.6, pruned=0.5, delta=-0.1, standard_error=0.02)
    levels = drawn(viz.accuracy_levels_figure({"piqa": TaskRow(acc=accuracy)}))
    assert (levels["dense"], levels["pruned"], levels["chance"]) == ([0.6], [0.5], [0.5])


def test_the_line_of_the_tradeoff_joins_the_runs_that_no_other_beats():
    runs = {"small": (0.5, 3.0, "flap"), "large": (0.8, 1.2, "iterative"), "worse": (0.9, 2.0, "iterative")}
    line, flap, iterative = viz.tradeoff_figure(runs).data
    assert list(zip(line.x, line.y, strict=True)) == [(0.5, 3.0), (0.8, 1.2)]
    assert (flap.name, list(flap.x)) == ("flap", [0.5])
    assert (iterative.name, list(iterative.y)) == ("iterative", [1.2, 2.0])


def test_the_card_of_a_channel_draws_its_numbers():
    domains = viz.channel_domains_figure({"a": 2.0, "b": 8.0}, {"a": -3.0, "b": 0.5})
    assert {trace.name: list(trace.x) for trace in domains.data} == {
        "variance": [2.0, 8.0],
        "absolute mean": [3.0, 0.5],
    }
    ranks = viz.channel_rank_figure({1: (7, 40), 2: (5, 30)}, removed=3)
    assert drawn(ranks) == {"channels in the layer": [40, 30], "rank": [7, 5]}
    assert "removed in iteration 3" in ranks.layout.title.text
    row, kept = np.array([1.0, 10.0, 100.0, np.nan]), np.array([False, True, True, False])
    layer = viz.layer_figure(row, kept, "score", 100.0)
    assert {name: sum(counts) for name, counts in drawn(layer).items()} == {"kept": 2, "removed": 1}
    assert layer.layout.shapes[0].x0 == 2  # the logarithm of the selected channel's value


def test_two_masks_are_compared_channel_by_channel_in_four_categories(run):
    one, two = (it.mask for it in run.iterations()[1:])
    data = viz.comparison_data(one, two, "mlp")
    a, b = (np.array([mask.kept[Site(layer, "mlp")] for layer in range(3)]) for mask in (one, two))
    np.testing.assert_array_equal(data.values, 2 * a + b)
    figure = viz.comparison_figure(data, "the second")
    np.testing.assert_array_equal(figure.data[0].z, data.values)
    names = {2: "this mask only", 3: "both masks"}  # a second cut takes nothing back
    for number, name in names.items():
        assert set(figure.data[0].customdata[data.values == number]) <= {name}
    assert (data.values == 2).any() and not (data.values == 1).any()


def test_an_animation_has_a_frame_for_every_heatmap_on_one_scale(run):
    frames = {str(it.number): viz.mask_map_data(it.mask, "mlp") for it in run.iterations()[1:]}
    figure = viz.animation_figure(frames, "Kept MLP channels", (0, 1))
    assert [frame.name for frame in figure.frames] == ["1", "2"]
    for frame, data in zip(figure.frames, frames.values(), strict=True):
        np.testing.assert_array_equal(frame.data[0].z, data.values)
    assert (figure.data[0].zmin, figure.data[0].zmax) == (0, 1)


def test_agreement(run):
    first = run.iterations()[1]
    data = viz.agreement_data(first.statistics, first.norms, run.geometry, run.config)
    assert data.domains == ["a", "b"]
    np.testing.assert_allclose(np.diag(data.rank_correlation), 1)
    assert 0 < data.rank_correlation[0, 1] < 1
    assert ((data.overlap["a", "b"] >= 0) & (data.overlap["a", "b"] <= 1)).all()


def test_every_figure_draws(run):
    first = run.iterations()[1]
    agreement = viz.agreement_data(first.statistics, first.norms, run.geometry, run.config, "attn")
    figures = [
        viz.importance_figure(viz.importance_data(first.scores, "attn", viz.View(scale="standardised"))),
        viz.mask_map_figure(viz.mask_map_data(first.mask, "attn")),
        viz.kept_share_figure(viz.kept_share_data(first.mask), 0.5),
        viz.perplexity_figure(viz.perplexity_data(run.iterations())),
        viz.agreement_figure(agreement),
        viz.overlap_figure(agreement),
    ]
    for figure in figures:
        assert figure.layout.title.text
        assert figure.data


def test_a_heatmap_of_32b_size_stays_small():
    shape = llama_geometry(5120, 128, ((8, 5, 27648),) * 64)
    rng = np.random.default_rng(0)
    scores = {site: rng.random(shape.channels(site)) for site in shape.sites if site.name == "mlp"}
    figure = viz.importance_figure(viz.importance_data(scores, "mlp"))
    assert len(figure.to_json()) < 300_000
    mask = viz.mask_map_figure(viz.mask_map_data(Mask.full(shape), "mlp"))
    assert len(mask.to_json()) < 300_000


def test_the_pipeline_is_one_picture_with_the_runs_numbers():
    from xml.etree import ElementTree

    from pruning.paths import ASSETS
    from pruning.runs.run import Run

    run = Run(ASSETS / "demo-run")
    data = viz.pipeline_data(run, run.iterations())
    results = run.results()
    assert data.parameters == (results.parameters.dense, results.parameters.pruned)
    assert data.perplexity[[0, -1]] == pytest.approx([results.mean.dense, results.mean.pruned], rel=1e-6)
    assert data.channels == 6 * (256 + 1024) and data.tokens == 4 * 32 * 256
    assert data.kept.mean() == pytest.approx(
        np.mean([run.iterations()[-1].mask.kept[Site(n, "mlp")].mean() for n in range(6)]), abs=0.02
    )
    drawn = viz.pipeline_svg(data)
    root = ElementTree.fromstring(drawn)
    words = " ".join(root.itertext())
    for said in ("32,768", "7,680", "42%", "15.0 → 20.8", "5 iterations in all"):
        assert said in words and said.split(" in all")[0] in viz.pipeline_words(data)
    assert len(drawn) < 100_000


def test_no_layer_hides_the_others_on_the_scale_by_layer():
    rng = np.random.default_rng(0)
    values = {Site(layer, "mlp"): rng.lognormal(size=40) * 1e6**layer for layer in range(3)}
    data = viz.importance_data(values, "mlp", viz.View(scale="log per layer"))
    np.testing.assert_allclose(np.mean(data.values, axis=1), 0, atol=1e-6)
    low, high = viz.colour_limits([data])
    assert -3 < low < 0 < high < 3
    plain = viz.importance_data(values, "mlp")
    assert np.ptp(np.median(plain.values, axis=1)) > 10


def test_accuracies_of_several_runs_are_told_apart_by_colour():
    def task(delta, significant):
        return TaskRow(
            acc=Accuracy(
                dense=0.5,
                pruned=0.5 + delta,
                delta=delta,
                standard_error=0.01,
                significant=significant,
            )
        )

    sure, noise = True, False
    figure = viz.accuracy_figure({"one": {"a": task(-0.2, sure)}, "two": {"a": task(-0.01, noise)}})
    assert [trace.marker.symbol[0] for trace in figure.data] == ["circle", "circle-open"]
    assert figure.data[0].marker.color != figure.data[1].marker.color
    assert [trace.x[0] for trace in figure.data] == [-20, -1]


@pytest.mark.parametrize("ordered", [False, True])
def test_the_hover_tells_rank_and_what_is_kept_by_position_and_sorted(ordered):
    site = Site(0, "mlp")
    geometry = llama_geometry(hidden_size=8, head_dim=4, layers=((1, 1, 5),))
    mask = Mask(
        geometry, {Site(0, "attn"): np.ones(1, bool), site: np.array([True, False, True, False, True])}
    )
    values = {site: np.array([3.0, 1.0, 5.0, np.nan, 4.0])}
    data = viz.importance_data(values, "mlp", viz.View(scale="linear", ordered=ordered), mask=mask)
    hover = viz.importance_figure(data, choosable=True).data[1]
    _, value, rank, kept = hover.customdata.T
    expected = [5, 4, 3, 1, np.nan] if ordered else [3, 1, 5, np.nan, 4]
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(rank, [1, 2, 3, 4, np.nan] if ordered else [3, 4, 1, np.nan, 2])
    np.testing.assert_array_equal(kept, [1, 1, 1, 0, 0] if ordered else [1, 0, 1, 0, 1])
    assert ("sorted position" in hover.hovertemplate) == ordered


def test_a_site_that_only_some_layers_have_is_shown_in_their_rows_under_its_own_name():
    values = {Site(layer, "mlp"): np.arange(1.0, 7) for layer in range(4)}
    values |= {Site(layer, "experts"): np.arange(1.0, 5) * 10**layer for layer in (1, 3)}
    data = viz.importance_data(values, "experts", viz.View(scale="linear"))
    assert data.rows.tolist() == [1, 3] and data.unit == "experts channel"
    np.testing.assert_array_equal(data.values, [values[Site(1, "experts")], values[Site(3, "experts")]])
    figure = viz.importance_figure(data, choosable=True, chosen=(3, 2))
    assert set(figure.data[1].y) == {1, 3}
    assert (figure.data[2].y, figure.data[2].x) == ((3,), (2,))
    last = viz.importance_data(values, "experts", viz.View(scale="linear", layers=(2, 3)))
    assert last.rows.tolist() == [3]


def test_pages_and_canvas_colour_the_same_distances_to_the_cut(run):
    from pruning.visualization.cut import colour_reach

    it = run.iterations()[1]
    for options in ({}, {"method": "flap"}):
        config = RunConfig.create(**options, ratio=0.4)
        cut = viz.cut_data(it.scores, it.scores, Mask.full(it.geometry), config)
        assert cut.reach == colour_reach(config)
        figure = viz.cut_figure(viz.cut_map(cut, "mlp"), cut, "")
        assert (figure.data[0].zmin, figure.data[0].zmax) == cut.limits
