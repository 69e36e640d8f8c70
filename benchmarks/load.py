"""Several people at once: real browser sessions that move sliders on one server, two of which start runs.

    python benchmarks/load.py                       # 8 sessions, 10 minutes
    python benchmarks/load.py --sessions 4 --minutes 2 --pause 5

Every session has its own ratio and mixture, moves them at random and goes from page to page. After each move the page
must come to rest with the session's own values on its sliders and in its address. The time to rest, the memory of
the server and the processor's seconds are recorded; whatever the app reports as an error counts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import psutil
from common import RESULTS, machine, table
from playwright.async_api import Browser, Error, Page, async_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from install_browser import find
from screenshots import FLAGS, server

PAGES = {"Importance": "Channel importance", "Masks": "Masks"}  # with their headings
ALERTS = (
    '[data-testid="stException"], [data-testid="stAlertContentError"], [data-testid="stConnectionStatus"]'
)
AT_REST = "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
STARTS = (60.0, 180.0)  # seconds after which the first two sessions start a run
ARRIVES = 10.0  # seconds between one session's first page and the next one's
PAUSE = 2.0  # seconds between two moves of a session, on average: browsers without a graphics card then fill two cores


@dataclass
class Outcome:
    """What the sessions met.

    Attributes:
        seconds: of every move, until the page was at rest.
        errors: what was reported, or did not come.
        mixed: moves after which a session saw other values than its own.
        memory: (seconds, MB of the server without its workers).
        processor: seconds that the server and the browsers have used.
        runs: how many were started.
    """

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    processor: dict[str, float] = field(default_factory=lambda: {"app.py": 0.0, "chrom": 0.0})
    runs: int = 0


async def wait_until_idle(page: Page) -> None:
    """Wait until the script has run, and has not begun again a moment later."""
    while True:
        await page.wait_for_function(AT_REST, timeout=120_000)
        await page.wait_for_timeout(500)  # a slider waits for 200 ms before it tells what it was set to
        if await page.evaluate(AT_REST):
            return


async def visit(page: Page, name: str) -> None:
    """Go to a page and wait until it has loaded: an earlier move would belong to the previous page."""
    await page.get_by_role("link", name=name, exact=True).click()
    await page.get_by_role("heading", name=PAGES[name], level=1).wait_for()


async def move(page: Page, name: str, parameter: str, by: int, outcome: Outcome) -> None:
    """Move a slider by so many steps, and look whether slider and address hold what was set."""
    slider = page.get_by_role("slider", name=name)
    value = int((await slider.get_attribute("aria-valuetext") or "").rstrip("%"))
    wanted = min(max(value + by, 1), 90)
    began = time.monotonic()
    for _ in range(abs(wanted - value)):
        await slider.press("ArrowRight" if wanted > value else "ArrowLeft")
    await wait_until_idle(page)
    outcome.seconds.append(time.monotonic() - began - 0.5)
    shown = int((await slider.get_attribute("aria-valuetext") or "").rstrip("%"))
    in_address = parse_qs(urlparse(page.url).query).get(parameter, [str(shown)])[0]  # a default is left out
    if (shown, int(in_address)) != (wanted, wanted):
        outcome.mixed.append(f"{name}: set {wanted}, shown {shown}, in the address {in_address}")


async def session(
    number: int, browser: Browser, address: str, end: float, pause: float, outcome: Outcome
) -> None:
    """One person: sliders, pages, and for the first two a run."""
    rng = random.Random(number)
    await asyncio.sleep(number * ARRIVES)
    began = time.monotonic()
    page = await browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(120_000)  # a session that waits longer has met an error
    page.on("pageerror", lambda error: outcome.errors.append(f"session {number}: {str(error)[:200]}"))
    start = STARTS[number] if number < len(STARTS) else None
    while time.monotonic() < end:
        try:
            if page.url == "about:blank":
                await page.goto(f"{address}/importance?run=demo-run")
                await page.wait_for_selector("h1")
            await wait_until_idle(page)
            if start is not None and time.monotonic() - began > start:
                start = None
                await page.get_by_role("link", name="Prune", exact=True).click()
                await page.get_by_role("button", name="Start").click(timeout=60_000)
                outcome.runs += 1
                await wait_until_idle(page)
                await visit(page, "Importance")
            elif rng.random() < 0.15:
                await visit(page, rng.choice(list(PAGES)))
            else:
                name, parameter = rng.choice(
                    [("Pruning ratio", "ratio"), ("code", "w_code"), ("wiki", "w_wiki")]
                )
                await move(page, name, parameter, rng.choice([-1, 1]) * rng.randint(1, 8), outcome)
            for alert in await page.locator(ALERTS).all_inner_texts():
                outcome.errors.append(f"session {number}: {alert[:200]}")
        except Exception as error:  # a session that meets one goes on, and the error counts
            when = f"session {number}, {time.monotonic() - began:.0f} s"
            outcome.errors.append(f"{when}: {type(error).__name__}: {str(error)[:200]}")
            with contextlib.suppress(Error):
                await page.goto("about:blank")
        await asyncio.sleep(rng.expovariate(1 / pause))
    await page.close()


async def watch(end: float, outcome: Outcome) -> None:
    """Memory of the server and what the processor does, every five seconds."""
    began = time.monotonic()
    while time.monotonic() < end:
        outcome.processor = dict.fromkeys(outcome.processor, 0.0)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words, used = " ".join(process.cmdline()), process.cpu_times()
                for kind in outcome.processor:
                    outcome.processor[kind] += (used.user + used.system) * (kind in words)
                if "app.py" in words:
                    outcome.memory.append((time.monotonic() - began, process.memory_info().rss / 1e6))
        await asyncio.sleep(5)


async def load(address: str, sessions: int, seconds: float, pause: float) -> Outcome:
    """Let the sessions go on for so long."""
    outcome, end = Outcome(), time.monotonic() + seconds
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find(), args=FLAGS)
        people = [session(number, browser, address, end, pause, outcome) for number in range(sessions)]
        await asyncio.gather(watch(end, outcome), *people)
        await browser.close()
    return outcome


def main() -> int:
    """Carry it out, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--pause", type=float, default=PAUSE, help="seconds between two moves of a session")
    options = parser.parse_args()
    # runs may outlive the server, and write on
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        server(Path(folder) / "runs") as address,
    ):
        outcome = asyncio.run(load(address, options.sessions, 60 * options.minutes, options.pause))
    wrong = [*outcome.errors, *outcome.mixed]
    print(*dict.fromkeys(wrong), sep="\n", file=sys.stderr)
    seconds, every = sorted(outcome.seconds) or [math.nan], max(1, len(outcome.memory) // 10)
    served, drawn = (f"{used / options.minutes:.0f} s" for used in outcome.processor.values())
    rows = [
        ("moves of a slider", f"{len(outcome.seconds):,}"),
        ("runs started", outcome.runs),
        ("errors", len(outcome.errors)),
        ("moves with values of another session, or lost", len(outcome.mixed)),
        ("to rest, median", f"{statistics.median(seconds):.2f} s"),
        ("to rest, 95 of 100", f"{seconds[int(0.95 * len(seconds))]:.2f} s"),
        ("to rest, worst", f"{seconds[-1]:.2f} s"),
        ("processor time of the server, a minute", served),
        ("processor time of the browsers, a minute", drawn),
        (
            "memory of the server, MB, in ten steps",
            ", ".join(f"{mb:.0f}" for _, mb in outcome.memory[::every]),
        ),
    ]
    text = (
        f"# The app under load\n\n{options.sessions} browser sessions on one server for {options.minutes:g} minutes, each "
        f"with a move every {options.pause:g} s on average, browsers and runs on the same machine. {machine()}\n\n"
        f"{table(('', ''), rows)}\n\n`python benchmarks/load.py`\n"
    )
    print(text)
    (RESULTS / "load.md").write_text(text, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
