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
from pruning.config import METHODS, RunConfig, choices
from pruning.engine import budget
from pruning.engine.budget import first_mask
from pruning.method.normalise import NORMALISERS
from pruning.method.sensitivity import Curve
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
                const found = preview(live, shares, ratio);
                return {
                    ratio: found.ratio,
                    kept: found.sites.map((each) => Array.from(each.kept)),
                    score: withScores ? found.sites.map((each) => Array.from(each.site.score)) : null,
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
    data = live.live_data(it, live.arrays_of(config), config.seed)
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
        if what := live.unsupported(config):
            pytest.skip(f"the browser does not compute {what}, and the page shows no canvas")
        expected = scores(it, config)
        data, found = ask(script, it, config, with_scores=ratio < 0.7)
        assert not data.header["grouped"]
        if found["score"]:
            exact = 1e-7 if config.score == "random" else 1e-14  # it is drawn in Python, and sent in float32
            for site, values in zip(it.geometry.sites, found["score"], strict=True):
                np.testing.assert_allclose(values, expected[site], rtol=exact, atol=0)
        mask = first_mask(expected, it.geometry, config, it.curves)
        for site, kept in zip(it.geometry.sites, found["kept"], strict=True):
            assert np.array_equal(np.array(kept, bool), mask.retained[site]), site
        assert found["ratio"] == mask.ratio


@pytest.mark.parametrize("worst", [0.0, 0.6])
def test_the_browser_cuts_by_measured_damage_as_the_engine_does(script, worst):
    """Curves as `engine.sensitivity` writes them, of which two bend inwards: their hull is what counts."""
    it, rng = dense("demo-run"), np.random.default_rng(0)
    curves = {}
    for site in it.geometry.sites:
        removed = it.geometry.parameters(site) * np.array([0, 0.1, 0.25, 0.5, 0.75, 0.9])
        rises = {name: rng.lognormal(-3, 1, 5).cumsum() for name in MIXTURES[0]}
        damage = {name: np.concatenate([[0], np.sort(rise)]) for name, rise in rises.items()}
        curves[site] = Curve(removed.round(), damage)
    it = replace(it)
    vars(it)["curves"] = curves  # in place of the file's
    options = {
        "allocation": "measured",
        "worst_domain": worst,
        "remove": ("3.mlp.5-90",),
        "keep": ("1.attn",),
    }
    for mixture, ratio in zip(MIXTURES, (0.5, 0.23, 0.71), strict=True):
        config = RunConfig.create(**options, mixture=mixture, ratio=ratio)
        mask = first_mask(scores(it, config), it.geometry, config, curves)
        _, found = ask(script, it, config)
        for site, kept in zip(it.geometry.sites, found["kept"], strict=True):
            assert np.array_equal(np.array(kept, bool), mask.retained[site]), site
        assert found["ratio"] == mask.ratio


def drag(page, label, *places):
    """Draw a bar to places of its width one after another, in steps, as a hand does."""
    bar = page.locator(".live label").filter(has_text=label).locator("input")
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()
    y, at = box["y"] + box["height"] / 2, float(bar.input_value()) / float(bar.get_attribute("max"))

    def x(share):
        """Where the middle of the handle is, which is 6 pixels wide and stays inside the border."""
        return box["x"] + 4 + (box["width"] - 8) * share

    page.mouse.move(x(at), y)
    page.mouse.down()
    for to in places:
        for step in range(1, 9):
            page.mouse.move(x(at + (to - at) * step / 8), y)
            page.wait_for_timeout(40)
        at = to


def picture(page):
    return page.locator(".live canvas").evaluate("canvas => canvas.toDataURL()")


def shares(page):
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
        assert "This drag turned" in page.locator(".says").inner_text()
        found = shares(page)
        assert found["wiki (locked)"] == 50 and found["code"] == pytest.approx(40, abs=2)
        assert sum(found.values()) - found["Pruning ratio"] == 100
        page.mouse.up()
        settle(page)
        assert "This drag turned" in page.locator(".says").inner_text()  # still there to be read
        assert page.get_by_role("slider", name="code").input_value() == str(found["code"])
        assert f"w_code={found['code']}" in page.url and f"w_math={found['math']}" in page.url
        drag(page, "Pruning ratio", 0.3 / 0.9)
        page.mouse.up()
        settle(page)
        ratio = page.get_by_role("slider", name="Pruning ratio").input_value()
        assert int(ratio) == pytest.approx(30, abs=1) and f"ratio={ratio}" in page.url
        says = page.locator(".says").inner_text().split("%")[0].removeprefix("Removes ")
        metric = page.get_by_test_id("stMetric").filter(has_text="Pruning ratio").first
        assert metric.get_by_test_id("stMetricValue").inner_text() == f"{says}%"  # the canvas and the engine
        bar = page.locator(".live label").filter(has_text="math").locator("input")
        there = float(bar.input_value()) / 100
        drag(page, "math", 0.9, there)  # and back: nothing has changed
        page.mouse.up()
        assert shares(page)["math"] == round(100 * there)
        page.get_by_role("slider", name="math").press(
            "ArrowRight"
        )  # and the canvas still follows the sidebar
        settle(page)
        assert shares(page)["math"] == round(100 * there) + 1
        assert errors == []


def test_a_wide_model_is_represented_by_some_of_its_channels(script):
    """The same model packed whole and by representatives: layers keep nearly the same shares."""
    it, config = dense("smollm2-run"), RunConfig.create()
    whole = first_mask(scores(it, config), it.geometry, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "MAX_ITEMS", 16_000)
        data, found = ask(script, it, config)
    assert data.header["grouped"] and len(data.body) < 4 * 6 * 20_000
    for site, known, kept in zip(it.geometry.sites, data.header["sites"], found["kept"], strict=True):
        if site.name == "mlp":
            _, sizes = live.representatives(it.scores[site], known["columns"], live.OF_A_COLUMN["mlp"])
            assert sizes.sum() == known["channels"]
            assert np.average(kept, weights=sizes) == pytest.approx(whole.retained[site].mean(), abs=0.06)
    assert found["ratio"] == pytest.approx(0.5, abs=0.001)


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
