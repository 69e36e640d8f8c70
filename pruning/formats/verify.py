"""Whether what was written computes what the checkpoint does: logits of 64 tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pruning.errors import ExportError, RunError

if TYPE_CHECKING:
    from torch import Tensor

# Root mean square of the difference over the standard deviation of the logits. float32 arithmetic in another
# order stays far below (SmolLM2 pruned by 30%, in llama.cpp: 1e-4); one bias of a down_proj lost is 0.07.
TOLERANCE = 1e-3


def probe(tokens: int, vocabulary: int) -> Tensor:
    """(1, tokens) ids to compare with."""
    import torch

    return torch.arange(tokens)[None] % vocabulary


def logits(model: Any) -> Tensor:
    """(64, vocabulary) after each token of `probe`, in float32 from the weights as stored.

    The model stays as it was.
    """
    import torch

    stored = [(parameter, parameter.dtype) for parameter in model.parameters()]
    for parameter, _ in stored:  # not model.float(): that would round the rotary frequencies on the way back
        parameter.data = parameter.data.float()
    ids = probe(min(64, model.config.max_position_embeddings), model.config.vocab_size)
    with torch.no_grad():
        found = model(ids, use_cache=False).logits[0]
    for parameter, dtype in stored:
        parameter.data = parameter.data.to(dtype)
    return found


def judged(reference: Tensor, found: Tensor, tolerance: float = TOLERANCE) -> float:
    """Largest difference of two sets of logits.

    Raises:
        ExportError: the reference's own are no numbers.
        RunError: the root mean square of the difference is more than a tolerance, a share of the logits'
            standard deviation. One logit is no measure: massive activations multiply what a type rounds.
    """
    import math

    largest, apart = float(reference.abs().max()), float((reference - found).abs().max())
    if not math.isfinite(largest):
        raise ExportError(f"the model's own logits reach {largest}: its weights are broken, prune it again.")
    spread = float((reference - found).pow(2).mean().sqrt() / reference.std())
    if not spread <= tolerance:
        raise RunError(
            f"nothing was kept, as what was written computes something else: a logit differs by {apart:.3g} "
            f"where the largest is {largest:.3g}: give another --format."
        )
    return apart
