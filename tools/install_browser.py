"""Make a Chromium available to the browser tests: what is there, the distribution's, or Playwright's own.

Never fails: where none can be had the browser tests skip and say so (in CI they fail).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """The path of a Chromium, or None."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def attempt(*command: str) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def main() -> None:
    if find():
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        print("installing the distribution's Chromium for the browser tests")
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        attempt("apt-get", "update", "-qq") and attempt("apt-get", "install", "-y", "-qq", "chromium")
    if not find():
        attempt(sys.executable, "-m", "playwright", "install", "chromium")
    if not find():
        print("no Chromium can be had here: the browser tests will be skipped")


if __name__ == "__main__":
    main()
