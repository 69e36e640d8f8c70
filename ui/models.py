"""The model of the sidebar: which ones are at hand, whether their statistics are, and how to get them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pruning.config import RunConfig
from pruning.errors import PruningError
from pruning.formatting import plain, seconds_text, sentence
from pruning.models.folder import describe
from pruning.runs.preflight import needs
from pruning.runs.run import Run
from ui import state

# Models that are offered before any run of them: what they are called, and their parameters.
KNOWN = {
    "smollm2": ("SmolLM2-135M-Instruct", "135 M"),
    "demo": ("demo model", "7 M"),
    "HuggingFaceTB/SmolLM2-135M": ("SmolLM2-135M (Hub)", "135 M"),
    "Qwen/Qwen2.5-0.5B": ("Qwen2.5-0.5B (Hub)", "494 M"),
}


def pick(on_view: Run, runs: list[Run]) -> None:
    """The selectbox of models; below it, how to get statistics of a model that has none.

    Args:
        on_view: the run whose statistics the pages show; its model is the one selected, until the person chooses.
        runs: all runs, newest first.
    """
    looked = {run.config.model: run for run in reversed(runs) if state.looked(run)}
    chosen = st.session_state
    # Another run came on view, its model with it; or a page change cut a rerun short and Streamlit dropped the value.
    if chosen.get("model_of") != on_view.id or "model" not in chosen:
        chosen.model_of, chosen.model = on_view.id, on_view.config.model
    names = dict.fromkeys([*looked, *KNOWN, *(run.config.model for run in runs)])
    options = sorted(
        {*names, chosen.model}, key=lambda name: (name not in looked, [*names, name].index(name))
    )
    name = st.selectbox(
        "Model",
        options,
        key="model",
        persist_state="session",
        format_func=lambda name: _option(name, looked),
        accept_new_options=True,
        on_change=_show,
        args=(runs,),
        help="Choose a model, or type a folder, a GGUF file or a Hugging Face Hub id. Files stay on this machine. "
        "New: its statistics are not there yet.",
    )
    if name in looked:
        return
    with st.container(border=True):
        _offer(str(name), on_view)


def title(name: str) -> str:
    """What a model is called on the pages."""
    return KNOWN.get(name, (Path(name).name or name, ""))[0]


def _option(name: str, looked: dict[str, Run]) -> str:
    size = KNOWN.get(name, ("", ""))[1]
    if name in looked and not size:
        size = f"{looked[name].iterations()[0].metrics.parameters / 1e6:,.0f} M"
    parts = [title(name), *filter(None, [size]), *([] if name in looked else ["new"])]
    return ", ".join(parts)


def _show(runs: list[Run]) -> None:
    """Callback: put the newest run of the chosen model on view that has statistics."""
    name = st.session_state.model
    found = next((run for run in runs if run.config.model == name and state.looked(run)), None)
    if found is not None and found.id != st.session_state.run:
        st.session_state.run = found.id
        st.session_state.model_of = found.id


def statistics_config(model: str) -> RunConfig:
    """The config of a run that takes statistics only: no text is measured, no model is kept.

    Raises:
        ModelError: there is no such model.
    """
    options = {"ratio": 0, "iterations": 1, "samples": 16, "eval_blocks": 0, "save_model": False}
    usual = RunConfig.model_fields["seq_len"].default
    return RunConfig.create(model=model, seq_len=min(usual, describe(model).context or usual), **options)


def _offer(name: str, on_view: Run) -> None:
    """What looking at a model takes, and the button that does it; the pages keep what they show."""
    try:
        config = statistics_config(name)
        need = needs(config, state.store())
        tokens = config.samples * config.seq_len * len(config.mixture)
        st.caption(
            f"No statistics of this model yet: {tokens:,} tokens to read, about {seconds_text(need.seconds)}."
        )
        if need.problem:
            st.error(plain(sentence(need.problem)))
        at_work = any(run.active and run.config.model == name for run in state.store().all())
        label = "Reading it" if at_work else "Look at it"
        st.button(
            label,
            type="primary",
            width="stretch",
            disabled=bool(need.problem) or at_work,
            on_click=_look,
            args=(config,),
        )
        if refused := st.session_state.pop("refused", None):
            st.error(plain(sentence(refused)))
    except PruningError as error:
        st.caption(f":red[{plain(sentence(str(error)))}]")
    st.caption(f"Meanwhile the pages show {plain(state.label(on_view))}.")


def _look(config: RunConfig) -> None:
    """Callback: take statistics; the page stays."""
    try:
        state.begin(config, watch=False)
    except PruningError as error:
        st.session_state.refused = str(error)
