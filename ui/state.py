"""State of the app: the settings of the sidebar, and the displayed run.

Settings are stored in widgets bound to the URL (drawn by `ui.sidebar`): a link reproduces the view, and sessions do
not share settings. Pages read them with `choice()`.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import streamlit as st

from pruning.config import RunConfig
from pruning.errors import PruningError, RunError
from pruning.formatting import plain, sentence
from pruning.models.geometry import Site
from pruning.paths import ASSETS
from pruning.runs import permissions
from pruning.runs.preflight import create
from pruning.runs.run import Run, RunStore
from pruning.text.sources import EMBEDDED_DOMAINS
from ui import settings, view_state
from ui.consent import consent
from ui.navigation import ensure_frame, go

# Finished runs that ship with the project; the app opens on the first one that is there.
SHIPPED = {
    ASSETS / "smollm2-run": "SmolLM2 run (ships with the app)",
    ASSETS / "demo-run": "demo run (ships with the app)",
}
DEMO_RUN = ASSETS / "demo-run"
PLOT = {"displaylogo": False, "toImageButtonOptions": {"format": "png", "scale": 2}}  # of every figure


@dataclass(frozen=True)
class Choice:
    """The current settings.

    Attributes:
        run: the displayed run, whose statistics the pages show.
        ratio, method, allocation, attention_unit, round_to, worst_domain, compensation: options of the
            previewed mask and of the next run.
        mixture: normalised weights of the run's domains.
        iteration: the iteration whose statistics and mask are shown.
        site, channel: the selected channel.
        keep, remove: selectors of what the user pinned as kept and as removed.
    """

    run: Run
    ratio: float
    method: str
    allocation: str
    attention_unit: str
    round_to: int
    worst_domain: float
    compensation: str
    mixture: dict[str, float]
    iteration: int
    site: Site
    channel: int
    keep: tuple[str, ...]
    remove: tuple[str, ...]

    def config(self) -> RunConfig:
        """The config of a run with these settings; other options are those of the displayed run.

        Raises:
            ConfigError: the settings contradict each other.
        """
        base, without = self.run.config, set()
        if self.run.path in SHIPPED:  # measured on more blocks than one likes to wait for
            without.add("eval_blocks")
        if base.ratio == 0:  # a run that only collected statistics, and measured no text
            without |= {"iterations", "eval_blocks"}
        options = settings.options(base, self.method, without)
        options["mixture"] = self.mixture
        for setting in settings.WIDGETS.values():
            if (value := getattr(self, setting.field)) != settings.AS_METHOD:
                options[setting.field] = value
        options["parent"] = None if self.run.path in SHIPPED else self.run.id
        return RunConfig.create(**options)

    def for_demo(self) -> Choice:
        """The same settings for the demo model, without those that only the displayed model has."""
        if self.run.config.model == "demo":
            return self
        shares = {name: share for name, share in self.mixture.items() if name in EMBEDDED_DOMAINS}
        shares = shares or dict(demo_run().config.mixture)
        return dataclasses.replace(self, run=demo_run(), mixture=shares, keep=(), remove=())


# --- runs ------------------------------------------------------------------------------------------------


def store() -> RunStore:
    """The run store of this server."""
    return RunStore()


def demo_run() -> Run:
    """The finished run of the demo model that ships with the project."""
    return Run(DEMO_RUN)


def all_runs(experiments: bool = True) -> list[Run]:
    """The store's runs, newest first, and those that ship; runs of experiments can be left out."""
    runs = [run for run in store().all() if experiments or run.config.experiment is None]
    return [*runs, *shipped()]


def shipped() -> list[Run]:
    """The finished runs that ship with the project."""
    return [Run(path) for path in SHIPPED if (path / "config.json").exists()]


def label(run: Run) -> str:
    """A unique one-line label of a run, used in links; for Markdown it has to pass `plain`."""
    if run.path in SHIPPED:
        return SHIPPED[run.path]
    config = run.config
    what = f"{config.method} {config.ratio:.0%}" if config.ratio else "statistics"
    what = f"{config.name}: {what}" if config.name else what
    when = time.strftime("%d %b %H:%M", time.strptime(run.id[:15], "%Y%m%d-%H%M%S"))
    return f"{what} {Path(config.model).name}, {when}, {run.id[-4:]}"


def has_statistics(run: Run) -> bool:
    """Whether a run has statistics of the dense model."""
    return len(run.iterations()) > 1


def begin(config: RunConfig, watch: bool = True) -> Run:
    """Start a run; it is displayed when it has statistics.

    Args:
        config: of the run.
        watch: whether to go to the Prune page.

    Raises:
        PruningError: the run cannot be started; nothing is stored.
    """
    if pending := permissions.pending(config):
        raise RunError(
            f"these settings were not made here, and would {'; '.join(map(str, pending[:5]))}: start the run on the "
            "Prune page, which asks for your agreement."
        )
    run = create(config, store())
    run.launch()
    st.session_state.watched = st.session_state.follow = run.id
    if watch:
        go("pages/prune.py")
    return run


