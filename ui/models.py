"""The model of the sidebar: which ones are available, whether they have statistics, and how to collect these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from pruning.config import RunConfig
from pruning.errors import PruningError
from pruning.formatting import plain, seconds_text, sentence
from pruning.models.folder import describe
from pruning.runs.preflight import needs
from pruning.runs.run import Run
from ui import state

# Models that are offered before any run of them: title and number of parameters.
OFFERED = {
    "smollm2": ("SmolLM2-135M-Instruct", "135 M"),
    "demo": ("demo model", "7 M"),
    "HuggingFaceTB/SmolLM2-135M": ("SmolLM2-135M (Hub)", "135 M"),
    "Qwen/Qwen2.5-0.5B": ("Qwen2.5-0.5B (Hub)", "494 M"),
}


def pick(displayed: Run, runs: list[Run]) -> None:
    """The selectbox of models; below it, how to get statistics of a model that has none.

    Args:
        displayed: the run whose statistics the pages show; its model is selected until the person chooses one.
        runs: all runs, newest first.
    """
    with_statistics = {run.config.model: run for run in reversed(runs) if state.has_statistics(run)}
    chosen = st.session_state
    # Another run is displayed, and its model with it; or a page change cut a rerun short and Streamlit dropped the value.
    if chosen.get("model_of") != displayed.id or "model" not in chosen:
        chosen.model_of, chosen.model = displayed.id, displayed.config.model
    names = dict.fromkeys([*with_statistics, *OFFERED, *(run.config.model for run in runs)])
    options = sorted(
        {*names, chosen.model}, key=lambda name: (name not in with_statistics, [*names, name].index(name))
    )
    name = st.selectbox(
        "Model",
        options,
        key="model",
        persist_state="session",
        format_func=lambda name: _option(name, with_statistics),
        accept_new_options=True,
        on_change=_show,
        args=(runs,),
        help="Choose a model, or type a folder, a GGUF file or a Hugging Face Hub id. Files stay on this machine. "
        "New: no statistics of it have been collected yet.",
    )
    if name in with_statistics:
        return
    with st.container(border=True):
        _offer(str(name), displayed)


def title(name: str) -> str:
    """What a model is called on the pages."""
    return OFFERED.get(name, (Path(name).name or name, ""))[0]


def _option(name: str, with_statistics: dict[str, Run]) -> str:
    run, size = with_statistics.get(name), OFFERED.get(name, ("", ""))[1]
    if run and not size:
        size = f"{run.iterations()[0].metrics.parameters / 1e6:,.0f} M"
    return ", ".join(filter(None, (title(name), size, "" if run else "new")))


def _show(runs: list[Run]) -> None:
    """Callback: display the newest run of the chosen model that has statistics."""
    name = st.session_state.model
    newest = next((run for run in runs if run.config.model == name and state.has_statistics(run)), None)
    if newest is not None and newest.id != st.session_state.run:
        st.session_state.run = st.session_state.model_of = newest.id


def statistics_config(model: str, **options: Any) -> RunConfig:
    """The config of a run that only collects statistics: it measures no text and stores no model.

    Raises:
        ConfigError: an option is out of its range.
    """
    return RunConfig.create(model=model, ratio=0, iterations=1, eval_blocks=0, save_model=False, **options)


def _offer(name: str, displayed: Run) -> None:
    """The cost of statistics of a model, and the button that collects them; the pages keep what they show."""
    try:
        length = RunConfig.model_fields["seq_len"].default
        length = min(length, describe(name).context or length)
        config = statistics_config(name, samples=16, seq_len=length)
        need = needs(config, state.store())
        tokens = config.samples * config.seq_len * len(config.mixture)
        st.caption(
            f"No statistics of this model yet: {tokens:,} tokens to read, about {seconds_text(need.seconds)}."
        )
        if need.problem:
            st.error(plain(sentence(need.problem)))
        is_running = any(run.active and run.config.model == name for run in state.store().all())
        st.button(
            "Collecting statistics" if is_running else "Collect statistics",
            type="primary",
            width="stretch",
            disabled=bool(need.problem) or is_running,
            on_click=_collect,
            args=(config,),
            key="collect",
        )
        if refusal := st.session_state.pop("refusal", None):
            st.error(plain(sentence(refusal)))
    except PruningError as error:
        st.caption(f":red[{plain(sentence(str(error)))}]")
    st.caption(f"Meanwhile the pages show {plain(state.label(displayed))}.")


def _collect(config: RunConfig) -> None:
    """Callback: collect statistics; the page stays."""
    try:
        state.begin(config, watch=False)
    except PruningError as error:
        st.session_state.refusal = str(error)
