"""The rotary embedding of a GGUF file, as `rope_parameters` of a transformers config.

What the keys mean is what llama.cpp computes from them (`llama_context` and `ggml_rope_ext`, as
llama-cpp-python 0.3.36 carries them). Needs no torch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pruning.formatting import quoted
from pruning.models.gguf_file import AGAIN, GGUFFile

FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
# A factor was computed in float32 by whoever wrote the file: a few units in its last place.
PRECISION = 1e-5
# Low and high frequency factor and original context: first what the published Llama 3.1, 3.2 and 3.3 models
# have, then the same for other contexts, since few channels may not tell them apart.
LLAMA3 = [(1.0, 4.0, 8192), *((1.0, 4.0, 2**power) for power in range(5, 21))]


def rope_parameters(file: GGUFFile, prefix: str, head_dim: int, context: int) -> dict[str, Any]:
    """The `rope_parameters` of a config.

    Args:
        file: one whose keys and rotary factors are supported.
        prefix: the architecture, with which the keys begin.
        head_dim: channels of a head.
        context: longest sequence in tokens.

    Raises:
        ModelError: they scale positions in a way that transformers does not compute.
    """

    def number(key: str, default: float) -> float:
        value = file.metadata.get(f"{prefix}.rope.{key}", default)
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise file.value_error(f"{prefix}.rope.{key}", "which is no number from 0 up")
        return value

    base = float(number("freq_base", 10000.0))
    scale = number("scaling.factor", number("scale_linear", 0.0)) or 1.0
    attention = number("scaling.attn_factor", 1.0)
    kind = file.metadata.get(f"{prefix}.rope.scaling.type", "linear")
    original = int(number("scaling.original_context_length", context)) or context
    for key, value, least in (("freq_base", base, 1), ("scaling.attn_factor", attention, 0)):
        if value <= least:
            raise file.value_error(f"{prefix}.rope.{key}", f"and it has to be above {least}")
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise file.error(f"says {prefix}.rope.scaling.type = {quoted(kind, 60)}, which is not supported")
    if kind == "none":
        scale = 1.0
    theta = {"rope_theta": base}
    if kind == "longrope":
        short, long = (scale * _factors(file, name, head_dim) for name in (SHORT, LONG))
        return theta | _longrope(short, long, attention, original, context)
    factors = np.full(head_dim // 2, float(scale))
    if FREQS in file.tensors:
        factors *= _factors(file, FREQS, head_dim)
    if kind == "yarn" and scale != 1:
        if FREQS in file.tensors:
            raise file.error(f"holds {FREQS!r} beside {prefix}.rope.scaling.type 'yarn'")
        yarn: dict[str, Any] = {"rope_type": "yarn", "factor": float(scale)}
        yarn["original_max_position_embeddings"] = original
        for name, default in (("beta_fast", 32.0), ("beta_slow", 1.0)):
            yarn[name] = float(number(f"scaling.yarn_{name}", default)) or default
        if attention != 1:
            yarn["attention_factor"] = attention * (0.1 * math.log(scale) + 1 if scale > 1 else 1)
        return theta | yarn
    if attention != 1:
        return theta | _longrope(factors, factors, attention, context, context)
    if np.ptp(factors) <= PRECISION * factors[0]:
        factor = _rounded(factors[0])
        return theta | (
            {"rope_type": "default"} if factor == 1 else {"rope_type": "linear", "factor": factor}
        )
    return theta | (_llama3(factors, base) or _longrope(factors, factors, 1.0, context, context))


def _factors(file: GGUFFile, name: str, head_dim: int) -> np.ndarray:
    """The divisors (head_dim / 2,) of the rotary frequencies."""
    if name not in file.tensors:
        raise file.error(f"lacks {name!r}", AGAIN)
    factors = file.array(name).astype(np.float64)
    if factors.shape != (head_dim // 2,) or not (np.isfinite(factors) & (factors > 0)).all():
        raise file.error(f"holds {name!r}, which is not {head_dim // 2} numbers above 0")
    return factors


def _rounded(factor: float) -> float:
    """A factor without what float32 rounded, such as 32 for 31.999998."""
    plain = round(float(factor), 4)
    return plain if math.isclose(plain, factor, rel_tol=PRECISION) else float(factor)


def _longrope(
    short: np.ndarray, long: np.ndarray, attention: float, original: int, context: int
) -> dict[str, Any]:
    """A rotary embedding with any factors, the long ones for sequences beyond the original context."""
    return {
        "rope_type": "longrope",
        "short_factor": short.tolist(),
        "long_factor": long.tolist(),
        "factor": max(1.0, context / original),
        "attention_factor": float(attention),
        "original_max_position_embeddings": original,
    }


def _llama3(factors: np.ndarray, base: float) -> dict[str, Any] | None:
    """The parameters of Llama 3's rotary embedding that give these factors; None where none do."""
    wavelengths = 2 * np.pi * base ** (np.arange(len(factors)) / len(factors))
    largest = factors.max()
    factor = _rounded(largest)
    # the share of the plain frequency in each: (original / wavelength - low) / (high - low)
    smooth = (1 / factors - 1 / largest) / (1 - 1 / largest)
    between = (smooth > 1e-4) & (smooth < 1 - 1e-4)
    candidates = list(LLAMA3)
    if between.sum() > 1:
        slope, offset = np.polyfit(1 / wavelengths[between], smooth[between], 1)
        if slope > 0 > offset:
            span = -1 / offset  # with the low frequency factor 1: the three numbers have a scale in common
            candidates.append((1.0, round(1 + span, 3), round(slope * span)))
    for low, high, original in candidates:
        share = np.clip((original / wavelengths - low) / (high - low), 0, 1)
        computed = 1 / ((1 - share) / factor + share)
        if np.allclose(computed, factors, rtol=PRECISION, atol=0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    return None
