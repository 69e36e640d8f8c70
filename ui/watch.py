"""Monitor of the Prune page: progress and perplexity of a run, its buttons and its log."""

from __future__ import annotations

import math
import time

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.formatting import plain, seconds_text, sentence
from pruning.runs.preflight import mixture_notices
from pruning.runs.run import AT_WORK, Run
from pruning.visualization import report
from ui import state
from ui.navigation import go

TOGETHER = 10.0  # most seconds between the creations of runs that one button started


def show(run: Run) -> None:
    """Progress of a run, updated while it is active, then its buttons and its log."""
    active, iterations = run.active, run.iterations()

    @st.fragment(run_every=1.0 if active else None)
    def live() -> None:
        # first: what is drawn here stays on the page until the new one is complete
        if active and (not run.active or run.last_iteration + 1 != len(iterations)):
            st.rerun()  # the sidebar and the figure depend on the run's iterations
        _status(run)

    live()
    for notice in mixture_notices(run.config):
        st.caption(plain(sentence(notice)))
    # outside of the fragment: a figure every second would take the cores that the run computes on
    dense = iterations[0].metrics.perplexity.values() if iterations else ()
    if any(math.isfinite(perplexity.value) for perplexity in dense):
        figure = viz.perplexity_figure(viz.perplexity_data(iterations))
        state.plot(figure, "Perplexity by iteration", f"ppl-{len(iterations)}")
    _buttons(run, active)
    with st.expander("Log"):
        st.code(run.last_output() or "No log output.", language=None)
    st.code(report.command(run), language="bash", wrap_lines=True)


def _status(run: Run) -> None:
    status = run.status()
    if status.state == "queued":
        st.info(_queue(run))
    elif status.state in AT_WORK:
        model = (
            f"iteration {status.current} of {status.iterations or '?'}"
            if status.current
            else "the dense model"
        )
        text = plain(f"{status.state}: {model}, {status.stage} {status.detail}")
        st.progress(min(1.0, status.done / max(status.total, 1)), text=text)
        speed = f"{status.per_second:,.0f} {status.unit} per second." if status.per_second else ""
        remaining = f"About {seconds_text(status.eta)} left." if status.eta else ""
        st.caption(plain(f"{speed} {remaining}"))
        if status.state == "stalled":
            st.warning(
                "No status update for 30 seconds. The machine may be out of memory and swapping; cancel the run if it "
                "does not recover."
            )
    elif status.state == "finished":
        if run.config.ratio:
            st.success("Finished. The Results page compares it with the dense model.")
        else:
            st.success(
                "Finished. Its statistics are displayed: set the domain mixture in the sidebar and inspect the channels on the Importance page."
            )
    elif status.state == "cancelled":
        last = run.last_iteration
        st.warning(
            f"Cancelled. Resume continues after iteration {last}."
            if last > 0
            else "Cancelled before its first iteration was complete. Resume begins again."
        )
    else:
        problems = {
            "dead": "The worker process ended unexpectedly.",
            "corrupt": "Files of this run are corrupt:",
        }
        st.error(f"{problems.get(status.state, 'The run failed.')} {plain(sentence(status.message))}")


def _queue(run: Run) -> str:
    """The runs for which a run waits, in words."""
    if not (ahead := run.ahead()):
        return "Queued: the device is free, it starts in a moment."
    names = ", then ".join(state.label(other) for other in ahead)
    eta = ahead[0].status().eta
    remaining = f" The first has about {seconds_text(eta)} left." if eta else ""
    return f"Queued behind {plain(names)}.{remaining}"


def _created_with(run: Run) -> list[Run]:
    """A run, and those created with it for other mixtures, as by "Prune with both mixtures"."""

    def settings(each: Run) -> RunConfig:
        return each.config.model_copy(update={"mixture": {}, "name": ""})

    def distance(each: Run) -> float:
        times = [time.mktime(one.created) if one.created else 0.0 for one in (each, run)]
        return abs(times[0] - times[1])

    near = [
        each for each in state.store().all() if distance(each) < TOGETHER and settings(each) == settings(run)
    ]
    closest: dict[str, str] = {}  # by mixture: an earlier run of the same mixture was not created with it
    for each in sorted(near, key=lambda each: (each.id != run.id, distance(each))):
        closest.setdefault(repr(sorted(each.config.mixture.items())), each.id)
    return [each for each in near if each.id in closest.values()]


def _buttons(run: Run, active: bool) -> None:
    row = st.container(horizontal=True)
    if active:
        effect = (
            "Stops the run after the present step; complete iterations stay, and Resume goes on from them."
        )
        if row.button("Cancel", icon=":material/stop:", help=effect):
            run.cancel()
            st.rerun()
        return
    if not run.resumable and run.config.ratio:
        if row.button("Show results", icon=":material/bar_chart:"):
            go("pages/results.py", side=[state.label(each) for each in _created_with(run)])
    elif run.resumable:
        state.resume_button(run, row)
    if run.last_iteration > 0 and row.button("Show channels", icon=":material/grid_on:"):
        state.display(run)
        go("pages/importance.py")
    with row:
        state.delete_button(run.id, "watch-")