def display(run: Run) -> None:
    """Display a run from the next script run on; a widget's value cannot be set after it is drawn."""
    st.session_state.next_run = run.id


def delete_button(name: str, key: str = "") -> None:
    """A button that deletes a run after a confirmation.

    Args:
        name: the run's id.
        key: tells several buttons for the same run apart.
    """
    if st.button("Delete", key=f"delete-{key}{name}", icon=":material/delete:"):
        st.session_state.to_delete = name
    if st.session_state.get("to_delete") != name:
        return
    st.warning("This cannot be undone.")
    if st.button("Confirm deletion", key=f"yes-{key}{name}"):
        del st.session_state.to_delete
        try:
            store().delete(name)
        except PruningError as error:
            explain(error)
        else:
            st.rerun()


def resume_button(run: Run, container: Any = st) -> None:
    """A button that resumes a run after its last complete iteration, once what it would read is agreed to."""
    agreed = consent(run.config)
    icon = ":material/play_arrow:"
    if container.button("Resume", key=f"resume-{run.id}", icon=icon, disabled=not agreed):
        try:
            run.launch()
        except PruningError as error:
            explain(error)
        else:
            st.session_state.watched = run.id
            go("pages/prune.py")


def no_statistics(run: Run) -> NoReturn:
    """Explain why a page has nothing to show of a run, offer to resume it, and stop the page."""
    if run.active:
        st.info("This run has no statistics yet. They are available after its first iteration.")
    else:
        ends = {"cancelled": "was cancelled", "dead": "ended unexpectedly", "corrupt": "is corrupt"}
        status = run.status()
        how = ends.get(status.state, status.state)
        text = f"This run {how} before its first iteration was complete: it has no statistics to show."
        st.warning(f"{text} {plain(sentence(status.message))}")
        if run.resumable:
            resume_button(run)
    st.stop()


# --- settings --------------------------------------------------------------------------------------------


def domain_names(run: Run) -> list[str]:
    """Domains for which a run has statistics."""
    iterations = run.iterations()
    if len(iterations) > 1:
        files = iterations[1].path.glob("moments-*.safetensors")
        stored = {file.stem.removeprefix("moments-") for file in files}
        return [name for name in run.config.mixture if name in stored]
    return list(run.config.mixture)


def mixture(names: list[str]) -> dict[str, float]:
    """Shares of the domains with a sum of 1; empty if all weights are zero.

    The weight of a locked domain is its share in percent; the others divide the remainder by their weights.
    """
    held = st.session_state.get("held", [])
    weights = {name: float(st.session_state.get(f"w_{name}", 50)) for name in names}
    fixed = {name: weight / 100 for name, weight in weights.items() if name in held}
    free = {name: weight for name, weight in weights.items() if name not in held}
    remainder, total = 1 - sum(fixed.values()), sum(free.values())
    if remainder <= 0 or not total:  # no remainder, or no domain to give it to
        fixed, free, remainder, total = {}, weights, 1.0, sum(weights.values())
    shares = fixed | {name: remainder * weight / total for name, weight in free.items()} if total else {}
    return {name: shares[name] for name in names if shares}


def choice() -> Choice:
    """The current settings."""
    ensure_frame()
    widgets = st.session_state
    run = next((run for run in all_runs() if run.id == widgets.run), shipped()[0])
    names, shape = domain_names(run), run.geometry
    last = max((it.number for it in run.iterations()), default=0)
    site = view_state.site(shape)
    return Choice(
        run=run,
        mixture=mixture(names) or {name: 1 / len(names) for name in names},
        iteration=min(widgets.get("iteration", 1) or 1, last),
        site=site,
        channel=view_state.clamped(widgets.get("channel"), 0, shape.channels(site) - 1 if shape else 0),
        **{
            each.field: each.to_option(widgets.get(each.key, each.default))
            for each in settings.WIDGETS.values()
        },
    )


def follow(run: Run) -> None:
    """Redraw the page when an active run completes an iteration."""
    if not run.active:
        return
    count = len(run.iterations())

    @st.fragment(run_every=2.0)
    def watch() -> None:
        if len(run.iterations()) != count or not run.active:
            st.rerun()
        done = f"{count - 1} of {run.config.iterations}" if count else "none"
        what = plain(run.status().state)
        st.caption(f"This run is {what}. Completed iterations: {done}. This page updates automatically.")

    watch()


def explain(error: PruningError) -> None:
    """Show an error as one sentence."""
    st.error(plain(sentence(str(error))))


def plot(figure: Any, alt: str, key: str | None = None) -> None:
    """Draw a figure with the options of all figures; `alt` describes it for screen readers."""
    st.plotly_chart(figure, alt=alt, config=PLOT, key=key)
