"""Every page through Streamlit's AppTest: it draws, its controls act, and mistakes are sentences."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("overview", "calibration", "importance", "masks", "prune", "results")


@pytest.fixture
def app(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.run()
    assert not at.exception
    return at


def figures(at):
    return [json.loads(element.proto.spec) for element in at.get("plotly_chart")]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_draws_on_the_demo_run(app, page):
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception
    assert not app.error
    assert app.title[0].value


def test_the_first_page_shows_a_figure_and_needs_no_torch():
    code = (
        "import sys\nfrom streamlit.testing.v1 import AppTest\n"
        "at = AppTest.from_file('app.py', default_timeout=60).run()\n"
        "assert not at.exception\n"
        f"for page in {PAGES!r}:\n"
        "    at.switch_page(f'pages/{page}.py').run()\n"
        "    assert not at.exception\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'lm_eval'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip().splitlines()[-1] == "[]"


def open_page(page, **sliders):
    """The page after moving sliders on the first one: later runs of AppTest leave out app.py's frame."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    for key, value in sliders.items():
        at.sidebar.slider(key=key).set_value(value)
    at.run()
    at.switch_page(f"pages/{page}.py").run()
    assert not at.exception
    return at


@pytest.mark.parametrize("page", ["importance", "masks", "calibration"])
def test_a_mixture_slider_changes_what_is_shown(monkeypatch, page):
    monkeypatch.chdir(ROOT)
    assert figures(open_page(page))[:2] != figures(open_page(page, w_code=0, w_math=100))[:2]


@pytest.mark.parametrize("ratio", [20, 35])
def test_the_ratio_of_the_sidebar_reaches_the_masks(monkeypatch, ratio):
    monkeypatch.chdir(ROOT)
    shown = float(open_page("masks", ratio=ratio).metric[0].value.rstrip("%"))
    assert abs(shown - ratio) < 1


def test_another_session_has_its_own_choices(app):
    app.sidebar.slider(key="ratio").set_value(20)
    app.run()
    other = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert other.sidebar.slider(key="ratio").value == 50


def test_a_link_reproduces_the_view():
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["ratio"] = "35"
    at.query_params["w_code"] = "80"
    at.run()
    assert at.sidebar.slider(key="ratio").value == 35
    assert at.sidebar.slider(key="w_code").value == 80


def test_all_weights_zero_is_said_and_harms_nothing(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for name in ("wiki", "web", "code", "math"):
        at.query_params[f"w_{name}"] = "0"
    at.run()
    assert any("All weights are zero" in warning.value for warning in at.sidebar.warning)
    at.switch_page("pages/masks.py").run()
    assert not at.exception
    assert not at.error


def test_a_ratio_out_of_reach_is_a_sentence(app):
    app.switch_page("pages/masks.py").run()
    app.multiselect(key="keep").set_value(["0-4"])
    app.run()
    assert not app.exception
    assert any("cannot be reached" in error.value for error in app.error)


def test_iterations_can_be_walked(app):
    app.switch_page("pages/importance.py").run()
    first = figures(app)
    app.slider(key="iteration").set_value(5)
    app.run()
    assert not app.exception
    assert figures(app) != first


def test_a_failed_run_says_why_and_can_be_resumed(monkeypatch, tmp_path):
    from pruning import RunConfig
    from pruning.runs import RunStore, write_json

    monkeypatch.chdir(ROOT)
    run = RunStore().create(RunConfig.create())
    write_json(run.path / "status.json", {"state": "failed", "message": "the text ran out", "created": 1})
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    at.switch_page("pages/prune.py").run()
    assert any("the text ran out" in error.value for error in at.error)
    assert any(button.label == "Resume" for button in at.button)
