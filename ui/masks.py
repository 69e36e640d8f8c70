"""Helpers of the Masks page: masks to compare with, and heads and channels pinned by the user."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import streamlit as st

from pruning import visualization as viz
from pruning.config import METHODS
from pruning.formatting import clipped, plain
from pruning.method.sensitivity import lost_output, predict_divergence
from pruning.models.geometry import Geometry
from pruning.models.mask import Mask
from pruning.runs.folder import StoredIteration
from ui import expected, mixtures, run_form, state, stored
from ui.navigation import go

WITHOUT_PINS = "without manual keep and remove"


def names(chosen: state.Choice) -> list[str]:
    """Names of the masks that the displayed one can be compared with."""
    run = chosen.run
    found = [WITHOUT_PINS] if chosen.keep or chosen.remove else []
    found += mixtures.names(run)
    found += [f"method {name}, same calibration text" for name in METHODS if name != chosen.method]
    found += [f"after iteration {it.number} of this run" for it in run.iterations() if it.number > 0]
    for other in state.all_runs(experiments=False):
        same = other.geometry is not None and other.geometry == run.geometry
        if other.id != run.id and same and other.results():
            found.append(f"run: {state.label(other)}")
    return found


def named(name: str, chosen: state.Choice, dense: StoredIteration, shape: Geometry) -> Mask:
    """The mask for one of `names`.

    Raises:
        ConfigError: no mask reaches this pruning ratio.
    """
    if name.startswith("after iteration "):
        return stored.iteration(chosen.run, int(name.split()[2])).mask
    if name.startswith("run: "):
        other = next(run for run in state.all_runs() if f"run: {state.label(run)}" == name)
        return other.iterations()[-1].mask
    if name == WITHOUT_PINS:
        changed = dataclasses.replace(chosen, keep=(), remove=())
    elif name.startswith("method "):
        method = name.removeprefix("method ").removesuffix(", same calibration text")
        changed = dataclasses.replace(chosen, method=method, allocation=state.AS_METHOD)
    else:
        changed = _mixed(name, chosen)
    return stored.preview(dense, changed.config(), shape)


def _mixed(name: str, chosen: state.Choice) -> state.Choice:
    """The settings with another mixture."""
    return dataclasses.replace(chosen, mixture=mixtures.named(name, chosen.run))


def prune_both(name: str, chosen: state.Choice) -> None:
    """A button that prunes the model with either of the two mixtures compared; nothing where they are the same.

    Args:
        name: of the other mask; one that is not of a mixture gets no button.
        chosen: the settings.

    Raises:
        PruningError: a run cannot be started.
    """
    if name not in mixtures.names(chosen.run) or _mixed(name, chosen).mixture == chosen.mixture:
        return
    configs = []
    for each in (chosen, _mixed(name, chosen)):
        shares = " ".join(f"{domain} {share:.0%}" for domain, share in each.mixture.items() if share)
        configs.append(each.config().replace(name=clipped(shares, 60)))
    time = run_form.estimate(*configs)
    if st.button(
        "Prune with both mixtures" + (f", {time}" if time else ""),
        icon=":material/content_cut:",
        help="Two runs, one after the other, that differ in nothing else. Show results, on the Prune page, puts them side by "
        "side.",
    ):
        for config in configs:
            state.begin(config, watch=False)
        go("pages/prune.py")


def cost(chosen: state.Choice, dense: StoredIteration, mask: Mask) -> None:
    """What a mask is expected to cost by domain, with how far earlier expectations were off.

    Args:
        chosen: the settings; domains without a share are left out.
        dense: the iteration with the statistics of the dense model.
        mask: over it.
    """
    measured = bool(dense.curves)
    if measured:
        found = predict_divergence(dense.curves, mask)
        words = {name: f"+{value:.2f} nats (x {math.exp(value):.2f})" for name, value in found.items()}
        about = "**Predicted rise of the log-perplexity**, from the measured damage curves"
    else:
        found = lost_output(dense.statistics, dense.norms, mask)
        words = {name: f"{value:.0%}" for name, value in found.items()}
        about = "**Output variance lost**, mean over modules, from the statistics"
    shown = sorted((name for name in found if name in chosen.mixture), key=lambda name: -found[name])
    left, right = st.columns([5, 1], vertical_alignment="center")
    left.markdown(f"{about}: " + ", ".join(f"{name} **{words[name]}**" for name in shown))
    with right.popover("How sure?", width="stretch"):
        if not measured:
            st.caption(
                "What later layers make of a loss is not in the statistics, so this can name the wrong domain as the worst. "
                "Damage curves, measured on the Damage page, tell more."
            )
        if pairs := expected.pairs(state.all_runs(experiments=False), measured):
            st.plotly_chart(
                viz.foretold_figure(pairs, lost=not measured),
                alt="What was expected against what was measured, by run and domain",
                config=state.PLOT,
            )


def pins(chosen: state.Choice) -> None:
    """Controls to pin layers, heads and channel ranges as kept or removed, preset to the selected channel."""
    shape = chosen.run.geometry
    assert shape is not None
    on_view = (chosen.site, chosen.channel)
    # the controls follow the selected channel, and lose their state on other pages
    if st.session_state.get("pin_from") != on_view or "pin_layers" not in st.session_state:
        st.session_state.pin_from = on_view
        on_site = shape.shape(chosen.site)
        unit, what = chosen.channel // on_site.width, "heads" if on_site.has_heads else "MLP channels"
        st.session_state.pin_layers, st.session_state.pin_what = [chosen.site.layer], what
        st.session_state[f"pin_span_{what}"] = (unit, unit)
    parts = st.columns([3, 3, 3, 2, 2, 2], vertical_alignment="bottom")
    layers = parts[0].multiselect("Layers", range(len(shape.layers)), key="pin_layers")
    what = parts[1].selectbox(
        "Units",
        [
            *("heads" if s.has_heads else "MLP channels" for s in shape.layers[0].values()),
            "whole layer",
        ],
        key="pin_what",
    )
    part = ""
    if what != "whole layer":
        limit = next(s.entries for s in shape.layers[0].values() if s.has_heads == (what == "heads")) - 1
        st.session_state.setdefault(f"pin_span_{what}", (0, 0))
        span: Any = parts[2].slider("Range", 0, limit, key=f"pin_span_{what}")
        part = f".{'attn' if what == 'heads' else 'mlp'}.{span[0]}-{span[1]}"
    selectors = [f"{layer}{part}" for layer in layers]
    for column, title, key, other in (
        (parts[3], "Keep", "keep", "remove"),
        (parts[4], "Remove", "remove", "keep"),
    ):
        column.button(
            title,
            on_click=_pin,
            args=(key, other, selectors),
            key=f"pin-{key}",
            width="stretch",
            disabled=not selectors,
        )
    parts[5].button("Clear all", on_click=_forget, width="stretch")
    for pinned, words in ((chosen.keep, "Always kept"), (chosen.remove, "Removed first")):
        if pinned:
            st.markdown(f"{words}: {plain(', '.join(pinned))}")


def _pin(key: str, other: str, selectors: list[str]) -> None:
    st.session_state[key] = list(dict.fromkeys([*st.session_state.get(key, []), *selectors]))
    st.session_state[other] = [name for name in st.session_state.get(other, []) if name not in selectors]


def _forget() -> None:
    st.session_state.keep, st.session_state.remove = [], []
