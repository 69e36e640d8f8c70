"""The form of the Prune page: iterations, zero-shot tasks, and the resources that the run needs."""

from __future__ import annotations

import streamlit as st

from pruning.config import RunConfig
from pruning.runs.needs import needs
from pruning.words import plain, sentence, size_text
from ui import state


def config(chosen: state.Choice) -> RunConfig:
    """The config of the new run, from the sidebar settings and the controls drawn here.

    Raises:
        ConfigError: the settings contradict each other.
    """
    meant = chosen.config()
    iterations = st.number_input(
        "Iterations", 1, 100, meant.iterations, key=f"k_{meant.method}", persist_state="session"
    )
    meant = meant.replace(iterations=int(iterations))
    st.markdown(
        f"Method **{meant.method}**, model {plain(meant.model)}, pruning ratio {meant.ratio:.0%}, iterations {meant.iterations}"
    )
    st.caption(
        "Domain mixture: " + " · ".join(f"{plain(name)} {share:.0%}" for name, share in meant.mixture.items())
    )
    preset = RunConfig.create(method=meant.method)
    said = ("method", "ratio", "mixture", "parent")
    changed = [
        f"{name} {value}"
        for name, value in meant.model_dump().items()
        if name not in said and value != getattr(preset, name)
    ]
    if changed:
        st.caption(f"Options that differ from the method's preset: {plain(', '.join(changed))}")
    return meant.replace(**_tasks())


def _tasks() -> dict[str, object]:
    tasks = (
        ["demo"]
        if st.toggle("Evaluate zero-shot accuracy on the demo tasks", key="ask", bind="query-params")
        else []
    )
    with st.expander("Other zero-shot tasks"):
        named = st.text_input(
            "Tasks",
            key="tasks",
            bind="query-params",
            persist_state="session",
            placeholder="paper, or lm-evaluation-harness task names, separated by commas",
        )
        data = st.text_input(
            "Folder with local copies of the task data", key="task_data", persist_state="session"
        )
        folder = st.text_input(
            "Folder with custom task definitions (YAML)", key="task_folder", persist_state="session"
        )
        limit = st.number_input(
            "Maximum number of items per task; 0 for all",
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
    """Show the resources that the run needs; returns whether they suffice to start it.

    Raises:
        ModelError: the model does not exist.
    """
    need = needs(meant, state.store(), state.all_runs())
    time = (
        f"Estimated run time: about {need.seconds:.0f} s (from {need.basis})."
        if need.seconds
        else "No finished run of this model to estimate the run time from; an estimate appears after the first iteration."
    )
    st.caption(
        f"{time} Needs {size_text(need.disk)} of disk space ({size_text(need.disk_free)} free) and about "
        f"{size_text(need.memory)} of memory ({size_text(need.memory_free)} free)."
    )
    if need.warning:
        st.warning(plain(sentence(need.warning)))
    if need.problem:
        st.error(plain(sentence(need.problem)))
    return not need.problem
