"""The toy and one lesson in a real Chromium."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pruning.method.moments import Moments
from ui.lessons.toy import PRESETS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from install_browser import find  # noqa: E402
from screenshots import browser, server, settle  # noqa: E402

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not os.environ.get("CI") and find() is None, reason="no Chromium is installed"),
]


def said(row, what):
    return float(row.locator(f"[data-of={what}]").inner_text())


def test_the_toy_computes_what_the_engine_computes_and_a_lesson_is_played(tmp_path):
    errors = []
    with server(tmp_path / "runs") as address, browser() as page:
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(f"{address}/learn")
        settle(page)
        rows = page.locator(".toy .row")
        x, w = np.array(PRESETS["start"]["x"]), np.array(PRESETS["start"]["w"])

        def agrees():
            moments = Moments.of(torch.tensor(x.T))
            for j in range(3):
                norm = np.linalg.norm(w[j])
                for what, value in (
                    ("mean", moments.mean[j]),
                    ("variance", moments.variance[j]),
                    ("norm", norm),
                    ("score", moments.variance[j] * norm**2),
                ):
                    assert said(rows.nth(j), what) == pytest.approx(float(value), abs=0.006)

        agrees()
        assert "lowest" in rows.nth(0).get_attribute("class")  # the largest mean, and the first to go

        dot = page.get_by_role("slider", name="channel 1, token 3")
        box = dot.bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(*middle)
        page.mouse.down()
        page.mouse.move(middle[0], middle[1] + 40, steps=5)
        page.mouse.up()
        x[0, 2] = float(dot.get_attribute("aria-valuenow"))
        assert x[0, 2] < 1
        agrees()
        weight = page.get_by_role("slider", name="channel 2, weight 1")
        for _ in range(3):
            weight.press("ArrowUp")
        w[1, 0] += 0.3
        agrees()
        bias = page.locator(".toy .result [data-of=bias]").inner_text()
        assert bias == "({:.2f}, {:.2f})".format(*(w[0] * x[0].mean()))
        left = said(page.locator(".toy .result"), "left")
        assert left == pytest.approx(said(rows.nth(0), "score") * 5 / 6, abs=0.01)

        page.goto(f"{address}/learn?lesson=fluctuation")  # each lesson has its own link
        settle(page)
        assert page.locator(".js-plotly-plot").count() == 0
        page.get_by_text("the small, busy one").click()
        page.get_by_role("button", name="Commit to it").click()
        page.get_by_text("You predicted").wait_for(timeout=120_000)
        page.locator(".js-plotly-plot").first.wait_for()
        page.get_by_text("your prediction").first.wait_for()
        page.get_by_text("Class", exact=True).click()
        settle(page)
        assert not page.get_by_test_id("stSidebar").is_visible()
        assert "class=true" in page.url and "lesson=fluctuation" in page.url
        box = page.locator(".js-plotly-plot").first.bounding_box()
        assert box["y"] + box["height"] <= 720  # the reveal is on a projector without scrolling
    assert errors == []


def test_the_handouts_print_on_one_page_each(tmp_path):
    """With answers as long as those that are measured."""
    from ui.lessons import LESSONS, handout
    from ui.lessons.shape import Reveal

    long = {lesson.key: Reveal(1.0, "number " * 60) for lesson in LESSONS}
    with browser() as page:
        for content in (handout.html(), handout.html(long)):
            page.set_content(content)
            sheet = page.pdf(prefer_css_page_size=True)
            assert len(re.findall(rb"/Type\s*/Page\b", sheet)) == 1
