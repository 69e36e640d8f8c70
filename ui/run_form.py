"""The form of the Prune page: name, domains, calibration, evaluation, tasks, and the resources of the run."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pruning.config import RunConfig
from pruning.errors import PruningError
from pruning.formatting import plain, seconds_text, sentence, size_text
from pruning.runs.preflight import needs
from pruning.text.sources import EMBEDDED_DOMAINS
from ui import calibration, models, state
from ui.options import changes

KEPT: dict[str, Any] = {"persist_state": "session"}  # a widget's value, on pages without it
NUMBERS = (  # field, title and limits
    ("iterations", "Iterations", 1, 100),
    ("samples", "Calibration blocks per domain", 1, 4096),
    ("seq_len", "Tokens per block", 16, 8192),
    ("eval_blocks", "Evaluation blocks", 0, 4096),
)


def config(chosen: state.Choice) -> RunConfig:
    """The config of the new run, from the sidebar settings and the controls drawn here.

    Raises:
        ConfigError: the settings contradict each other.
    """
    draft = chosen.config()
    model = st.session_state.get("model") or draft.model
    if model != draft.model:  # pins name channels of the displayed model
        draft = draft.replace(model=model, keep=(), remove=(), parent=None)
    left, right = st.columns(2)
    name = left.text_input("Name", key="run_name", max_chars=60, placeholder="optional", **KEPT)
    tags = right.text_input("Tags", key="run_tags", placeholder="optional, with commas", **KEPT)
    draft = draft.replace(**_domains(chosen, draft))
    numbers = {}
    for column, (field, title, low, high) in zip(
        st.columns(4, vertical_alignment="bottom"), NUMBERS, strict=True
    ):
        value = getattr(draft, field)
        numbers[field] = column.number_input(
            title,
            low,
            high,
            64 if value is None else value,
            key=f"{field}-{chosen.run.id}-{draft.method}",
            help=RunConfig.model_fields[field].description,
            **KEPT,
        )
    labels = tuple(filter(None, (tag.strip() for tag in tags.split(","))))
    return draft.replace(**numbers, name=name.strip(), tags=labels).replace(**_tasks())


def summary(config: RunConfig) -> None:
    """The run in one sentence, and what differs from the preset of its method."""
    shares = ", ".join(f"{name} {share:.0%}" for name, share in config.mixture.items())
    st.markdown(
        f"Prunes **{models.title(config.model)}** by **{config.ratio:.0%}** with method **{config.method}**, calibrated on {shares}."
    )
    changed = changes(
        RunConfig.create(method=config.method), config, ("model", "ratio", "mixture", "domains")
    )
    if changed != "no option changed":
        st.caption(f"Options that differ from the method's preset: {changed}")


def _domains(chosen: state.Choice, config: RunConfig) -> dict[str, Any]:
    """The mixture over the selected domains: shares of the sidebar, and their mean for other domains."""
    own: dict[str, str] = st.session_state.get("uploads", {})
    sources = {**config.domains, **own}
    options = list(dict.fromkeys([*EMBEDDED_DOMAINS, *config.mixture, *sources]))
    if st.session_state.get("run_domains_of") != chosen.run.id or "run_domains" not in st.session_state:
        st.session_state.run_domains_of = chosen.run.id
        added = [name for name in st.session_state.get("run_domains", []) if name in own]
        st.session_state.run_domains = [*dict.fromkeys([*config.mixture, *added])]
    names = st.multiselect("Calibration domains", options, key="run_domains", persist_state="session")
    shares = [chosen.mixture[name] for name in names if name in chosen.mixture]
    mean = sum(shares) / len(shares) if shares else 1.0
    mixture = {name: chosen.mixture.get(name, mean) for name in names}
    if not mixture:
        st.error("No domain is chosen: choose at least one.")
        return {}
    return {"mixture": mixture, "domains": {name: sources[name] for name in names if name in sources}}


def _tasks() -> dict[str, object]:
    has_demo = st.toggle("Evaluate zero-shot accuracy on the demo tasks", key="ask", bind="query-params")
    tasks = ["demo"] if has_demo else []
    left, right = st.columns(2)
    with left.popover("Add a calibration text", icon=":material/upload_file:", width="stretch"):
        calibration.upload("run_domains")
    with right.popover("Other zero-shot tasks", icon=":material/quiz:", width="stretch"):
        text = st.text_input(
            "Tasks",
            key="tasks",
            bind="query-params",
            persist_state="session",
            placeholder="paper, or lm-evaluation-harness task names, separated by commas",
        )
        data = st.text_input("Folder with local copies of the task data", key="task_data", **KEPT)
        folder = st.text_input("Folder with custom task definitions (YAML)", key="task_folder", **KEPT)
        limit = st.number_input(
            "Maximum number of items per task; 0 for all", 0, 100_000, 0, key="limit", **KEPT
        )
    tasks += filter(None, (part.strip() for part in text.split(",")))
    if not tasks:
        return {}
    return {
        "tasks": tuple(tasks),
        "task_data": data or None,
        "task_folder": folder or None,
        "task_limit": int(limit) or None,
    }


def estimate(*config: RunConfig) -> str:
    """How long runs take on this machine, one after the other, in words; empty where a model does not exist."""
    try:
        return f"about {seconds_text(sum(needs(each, state.store()).seconds for each in config))}"
    except PruningError:
        return ""


def needs_words(config: RunConfig) -> bool:
    """Show the resources that the run needs; returns whether they suffice to start it.

    Raises:
        ModelError: the model does not exist.
    """
    need = needs(config, state.store())
    tasks = ", without its zero-shot tasks" if config.tasks else ""
    st.caption(
        f"Estimated run time on this machine: **about {seconds_text(need.seconds)}**{tasks} (from {need.basis}). Needs "
        f"{size_text(need.disk)} of disk space ({size_text(need.disk_free)} free) and about {size_text(need.memory)} of "
        f"memory ({size_text(need.memory_free)} free)."
    )
    active = [run for run in state.store().all() if run.active]
    if active:
        st.caption(f"It will wait for {plain(', then '.join(map(state.label, reversed(active))))}.")
    if need.warning:
        st.warning(plain(sentence(need.warning)))
    if need.problem:
        st.error(plain(sentence(need.problem)))
    return not need.problem
