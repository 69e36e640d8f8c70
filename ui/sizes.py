"""The size of a run's model: any of its iterations is a model to try, time and export."""

from __future__ import annotations

import math
from pathlib import Path

import streamlit as st

from pruning.measure.comparison import mean_perplexity
from pruning.runs.folder import StoredIteration
from pruning.runs.jobs import job
from pruning.runs.run import Run
from ui import state, tasks


def checkpoint(run: Run) -> Path | None:
    """The checkpoint of the selected size; None, with a button that writes it, where it does not exist.

    Raises:
        RunError: the run kept no model.
    """
    iterations = run.iterations()
    last = iterations[-1].number
    if last < 2 or run.path in state.SHIPPED:
        return run.checkpoint
    number = int(
        st.select_slider(
            "Size",
            range(1, last + 1),
            value=last,
            format_func=lambda n: f"{iterations[n].metrics.ratio:.0%} pruned",
            key=f"size-{run.id}",
            help="The run keeps what separates each of its models from the dense one. The tabs Text generation, Export and "
            "Speed use the model of this size.",
        )
    )
    st.caption(_cost(iterations[0], iterations[number]))
    if number == last:
        return run.checkpoint
    folder = run.path / f"model-{number:02d}"
    if folder.is_dir():
        return folder
    task = job(state.store(), f"size-{run.id}-{number:02d}")
    if st.button("Write this size", key=f"write-size-{run.id}", icon=":material/save:"):
        tasks.start(task, ["export", f"{run.id}:{number}", "--format", "masks", *tasks.store_args(run)])
    tasks.working(task, "Writing the model", lambda _: st.rerun())
    return None


def _cost(dense: StoredIteration, after: StoredIteration) -> str:
    """What a size costs, in words."""
    sizes = f"After iteration {after.number}: {after.metrics.parameters:,} parameters"
    before, now = ({name: p.value for name, p in it.metrics.perplexity.items()} for it in (dense, after))
    lost = {name: now[name] / value for name, value in before.items()}
    if not lost or not all(map(math.isfinite, lost.values())):
        return f"{sizes}."
    worst = max(lost, key=lost.__getitem__)
    mean = mean_perplexity(now) / mean_perplexity(before)
    return f"{sizes}, mean perplexity {mean:.2f}x, worst domain {worst} {lost[worst]:.2f}x."
