"""The one state of the app: what is chosen in the sidebar, and the run on view.

Choices live in widgets bound to the URL, so a link shows a colleague the same view and nobody sees another's.
`sidebar()` is called by `app.py` on every run of the script and draws them; pages ask `choice()`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from pruning import visualization as viz
from pruning.config import METHODS, ConfigError, PruningError, RunConfig
from pruning.domains import ASSETS
from pruning.masks import Mask, dense_scales, next_mask
from pruning.runs import Run, RunStore, StoredIteration
from pruning.scores import score_sites
from pruning.sites import Geometry, Site
from ui.navigation import ensure_frame

DEMO_RUN = ASSETS / "demo-run"
PLOT = {"displaylogo": False, "toImageButtonOptions": {"format": "png", "scale": 2}}  # of every figure
Array = np.ndarray
Norms = Mapping[Site, tuple[Array, Array]]


@dataclass(frozen=True)
class Choice:
    """What is chosen now.

    Attributes:
        run: the run on view, whose statistics the pages look at.
        ratio, method: of the mask previewed and of the next run.
        mixture: weights of the run's domains, normalised.
        iteration: whose statistics and mask are shown.
        site, channel: the channel on view.
        keep, remove: what was pinned and cut by hand, as selectors.
    """

    run: Run
    ratio: float
    method: str
    mixture: dict[str, float]
    iteration: int
    site: Site
    channel: int
    keep: tuple[str, ...]
    remove: tuple[str, ...]

    def config(self) -> RunConfig:
        """The run that these choices mean: the run on view with them put in.

        Raises:
            ConfigError: they contradict each other.
        """
        base = self.run.config
        preset = METHODS[self.method]
        options = {
            key: value
            for key, value in base.model_dump().items()
            if key in ("model", "domains", "samples", "seq_len", "seed", "device", "dtype")
        }
        options |= {"method": self.method, "ratio": self.ratio, "mixture": self.mixture}
        if "iterations" not in preset and base.method == self.method and base.ratio > 0:
            options["iterations"] = base.iterations
        if "allocation" not in preset:
            options["allocation"] = st.session_state.get("allocation") or base.allocation
        options |= {"attention_unit": st.session_state.get("unit") or base.attention_unit}
        options |= {"round_to": int(st.session_state.get("round_to") or base.round_to)}
        parent = None if self.run.path == DEMO_RUN else self.run.id
        return RunConfig.create(**options, keep=self.keep, remove=self.remove, parent=parent)


def store() -> RunStore:
    """Where this server keeps its runs."""
    return RunStore()


def demo_run() -> Run:
    """The finished run of the demo model that ships with the project."""
    return Run(DEMO_RUN)


def all_runs(experiments: bool = True) -> list[Run]:
    """The store's runs, the newest first, and the demo run; those of experiments can be left out."""
    runs = [run for run in store().all() if experiments or run.config.experiment is None]
    return [*runs, *([demo_run()] if DEMO_RUN.is_dir() else [])]


def label(run: Run) -> str:
    """A run in one line."""
    if run.path == DEMO_RUN:
        return "demo run (ships with the app)"
    config = run.config
    when = time.strftime("%d %b %H:%M", time.strptime(run.id[:15], "%Y%m%d-%H%M%S"))
    return f"{when}  {config.method} {config.ratio:.0%}, {Path(config.model).name}"


