"""The live canvas: its arithmetic in a real Chromium against the engine's."""

import base64
import json
import os
import shutil
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from pruning.cli.main import main
from pruning.config import METHODS, RunConfig
from pruning.engine import budget
from pruning.engine.budget import first_mask
from pruning.paths import ASSETS
from pruning.runs.run import Run
from pruning.visualization import live

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from install_browser import find  # noqa: E402
from screenshots import browser, server, settle  # noqa: E402

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not os.environ.get("CI") and find() is None, reason="no Chromium is installed"),
]

MIXTURES = (
    {"wiki": 0.25, "web": 0.25, "code": 0.25, "math": 0.25},
    {"wiki": 0.07, "code": 0.61, "math": 0.32},
    {"code": 1.0},
)
# Every method, what the presets use in other combinations, and other floors.
OPTIONS = [
    *({"method": method} for method in METHODS),
    {"method": "flap", "unit_score": "per_parameter", "allocation": "uniform"},
    {"score": "wanda_sp", "normalise": "zscore"},
    {"score": "random", "unit_score": "mean"},
    {"keep": ("2.mlp", "0-1.attn.0"), "remove": ("3.mlp.5-400", "1.attn.3")},
    {"keep": ("2.mlp.7-90",), "remove": ("3.attn.0",), "allocation": "uniform"},
    {"min_mlp_share": 0.3, "min_attention_units": 2},
    {"min_mlp_share": 0.3, "min_attention_units": 2, "allocation": "uniform"},
]


@pytest.fixture(scope="module")
def chromium():
    with browser() as page:
        yield page.context.browser


@pytest.fixture
def page(chromium):
    with chromium.new_page(viewport={"width": 1280, "height": 720}) as page:
        yield page


@pytest.fixture(scope="module")
def script(chromium):
    """A page that has the arithmetic and nothing else."""
    page = chromium.new_page()
    page.add_script_tag(path=ASSETS / "live" / "arithmetic.js")
    page.evaluate(
        """() => {
            window.load = (text) => {
                window.live = unpack(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
            };
            window.answer = (shares, ratio, withScores) => {
                const result = preview(live, shares, ratio);
                return {
                    ratio: result.ratio,
                    kept: result.sites.map((each) => Array.from(each.kept)),
                    score: withScores ? result.sites.map((each) => Array.from(each.site.score)) : null,
                };
            };
        }"""
    )
    return page


@lru_cache
def dense(name):
    """The first iteration of a shipped run, read once: its statistics are the dense model's."""
    return Run(ASSETS / name).iterations()[1]


def ask(script, it, config, with_scores=False):
    """The browser's preview of a config."""
    data = live.live_data(it, config)
    script.evaluate("text => load(text)", base64.b64encode(live.pack(data, config, it.geometry)).decode())
    shares = [config.mixture.get(name, 0.0) for name in data.header["domains"]]
    return data, script.evaluate("args => answer(...args)", [shares, config.ratio, with_scores])


def scores(it, config):
    """The engine's scores of a config."""
    return budget.scores(it.statistics, it.norms, config)


