"""Measurements for lessons: computed by the process that holds the demo model, and cached for all sessions."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from pruning.engine.budget import site_stats
from pruning.errors import PruningError
from pruning.lessons.client import Client
from pruning.method.statistics import SiteStats
from pruning.models.geometry import Site
from pruning.paths import ASSETS
from pruning.runs.run import Run
from ui import state, stored

CACHED = 256  # answers


@st.cache_resource(show_spinner=False)
def client() -> Client:
    """The process of this server; it starts to load its model at once."""
    process = Client()
    process.start()
    return process


@st.cache_resource(show_spinner=False)
def _answers() -> dict[str, Any]:
    return {}


def ask(name: str, **arguments: Any) -> Any:
    """The answer of an experiment of `pruning.lessons`, with its progress shown; ends the page where there is none."""
    key, cache = json.dumps([name, arguments], sort_keys=True), _answers()
    if key in cache:
        return cache[key]
    slot, model = st.empty(), arguments.get("model", "the demo model")
    bar = slot.progress(0.0, f"Measuring on {model}; the first time it also has to be loaded ...")
    try:
        answer = client().ask(
            name, lambda share, stage: bar.progress(share, f"Measuring: {stage} ..."), **arguments
        )
    except PruningError as error:
        slot.empty()
        state.explain(error)
        st.stop()
    slot.empty()
    while len(cache) >= CACHED:
        cache.pop(next(iter(cache)), None)
    cache[key] = answer
    return answer


def shipped(model: str) -> Run:
    """The finished run of a model that ships with the project."""
    return Run(ASSETS / f"{model}-run")


def dense_stats(model: str) -> dict[Site, SiteStats]:
    """The dense model's statistics of its shipped run, by site."""
    run = shipped(model)
    first = stored.iteration(run, 1)
    return site_stats(first.statistics, first.norms, run.config)
