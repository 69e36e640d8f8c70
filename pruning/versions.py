"""Versions of what decides a run's numbers."""

from __future__ import annotations

import contextlib
import sys
from importlib.metadata import PackageNotFoundError, version

VERSIONED = ("torch", "transformers", "datasets", "lm_eval", "numpy", "safetensors")


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    found = {"python": sys.version.split()[0]}
    for name in VERSIONED:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
