"""What the Prune page asks before a run: iterations, tasks, and what it will take."""

from __future__ import annotations

import streamlit as st

from pruning.config import RunConfig
from pruning.runs.needs import needs
from pruning.words import sentence, size_text
from ui import state


def config(chosen: state.Choice) -> RunConfig:
    """The run that the choices and the controls drawn here mean.

    Raises:
        ConfigError: they contradict each other.
    """
    meant = chosen.config()
    iterations = st.number_input(
        "Iterations", 1, 100, meant.iterations, key=f"k_{meant.method}", persist_state="session"
    )
    meant = meant.replace(iterations=int(iterations))
    st.markdown(f"**{meant.method}**, {meant.ratio:.0%} of {meant.model} in {meant.iterations} iterations")
    st.caption(" · ".join(f"{name} {share:.0%}" for name, share in meant.mixture.items()))
    preset = RunConfig.create(method=meant.method)
    said = ("method", "ratio", "mixture", "parent")
    changed = [
        f"{name} {value}"
        for name, value in meant.model_dump().items()
        if name not in said and value != getattr(preset, name)
    ]
    if changed:
        st.caption(f"Other than the preset: {', '.join(changed)}")
    return meant.replace(**_tasks())


def _tasks() -> dict[str, object]:
    tasks = (
        ["demo"]
        if st.toggle("Ask the demo tasks as well (zero-shot)", key="ask", bind="query-params")
        else []
    )
    with st.expander("Other tasks"):
        named = st.text_input(
            "Tasks",
            key="tasks",
            bind="query-params",
            persist_state="session",
            placeholder="paper, or names of lm-evaluation-harness, with commas",
        )
        data = st.text_input(
            "Folder with local copies of their data", key="task_data", persist_state="session"
        )
        folder = st.text_input(
            "Folder with tasks of your own, as YAML", key="task_folder", persist_state="session"
        )
        limit = st.number_input(
            "Only the first so many items of each; 0 for all",
            0,
            100_000,
            0,
            key="limit",
            persist_state="session",
        )
    tasks += filter(None, (part.strip() for part in named.split(",")))
    if not tasks:
        return {}
    return {
        "tasks": tuple(tasks),
        "task_data": data or None,
        "task_folder": folder or None,
        "task_limit": int(limit) or None,
    }


def needs_words(meant: RunConfig) -> bool:
    """Say what the run takes; gives whether there is enough to start it.

    Raises:
        ModelError: there is no such model.
    """
    need = needs(meant, state.store(), state.all_runs())
    time = (
        f"About {need.seconds:.0f} s (from {need.basis})."
        if need.seconds
        else "No run of this model has finished yet: how long it takes shows after the first iteration."
    )
    st.caption(
        f"{time} Takes {size_text(need.disk)} of disk ({size_text(need.disk_free)} free) and about "
        f"{size_text(need.memory)} of memory ({size_text(need.memory_free)} free)."
    )
    if need.warning:
        st.warning(sentence(need.warning))
    if need.problem:
        st.error(sentence(need.problem))
    return not need.problem
