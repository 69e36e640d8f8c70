"""A GGUF file in llama.cpp, through llama-cpp-python: what exports are compared with and quantised by."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pruning.errors import ExportError


def installed() -> bool:
    """Whether llama-cpp-python can be imported; it is not imported for this."""
    return importlib.util.find_spec("llama_cpp") is not None


def open_gguf(path: Path, context: int = 512, threads: int = 2) -> Any:
    """A `llama_cpp.Llama` that keeps the logits of every token.

    It runs without repacked weights: llama.cpp's AMX kernels crash on some processors (its issue 20824). Keys
    and values are kept in f32, where its f16 would round them.

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
        return llama_cpp.Llama(
            str(path),
            n_ctx=context,
            logits_all=True,
            verbose=False,
            n_threads=threads,
            type_k=binding.GGML_TYPE_F32,
            type_v=binding.GGML_TYPE_F32,
        )
    finally:
        binding.llama_model_default_params = defaults


def logits(llm: Any, ids: Sequence[int]) -> np.ndarray:
    """Logits (len(ids), vocabulary) after each token."""
    llm.reset()
    llm.eval(list(ids))
    return np.array(llm.scores[: len(ids)])


def quantise(source: Path, out: Path, kind: str) -> None:
    """Write a GGUF file of unquantised weights in a type such as `q4_k_m`, by llama.cpp's own quantiser.

    Matrices whose rows the type cannot hold get the type that llama.cpp falls back to.

    Raises:
        ExportError: llama.cpp refuses it.
    """
    import ctypes
    import logging

    import llama_cpp

    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)  # or it lists every matrix that falls back

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(parameters))
    if code != 0:
        raise ExportError(f"llama.cpp cannot write these weights as {kind}: use --weights q8_0.")
