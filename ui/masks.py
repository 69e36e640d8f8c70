"""What the Masks page compares: masks by name, and pins made by hand."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from pruning.config import METHODS, RunConfig
from pruning.masks import Mask
from pruning.runs import Run, StoredIteration
from pruning.sites import Geometry
from ui import state

WITHOUT_PINS = "nothing kept or cut by hand"


def names(run: Run, method: str, pinned: bool) -> list[str]:
    """Masks that the one on view can be compared with, the most telling first."""
    domains = state.domain_names(run)
    found = [WITHOUT_PINS] if pinned else []
    found += [*(f"{name} alone" for name in domains if len(domains) > 1), "equal weights"]
    found += [f"method {name}" for name in METHODS if name != method]
    found += [f"after iteration {it.number} of this run" for it in run.iterations() if it.number > 0]
    for other in state.all_runs(experiments=False):
        same = other.geometry is not None and other.geometry == run.geometry
        if other.id != run.id and same and other.results():
            found.append(f"run {other.id}")
    return found


def named(name: str, run: Run, dense: StoredIteration, config: RunConfig, shape: Geometry) -> Mask:
    """A mask by one of `names`.

    Raises:
        ConfigError: it cannot be had at this ratio.
    """
    if name == WITHOUT_PINS:
        return state.preview(dense, config.replace(keep=(), remove=()), shape)
    if name.startswith("after iteration "):
        return state.iteration(run, int(name.split()[2])).mask
    if name.startswith("run "):
        other = next(r for r in state.all_runs() if r.id == name.removeprefix("run "))
        return other.iterations()[-1].mask
    if name.startswith("method "):
        method = name.removeprefix("method ")
        preset = METHODS[method]
        weights = {k: v for k, v in preset.get("mixture", {}).items() if k in state.domain_names(run)}
        changed = RunConfig.create(
            model=config.model,
            method=method,
            ratio=config.ratio,
            domains=config.domains,
            mixture=weights or config.mixture,
            keep=config.keep,
            remove=config.remove,
        )
        return state.preview(dense, changed, shape)
    return state.preview(dense, config.replace(mixture=_weights(name, run)), shape)


def _weights(name: str, run: Run) -> Mapping[str, float]:
    domain = name.removesuffix(" alone")
    return {domain: 1.0} if name != "equal weights" else dict.fromkeys(state.domain_names(run), 1.0)


def pins(run: Run, chosen: state.Choice) -> None:
    """Keep or cut by hand: layers, heads, ranges of channels, and whatever is on view."""
    shape = run.geometry
    assert shape is not None
    depth = len(shape.layers)
    parts = st.columns([3, 3, 3, 2, 2, 2], vertical_alignment="bottom")
    layers = parts[0].multiselect(
        "Layers", range(depth), [min(chosen.site.layer, depth - 1)], key="pin_layers"
    )
    what = parts[1].selectbox("What", ["heads", "MLP channels", "everything"], key="pin_what")
    first = shape.layers[0]
    limit = (first.heads if what == "heads" else first.channels) - 1
    span = (0, 0)
    if what != "everything":
        start = chosen.channel // shape.head_dim if chosen.site.kind == "attn" else chosen.channel
        start = min(start, limit)
        same = (what == "heads") == (chosen.site.kind == "attn")
        span = parts[2].slider(
            "From, to", 0, limit, (start, start) if same else (0, 0), key=f"pin_span_{what}"
        )
    part = {
        "heads": f".attn.{span[0]}-{span[1]}",
        "MLP channels": f".mlp.{span[0]}-{span[1]}",
        "everything": "",
    }
    selectors = [f"{layer}{part[what]}" for layer in layers]
    buttons = (("Keep", "keep", "remove"), ("Cut", "remove", "keep"))
    for column, (title, key, other) in zip(parts[3:5], buttons, strict=True):
        column.button(
            title,
            on_click=_pin,
            args=(key, other, selectors),
            key=f"pin-{key}",
            width="stretch",
            disabled=not selectors,
        )
    parts[5].button("Forget all", on_click=_forget, width="stretch")
    left, right = st.columns(2)
    form = "LAYER, LAYER.attn, LAYER.mlp.FIRST-LAST"
    for column, key, title in ((left, "keep", "Kept, whatever the score"), (right, "remove", "Cut first")):
        column.multiselect(
            title,
            st.session_state.get(key, []),
            key=key,
            accept_new_options=True,
            placeholder=form,
            bind="query-params",
            help=f"Written as {form}; type more, or remove one.",
        )


def _pin(key: str, other: str, selectors: list[str]) -> None:
    st.session_state[key] = list(dict.fromkeys([*st.session_state.get(key, []), *selectors]))
    st.session_state[other] = [name for name in st.session_state.get(other, []) if name not in selectors]


def _forget() -> None:
    st.session_state.keep, st.session_state.remove = [], []
