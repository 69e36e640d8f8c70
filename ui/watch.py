"""The monitor of the Prune page: progress and perplexity of a run, its buttons and its log."""

from __future__ import annotations

import math
import time

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.formatting import plain, seconds_text, sentence
from pruning.runs.preflight import mixture_notices
from pruning.runs.run import Run
from pruning.visualization import report
from ui import state
from ui.navigation import go

TOGETHER = 10.0  # seconds between the beginnings of runs that one button started


def show(run: Run) -> None:
    """Progress of a run, updated while it is active, then its buttons and its log."""
    going, iterations = run.active, run.iterations()

    @st.fragment(run_every=1.0 if going else None)
    def live() -> None:
        # first, as all who follow a run: what is drawn here stays on the page until the new one is complete
        if going and (not run.active or len(run.iterations()) != len(iterations)):
            st.rerun()  # the sidebar and the figure depend on the run's iterations
        _status(run)

    live()
    for words in mixture_notices(
        set(run.config.domains) - set(run.config.mixture), run.config.eval_blocks != 0
    ):
        st.caption(plain(sentence(words)))
    # outside of what is drawn every second: figures would take the cores that the run computes on
    dense = iterations[0].metrics.perplexity.values() if iterations else ()
    if any(math.isfinite(perplexity.value) for perplexity in dense):
        st.plotly_chart(
            viz.perplexity_figure(viz.perplexity_data(iterations)),
            alt="Perplexity by iteration",
            config=state.PLOT,
            key=f"ppl-{len(iterations)}",
        )
    _buttons(run, going)
    with st.expander("Log"):
        st.code(run.last_words() or "No log output.", language=None)
    st.code(report.command(run), language="bash", wrap_lines=True)


def _status(run: Run) -> None:
    status = run.status()
    what = status.state
    if what == "queued":
        st.info(_queue(run))
    elif what in ("starting", "running", "cancelling", "stalled"):
        number = status.current
        where = f"iteration {number} of {status.iterations or '?'}" if number else "the dense model"
        text = plain(f"{what}: {where}, {status.stage} {status.detail}")
        st.progress(min(1.0, status.done / max(status.total, 1)), text=text)
        eta, rate = status.eta, status.per_second
        words = [f"{rate:,.0f} {status.unit} per second." if rate else ""]
        words += [f"About {seconds_text(eta)} left." if eta else ""]
        st.caption(plain(" ".join(filter(None, words))))
        if what == "stalled":
            st.warning(
                "No status update for 30 seconds. The machine may be out of memory and swapping; cancel the run if it "
                "does not recover."
            )
    elif what == "finished":
        if run.config.ratio:
            st.success("Finished. The Results page compares it with the dense model.")
        else:
            st.success(
                "Finished. Its statistics are displayed: set the domain mixture in the sidebar and inspect the channels on the Importance page."
            )
    elif what == "cancelled":
        after = run.iterations()[-1].number if run.iterations() else 0
        st.warning(
            f"Cancelled. Resume continues after iteration {after}."
            if after
            else "Cancelled before its first iteration was complete. Resume begins again."
        )
    else:
        problem = {
            "dead": "The worker process ended unexpectedly.",
            "damaged": "Files of this run are damaged:",
        }
        st.error(f"{problem.get(what, 'The run failed.')} {plain(sentence(status.message))}")


def _queue(run: Run) -> str:
    """Behind whom a run waits."""
    ahead = run.ahead()
    if not ahead:
        return "Queued: the device is free, it starts in a moment."
    names = ", then ".join(state.label(other) for other in ahead)
    left = ahead[0].status().eta
    return f"Queued behind {plain(names)}." + (
        f" The first has about {seconds_text(left)} left." if left else ""
    )


def _begun_with(run: Run) -> list[Run]:
    """A run, and those that were begun with it and have another mixture, as by "Prune with both mixtures"."""

    def key(each: Run) -> RunConfig:
        return each.config.model_copy(update={"mixture": {}, "name": ""})

    def apart(each: Run) -> float:
        return abs(seconds(each) - seconds(run))

    def seconds(each: Run) -> float:
        return time.mktime(each.created) if each.created else 0.0

    near = [each for each in state.store().all() if apart(each) < TOGETHER and key(each) == key(run)]
    closest: dict[str, str] = {}  # by mixture: an earlier run of the same mixture was not begun with it
    for each in sorted(near, key=lambda each: (each.id != run.id, apart(each))):
        closest.setdefault(repr(sorted(each.config.mixture.items())), each.id)
    return [each for each in near if each.id in closest.values()]


def _buttons(run: Run, going: bool) -> None:
    row = st.container(horizontal=True)
    if going:
        what = (
            "Stops the run after the step it is at; complete iterations stay, and Resume goes on from them."
        )
        if row.button("Cancel", icon=":material/stop:", help=what):
            run.cancel()
            st.rerun()
        return
    if not run.resumable and run.config.ratio:
        if row.button("Show results", icon=":material/bar_chart:"):
            go("pages/results.py", side=[state.label(each) for each in _begun_with(run)])
    elif run.resumable:
        state.resume_button(run, row)
    looked = len(run.iterations()) > 1
    if looked and row.button("Show channels", icon=":material/grid_on:"):
        state.display(run)
        go("pages/importance.py")
    with row:
        state.delete_button(run.id, "watch-")
