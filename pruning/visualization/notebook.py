"""One call from a run to a figure, for notebooks; data and drawing stay apart in the modules below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruning.errors import RunError
from pruning.visualization.heatmaps import View, importance_data, importance_figure
from pruning.visualization.masks import mask_map_data, mask_map_figure
from pruning.visualization.outcomes import perplexity_data, perplexity_figure
from pruning.visualization.style import site_names, site_style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pruning.runs.run import Run


def importance(run: Run, kind: str = "mlp", iteration: int = 1) -> Figure:
    """The score of every channel, layers by channels.

    Args:
        run: finished, or at work.
        kind: name of the sites, such as `mlp` or `attn`.
        iteration: whose statistics; 1 is the dense model's.

    Raises:
        RunError: the run has no such iteration yet.
    """
    iterations = {it.number: it for it in run.iterations() if it.number}
    if iteration not in iterations:
        numbers = ", ".join(map(str, iterations)) or "none yet"
        raise RunError(f"there is no iteration {iteration} in run {run.id!r}: it has {numbers}.")
    it = iterations[iteration]
    if kind not in (names := site_names(it.geometry)):
        raise RunError(f"there are no sites of kind {kind!r}: choose one of {', '.join(names)}.")
    data = importance_data(it.scores, kind, View(f"{run.config.score} score"), mask=it.mask)
    return importance_figure(data, f"{run.config.model}, iteration {iteration}: {site_style(kind).label}")


def mask_map(run: Run, kind: str = "mlp") -> Figure:
    """What the run's last mask keeps, layers by heads or channels.

    Raises:
        RunError: the run has no mask yet.
    """
    iterations = run.iterations()
    if len(iterations) < 2:
        raise RunError(f"run {run.id!r} has no mask yet: wait for its first iteration.")
    return mask_map_figure(mask_map_data(iterations[-1].mask, kind))


def perplexity(run: Run) -> Figure:
    """Perplexity by iteration and domain.

    Raises:
        RunError: the run measured none.
    """
    data = perplexity_data(run.iterations())
    if not data:
        raise RunError(f"run {run.id!r} measured no perplexity: prune with eval_blocks above 0.")
    return perplexity_figure(data)
