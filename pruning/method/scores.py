"""How much a channel matters. A score is a function from a site's statistics to one number for each channel.

To add one, write the function here with `@SCORES.add`; its name becomes a value of `RunConfig.score`, of
`--score`, and of the app.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pruning.method.statistics import SiteStats
from pruning.registry import Registry

Array = np.ndarray


SCORES: Registry[Callable[[SiteStats], Array]] = Registry("score")


@SCORES.add
def fluctuation(site: SiteStats) -> Array:
    """S_j = var_j ||W[:, j]||^2: FLAP's WIFV (arXiv 2312.11983, section 3.2; arXiv 2601.02674, formula 5)."""
    return site.variance * site.norm**2


@SCORES.add
def wanda_sp(site: SiteStats) -> Array:
    """Mean over rows of |W_ij| ||X_j||_2 (arXiv 2306.11695), of one token: sqrt(n) is common to all."""
    return site.mean_abs * np.sqrt(site.mean_square)


@SCORES.add
def magnitude(site: SiteStats) -> Array:
    """||W[:, j]||_2: the weights alone."""
    return site.norm


@SCORES.add
def input_variance(site: SiteStats) -> Array:
    """var_j: FLAP's IFV, the activations alone."""
    return site.variance


@SCORES.add
def random(site: SiteStats) -> Array:
    """Uniform in (0, 1): the baseline of chance."""
    return np.random.default_rng(site.seed).random(site.norm.shape)
