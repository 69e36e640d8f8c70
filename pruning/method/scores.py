"""How much a channel matters. A score is a small function from a site's statistics to one number a channel.

To add one, write the function here with `@SCORES.add`; its name becomes a value of `RunConfig.score`, of
`--score`, and of the app.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pruning.method.moments import Fused
from pruning.models.geometry import KINDS, Site
from pruning.registry import Registry

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class SiteStatistics:
    """What a score may look at, for the channels of one site; NaN where a channel is gone.

    Attributes:
        variance, mean_square: (C,) of the activations, fused over the domains.
        norm: (C,) Euclidean norm of the columns of the output projection, ||W[:, j]||_2.
        mean_abs: (C,) mean over the rows of |W[:, j]|.
        seed: numbers from which a random score is drawn, different for every site.
    """

    variance: Array
    mean_square: Array
    norm: Array
    mean_abs: Array
    seed: tuple[int, ...] = (0,)


SCORES: Registry[Callable[[SiteStatistics], Array]] = Registry("score")


@SCORES.add
def fluctuation(site: SiteStatistics) -> Array:
    """S_j = var_j ||W[:, j]||^2: FLAP's WIFV (arXiv 2312.11983, section 3.2; arXiv 2601.02674, formula 5)."""
    return site.variance * site.norm**2


@SCORES.add
def wanda_sp(site: SiteStatistics) -> Array:
    """Mean over rows of |W_ij| ||X_j||_2 (arXiv 2306.11695), of one token: sqrt(n) is common to all."""
    return site.mean_abs * np.sqrt(site.mean_square)


@SCORES.add
def magnitude(site: SiteStatistics) -> Array:
    """||W[:, j]||_2: no look at the text."""
    return site.norm


@SCORES.add
def input_variance(site: SiteStatistics) -> Array:
    """var_j: FLAP's IFV, no look at the weights."""
    return site.variance


@SCORES.add
def random(site: SiteStatistics) -> Array:
    """Uniform in (0, 1): what chance achieves."""
    return np.random.default_rng(site.seed).random(site.norm.shape)


def score_sites(
    score: str, fused: Mapping[Site, Fused], norms: Mapping[Site, tuple[Array, Array]], seed: int
) -> dict[Site, Array]:
    """The score of every channel of every site.

    Args:
        score: a name in `SCORES`.
        fused: statistics of the mixture.
        norms: per site the Euclidean norm and the mean absolute value of the weight columns, each (C,).
        seed: of the run, for the random score.
    """
    return {
        site: SCORES[score](
            SiteStatistics(
                f.variance, f.mean_square, *norms[site], (seed, site.layer, KINDS.index(site.name))
            )
        )
        for site, f in fused.items()
    }
