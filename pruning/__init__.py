"""Iterative structured pruning of large language models with multi-domain calibration.

from pruning import RunConfig, prune
result = prune(RunConfig(model="demo", ratio=0.5))
print(result.perplexity)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pruning.config import RunConfig
from pruning.errors import PruningError

if TYPE_CHECKING:
    from pruning.runs.worker import Result, prune

__all__ = ["PruningError", "Result", "RunConfig", "prune"]


def __getattr__(name: str) -> Any:
    """`prune` and `Result` on first use: they import torch, which takes seconds."""
    if name in ("prune", "Result"):
        from pruning.runs import worker

        return getattr(worker, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
