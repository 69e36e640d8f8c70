"""The predicted cost of masks against the measured cost, of finished runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import streamlit as st

from pruning.method.sensitivity import lost_output
from pruning.runs.report import predicted_divergence
from pruning.runs.run import Run, dense_iteration
from ui import state, stored


def pairs(runs: Iterable[Run], from_curves: bool) -> dict[str, tuple[float, float]]:
    """By run and domain the predicted cost and the measured rise of the log-perplexity.

    Args:
        runs: of any state; those that are not finished or cut nothing are left out.
        from_curves: predict by sensitivity curves, in nats per token, else by the statistics, as the share of
            the output variance that is lost.
    """
    costs: dict[str, tuple[float, float]] = {}
    for run in runs:
        if run.results() is None or not run.config.ratio or not state.has_statistics(run):
            continue
        by_domain = _pairs(str(run.path), stored.stamp(dense_iteration(run)), from_curves)
        costs |= {f"{state.label(run)}, {name}": pair for name, pair in by_domain.items()}
    return costs


@st.cache_data(max_entries=1024, show_spinner=False)
def _pairs(path: str, stamp: int, from_curves: bool) -> dict[str, tuple[float, float]]:
    """`pairs` of one finished run; kept, since it reads all statistics of the run."""
    run = Run(Path(path))
    first, results = dense_iteration(run), run.results()
    if from_curves:
        expected = predicted_divergence(run)
    else:
        expected = lost_output(first.statistics, first.norms, run.iterations()[-1].mask)
    measured = results.perplexity if results else {}
    return {
        name: (value, math.log(measured[name].ratio))
        for name, value in expected.items()
        if name in measured and math.isfinite(measured[name].ratio)
    }