@pytest.mark.parametrize("name", ["demo-run", "smollm2-run"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_browser_scores_and_cuts_as_the_engine_does(script, name, options):
    it = dense(name)
    most = 0.4 if "min_mlp_share" in options else 1.0
    cases = list(zip(MIXTURES, (0.5, 0.23, 0.71), strict=True))
    if name == "smollm2-run":  # takes longer: another of them for each of the options
        cases = [cases[OPTIONS.index(options) % 3]]
    for mixture, ratio in cases:
        config = RunConfig.create(**options, ratio=min(ratio, most)).replace(mixture=mixture)
        assert live.unsupported(config) is None
        expected = scores(it, config)
        data, preview = ask(script, it, config, with_scores=ratio < 0.7)
        assert not data.header["grouped"]
        if preview["score"]:
            exact = 1e-7 if config.score == "random" else 1e-14  # it is drawn in Python, and sent in float32
            for site, values in zip(it.geometry.sites, preview["score"], strict=True):
                np.testing.assert_allclose(values, expected[site], rtol=exact, atol=0)
        mask = first_mask(expected, it.geometry, config)
        for site, units in zip(it.geometry.sites, preview["kept"], strict=True):
            kept = mask.kept[site]
            assert np.array_equal(np.repeat(np.array(units, bool), len(kept) // len(units)), kept), site
        assert preview["ratio"] == mask.ratio


@pytest.mark.parametrize("options", [{"allocation": "uniform"}, {"allocation": "global"}], ids=str)
def test_of_equal_scores_the_browser_removes_the_same_ones_as_the_engine(script, options):
    it = replace(dense("demo-run"))
    vars(it)["norms"] = {site: norms._replace(norm=norms.norm.round(1)) for site, norms in it.norms.items()}
    for ratio in (0.31, 0.5):
        config = RunConfig.create(score="magnitude", ratio=ratio, **options)
        mask = first_mask(scores(it, config), it.geometry, config)
        _, preview = ask(script, it, config)
        for site, units in zip(it.geometry.sites, preview["kept"], strict=True):
            kept = mask.kept[site]
            assert np.array_equal(np.repeat(np.array(units, bool), len(kept) // len(units)), kept), site


@pytest.mark.parametrize("allocation", live.SUPPORTED["allocation"])
def test_the_browser_counts_parameters_that_stay_as_the_engine_does(script, allocation):
    it = dense("demo-run")
    it = replace(it, geometry=replace(it.geometry, fixed_parameters=it.geometry.linear_parameters // 2))
    config = RunConfig.create(ratio=0.4, allocation=allocation)
    mask = first_mask(scores(it, config), it.geometry, config)
    assert mask.ratio == pytest.approx(0.4, abs=0.005)
    _, preview = ask(script, it, config)
    assert preview["ratio"] == mask.ratio


@pytest.mark.parametrize(
    "options",
    [
        {"score": "input_variance"},
        {"normalise": "share"},
        {"attention_weight": 2.0},
        {"allocation": "measured"},
        {"fusion": "total"},
        {"worst_domain": 0.4},
        {"attention_unit": "query_head"},
        {"round_to": 16},
    ],
    ids=str,
)
def test_options_beyond_those_of_the_presets_are_refused_by_name(options):
    name, value = next(iter(options.items()))
    words = live.unsupported(RunConfig.create(**options))
    assert words.startswith(name.replace("_", " ")) and str(value).strip("(),'") in words


def drag(page, label, *shares):
    """Draw a bar to shares of its width one after another, in steps, as a hand does."""
    bar = page.locator(".live label").filter(has_text=label).locator("input")
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()
    y, at = box["y"] + box["height"] / 2, float(bar.input_value()) / float(bar.get_attribute("max"))

    def x(share):
        """Where the middle of the handle is, which is 6 pixels wide and stays inside the border."""
        return box["x"] + 4 + (box["width"] - 8) * share

    page.mouse.move(x(at), y)
    page.mouse.down()
    for to in shares:
        for step in range(1, 9):
            page.mouse.move(x(at + (to - at) * step / 8), y)
            page.wait_for_timeout(40)
        at = to


def picture(page):
    return page.locator(".live canvas").evaluate("canvas => canvas.toDataURL()")


def percents(page):
    """What the bars say, in percent, by name."""
    rows = page.locator(".live label").all_inner_texts()
    return {name: int(value.rstrip("%")) for name, value in (row.split("\n") for row in rows)}


def test_a_drag_redraws_and_its_end_sets_the_sliders_of_the_sidebar(tmp_path, page):
    with server(tmp_path / "runs") as address:
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{address}/masks?run=demo+run+%28ships+with+the+app%29&locked=wiki")
        settle(page)
        before, link = picture(page), page.url
        drag(page, "code", 0.4)
        assert picture(page) != before and page.url == link  # while the button is still down
        assert "This drag changed" in page.locator(".says").inner_text()
        bars = percents(page)
        assert bars["wiki (locked)"] == 50 and bars["code"] == pytest.approx(40, abs=2)
        assert sum(bars.values()) - bars["Pruning ratio"] == 100
        page.mouse.up()
        settle(page)
        assert "This drag changed" in page.locator(".says").inner_text()  # still there to be read
        assert page.get_by_role("slider", name="code").input_value() == str(bars["code"])
        assert f"w_code={bars['code']}" in page.url and f"w_math={bars['math']}" in page.url
        drag(page, "Pruning ratio", 0.3 / 0.9)
        page.mouse.up()
        settle(page)
        ratio = page.get_by_role("slider", name="Pruning ratio").input_value()
        assert int(ratio) == pytest.approx(30, abs=1) and f"ratio={ratio}" in page.url
        says = page.locator(".says").inner_text().split("%")[0].removeprefix("Removes ")
        metric = page.get_by_test_id("stMetric").filter(has_text="Pruning ratio").first
        assert metric.get_by_test_id("stMetricValue").inner_text() == f"{says}%"  # the canvas and the engine
        bar = page.locator(".live label").filter(has_text="math").locator("input")
        start = float(bar.input_value()) / 100
        drag(page, "math", 0.9, start)  # and back: nothing has changed
        page.mouse.up()
        assert percents(page)["math"] == round(100 * start)
        page.get_by_role("slider", name="math").press(
            "ArrowRight"
        )  # and the canvas still follows the sidebar
        settle(page)
        assert percents(page)["math"] == round(100 * start) + 1
        assert errors == []


def test_a_wide_model_is_represented_by_some_of_its_channels(script):
    """The same model packed whole and by representatives: layers keep nearly the same shares."""
    it, config = dense("smollm2-run"), RunConfig.create()
    exact = first_mask(scores(it, config), it.geometry, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "MAX_ITEMS", 16_000)
        data, preview = ask(script, it, config)
    assert data.header["grouped"] and len(data.body) < 4 * 6 * 20_000
    for site, packed, kept in zip(it.geometry.sites, data.header["sites"], preview["kept"], strict=True):
        if site.name == "mlp":
            _, sizes = live.representatives(it.scores[site], packed["columns"], live.OF_A_COLUMN)
            assert sizes.sum() == packed["channels"]
            assert np.average(kept, weights=sizes) == pytest.approx(exact.kept[site].mean(), abs=0.06)
    assert preview["ratio"] == pytest.approx(0.5, abs=0.001)


@pytest.fixture
def hostile(tmp_path):
    """The demo run as if its names had been given by an enemy."""
    folder = tmp_path / "run"
    shutil.copytree(ASSETS / "demo-run", folder, ignore=shutil.ignore_patterns("model"))
    stored = json.loads((folder / "config.json").read_text())
    stored["config"]["model"] = "</script><script>alert(2)</script>$title"
    stored["config"]["parent"] = "</pre><img src=x onerror=alert(1)>"
    (folder / "config.json").write_text(json.dumps(stored))
    return folder


def test_a_report_is_one_file_that_needs_no_network(tmp_path, page, hostile, capsys):
    file = tmp_path / "report.html"
    assert main(["report", str(hostile), "--html", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == file.stat().st_size < 1_000_000
    wrong, asked = [], []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    page.goto(file.as_uri())
    assert page.get_by_role("heading", level=1).inner_text() == "script>$title, 50% pruned"
    assert "perplexity wiki" in page.locator("table").first.inner_text()
    before, said = picture(page), page.locator(".says").inner_text()
    drag(page, "code", 0.8)
    page.mouse.up()
    assert picture(page) != before and page.locator(".says").inner_text() != said
    page.get_by_role("slider", name="Pruning ratio").press("ArrowLeft")  # for the keyboard as well
    page.locator(".says").filter(has_text="Removes 49.").wait_for()
    maps = "Array.from(document.querySelectorAll('.map'), (canvas) => canvas.toDataURL())"
    first = page.evaluate(maps)
    page.get_by_role("slider", name="Iteration").press("End")
    last = page.evaluate(maps)
    page.get_by_label("Quantity").select_option("weight norm")
    assert len(first) == 2 and first != last != page.evaluate(maps)
    assert wrong == [] and asked == [file.as_uri()]


def test_a_report_says_why_it_cannot_be_written(tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((ASSETS / "demo-run" / "config.json").read_bytes())
    assert main(["report", str(tmp_path), "--html", str(tmp_path / "report.html")]) == 2
    assert "has no statistics yet" in capsys.readouterr().err
    assert main(["report", str(ASSETS / "demo-run"), "--html", str(tmp_path / "no" / "report.html")]) == 2
    assert "cannot" in capsys.readouterr().err
