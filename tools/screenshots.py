"""Screenshots of every page into `docs/screenshots`, from a real Chromium on a server of its own.

python tools/screenshots.py [name ...]
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from install_browser import find
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "screenshots"
PAGES = (
    *("overview", "calibration", "importance", "masks", "sensitivity", "prune", "results", "experiments"),
    *("learn", "learn-toy", "learn-domains"),
)
FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()


@contextmanager
def server(runs: Path) -> Iterator[str]:
    """The app on a free port, with runs of its own; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        "app.py",
        "--server.headless=true",
        f"--server.port={port}",
    ]
    environment = {**os.environ, "PRUNESCOPE_RUNS": str(runs)}
    log = (runs.parent / "server.log").open("wb")
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urlopen(f"{address}/_stcore/health", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browser(dark: bool = False) -> Iterator[Page]:
    """A page of 1280 x 720 in a headless Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find(), args=FLAGS)
        page = chromium.new_page(
            viewport={"width": 1280, "height": 720}, color_scheme="dark" if dark else "light"
        )
        yield page
        chromium.close()


# For how long nothing has been at work; a rerun begins some time after what asked for it.
QUIET = """milliseconds => {
    const app = document.querySelector('[data-testid="stApp"]');
    const busy = app?.dataset.testScriptState !== 'notRunning' || document.querySelector(
        '[data-testid="stSkeleton"], [data-testid="stStatusWidget"]');
    if (busy || !window.quietSince) window.quietSince = performance.now();
    return performance.now() - window.quietSince > milliseconds;
}"""


def settle(page: Page) -> None:
    """Wait until Streamlit has nothing more to draw."""
    page.wait_for_selector("h1", timeout=60_000)
    page.evaluate("delete window.quietSince")
    page.wait_for_function(QUIET, arg=1000, timeout=120_000)


def run_at_work(page: Page) -> None:
    """Start a run, and wait until it has something to show."""
    page.get_by_role("button", name="Start").click()
    page.get_by_text("running: iteration 3 of 5").wait_for(timeout=600_000)  # the log says it too
    page.locator(".js-plotly-plot").first.wait_for()


def run_done(page: Page) -> None:
    """Wait for the run that was started, and look at its results."""
    page.goto(page.url.split("/results")[0] + "/prune")
    settle(page)
    page.get_by_text("Finished. The Results page").first.wait_for(timeout=1_200_000)
    page.get_by_role("button", name="Show results").click()
    page.get_by_test_id("stMetricValue").first.wait_for()  # loaded the first time that it is shown


def committed(page: Page) -> None:
    """Commit to a prediction of a lesson, and wait for its measurement."""
    if (choice := page.get_by_text("the small, busy one")).count():
        choice.click()
    page.get_by_role("button", name="Commit to it").click()
    page.get_by_text("You predicted").wait_for(timeout=120_000)
    page.locator(".js-plotly-plot").nth(1).wait_for()


# What a page needs to be at its most telling: choices in the address, and something to do first.
LOOKS: dict[str, tuple[str, Callable[[Page], None] | None]] = {
    "overview": ("", None),
    "calibration": ("w_code=80", None),
    "importance": ("layer=3&channel=516", None),
    "masks": ("layer=3&channel=516", None),
    "sensitivity": ("", None),
    "prune": ("run=demo-run", run_at_work),
    "results": ("", run_done),
    "experiments": ("experiment=demo_mixture%2C+ships+with+the+app", None),
    "learn": ("lesson=fluctuation", committed),
    "learn-toy": ("", None),
    "learn-domains": ("lesson=domains&class=true", committed),
}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "runs") as address:
        for dark in (False, True):
            with browser(dark) as page:
                for name in sys.argv[1:] or PAGES:
                    query, first = LOOKS[name]
                    page.goto(f"{address}/{'' if name == 'overview' else name.split('-')[0]}?{query}")
                    settle(page)
                    if first and not dark:  # the run of the light pictures is there
                        first(page)
                        settle(page)
                    page.mouse.move(1275, 400)  # off the figures, whose toolbars would show
                    page.wait_for_timeout(500)  # they fade
                    page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
                    path = OUT / f"{name}{'-dark' if dark else ''}.png"
                    page.screenshot(path=path)
                    print(path)


if __name__ == "__main__":
    main()
