"""Named methods: presets of the options of `RunConfig`.

Every method is a point in the same space of options; what a preset leaves out keeps `RunConfig`'s default.
"""

from __future__ import annotations

from typing import Any

from pruning.registry import Registry

METHODS: Registry[dict[str, Any]] = Registry("method")
# The paper (arXiv 2601.02674): prune a little, recalibrate on all domains, prune on.
METHODS.add({}, "iterative")
# Beyond the paper: least squares makes up for what goes, and each layer is scored and repaired on what the
# pruned layers before it give.
METHODS.add({"iterations": 3, "compensation": "least_squares", "sequential": True}, "prunescope")
# FLAP (arXiv 2312.11983), WIFV with AL-AM: one shot, one domain, z-scores, squared attention scores.
METHODS.add(
    {
        "iterations": 1,
        "token_weights": "equal",
        "normalise": "zscore",
        "square_attention": True,
        "unit_score": "mean",
        "mixture": {"wiki": 1.0},
    },
    "flap",
)
# FLAP's structured Wanda: the same ratio everywhere, no compensation, calibrated on web text (C4).
METHODS.add(
    {
        "iterations": 1,
        "token_weights": "equal",
        "score": "wanda_sp",
        "allocation": "uniform",
        "compensation": "none",
        "mixture": {"web": 1.0},
    },
    "wanda_sp",
)
for _score in ("magnitude", "random"):
    METHODS.add({"iterations": 1, "score": _score, "allocation": "uniform", "compensation": "none"}, _score)
