"""Measurements for lessons: asked of the process that holds the demo model, and kept for all who ask again."""

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

KEPT = 256  # answers


@st.cache_resource(show_spinner=False)
def client() -> Client:
    """The process of this server; it starts to load its model at once."""
    found = Client()
    found.start()
    return found


@st.cache_resource(show_spinner=False)
def _answers() -> dict[str, Any]:
    return {}


def ask(name: str, **arguments: Any) -> Any:
    """The answer of an experiment of `pruning.lessons`, with its progress shown; ends the page where there is none."""
    key, kept = json.dumps([name, arguments], sort_keys=True), _answers()
    if key in kept:
        return kept[key]
    place, where = st.empty(), arguments.get("model", "the demo model")
    bar = place.progress(0.0, f"Measuring on {where}; the first time it is loaded as well ...")
    try:
        answer = client().ask(
            name, lambda share, stage: bar.progress(share, f"Measuring: {stage} ..."), **arguments
        )
    except PruningError as error:
        place.empty()
        state.explain(error)
        st.stop()
    place.empty()
    while len(kept) >= KEPT:
        kept.pop(next(iter(kept)), None)
    kept[key] = answer
    return answer


def shipped(model: str) -> Run:
    """The finished run of a model that ships with the project."""
    return Run(ASSETS / f"{model}-run")


def dense_stats(model: str) -> dict[Site, SiteStats]:
    """The dense model's statistics of its shipped run, by site."""
    run = shipped(model)
    first = stored.iteration(run, 1)
    return site_stats(first.statistics, first.norms, run.config)
