"""Runs side by side on the Results page: by what can be compared, in which options they differ, what that came to."""

from __future__ import annotations

import math

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.formatting import number, plain, size_text
from pruning.runs.report import MeasuredRun, count_reasons, groups, retention
from pruning.runs.run import Run
from pruning.runs.schema import Results
from ui import models, state
from ui.options import option
from ui.results import cache_bytes, items, measured_speed, worst


def compare(beside: list[tuple[Run, Results]]) -> None:
    """Several runs: in which options they differ, then what that came to, by what can be compared."""
    differences(beside)
    st.markdown("**What that came to**")
    parts = comparable(beside)
    if len(parts) > 1:
        st.warning(
            f"These runs are of {len(parts)} different models, texts or block lengths. Numbers compare only under the "
            "same heading."
        )
    for heading, members in parts:
        if len(parts) > 1:
            st.markdown(f"**{plain(heading)}**")
        outcomes(members)
        figures(members, key="-".join(run.id for run, _ in members))


def comparable(beside: list[tuple[Run, Results]]) -> list[tuple[str, list[tuple[Run, Results]]]]:
    """Runs by what can be compared, under headings, in the order in which they were chosen."""
    grouped, left_out = groups(run for run, _ in beside)
    members = [(group.heading, {each.run.id for each in group.members}) for group in grouped]
    members += [(count_reasons(left_out), set(left_out))] if left_out else []
    return [(heading, [pair for pair in beside if pair[0].id in ids]) for heading, ids in members]


def figures(beside: list[tuple[Run, Results]], key: str = "") -> None:
    """Perplexity by domain and what is left by capability, of runs that can be compared."""
    left, right = st.columns(2)
    left.plotly_chart(
        viz.domain_cost_figure({state.label(run): results.perplexity for run, results in beside}),
        alt="Perplexity over dense by domain and run",
        config=state.PLOT,
        key=f"cost-{key}",
    )
    right.plotly_chart(
        viz.retention_figure({state.label(run): retention(results) for run, results in beside}),
        alt="Retained performance by capability, pruned over dense",
        config=state.PLOT,
        key=f"retained-{key}",
    )
    answers = {state.label(run): results.zero_shot.tasks for run, results in beside if results.zero_shot}
    if len(answers) > 1:
        asked = {(name, row.digest) for rows in answers.values() for name, row in rows.items() if row.digest}
        if len(asked) > len({name for name, _ in asked}):
            st.warning("Some tasks of the same name asked other items: their accuracies do not compare.")
        st.plotly_chart(
            viz.accuracy_figure(answers),
            alt="Change of zero-shot accuracy by task and run",
            config=state.PLOT,
            key=f"tasks-{key}",
        )


def differences(beside: list[tuple[Run, Results]]) -> None:
    """In which options runs differ."""
    labels = [state.label(run) for run, _ in beside]
    options = {}
    for name in RunConfig.model_fields:
        values = [option(run.config, name) for run, _ in beside]
        if len(set(values)) > 1 and name not in ("parent", "experiment", "name", "tags"):
            options[name.replace("_", " ")] = values
    st.markdown("**In which options they differ**")
    if options:
        st.dataframe(
            [{"option": name, **dict(zip(labels, values, strict=True))} for name, values in options.items()],
            hide_index=True,
            placeholder="",
        )
    else:
        st.caption("In none: the runs have the same config.")


def outcomes(beside: list[tuple[Run, Results]]) -> None:
    """What runs came to, a column for each; accuracies of the same tasks stand in the same row."""
    labels = [state.label(run) for run, _ in beside]
    rows: dict[str, list[str]] = {}
    best = min(range(len(beside)), key=lambda index: MeasuredRun(*beside[index]).mean)
    for position, (run, results) in enumerate(beside):
        cells = {"pruning ratio": f"{results.achieved_ratio:.1%}"}
        if (lost := worst(results)) and results.mean:
            cells["worst domain"] = f"x {number(lost[1])} ({lost[0]})"
            cells["mean of domains"] = results.mean.change
            if position != best and (rise := MeasuredRun(run, results).rise(MeasuredRun(*beside[best]))):
                cells["mean against the best of these"] = rise.words
        if results.zero_shot and (accuracy := results.zero_shot.average.acc):
            tasks = f"{', '.join(results.zero_shot.tasks)}; {items(results.zero_shot.average)} items"
            cells[f"zero-shot accuracy ({tasks})"] = (
                f"{accuracy.pruned:.1%} ({100 * accuracy.delta:+.1f} points)"
            )
        cells["weights in 16 bit"] = size_text(2 * results.parameters.pruned)
        if cache := cache_bytes(run):
            cells["KV cache per token"] = size_text(cache)
        if speed := measured_speed(run):
            cells["decoding speed"] = f"x {speed:.2f}"
        for name, text in cells.items():
            rows.setdefault(name, [""] * len(beside))[position] = text
    st.dataframe(
        [{"outcome": name, **dict(zip(labels, values, strict=True))} for name, values in rows.items()],
        hide_index=True,
    )


def sizes(runs: list[tuple[Run, Results]], like: Run) -> None:
    """Runs that can be compared with one, by what is left and what the worst domain lost.

    Args:
        runs: finished ones, of any model; where one alone compares, nothing is drawn.
        like: the run that they are to compare with.
    """
    grouped, _ = groups(run for run, _ in runs)
    members = [{each.run.id for each in group.members} for group in grouped]
    comparable_ids = next((ids for ids in members if like.id in ids), set())
    spots = {"dense": (1.0, 1.0, "dense")}
    for run, results in runs:
        lost, size = worst(results), results.parameters
        if run.id in comparable_ids and lost and math.isfinite(lost[1]):
            label = f"{state.label(run)}: {lost[0]}"
            spots[label] = size.pruned / size.dense, lost[1], run.config.method
    if len(spots) > 2:
        figure = viz.tradeoff_figure(
            spots, title=f"Runs of {models.title(like.config.model)}: size against worst domain"
        )
        st.plotly_chart(figure, alt="Runs by size and perplexity of the worst domain", config=state.PLOT)
