"""Results page: several runs side by side, by what can be compared."""

from __future__ import annotations

import math

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.formatting import plain
from pruning.runs.report import MeasuredRun, count_reasons, groups, ranked, retention
from pruning.runs.run import Run
from pruning.runs.schema import Results
from ui import models, results, state
from ui.options import option, option_title

Finished = list[tuple[Run, Results]]


def compare(runs: Finished) -> None:
    """Settings in which several runs differ, then their outcomes, by what can be compared."""
    differences(runs)
    st.markdown("**Outcome**")
    parts = comparable(runs)
    if len(parts) > 1:
        st.warning(
            f"These runs are of {len(parts)} different models, texts or block lengths. Numbers compare only under the "
            "same heading."
        )
    for heading, members in parts:
        if len(parts) > 1:
            st.markdown(f"**{plain(heading)}**")
        best = ranked([MeasuredRun(*member) for member in members])[0].results
        results.table([results.row(*member, best) for member in members])
        figures(members, key="-".join(run.id for run, _ in members))


def comparable(runs: Finished) -> list[tuple[str, Finished]]:
    """Runs by what can be compared, under headings, in the order in which they were chosen."""
    grouped, left_out = groups(run for run, _ in runs)
    members = [(group.heading, {each.run.id for each in group.members}) for group in grouped]
    members += [(count_reasons(left_out), set(left_out))] if left_out else []
    return [(heading, [pair for pair in runs if pair[0].id in ids]) for heading, ids in members]


def figures(runs: Finished, key: str = "") -> None:
    """Divergence or perplexity by domain and retention by capability, of runs that can be compared."""
    costs = viz.domain_cost_figure({state.label(run): each for run, each in runs})
    retained = viz.retention_figure({state.label(run): retention(each) for run, each in runs})
    left, right = st.columns(2)
    with left:
        state.plot(costs, costs.layout.title.text, f"cost-{key}")
    with right:
        state.plot(retained, "Retained performance by capability, pruned over dense", f"retained-{key}")
    answers = {state.label(run): each.zero_shot.tasks for run, each in runs if each.zero_shot}
    if len(answers) > 1:
        digests = {
            (name, task.digest) for tasks in answers.values() for name, task in tasks.items() if task.digest
        }
        if len(digests) > len({name for name, _ in digests}):
            st.warning("Some tasks of the same name asked other items: their accuracies do not compare.")
        state.plot(
            viz.accuracy_figure(answers), "Change of zero-shot accuracy by task and run", f"tasks-{key}"
        )


def differences(runs: Finished) -> None:
    """Settings in which runs differ."""
    labels = [state.label(run) for run, _ in runs]
    rows = []
    for name in RunConfig.model_fields:
        values = [option(run.config, name) for run, _ in runs]
        if len(set(values)) > 1 and name not in ("parent", "experiment", "name", "tags"):
            rows.append({"option": option_title(name), **dict(zip(labels, values, strict=True))})
    st.markdown("**Settings that differ**")
    if rows:
        st.dataframe(rows, hide_index=True, placeholder="")
    else:
        st.caption("None: the runs have the same config.")


def sizes(runs: Finished, like: Run) -> None:
    """Figure of the runs that can be compared with one, by size and perplexity of the worst domain.

    Args:
        runs: finished runs of any model; a single comparable one is not drawn.
        like: the run that they are to compare with.
    """
    grouped = ([each.run.id for each in group.members] for group in groups(run for run, _ in runs)[0])
    comparable_ids = next((ids for ids in grouped if like.id in ids), [])
    points = {"dense": (1.0, 1.0, "dense")}
    for run, each in runs:
        if run.id in comparable_ids and each.worst and math.isfinite(each.worst[1]):
            domain, ratio = each.worst
            size = each.parameters.pruned / each.parameters.dense
            points[f"{state.label(run)}: {domain}"] = size, ratio, run.config.method
    if len(points) > 2:
        title = f"Runs of {models.title(like.config.model)}: size against worst domain"
        state.plot(
            viz.tradeoff_figure(points, title=title), "Runs by size and perplexity of the worst domain"
        )
