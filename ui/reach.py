"""The pruning ratio that reaches a size or a speed."""

from __future__ import annotations

import streamlit as st

from pruning.config import RunConfig
from pruning.engine.budget import first_mask
from pruning.engine.targets import SIZES, Timing, smallest_ratio
from pruning.errors import PruningError
from pruning.models.mask import Mask
from pruning.runs.jobs import job
from pruning.runs.run import Run
from ui import state, stored, tasks

SPEED = "tokens per second"


def popover(chosen: state.Choice, run: Run, mask: Mask, config: RunConfig) -> None:
    """Controls that find and set the pruning ratio for a target.

    Args:
        chosen: the settings.
        run: that is displayed; its first iteration has statistics.
        mask: of the settings.
        config: of the settings.
    """
    with st.popover("Reach a size or speed", icon=":material/straighten:"):
        what = st.selectbox("Target", [*SIZES, SPEED], key="size_of")
        try:
            if what == SPEED:
                _speed(run)
            else:
                _size(what, chosen, run, mask, config)
        except PruningError as error:
            state.explain(error)


def _size(what: str, chosen: state.Choice, run: Run, mask: Mask, config: RunConfig) -> None:
    dense, measured = run.iterations()[0].metrics.parameters, stored.iteration(run, 1)
    now = SIZES[what](mask, dense)
    limit = st.number_input("At most", min_value=1.0, value=float(round(now)), step=1.0, format="%.0f")
    if limit >= round(now):  # a search takes a dozen masks: not on every change of the page
        st.caption(
            f"A pruning ratio of {mask.ratio:.0%} leaves {now:,.0f}. Enter less to find the ratio for it."
        )
        return
    scores = stored.scores(measured, config, config.mixture)

    def size(ratio: float) -> float:
        cut = first_mask(scores, mask.geometry, config.replace(ratio=ratio), measured.curves)
        return SIZES[what](cut, dense)

    needed = smallest_ratio(size, limit)
    st.markdown(f"A pruning ratio of {needed:.0%} leaves {size(needed):,.0f}.")
    _offer(needed)


def _speed(run: Run) -> None:
    task = job(state.store(), f"ratios-{run.id}")
    if task.state != "finished":
        what = (
            "Times copies of the model on this machine at three pruning ratios, in turn. "
            "One sequence, tokens generated one by one."
        )
        if tasks.timing_button("Time this model", what, f"time-{run.id}", task):
            arguments = ["bench", run.config.model, "--ratios", "--device", run.config.device]
            tasks.start(task, [*arguments, *tasks.store_args(run)])
        tasks.working(task, "Timing the model", lambda _: st.rerun())
        return
    timing = Timing(**task.output)
    st.caption(
        ", ".join(f"{r:.0%} pruned {s:,.0f}" for r, s in zip(timing.ratios, timing.speeds, strict=True))
        + " tokens per second."
    )
    dense = float(round(timing.speeds[0]))
    target = st.number_input("At least", min_value=1.0, value=dense, format="%.0f", key="speed")
    needed = timing.ratio(target)
    st.markdown(f"{target:,.0f} tokens per second need a pruning ratio of {needed:.0%}.")
    _offer(needed)


def _offer(ratio: float) -> None:
    st.button("Set the pruning ratio", on_click=_set, args=(ratio,))


def _set(ratio: float) -> None:
    """Callback: a widget's value is set before the page is drawn."""
    st.session_state.ratio = round(100 * ratio)
