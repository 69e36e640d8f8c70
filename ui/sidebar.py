"""The sidebar: model, domain mixture, pruning ratio and method, kept in the URL; all else is one click away.

`app.py` draws it on every run of the script, so that the widgets keep their values on all pages.
"""

from __future__ import annotations

import streamlit as st

from pruning.config import METHODS, RunConfig, choices
from pruning.formatting import plain
from pruning.runs.run import Run
from ui import models, settings, state, view_state
from ui.settings import AS_METHOD, ROUNDINGS, WIDGETS

PINS = "LAYER, LAYER.attn, LAYER.mlp.FIRST-LAST"


def draw(run: Run, runs: list[Run]) -> None:
    """Draw the sidebar.

    Args:
        run: that is displayed.
        runs: all that can be chosen.
    """
    names = state.domain_names(run)
    with st.sidebar:
        models.pick(run, runs)
        _weights(names)
        ratio = WIDGETS["ratio"].default
        st.slider("Pruning ratio", 0, 90, ratio, 1, format="%d%%", key="ratio", bind="query-params")
        st.selectbox("Method", list(METHODS), key="method", bind="query-params")
        with st.popover("Pruning options", icon=":material/tune:", width="stretch"):
            _details()


def _weights(names: list[str]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("Domain mixture", width="stretch")
        with st.popover("Lock, reset", type="tertiary", key="mixture-more"):
            held = _locks(names)
            for column, title, callback, words in zip(
                st.columns(2),
                ("Equal", "Reset"),
                (_equal, _reset),
                ("Give all domains the same weight", "Reset all settings to their defaults"),
                strict=True,
            ):
                column.button(title, on_click=callback, args=(names,), width="stretch", help=words)
    labels = {}
    with st.container(gap=None, key="mixture"):
        for name in names:
            left, right = st.columns([2, 3], vertical_alignment="center", gap="small")
            labels[name] = left.empty()
            right.slider(
                plain(name),
                0,
                100,
                50,
                key=f"w_{name}",
                bind="query-params",
                disabled=name in held,
                label_visibility="collapsed",
            )
    shares = state.mixture(names)
    for name, label in labels.items():
        lock = ":material/lock: " if name in held else ""
        label.markdown(f"{lock}{plain(name)} **{shares.get(name, 0):.0%}**")
    if not shares:
        st.warning("All weights are zero: all domains get equal weights until one is raised.")


def _locks(names: list[str]) -> list[str]:
    """The control that locks domain shares; returns the locked domains."""
    if len(names) < 2:
        return []
    held = st.pills(
        "Lock domain shares",
        names,
        selection_mode="multi",
        key="locked",
        bind="query-params",
        on_change=_rebase,
        args=(names,),
        help="A locked share stays fixed; the other domains divide the remainder.",
    )
    st.session_state["held"] = held
    return held


def _details() -> None:
    """Pruning options: drawn on every page so that the URL keeps them."""
    for title, field, values in (
        ("Allocation", "allocation", (AS_METHOD, *(choices("allocation") or ()))),
        ("Compensation", "compensation", (AS_METHOD, *(choices("compensation") or ()))),
        ("Attention unit", "attention_unit", choices("attention_unit") or ()),
        ("Round MLP widths to", "round_to", ROUNDINGS),
    ):
        description = RunConfig.model_fields[field].description
        st.selectbox(title, values, key=WIDGETS[field].key, bind="query-params", help=description)
    st.slider(
        "Worst domain",
        0,
        100,
        WIDGETS["worst_domain"].default,
        5,
        format="%d%%",
        key="worst",
        bind="query-params",
        help="Variance of the mixture: from the weighted mean over the domains (0%) to the largest of any domain (100%). "
        "More of it keeps what a single domain needs.",
    )
    for key, title in (("keep", "Always keep"), ("remove", "Remove first")):
        st.multiselect(
            title,
            st.session_state.get(key, []),
            key=key,
            accept_new_options=True,
            placeholder="none",
            bind="query-params",
            help=f"Format: {PINS}. It can also be set on the Masks page.",
        )


# --- button callbacks ------------------------------------------------------------------------------------


def _rebase(names: list[str]) -> None:
    """Set the weights to the current shares before a lock is set or lifted, so that no share changes."""
    for name, share in state.mixture(names).items():
        st.session_state[f"w_{name}"] = round(100 * share)


def _equal(names: list[str]) -> None:
    for name in names:
        if name not in st.session_state.get("held", []):
            st.session_state[f"w_{name}"] = 50


def _reset(names: list[str]) -> None:
    widgets = st.session_state
    widgets.locked = widgets.held = []
    _equal(names)
    settings.reset(widgets)
    view_state.reset()