def sidebar() -> None:
    """Draw the choices that are always on the screen."""
    on_view = st.session_state.get("run")
    runs = {run.id: run for run in all_runs() if run.config.experiment is None or run.id == on_view}
    if not runs:
        st.error("There is no run to show. `python -m pruning prune` makes one.")
        st.stop()
    viewable = [name for name, run in runs.items() if run.iterations()] or list(runs)
    with st.sidebar:
        st.selectbox(
            "Run on view",
            viewable,
            format_func=lambda name: label(runs[name]),
            key="run",
            bind="query-params",
            help="Its statistics are what the pages show.",
        )
        run = runs[st.session_state.run]
        st.caption(f"Model: {Path(run.config.model).name}, {_shape_words(run)}")
        st.slider("Pruning ratio", 0, 90, 50, 1, format="%d%%", key="ratio", bind="query-params")
        st.selectbox("Method", list(METHODS), key="method", bind="query-params")
        st.markdown("**Whose text decides**")
        names = domain_names(run)
        weights = st.container()
        held = _locks(names)
        words = {}
        for name in names:
            left, right = weights.columns([2, 3], vertical_alignment="bottom", gap="small")
            words[name] = left.empty()
            right.slider(
                name,
                0,
                100,
                50,
                key=f"w_{name}",
                bind="query-params",
                disabled=name in held,
                label_visibility="collapsed",
            )
        shares = mixture(names)
        for name, place in words.items():
            lock = ":material/lock: " if name in held else ""
            place.markdown(f"{lock}{name} **{shares.get(name, 0):.0%}**")
        if not shares:
            st.warning("All weights are zero: every domain counts alike until one is raised.")
        left, right = st.columns(2)
        left.button("Equal", on_click=_equal, args=(names,), width="stretch", help="The same weight for all")
        right.button(
            "Reset", on_click=_reset, args=(names,), width="stretch", help="All choices as they began"
        )
        _place(run)


def _shape_words(run: Run) -> str:
    shape = run.geometry
    return f"{len(shape.layers)} layers, width {shape.hidden_size:,}" if shape else "not loaded yet"


def _place(run: Run) -> None:
    """Iteration and channel on view: the same on all pages."""
    shape = run.geometry
    if shape is None:
        return
    st.markdown("**On view**")
    if run.config.iterations > 1:
        st.slider(
            "Iteration",
            1,
            run.config.iterations,
            1,
            key="iteration",
            bind="query-params",
            help="Its statistics, and the mask after it. The arrow keys walk.",
        )
    kind = st.radio("Site", ["mlp", "attn"], horizontal=True, key="site", bind="query-params")
    left, right = st.columns([2, 3])
    layer = left.number_input("Layer", 0, len(shape.layers) - 1, key="layer", bind="query-params")
    # one limit for both sites: a widget whose limits change forgets its value
    widest = max(shape.channels(site) for site in shape.sites)
    right.number_input("Channel", 0, widest - 1, key="channel", bind="query-params")
    width = shape.channels(Site(int(layer), kind))
    st.caption(f"{width:,} {viz.KIND_NAMES[kind]} channels in this layer")


def domain_names(run: Run) -> list[str]:
    """Domains that the run on view has statistics of."""
    iterations = run.iterations()
    if len(iterations) > 1:
        files = iterations[1].path.glob("moments-*.safetensors")
        found = {file.stem.removeprefix("moments-") for file in files}
        return [name for name in run.config.mixture if name in found]
    return list(run.config.mixture)


def _locks(names: list[str]) -> list[str]:
    """The control that locks shares; gives the domains that are locked."""
    if len(names) < 2:
        return []
    held = st.pills(
        "Lock the share of",
        names,
        selection_mode="multi",
        key="locked",
        bind="query-params",
        on_change=_rebase,
        args=(names,),
        help="It stays what it is; the others divide the rest.",
    )
    st.session_state["held"] = held
    return held


def _rebase(names: list[str]) -> None:
    """Weights become the shares they meant before a lock was set or lifted, so that nothing jumps."""
    for name, share in mixture(names).items():
        st.session_state[f"w_{name}"] = round(100 * share)


def mixture(names: list[str]) -> dict[str, float]:
    """Shares of the domains, summing to 1; empty when all weights are zero.

    The weight of a locked domain is its share in percent; the others divide the rest by theirs.
    """
    held = st.session_state.get("held", [])
    weights = {name: float(st.session_state.get(f"w_{name}", 50)) for name in names}
    fixed = {name: weight / 100 for name, weight in weights.items() if name in held}
    free = {name: weight for name, weight in weights.items() if name not in held}
    rest, total = 1 - sum(fixed.values()), sum(free.values())
    if rest <= 0 or not total:  # nothing to divide, or nobody to divide it
        fixed, free, rest, total = {}, weights, 1.0, sum(weights.values())
    shares = fixed | {name: rest * weight / total for name, weight in free.items()} if total else {}
    return {name: shares[name] for name in names if shares}


