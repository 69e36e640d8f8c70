"""A run at work as the Prune page shows it: how far it is, what it costs so far, and what can be done with it."""

from __future__ import annotations

import streamlit as st

from pruning import visualization as viz
from pruning.errors import PruningError
from pruning.runs.run import Run
from ui import report, state
from ui.navigation import go


def show(run: Run) -> None:
    """Progress that keeps itself current while the run is at work, then its buttons and its log."""
    going, known = run.active, len(run.iterations())

    @st.fragment(run_every=1.0 if going else None)
    def live() -> None:
        _status(run)
        iterations = run.iterations()
        if iterations and iterations[0].metrics.perplexity:
            st.plotly_chart(
                viz.perplexity_figure(viz.perplexity_data(iterations)),
                alt="Perplexity by iteration so far",
                config=state.PLOT,
                key=f"ppl-{len(iterations)}",
            )
        if going and (not run.active or len(iterations) != known):
            st.rerun()  # the sidebar knows the run by its iterations

    live()
    _buttons(run, going)
    with st.expander("Log"):
        st.code(run.last_words() or "Nothing was printed.", language=None)
    st.code(report.command(run), language="bash")


def _status(run: Run) -> None:
    status = run.status()
    what = status.state
    if what == "queued":
        st.info(f"Waiting: {status.ahead} run(s) before it on this device.")
    elif what in ("starting", "running", "cancelling", "stalled"):
        number = status.current
        where = f"iteration {number} of {status.iterations or '?'}" if number else "the dense model"
        text = f"{what}: {where}, {status.stage} {status.detail}"
        st.progress(min(1.0, status.done / max(status.total, 1)), text=text)
        eta, rate = status.eta, status.per_second
        words = [f"{rate:,.0f} {status.unit} a second." if rate else ""]
        words += [f"About {eta:.0f} s left." if eta else ""]
        st.caption(" ".join(filter(None, words)))
        if what == "stalled":
            st.warning(
                "No sign of life for half a minute. It may be swapping; cancel it if it does not come back."
            )
    elif what == "finished":
        if run.config.ratio:
            st.success("Finished. The Results page compares it with the dense model.")
        else:
            st.success("Finished. Its statistics are on view: move the sliders, and look at its channels.")
    elif what == "cancelled":
        st.warning("Cancelled. It goes on after its last complete iteration.")
    else:
        st.error(f"It {'died' if what == 'dead' else 'failed'}. {status.message}")


def _buttons(run: Run, going: bool) -> None:
    columns = st.columns(3)
    if going:
        if columns[0].button("Cancel", icon=":material/stop:", width="stretch"):
            run.cancel()
            st.rerun()
        return
    if run.results() and run.config.ratio:
        if columns[0].button("What it cost", icon=":material/bar_chart:", width="stretch"):
            st.session_state.side = [run.id]
            go("pages/results.py")
    elif not run.results() and columns[0].button("Resume", icon=":material/play_arrow:", width="stretch"):
        try:
            run.launch()
        except PruningError as error:
            state.explain(error)
        else:
            st.rerun()
    looked = len(run.iterations()) > 1
    if looked and columns[1].button("Its channels", icon=":material/grid_on:", width="stretch"):
        state.look_at(run)
        go("pages/importance.py")
    with columns[2]:
        state.delete_button(run, f"watch-{run.id}")
