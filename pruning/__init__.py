"""Iterative structured pruning of large language models with multi-domain calibration.

from pruning import RunConfig, RunStore, export, load, prune, visualization

result = prune(RunConfig(model="demo", ratio=0.5))
result                                              # ten lines; a table in Jupyter
visualization.importance(result.run)                # layers by channels
export(result.run.checkpoint, "hf", "my-model")     # for transformers
load("my-model").model                              # and back
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pruning.config import RunConfig
from pruning.errors import PruningError

if TYPE_CHECKING:
    from pruning import visualization
    from pruning.formats.write import export
    from pruning.models.loading import load
    from pruning.runs.report import Result
    from pruning.runs.run import RunStore
    from pruning.runs.worker import prune

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read by huggingface_hub when it is first imported

__version__ = "0.2.0"
__all__ = [
    "PruningError",
    "Result",
    "RunConfig",
    "RunStore",
    "export",
    "load",
    "prune",
    "visualization",
]
_HOMES = {
    "Result": "pruning.runs.report",
    "RunStore": "pruning.runs.run",
    "export": "pruning.formats.write",
    "load": "pruning.models.loading",
    "prune": "pruning.runs.worker",
}


def __getattr__(name: str) -> Any:
    """The rest on first use: importing all of it takes seconds."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "visualization":
        return import_module("pruning.visualization")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
