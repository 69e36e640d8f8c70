"""How the pruning ratio grows over the iterations.

A schedule is a function from the share of the iterations done, t in (0, 1], and the final ratio to the ratio
after them. Register one with `@SCHEDULES.add`; its name becomes a value of
`RunConfig.schedule`.
"""

from __future__ import annotations

from collections.abc import Callable

from pruning.registry import Registry

SCHEDULES: Registry[Callable[[float, float], float]] = Registry("schedule")


@SCHEDULES.add
def linear(t: float, ratio: float) -> float:
    """The same share of the dense model in each iteration."""
    return ratio * t


@SCHEDULES.add
def geometric(t: float, ratio: float) -> float:
    """The same share of the remaining parameters in each iteration."""
    return 1 - (1 - ratio) ** t


@SCHEDULES.add
def cubic(t: float, ratio: float) -> float:
    """Most at first (Zhu and Gupta, arXiv 1710.01878)."""
    return ratio * (1 - (1 - t) ** 3)
