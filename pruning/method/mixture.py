"""A mixture that adapts: domains that lose more than the others weigh more in the next iteration."""

from __future__ import annotations

import math
from collections.abc import Mapping

RATE = 1.0  # with half of it the domains of SmolLM2 came half as far together, see docs/prunescope.md
NOISE = 0.05  # rises that are not well above it hardly move the weights
FLOOR = 0.2  # least weight of a domain, as a part of an equal share, so that none is ever lost


def adapt(weights: Mapping[str, float], rises: Mapping[str, float], rate: float = RATE) -> dict[str, float]:
    """One step of exponentiated gradient (Kivinen and Warmuth, 1997) towards an equal rise in all domains.

    Args:
        weights: of the domains, above 0, with a sum of 1.
        rises: by domain the rise of the log-perplexity over the dense model.
        rate: by how much a domain that loses twice a large mean grows, in natural logarithms.

    Returns:
        Weights with a sum of 1, none below `FLOOR` of an equal share; the given ones where nothing is lost on
        the mean, or a rise is not finite.
    """
    mean = math.fsum(rises[name] for name in weights) / len(weights)
    if not (math.isfinite(mean) and mean > 0):
        return dict(weights)
    # differences are bounded: a domain that broke down must not take everything in one step
    pull = {name: min(max((rises[name] - mean) / (mean + NOISE), -2.0), 2.0) for name in weights}
    grown = {name: weight * math.exp(rate * pull[name]) for name, weight in weights.items()}
    total, least = math.fsum(grown.values()), FLOOR / len(weights)
    shares = {name: weight / total for name, weight in grown.items()}
    low = {name for name, share in shares.items() if share < least}
    others = math.fsum(share for name, share in shares.items() if name not in low)
    room = 1 - least * len(low)
    return {name: least if name in low else share * room / others for name, share in shares.items()}
