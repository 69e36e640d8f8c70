"""The form of the Prune page: name, domains, calibration, evaluation, tasks, and what the run will take."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pruning.config import RunConfig
from pruning.errors import PruningError
from pruning.runs.needs import needs
from pruning.text.sources import EMBEDDED_DOMAINS
from pruning.words import plain, seconds_text, sentence, size_text
from ui import calibration, models, state
from ui.options import changes


def config(chosen: state.Choice) -> RunConfig:
    """The config of the new run, from the sidebar settings and the controls drawn here.

    Raises:
        ConfigError: the settings contradict each other.
    """
    meant = chosen.config()
    model = st.session_state.get("model") or meant.model
    if model != meant.model:  # pins name channels of the model on view
        meant = meant.replace(model=model, keep=(), remove=(), parent=None)
    left, right = st.columns(2)
    kept: dict[str, Any] = {"persist_state": "session"}
    name = left.text_input("Name", key="run_name", max_chars=60, placeholder="optional", **kept)
    tags = right.text_input("Tags", key="run_tags", placeholder="optional, with commas", **kept)
    meant = meant.replace(**_domains(chosen, meant))
    parts = st.columns(4, vertical_alignment="bottom")
    of = f"{chosen.run.id}-{meant.method}"
    iterations = parts[0].number_input(
        "Iterations", 1, 100, meant.iterations, key=f"k_{meant.method}", help=_help("iterations"), **kept
    )
    samples = parts[1].number_input(
        "Calibration blocks per domain",
        1,
        4096,
        meant.samples,
        key=f"samples-{of}",
        help=_help("samples"),
        **kept,
    )
    length = parts[2].number_input(
        "Tokens per block", 16, 8192, meant.seq_len, key=f"length-{of}", help=_help("seq_len"), **kept
    )
    blocks = parts[3].number_input(
        "Evaluation blocks",
        0,
        4096,
        64 if meant.eval_blocks is None else meant.eval_blocks,
        key=f"blocks-{of}",
        help="held-out blocks per domain for perplexity after every iteration; 0 skips it",
        **kept,
    )
    meant = meant.replace(
        iterations=int(iterations),
        samples=int(samples),
        seq_len=int(length),
        eval_blocks=int(blocks),
        name=name.strip(),
        tags=tuple(filter(None, (tag.strip() for tag in tags.split(",")))),
    )
    return meant.replace(**_tasks())


def summary(meant: RunConfig) -> None:
    """The run in one sentence, and what differs from the preset of its method."""
    shares = ", ".join(f"{name} {share:.0%}" for name, share in meant.mixture.items())
    st.markdown(
        f"Prunes **{models.title(meant.model)}** by **{meant.ratio:.0%}** with method **{meant.method}**, calibrated on {shares}."
    )
    said = ("model", "ratio", "mixture", "domains")
    changed = changes(RunConfig.create(method=meant.method), meant, said)
    if changed != "no option changed":
        st.caption(f"Options that differ from the method's preset: {changed}")


def _help(field: str) -> str | None:
    return RunConfig.model_fields[field].description


def _domains(chosen: state.Choice, meant: RunConfig) -> dict[str, Any]:
    """The mixture over the domains picked here: shares of the sidebar, a mean one for what it does not have."""
    own: dict[str, str] = st.session_state.get("uploads", {})
    sources = {**meant.domains, **own}
    options = list(dict.fromkeys([*EMBEDDED_DOMAINS, *meant.mixture, *sources]))
    if st.session_state.get("run_domains_of") != chosen.run.id or "run_domains" not in st.session_state:
        st.session_state.run_domains_of = chosen.run.id
        added = [name for name in st.session_state.get("run_domains", []) if name in own]
        st.session_state.run_domains = [*dict.fromkeys([*meant.mixture, *added])]
    picked = st.multiselect("Calibration domains", options, key="run_domains", persist_state="session")
    known = [chosen.mixture[name] for name in picked if name in chosen.mixture]
    mean = sum(known) / len(known) if known else 1.0
    mixture = {name: chosen.mixture.get(name, mean) for name in picked}
    if not mixture:
        st.error("No domain is chosen: choose at least one.")
        return {}
    return {"mixture": mixture, "domains": {name: sources[name] for name in picked if name in sources}}


def _tasks() -> dict[str, object]:
    asked = st.toggle("Evaluate zero-shot accuracy on the demo tasks", key="ask", bind="query-params")
    tasks = ["demo"] if asked else []
    left, right = st.columns(2)
    with left.popover("Add a calibration text", icon=":material/upload_file:", width="stretch"):
        calibration.upload("run_domains")
    with right.popover("Other zero-shot tasks", icon=":material/quiz:", width="stretch"):
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


def estimate(*meant: RunConfig) -> str:
    """How long runs take on this machine, one after the other, in words; empty where a model is not there."""
    try:
        return f"about {seconds_text(sum(needs(each, state.store()).seconds for each in meant))}"
    except PruningError:
        return ""


def needs_words(meant: RunConfig) -> bool:
    """Show the resources that the run needs; returns whether they suffice to start it.

    Raises:
        ModelError: the model does not exist.
    """
    need = needs(meant, state.store())
    tasks = ", without its zero-shot tasks" if meant.tasks else ""
    st.caption(
        f"Estimated run time on this machine: **about {seconds_text(need.seconds)}**{tasks} (from {need.basis}). Needs "
        f"{size_text(need.disk)} of disk space ({size_text(need.disk_free)} free) and about {size_text(need.memory)} of "
        f"memory ({size_text(need.memory_free)} free)."
    )
    at_work = [run for run in state.store().all() if run.active]
    if at_work:
        st.caption(f"It will wait for {plain(', then '.join(map(state.label, reversed(at_work))))}.")
    if need.warning:
        st.warning(plain(sentence(need.warning)))
    if need.problem:
        st.error(plain(sentence(need.problem)))
    return not need.problem
