"""The whole story in a real headless Chromium: look, tune, prune, read, come back, download."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from install_browser import find  # noqa: E402
from screenshots import PAGES, browser, server, settle  # noqa: E402

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not os.environ.get("CI") and find() is None, reason="no Chromium is installed"),
]


def heatmap(page):
    return page.evaluate(
        """Array.from(document.querySelectorAll('.js-plotly-plot'))
            .map(plot => JSON.stringify(plot.data[0].z || null).slice(0, 4000)).join('|')"""
    )


def metric(page, name):
    """The value of a metric by its label."""
    found = page.get_by_test_id("stMetric").filter(has_text=name).first
    return found.get_by_test_id("stMetricValue").inner_text()


def shows(page, *parts):
    """Wait until the address has these parts: it follows the page, which may take its time."""
    page.wait_for_url(lambda url: all(part in url for part in parts), timeout=60_000)


def share(text):
    """The number in front of a percent sign."""
    return float(text.split("%")[0])


def test_a_stranger_prunes_the_demo_model(tmp_path):
    errors, foreign = [], []
    with server(tmp_path / "runs") as address, browser() as page:
        page.on("request", lambda r: foreign.append(r.url) if r.url.startswith("http") else None)
        page.on("console", lambda message: errors.append(message) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(f"{address}/?run=demo+run+%28ships+with+the+app%29")
        page.locator(".heatmaplayer image").first.wait_for()  # the first page has a heatmap on it
        settle(page)
        assert page.get_by_alt_text("32,768 tokens of 4 domains").count() == 1

        page.get_by_role("link", name="Importance").click()
        settle(page)
        before = heatmap(page)
        for _ in range(6):  # the keyboard reaches the mixture
            page.get_by_role("slider", name="code").press("ArrowLeft")
            page.get_by_role("slider", name="math").press("ArrowRight")
        settle(page)
        assert heatmap(page) != before
        shows(page, "w_code=44", "w_math=56")

        page.locator(".js-plotly-plot").nth(0).scroll_into_view_if_needed()
        page.wait_for_timeout(500)
        cells = page.locator(".js-plotly-plot").nth(0).locator(".nsewdrag").first.bounding_box()
        page.mouse.move(cells["x"] + cells["width"] * 0.5, cells["y"] + cells["height"] * 0.58)
        page.wait_for_timeout(500)
        page.mouse.click(cells["x"] + cells["width"] * 0.5, cells["y"] + cells["height"] * 0.58)
        page.get_by_role("heading", name="Layer 3, MLP channel 5").wait_for()  # layer 3 of 0 to 5, near 512
        shows(page, "layer=3")
        opened = page.evaluate(  # of the channels of that column the one with the largest value
            """() => { const plot = document.querySelector('.js-plotly-plot');
                const marks = plot._fullData.find(t => t.customdata);
                const far = i => Math.abs(marks.x[i] - 512) + 999 * Math.abs(marks.y[i] - 3);
                const near = Array.from(marks.x, (x, i) => [far(i), i]);
                const i = near.sort((a, b) => a[0] - b[0])[0][1];
                return marks.customdata[i][0] }"""
        )
        shows(page, f"channel={int(opened)}")

        page.get_by_role("link", name="Masks").click()
        settle(page)
        page.get_by_text("Kept MLP channels").wait_for()
        shows(page, "layer=3", "w_code=44")
        slider = page.get_by_role("slider", name="Pruning ratio")
        for _ in range(5):
            slider.press("ArrowLeft")
        settle(page)
        assert share(metric(page, "Pruning ratio")) == pytest.approx(45, abs=0.1)
        page.get_by_text("Keep or remove heads and channels").click()
        page.get_by_role("button", name="Keep", exact=True).click()
        settle(page)
        shows(page, "keep=3.mlp")
        assert share(metric(page, "Pruning ratio")) == pytest.approx(
            45, abs=0.1
        )  # the budget is met elsewhere

        page.get_by_role("link", name="Prune", exact=True).click()
        settle(page)
        shows(page, "keep=3.mlp")
        for name, value in (
            ("Iterations", "2"),
            ("Calibration blocks per domain", "8"),
            ("Evaluation blocks", "8"),
        ):
            page.get_by_label(name, exact=True).fill(value)
            page.get_by_label(name, exact=True).press("Enter")
            settle(page)
        page.get_by_role("button", name="Start").click()
        page.get_by_role("button", name="Cancel").wait_for()
        shows(page, "w_code=44", "ratio=45")
        page.wait_for_url(lambda url: "follow=" in url or "run=iterative" in url)
        page.reload()  # the run goes on without us, and the link says which one it is
        page.get_by_text("Finished. The Results page").first.wait_for(timeout=600_000)
        shows(page, "run=iterative")

        page.get_by_role("button", name="Show results").click()
        settle(page)
        page.get_by_role("heading", name="Results", exact=True).wait_for()
        shows(page, "w_code=44", "keep=3.mlp")
        assert metric(page, "Worst").startswith("1.") and metric(page, "Mean").startswith("1.")
        page.get_by_text("pruning ratio 45.").first.wait_for()
        page.get_by_role("button", name="Export it").click()  # two clicks to a file
        page.get_by_role("button", name="Export", exact=True).wait_for()
        page.get_by_role("tab", name="Perplexity").first.click()
        page.get_by_text("Bits per byte are comparable across tokenizers").first.wait_for()
        with page.expect_download(timeout=120_000) as download:
            page.get_by_role("button", name="Report (HTML)").first.click()
        report = Path(download.value.path()).read_text(encoding="utf-8")
        assert "perplexity code" in report and "x (" in report
        assert "<canvas" in report
        page.get_by_role("tab", name="Text generation").first.click()
        page.get_by_role("button", name="Generate").first.click()
        page.get_by_text("60 tokens in").first.wait_for(timeout=180_000)

        page.get_by_role("link", name="Importance").click()  # what was pruned is on view everywhere
        settle(page)
        link = page.url
        page.get_by_role("slider", name="Iteration").press("ArrowRight")
        settle(page)
        shows(page, "iteration=2")
        assert "iteration" not in link
        assert [url for url in foreign if not url.startswith(address)] == []  # nothing from the network
    # Streamlit looks for its server below a page's own address first, and finds nothing there (404).
    unexpected = [(str(error), getattr(error, "location", "")) for error in errors]
    assert [(text, where) for text, where in unexpected if "404 (Not Found)" not in text] == []
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    assert "deprecat" not in log.lower()


def test_a_real_model_is_seen_without_a_click_and_the_demo_pruned_in_one(tmp_path):
    with server(tmp_path / "runs") as address, browser() as page:
        page.goto(address)
        page.locator(".heatmaplayer image").first.wait_for()
        page.get_by_text("Statistics of SmolLM2 run").wait_for()
        page.goto(f"{address}/?method=flap")  # takes one iteration: the test is short
        settle(page)
        page.get_by_role("button", name="Prune demo model").click()
        page.get_by_text("Finished. The Results page").first.wait_for(timeout=240_000)


def test_a_link_to_the_sensitivity_page_under_its_old_name_opens_it(tmp_path):
    with server(tmp_path / "runs") as address, browser() as page:
        page.goto(f"{address}/damage?ratio=30&site=attn&layer=2&damage_on=code")
        settle(page)
        assert page.get_by_role("heading", level=1).inner_text() == "Sensitivity"
        page.get_by_text("Divergence when the attention of one layer is cut alone").wait_for()
        assert page.get_by_label("Layer", exact=True).input_value() == "2"
        assert page.get_by_role("slider", name="Pruning ratio").input_value() == "30"
        shows(page, "damage_on=code")


def test_statistics_of_ones_own_model_are_collected_in_two_clicks_and_pruned_in_three(tmp_path):
    """Its layers are drawn one after another while the pages keep what they show.

    Of its two mixtures there are masks after one click, and pruned models after three.
    """
    from tests.conftest import byte_tokenizer, tiny_model

    model = tmp_path / "own"
    tiny_model("qwen2").save_pretrained(model)
    byte_tokenizer().save_pretrained(model)
    with server(tmp_path / "runs") as address, browser() as page:
        page.goto(f"{address}/?run=demo-run&method=flap")
        settle(page)
        page.get_by_role("combobox", name="Model").fill(str(model))
        page.get_by_role("combobox", name="Model").press("Enter")  # the first
        settle(page)
        page.get_by_text("Statistics of demo run").wait_for()
        page.get_by_role("button", name="Collect statistics").click()  # the second
        page.get_by_text("Statistics of statistics own").wait_for(timeout=240_000)
        settle(page)
        page.get_by_text("MLP channels lie below the cut").wait_for()
        link = page.url
        assert "run=statistics" in link
        page.get_by_role("button", name="Prune own").click()  # the third
        page.get_by_text("Finished. The Results page").first.wait_for(timeout=240_000)
        page.get_by_text("Perplexity by iteration").wait_for()
        shows(page, "run=flap")

        page.goto(link.replace("?", "results?", 1))
        page.get_by_text("took statistics only: nothing was pruned").wait_for()
        page.goto(link)
        settle(page)
        page.get_by_role("link", name="Masks").click()  # the first: it opens on the comparison with a mixture
        settle(page)
        page.get_by_text("Channels in this mask only").wait_for()
        assert page.get_by_role("combobox", name="Other mask").input_value() == "wiki alone"
        page.get_by_role("button", name="Prune with both mixtures").click()  # the second
        page.get_by_text("Finished. The Results page").first.wait_for(timeout=480_000)
        page.get_by_role("button", name="Show results").click()  # the third
        page.get_by_text("Settings that differ").wait_for()
        settle(page)
        assert page.url.count("side=") == 2
        page.reload()  # the address alone shows the same
        page.get_by_text("Outcome").wait_for()
        for mixture in ("wiki 25% web 25% code 25% math 25%", "wiki 100%"):
            page.get_by_text(f"Details of {mixture}: flap 50% own").wait_for()
        assert page.locator('[data-testid="stException"]').count() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_every_page_opens_by_a_link_and_none_scrolls_sideways(tmp_path, dark):
    """A fresh server's first visitor comes by a link to a page: Streamlit would run it without its frame."""
    pages = PAGES[::2] if dark else PAGES[1::2]  # the first page by its name as well
    with server(tmp_path / "runs") as address, browser(dark) as page:
        for name in reversed(pages):
            page.goto(f"{address}/{name}?ratio=35&w_code=80&layer=2&iteration=3")
            settle(page)
            assert page.get_by_role("slider", name="code").input_value() == "80"
            shows(page, "ratio=35")
            width = page.evaluate(
                """(() => { const page = document.documentElement;
                const main = document.querySelector('[data-testid=stMain]');
                return [main.scrollWidth, main.clientWidth, page.scrollWidth, innerWidth] })()"""
            )
            assert width[0] <= width[1] and width[2] <= width[3], name
            assert page.locator('[data-testid="stException"]').count() == 0
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log and "deprecat" not in log.lower()


def test_a_slow_line_loses_no_page(tmp_path):
    """What is set meanwhile reaches the server one by one, and what the browser has had comes again."""
    held, servers, slow = [], [], False

    def route(socket):
        servers.append(socket.connect_to_server())
        socket.on_message(lambda message: held.append(message) if slow else servers[-1].send(message))

    with server(tmp_path / "runs") as address, browser() as page:
        page.route_web_socket("**/_stcore/stream", route)
        page.goto(f"{address}/importance")
        settle(page)
        before, slow = heatmap(page), True
        for key in ["ArrowRight"] * 3 + ["ArrowLeft"] * 3:
            page.get_by_role("slider", name="Pruning ratio").press(key)
            page.wait_for_timeout(400)
        slow = False
        assert len(held) == 6
        for message in held:
            servers[-1].send(message)
            settle(page)
        assert page.get_by_test_id("stConnectionStatus").count() == 0
        assert heatmap(page) == before
