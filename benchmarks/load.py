"""Several people at once: real browser sessions that move sliders on one server, two of which start runs.

    python benchmarks/load.py                       # 8 sessions, twice 10 minutes
    python benchmarks/load.py --sessions 4 --minutes 2 --pauses 5

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

PAGES = ("Importance", "Masks")
ALERTS = (
    '[data-testid="stException"], [data-testid="stAlertContentError"], [data-testid="stConnectionStatus"]'
)
AT_REST = "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
STARTS = (60.0, 180.0)  # seconds after which the first two sessions start a run
ARRIVES = 10.0  # seconds between one session's first page and the next one's
# Seconds between two moves of a session, on average. The browsers draw on the same machine, and without a graphics card
# each needs seconds of a core for a move: the second pace leaves no processor time unused.
PAUSES = (20.0, 2.0)
WHAT = (
    "moves of a slider",
    "runs started",
    "errors",
    "moves with values of another session, or lost",
    "to rest, median",
    "to rest, 95 of 100",
    "to rest, worst",
    "processor time of the server, a minute",
    "processor time of the browsers, a minute",
    "memory of the server, MB, in ten steps",
)


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


async def rest(page: Page) -> None:
    """Wait until the script has run, and has not begun again a moment later."""
    while True:
        await page.wait_for_function(AT_REST, timeout=120_000)
        await page.wait_for_timeout(500)  # a slider waits for 200 ms before it tells what it was set to
        if await page.evaluate(AT_REST):
            return


async def move(page: Page, name: str, parameter: str, by: int, outcome: Outcome) -> None:
    """Move a slider by so many steps, and look whether slider and address hold what was set."""
    slider = page.get_by_role("slider", name=name)
    value = int((await slider.get_attribute("aria-valuetext") or "").rstrip("%"))
    wanted = min(max(value + by, 1), 90)
    began = time.monotonic()
    for _ in range(abs(wanted - value)):
        await slider.press("ArrowRight" if wanted > value else "ArrowLeft")
    await rest(page)
    outcome.seconds.append(time.monotonic() - began - 0.5)
    shown = int((await slider.get_attribute("aria-valuetext") or "").rstrip("%"))
    there = parse_qs(urlparse(page.url).query).get(parameter, [str(shown)])[0]  # a default is left out
    if (shown, int(there)) != (wanted, wanted):
        outcome.mixed.append(f"{name}: set {wanted}, shown {shown}, in the address {there}")


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
            await rest(page)
            if start is not None and time.monotonic() - began > start:
                start = None
                await page.get_by_role("link", name="Prune", exact=True).click()
                await page.get_by_role("button", name="Start").click(timeout=60_000)
                outcome.runs += 1
                await rest(page)
                await page.get_by_role("link", name="Importance", exact=True).click()
            elif rng.random() < 0.15:
                await page.get_by_role("link", name=rng.choice(PAGES), exact=True).click()
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


def column(outcome: Outcome, minutes: float) -> list[str]:
    """What the table says of one load."""
    seconds, every = sorted(outcome.seconds) or [math.nan], max(1, len(outcome.memory) // 10)
    used = [f"{value / minutes:.0f} s" for value in outcome.processor.values()]
    return [
        f"{len(seconds):,}",
        str(outcome.runs),
        str(len(outcome.errors)),
        str(len(outcome.mixed)),
        f"{statistics.median(seconds):.2f} s",
        f"{seconds[int(0.95 * len(seconds))]:.2f} s",
        f"{seconds[-1]:.2f} s",
        *used,
        ", ".join(f"{mb:.0f}" for _, mb in outcome.memory[::every]),
    ]


def main() -> int:
    """Carry it out, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--pauses", type=float, nargs="+", default=PAUSES, help="seconds between two moves")
    options = parser.parse_args()
    columns, wrong = [list(WHAT)], []
    for pause in options.pauses:
        with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "runs") as address:
            outcome = asyncio.run(load(address, options.sessions, 60 * options.minutes, pause))
        wrong += [*outcome.errors, *outcome.mixed]
        columns.append(column(outcome, options.minutes))
    print(*dict.fromkeys(wrong), sep="\n", file=sys.stderr)
    text = (
        f"# The app under load\n\n{options.sessions} browser sessions on one server for {options.minutes:g} minutes, "
        f"browsers and runs on the same machine. {machine()}\n\n"
    )
    head = ["a session moves", *(f"every {pause:g} s, on average" for pause in options.pauses)]
    text += table(head, list(zip(*columns, strict=True))) + "\n\n`python benchmarks/load.py`\n"
    print(text)
    (RESULTS / "load.md").write_text(text, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
