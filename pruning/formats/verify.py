"""Comparing the logits of an export, of 64 tokens, with those of its checkpoint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pruning.errors import ExportError, RunError

if TYPE_CHECKING:
    from torch import Tensor

# Root mean square of the difference over the standard deviation of the logits. float32 arithmetic in another
# order stays far below (SmolLM2 pruned by 30%, in llama.cpp: 1e-4); one bias of a down_proj lost is 0.07.
TOLERANCE = 1e-3
# The same where activations are rounded too: SmolLM2 pruned by 30% has 0.006 in float16 and 0.04 in bfloat16.
ROUNDED = 0.5


def probe(tokens: int, vocabulary: int) -> Tensor:
    """Token ids (1, tokens) whose logits are compared."""
    import torch

    return torch.arange(tokens)[None] % vocabulary


def logits(model: Any) -> Tensor:
    """Logits (64, vocabulary) after each token of `probe`, computed in float32 from the weights as stored.

    The model is unchanged afterwards.
    """
    import torch

    dtypes = [(parameter, parameter.dtype) for parameter in model.parameters()]
    for parameter, _ in dtypes:  # not model.float(): that would round the rotary frequencies on the way back
        parameter.data = parameter.data.float()
    ids = probe(min(64, model.config.max_position_embeddings), model.config.vocab_size)
    with torch.no_grad():
        values = model(ids, use_cache=False).logits[0]
    for parameter, dtype in dtypes:
        parameter.data = parameter.data.to(dtype)
    return values


def compare(reference: Tensor, model: Any) -> float:
    """Largest difference of a logit between a checkpoint and an export as its own config loads it.

    Args:
        reference: logits (64, vocabulary) of the checkpoint, computed in float32.
        model: the export, loaded with the type of weights that its config names.

    Raises:
        ExportError: the model gives no numbers in that type.
        RunError: it computes something else.
    """
    import torch

    exact = check_difference(reference, logits(model))  # the weights, without what a type rounds
    dtype = next(model.parameters()).dtype
    if dtype == torch.float32:
        return exact
    ids = probe(len(reference), model.config.vocab_size)
    with torch.no_grad():
        as_loaded = model(ids, use_cache=False).logits[0].float()
    if not torch.isfinite(as_loaded).all():
        name = str(dtype).removeprefix("torch.")
        other = "bf16 or f32" if dtype == torch.float16 else "f32"
        raise ExportError(
            f"computed in {name}, as its config loads it, the model's logits are not finite, since its "
            f"activations leave the range of that type: use --weights {other}."
        )
    return check_difference(reference, as_loaded, ROUNDED)


def check_difference(reference: Tensor, exported: Tensor, tolerance: float = TOLERANCE) -> float:
    """The largest difference of a logit, after a check of the root mean square of all differences.

    One logit is no measure: massive activations multiply what a type rounds.

    Args:
        reference: logits (64, vocabulary) of the checkpoint.
        exported: logits of the export.
        tolerance: of the root mean square, as a share of the logits' standard deviation.

    Raises:
        ExportError: the reference's own logits are not finite.
        RunError: the root mean square of the difference is above the tolerance.
    """
    largest, difference = float(reference.abs().max()), float((reference - exported).abs().max())
    if not math.isfinite(largest):
        raise ExportError(
            f"the model's own logits reach {largest}, so its weights are broken: prune or download it again."
        )
    spread = float((reference - exported).pow(2).mean().sqrt() / reference.std())
    if not spread <= tolerance:
        raise RunError(
            f"the export is discarded, as it computes something else: a logit differs by {difference:.3g} "
            f"where the largest is {largest:.3g}: use another --format."
        )
    return difference
