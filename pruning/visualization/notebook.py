"""One call from a run to a figure, for notebooks; data and drawing stay apart in the modules below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruning.errors import RunError
from pruning.models.geometry import KINDS, Kind
from pruning.visualization.heatmap_figures import importance_figure
from pruning.visualization.heatmaps import importance_data
from pruning.visualization.masks import mask_map_data, mask_map_figure
from pruning.visualization.outcomes import perplexity_data, perplexity_figure
from pruning.visualization.style import KIND_NAMES

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pruning.runs.run import Run


def importance(run: Run, kind: Kind = "mlp", iteration: int = 1) -> Figure:
    """The score of every channel, layers by channels.

    Args:
        run: finished, or at work.
        kind: `mlp` or `attn`.
        iteration: whose statistics; 1 is the dense model's.

    Raises:
        RunError: the run has no such iteration yet.
    """
    found = {it.number: it for it in run.iterations() if it.number}
    if kind not in KINDS:
        raise RunError(f"there are no sites of kind {kind!r}: choose one of {', '.join(KINDS)}.")
    if iteration not in found:
        known = ", ".join(map(str, found)) or "none yet"
        raise RunError(f"there is no iteration {iteration} in run {run.id!r}: it has {known}.")
    what = f"{run.config.score} score"
    data = importance_data(found[iteration].scores, kind, what=what, mask=found[iteration].mask)
    return importance_figure(data, f"{run.config.model}, iteration {iteration}: {KIND_NAMES[kind]}")


def mask_map(run: Run, kind: Kind = "mlp") -> Figure:
    """What the run's last mask retains, layers by heads or channels.

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
