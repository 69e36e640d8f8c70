"""Where things lie: what ships with the project, runs, and the cache."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# The folder that holds `app.py`, `pages`, `ui`, `assets` and `experiments`: the checkout's, or in an
# installed package a copy of them within it.
PROJECT = next(
    (folder for folder in (_PACKAGE / "bundle", _PACKAGE.parent) if (folder / "assets").is_dir()),
    _PACKAGE.parent,
)
ASSETS = PROJECT / "assets"


def default_root() -> Path:
    """Where runs are kept: `PRUNESCOPE_RUNS`, or `runs` in the working directory."""
    return Path(os.environ.get("PRUNESCOPE_RUNS") or "runs")


def runs_option(root: Path) -> str:
    """What a command needs to find runs in a folder: empty for the default one, else ` --runs-dir FOLDER`."""
    return "" if root.absolute() == default_root().absolute() else f" --runs-dir {shlex.quote(str(root))}"


def cache_folder() -> Path:
    """Where results are kept between runs: `PRUNESCOPE_CACHE`, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunescope"
    return Path(os.environ.get("PRUNESCOPE_CACHE") or default)


def exists(path: Path) -> bool:
    """Whether something is there; not where the system cannot even ask, as for a name of 5,000 letters."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def expand(name: str) -> Path:
    """A path with `~` spelled out, where there is such a user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)
