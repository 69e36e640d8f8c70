"""Results page: details of one run, its accuracy by task, measures of text by domain, and origin."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.experiments.claims import paper
from pruning.formatting import plain
from pruning.runs.report import INTERVALS, Row, provenance, results_sections
from pruning.runs.run import Run
from pruning.runs.schema import Results
from pruning.visualization import report
from ui import state
from ui.options import changes
from ui.results import NATS, RATIO


def _table(rows: list[Row]) -> None:
    """Rows of the results table, with the meaning of their intervals."""
    st.dataframe([row._asdict() for row in rows], hide_index=True)
    st.caption(plain(INTERVALS))


def accuracy(run: Run, results: Results) -> None:
    """Zero-shot accuracy by task with confidence intervals of the change, and the paper's reported figures."""
    if answers := results.zero_shot:
        metrics = [
            m for m in ("acc", "acc_norm") if any(m in task.measures for task in answers.tasks.values())
        ]
        metric = st.segmented_control(
            "Metric", metrics, default=metrics[0], required=True, key=f"metric-{run.id}"
        )
        levels = viz.accuracy_levels_figure(answers.tasks, metric)
        state.plot(levels, "Zero-shot accuracy by task, dense, pruned and by chance", f"levels-{run.id}")
        change = viz.accuracy_figure({state.label(run): answers.tasks}, metric)
        state.plot(change, "Change of zero-shot accuracy by task", f"accuracy-{run.id}")
        _table(results_sections(results)["accuracy"])
        st.caption(
            "Significant by McNemar's exact test at the 5% level; for the average, by a permutation test."
        )
        if answers.average.limit:
            st.warning(
                f"Only the first {answers.average.limit} items of each task were evaluated: not comparable with full "
                "evaluations."
            )
    elif run.config.tasks:
        st.info(
            "The zero-shot evaluation is not complete: the Prune page shows whether it is running or was interrupted."
        )
    else:
        st.caption("No zero-shot tasks were evaluated. Enable them for a new run on the Prune page.")
    st.markdown("**Figures reported in the paper (not measured here)**")
    content = paper()["main"]
    st.dataframe(
        [
            {"method": key, **dict(zip(content["columns"], values, strict=True))}
            for key, values in content["rows"].items()
        ],
        hide_index=True,
    )
    st.caption(f"{content['about']} {paper()['source']}.")


def text(run: Run, results: Results) -> None:
    """Divergence, perplexity and bits per byte by domain."""
    rows = results_sections(results)
    _table([*rows["divergence"], *rows["perplexity"], *rows["bits per byte"]])
    st.caption(
        f"Held-out text in blocks of {run.config.seq_len} tokens. Bits per byte are comparable across tokenizers."
    )
    st.caption(plain(". ".join(provenance(run))))


def origin(run: Run, runs: dict[str, Run]) -> None:
    """The chain of parent runs with the options that each changed, and the command that reproduces this run."""
    chain = [run]
    while (parent := chain[0].config.parent) in runs and runs[parent] not in chain:
        chain.insert(0, runs[parent])
    before, rows = RunConfig.create(method=chain[0].config.method), []
    for each in chain:
        results = each.results()
        divergence = results.mean_divergence if results else None
        mean = results.mean if results else None
        changed = changes(before, each.config)
        row: dict[str, Any] = {"run": state.label(each), "changed": changed}
        row["divergence"] = divergence.value if divergence else None
        row["mean perplexity"] = mean.pruned if mean else None
        rows.append(row)
        before = each.config
    formats = {"divergence": NATS, "mean perplexity": RATIO}
    st.dataframe(rows, hide_index=True, placeholder="", column_config=formats)
    st.code(report.command(run), language="bash", wrap_lines=True)
