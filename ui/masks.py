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
from ui.settings import AS_METHOD

WITHOUT_PINS = "without manual keep and remove"
WHOLE_LAYER = "whole layer"


def names(chosen: state.Choice) -> list[str]:
    """Names of the masks that the displayed one can be compared with."""
    run = chosen.run
    masks = [WITHOUT_PINS] if chosen.keep or chosen.remove else []
    masks += mixtures.names(run)
    masks += [f"method {name}, same calibration text" for name in METHODS if name != chosen.method]
    masks += [f"after iteration {it.number} of this run" for it in run.iterations() if it.number > 0]
    for other in state.all_runs(experiments=False):
        same = other.geometry is not None and other.geometry == run.geometry
        if other.id != run.id and same and other.results():
            masks.append(f"run: {state.label(other)}")
    return masks


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
        changed = dataclasses.replace(chosen, method=method, allocation=AS_METHOD)
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
    """The predicted cost of a mask by domain, and how reliable earlier predictions were.

    Args:
        chosen: the settings; domains without a share are left out.
        dense: the iteration with the statistics of the dense model.
        mask: over it.
    """
    measured = bool(dense.curves)
    if measured:
        costs = predict_divergence(dense.curves, mask)
        words = {name: f"+{cost:.2f} nats ({math.exp(cost):.2f}x)" for name, cost in costs.items()}
        about = "**Predicted rise of the log-perplexity**, from the sensitivity curves"
    else:
        costs = lost_output(dense.statistics, dense.norms, mask)
        words = {name: f"{cost:.0%}" for name, cost in costs.items()}
        about = "**Output variance lost**, mean over modules, from the statistics"
    shown = sorted((name for name in costs if name in chosen.mixture), key=lambda name: -costs[name])
    left, right = st.columns([5, 1], vertical_alignment="center")
    left.markdown(f"{about}: " + ", ".join(f"{name} **{words[name]}**" for name in shown))
    with right.popover("How reliable?", width="stretch"):
        if not measured:
            st.caption(
                "The statistics do not show how later layers amplify a loss, so this can name the wrong domain as the worst. "
                "Sensitivity curves, measured on the Sensitivity page, are more reliable."
            )
        if pairs := expected.pairs(state.all_runs(experiments=False), measured):
            st.plotly_chart(
                viz.prediction_figure(pairs, lost=not measured),
                alt="Predicted against measured, by run and domain",
                config=state.PLOT,
            )


def pins(chosen: state.Choice) -> None:
    """Controls to pin layers, heads and channel ranges as kept or removed, preset to the selected channel."""
    shape = chosen.run.geometry
    assert shape is not None
    counts: dict[str, int] = {}  # of the heads or channels of a layer, by name of the site
    for site in shape.sites:
        counts[site.name] = max(counts.get(site.name, 0), shape.shape(site).entries)
    selection = (chosen.site, chosen.channel)
    # the controls follow the selected channel, and lose their state on other pages
    if st.session_state.get("pin_from") != selection or "pin_layers" not in st.session_state:
        st.session_state.pin_from = selection
        name = chosen.site.name
        entry = chosen.channel // shape.shape(chosen.site).width
        st.session_state.pin_layers, st.session_state.pin_what = [chosen.site.layer], name
        st.session_state[f"pin_span_{name}"] = (entry, entry)
    parts = st.columns([3, 3, 3, 2, 2, 2], vertical_alignment="bottom")
    layers = parts[0].multiselect("Layers", range(len(shape.layers)), key="pin_layers")
    what = parts[1].selectbox(
        "Units",
        [*counts, WHOLE_LAYER],
        key="pin_what",
        format_func=lambda name: name if name == WHOLE_LAYER else viz.site_style(name).units,
    )
    part = ""
    if what != WHOLE_LAYER:
        st.session_state.setdefault(f"pin_span_{what}", (0, 0))
        span: Any = parts[2].slider("Range", 0, counts[what] - 1, key=f"pin_span_{what}")
        part = f".{what}.{span[0]}-{span[1]}"
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
    parts[5].button("Clear all", on_click=_clear, width="stretch")
    for pinned, words in ((chosen.keep, "Always kept"), (chosen.remove, "Removed first")):
        if pinned:
            st.markdown(f"{words}: {plain(', '.join(pinned))}")


def _pin(key: str, other: str, selectors: list[str]) -> None:
    st.session_state[key] = list(dict.fromkeys([*st.session_state.get(key, []), *selectors]))
    st.session_state[other] = [name for name in st.session_state.get(other, []) if name not in selectors]


def _clear() -> None:
    st.session_state.keep, st.session_state.remove = [], []
