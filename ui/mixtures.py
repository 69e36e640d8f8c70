"""Domain mixtures to compare with that of the sliders: a single domain, the run's mixture, or a custom one."""

from __future__ import annotations

import streamlit as st

from pruning.config import RunConfig
from pruning.errors import PruningError
from pruning.formatting import clipped, plain
from pruning.limits import parse_mixture
from pruning.runs.run import Run
from ui import state

EQUAL, OWN, WRITTEN = "equal weights", "mixture of this run", "custom mixture"


def names(run: Run) -> list[str]:
    """Names of the mixtures that a run can be compared with."""
    domains = state.domain_names(run)
    if len(domains) < 2:
        return [OWN]
    return [*(f"{name} alone" for name in domains), EQUAL, OWN, WRITTEN]


def named(name: str, run: Run) -> dict[str, float]:
    """Weights by domain for one of `names`."""
    domains = state.domain_names(run)
    if name == EQUAL:
        return {domain: 1 / len(domains) for domain in domains}
    if name == OWN:
        return dict(run.config.mixture)
    if name == WRITTEN:
        return _written(run)
    return {name.removesuffix(" alone"): 1.0}


def _written(run: Run) -> dict[str, float]:
    """The mixture entered in the control of `write`; equal weights if the entry is not valid."""
    text = st.session_state.get("written", "")
    domains = state.domain_names(run)
    try:
        mixture = RunConfig.create(mixture=parse_mixture(text), domains=run.config.domains).mixture
    except PruningError:
        mixture = {}
    return mixture if mixture and set(mixture) <= set(domains) else named(EQUAL, run)


def write(chosen: state.Choice) -> None:
    """The control for a custom mixture: typed in, or copied from the sliders."""
    domains = state.domain_names(chosen.run)
    left, right = st.columns([4, 2], vertical_alignment="bottom")
    text = left.text_input(
        "Custom mixture",
        key="written",
        bind="query-params",
        persist_state="session",
        placeholder=", ".join(f"{name}=1" for name in domains),
    )
    right.button("Copy from the sliders", on_click=_take, args=(chosen.mixture,), width="stretch")
    try:
        if text and (unknown := set(parse_mixture(text)) - set(domains)):
            st.error(
                plain(
                    f"This run has no domain {clipped(', '.join(sorted(unknown)), 200)}: its domains are {', '.join(domains)}."
                )
            )
    except PruningError as error:
        state.explain(error)


def _take(shares: dict[str, float]) -> None:
    st.session_state.written = ", ".join(f"{name}={share:.2f}" for name, share in shares.items())