def _equal(names: list[str]) -> None:
    for name in names:
        if name not in st.session_state.get("held", []):
            st.session_state[f"w_{name}"] = 50


def _reset(names: list[str]) -> None:
    st.session_state.locked = st.session_state.held = []
    _equal(names)
    st.session_state.ratio, st.session_state.method = 50, "iterative"
    st.session_state.keep, st.session_state.remove = [], []


def choice() -> Choice:
    """What is chosen now."""
    ensure_frame()
    runs = {run.id: run for run in all_runs()}
    run = runs[st.session_state.run]
    names = domain_names(run)
    last = max((it.number for it in run.iterations()), default=0)
    site = Site(int(st.session_state.get("layer") or 0), st.session_state.get("site") or "mlp")
    shape = run.geometry
    width = shape.channels(site) if shape and site.layer < len(shape.layers) else 1
    return Choice(
        run=run,
        ratio=st.session_state.ratio / 100,
        method=st.session_state.method,
        mixture=mixture(names) or {name: 1 / len(names) for name in names},
        iteration=min(st.session_state.get("iteration", 1) or 1, last),
        site=site,
        channel=min(int(st.session_state.get("channel") or 0), width - 1),
        keep=tuple(st.session_state.get("keep", [])),
        remove=tuple(st.session_state.get("remove", [])),
    )


# --- statistics of the run on view ------------------------------------------------------------------------


@st.cache_resource(max_entries=24, show_spinner=False)
def _stored(path: str, stamp: int) -> StoredIteration:
    """An iteration whose arrays stay in memory once read; shared by all sessions and never written to."""
    run = Run(Path(path).parent)
    return next(iteration for iteration in run.iterations() if iteration.path == Path(path))


def iteration(run: Run, number: int) -> StoredIteration:
    """An iteration of a run; 0 is the dense model."""
    found = next(it for it in run.iterations() if it.number == number)
    return _stored(str(found.path), (found.path / "metrics.json").stat().st_mtime_ns)


def statistics_iteration(chosen: Choice) -> StoredIteration | None:
    """The iteration whose statistics are shown; None where the run has none yet."""
    numbers = [it.number for it in chosen.run.iterations() if it.number > 0]
    return iteration(chosen.run, min(max(chosen.iteration, 1), max(numbers))) if numbers else None


def scores(it: StoredIteration, config: RunConfig, weights: Mapping[str, float]) -> dict[Site, Array]:
    """Scores of every channel for a mixture, from the stored statistics: no model is touched."""
    return score_sites(config.score, it.statistics.fuse(weights, config.fusion), it.norms, config.seed)


def preview(it: StoredIteration, config: RunConfig, geometry: Geometry) -> Mask:
    """The mask that one cut with these statistics would give; the last few are remembered.

    Raises:
        ConfigError: the ratio cannot be reached, or pins contradict each other.
    """
    stamp = (it.path / "metrics.json").stat().st_mtime_ns
    return _preview(str(it.path), stamp, config.model_dump_json(), it, config, geometry)


@st.cache_resource(max_entries=8, show_spinner=False)
def _preview(
    path: str, stamp: int, key: str, _it: StoredIteration, _config: RunConfig, _geometry: Geometry
) -> Mask:
    values = scores(_it, _config, _config.mixture)
    full = Mask.full(_geometry)
    filled = {site: np.nan_to_num(array) for site, array in values.items()}
    scales = dense_scales(filled, _config.square_attention)
    return next_mask(filled, full, _config.ratio, _config, scales)


def follow(run: Run) -> None:
    """Draw the page anew when a run at work has another iteration."""
    if not run.active:
        return
    known = len(run.iterations())

    @st.fragment(run_every=2.0)
    def watch() -> None:
        if len(run.iterations()) != known or not run.active:
            st.rerun()
        done = f"{known - 1} of {run.config.iterations}" if known else "none"
        st.caption(f"This run is at work, iterations so far: {done}. The page follows it.")

    watch()


def explain(error: PruningError | ConfigError) -> None:
    """A person's mistake, in one sentence."""
    text = str(error)
    st.error(text[:1].upper() + text[1:])
