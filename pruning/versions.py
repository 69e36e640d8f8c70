"""What computes a run's numbers: versions of the libraries, and of this project's own code."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VERSIONED = ("torch", "transformers", "tokenizers", "datasets", "lm_eval", "numpy", "safetensors")
# Packages of this project that numbers pass through; the others read, draw and write them.
COMPUTING = ("models", "text", "method", "measure", "engine")


@cache
def code_digest() -> str:
    """Names the source of `COMPUTING`: a changed line is another version, whatever the release says."""
    digest, package = hashlib.blake2b(digest_size=6), Path(__file__).parent
    for name in COMPUTING:
        for file in sorted((package / name).glob("*.py")):
            digest.update(f"{name}/{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes: the one list for records of runs and for keys of the cache."""
    installed = {"python": sys.version.split()[0], "code": code_digest()}
    for name in VERSIONED:
        with contextlib.suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed
