import streamlit as st

from pruning import visualization as viz
from pruning.config import PruningError, RunConfig
from pruning.runs import Run
from pruning.terminal import size_text
from pruning.worker import check, needs
from ui import state
from ui.glossary import popover

chosen = state.choice()
st.title("Do it")

left, right = st.columns([2, 3])
with left:
    st.subheader("A new run")
    try:
        config = chosen.config()
        iterations = st.number_input(
            "Iterations", 1, 100, config.iterations, key="k", persist_state="session"
        )
        config = config.replace(iterations=int(iterations))
        defaults = RunConfig.create(method=config.method)
        st.markdown(
            f"**{config.method}**, {config.ratio:.0%} of {config.model} in {config.iterations} iterations"
        )
        st.caption(" · ".join(f"{name} {share:.0%}" for name, share in config.mixture.items()))
        changed = {
            name: value
            for name, value in config.model_dump().items()
            if value != getattr(defaults, name)
            and name not in ("method", "ratio", "mixture", "iterations", "parent")
        }
        if changed:
            st.caption(
                "Other than the preset: " + ", ".join(f"{name} {value}" for name, value in changed.items())
            )
        tasks = st.toggle("Ask the demo tasks as well (zero-shot)", key="ask", bind="query-params")
        if tasks:
            config = config.replace(tasks=("demo",))
        with st.expander("Other tasks"):
            named = st.text_input(
                "Tasks",
                key="tasks",
                bind="query-params",
                placeholder="paper, or names of lm-evaluation-harness, with commas",
            )
            data = st.text_input(
                "Folder with local copies of their data", key="task_data", persist_state="session"
            )
            limit = st.number_input(
                "Only the first so many items of each; 0 for all", 0, 100_000, 0, key="limit"
            )
            names = tuple(filter(None, (part.strip() for part in named.split(","))))
            if names:
                config = config.replace(
                    tasks=(*config.tasks, *names), task_data=data or None, task_limit=int(limit) or None
                )
        need = needs(config, state.store(), state.all_runs())
        st.caption(
            (
                f"About {need.seconds:.0f} s (from {need.basis}). "
                if need.seconds
                else "No run of this model has finished yet: "
            )
            + ("" if need.seconds else "how long it takes shows after the first iteration. ")
            + f"Takes {size_text(need.disk)} of disk ({size_text(need.disk_free)} free) and about "
            f"{size_text(need.memory)} of memory ({size_text(need.memory_free)} free)."
        )
        if need.warning:
            st.warning(need.warning[:1].upper() + need.warning[1:])
        if need.problem:
            st.error(need.problem[:1].upper() + need.problem[1:])
        if st.button("Start", type="primary", icon=":material/content_cut:", disabled=bool(need.problem)):
            check(config)
            new = state.store().create(config)
            new.launch()
            st.session_state.watched = new.id
            st.rerun()
    except PruningError as error:
        state.explain(error)
    popover("iteration", "compensation", "zero-shot", "perplexity")

store_runs = {run.id: run for run in state.store().all()}
active = [name for name, run in store_runs.items() if run.active]
watched = st.session_state.get("watched") or (active[0] if active else next(iter(store_runs), None))
with right:
    if watched not in store_runs:
        st.info("No run has been started here yet. Press Start: the demo model takes about half a minute.")
        st.stop()
    names = list(store_runs)
    watched = st.selectbox(
        "Watch", names, names.index(watched), format_func=lambda n: state.label(store_runs[n])
    )
    st.session_state.watched = watched
    run = store_runs[watched]
    going = run.active

    @st.fragment(run_every=1.0 if going else None)
    def live(run: Run) -> None:
        status = run.status()
        what = status["state"]
        if what == "queued":
            st.info(f"Waiting: {status.get('ahead', 0)} run(s) before it on this device.")
        elif what in ("starting", "running", "cancelling", "stalled"):
            where = f"iteration {status.get('current', 0)} of {status.get('iterations', '?')}"
            text = f"{what}: {where}, {status.get('stage', 'loading the model')} {status.get('detail', '')}"
            st.progress(status.get("done", 0) / max(status.get("total", 1), 1), text=text)
            eta, rate = status.get("eta"), status.get("per_second")
            st.caption(
                (f"{rate:,.0f} per second. " if rate else "") + (f"About {eta:.0f} s left." if eta else "")
            )
            if what == "stalled":
                st.warning(
                    "No sign of life for half a minute. It may be swapping; cancel it if it does not come back."
                )
        elif what == "finished":
            st.success("Finished. The Results page compares it with the dense model.")
        elif what == "cancelled":
            st.warning("Cancelled. It goes on after its last complete iteration.")
        else:
            st.error(f"It {'died' if what == 'dead' else 'failed'}. {status.get('message', '')}")
        iterations = run.iterations()
        if iterations and iterations[0].metrics["perplexity"]:
            st.plotly_chart(
                viz.perplexity_figure(viz.perplexity_data(iterations)),
                alt="Perplexity by iteration so far",
                config=state.PLOT,
                key=f"ppl-{len(iterations)}",
            )
        if going and not run.active:
            st.rerun()

    live(run)
    buttons = st.columns(3)
    if going and buttons[0].button("Cancel", icon=":material/stop:"):
        run.cancel()
        st.rerun()
    if (
        not going
        and run.status()["state"] != "finished"
        and buttons[1].button("Resume", icon=":material/play_arrow:")
    ):
        try:
            run.launch()
        except PruningError as error:
            state.explain(error)
        st.rerun()
    with st.expander("Log"):
        st.code(run.last_words() or "Nothing was printed.", language=None)
    st.code(f"python -m pruning prune --config {run.path / 'config.json'}", language="bash")
