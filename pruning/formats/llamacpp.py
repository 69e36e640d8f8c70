"""A GGUF file in llama.cpp, through llama-cpp-python: what exports are compared with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def open_gguf(path: Path, context: int = 512, threads: int = 2) -> Any:
    """A `llama_cpp.Llama` that keeps the logits of every token.

    It runs without repacked weights: llama.cpp's AMX kernels crash on some processors (its issue 20824).

    Raises:
        ImportError: llama-cpp-python is not installed; see `requirements-gguf.txt`.
    """
    import llama_cpp

    binding = llama_cpp.llama_cpp
    defaults = binding.llama_model_default_params

    def plain() -> Any:
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    binding.llama_model_default_params = plain
    try:
        return llama_cpp.Llama(str(path), n_ctx=context, logits_all=True, verbose=False, n_threads=threads)
    finally:
        binding.llama_model_default_params = defaults


def logits(llm: Any, ids: Sequence[int]) -> np.ndarray:
    """(len(ids), vocabulary) after each token."""
    llm.reset()
    llm.eval(list(ids))
    return np.array(llm.scores[: len(ids)])


def greedy(llm: Any, ids: Sequence[int], count: int) -> list[int]:
    """The `count` likeliest tokens, one after another, behind a prompt."""
    llm.reset()
    return list(itertools.islice(llm.generate(list(ids), temp=0), count))
