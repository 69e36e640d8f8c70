"""A run, a link or a message of somebody else's: shown as it is written, never obeyed by Markdown."""

import json
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pruning.formatting import plain
from pruning.runs.run import RunStore
from pruning.visualization import report
from ui import state

ROOT = Path(__file__).resolve().parents[2]
EVIL = "![p](http://evil.example/p.png) <img src=x onerror=alert(1)> :red[x] $x$ [a](http://evil.example) `b`"
# Elements that show text as it is, or data that the browser does not read as Markdown.
PLAIN = ("selectbox", "multiselect", "dataframe", "arrow_data_frame", "plotly_chart", "code", "text_input")


@pytest.fixture
def foreign(monkeypatch):
    """A finished run in the store whose every string is somebody else's."""
    monkeypatch.chdir(ROOT)
    path = RunStore().root / "20260101-120000-iterative-beef"
    shutil.copytree(state.DEMO_RUN, path)
    for name in ("config.json", "results.json", "status.json"):
        content = json.loads((path / name).read_text())
        content.pop("checksum", None)
        config = content.get("config", {})
        if config:
            config |= {"model": EVIL, "tasks": [EVIL], "task_folder": EVIL, "device": "cpu"}
            config |= {"name": EVIL[:60], "tags": [EVIL]}
            config["domains"] = dict.fromkeys(config["mixture"], EVIL)
        if name == "status.json":
            content |= {"message": EVIL, "stage": EVIL, "detail": EVIL, "state": "failed"}
        if content.get("zero_shot"):
            content["zero_shot"]["tasks"] = {EVIL: next(iter(content["zero_shot"]["tasks"].values()))}
        (path / name).write_text(json.dumps(content))
    (path / "sources.json").write_text(json.dumps({"wiki": {"rows": 1, "name": EVIL, "read_as": [EVIL],
        "characters": 9, "skipped": {EVIL: 3}, "sample": EVIL}}))  # fmt: skip
    return path


def strings(message):
    """All strings of a protobuf message, with the names of their fields."""
    for field, value in message.ListFields():
        for part in value if field.is_repeated else [value]:
            if isinstance(part, str):
                yield field.name, part
            elif hasattr(part, "ListFields"):
                yield from strings(part)


def obeyed(node, found):
    """Strings of a page that the browser reads as Markdown and that hold the foreign one as it is."""
    kind, proto = getattr(node, "type", ""), getattr(node, "proto", None)
    for name, text in strings(proto) if proto is not None and kind not in PLAIN else ():
        if name != "id" and ("![p](http" in text or " <img" in text):
            found.append((kind, name, text))
    for child in getattr(node, "children", {}).values():
        obeyed(child, found)
    return found


PAGES = (
    "overview",
    "calibration",
    "importance",
    "masks",
    "sensitivity",
    "prune",
    "results",
    "experiments",
    "learn",
)


@pytest.mark.parametrize("page", PAGES)
def test_no_string_of_a_foreign_run_is_markdown(foreign, page):
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["run"] = foreign.name
    at.run()
    assert obeyed(at._tree, []) == []  # the frame, which later runs of AppTest leave out
    at.switch_page(f"pages/{page}.py").run()
    assert not at.exception
    if page == "results":
        at.multiselect(key="side").set_value([foreign.name]).run()
    assert obeyed(at._tree, []) == []
    if page == "prune":
        assert any(plain(EVIL)[:20] in error.value for error in at.error)


def test_reports_of_a_foreign_run_hold_no_markup_of_its_own(foreign):
    run = RunStore().get(foreign.name)
    text, page = report.markdown(run), report.html(run)
    prose = text.split("```json")[0]
    assert "![p](" not in prose and "<img" not in prose.replace("\\<", "") and EVIL not in prose
    assert "<img src=x" not in page


def test_a_link_can_name_what_it_likes(monkeypatch):
    monkeypatch.chdir(ROOT)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.query_params["run"] = EVIL
    at.run()
    assert not at.exception and any("which is not in this store" in w.value for w in at.warning)
    assert obeyed(at._tree, []) == []


@pytest.mark.parametrize(
    "text", [EVIL, "# head", "- list", "1. list", "a\n\n# head", "> quote", "\x1b[31mred"]
)
def test_plain_text_is_plain(text):
    """Streamlit's own Markdown is remark's; python-markdown-it reads the same CommonMark."""
    markdown_it = pytest.importorskip("markdown_it")
    html = markdown_it.MarkdownIt("commonmark", {"html": True}).render(plain(text))
    assert html.startswith("<p>") and html.count("<") == 2
