"""Details of one run on the Results page: accuracy by task, perplexity by domain, and where the run comes from."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.experiments.paper import paper
from pruning.formatting import plain
from pruning.runs.report import provenance
from pruning.runs.run import Run
from pruning.runs.schema import Results
from pruning.visualization import report
from ui import state
from ui.options import changes
from ui.results import PERCENT, items

TWO_DIGITS, THREE_DIGITS = (st.column_config.NumberColumn(format=f"%.{digits}f") for digits in (2, 3))


def accuracy(run: Run, results: Results) -> None:
    """Zero-shot accuracy by task with confidence intervals of the change, and the paper's reported figures."""
    if asked := results.zero_shot:
        metrics = [m for m in ("acc", "acc_norm") if any(m in row.measures for row in asked.tasks.values())]
        metric = st.segmented_control(
            "Metric", metrics, default=metrics[0], required=True, key=f"metric-{run.id}"
        )
        st.plotly_chart(
            viz.accuracy_levels_figure(asked.tasks, metric),
            alt="Zero-shot accuracy by task, dense, pruned and by chance",
            config=state.PLOT,
            key=f"levels-{run.id}",
        )
        st.plotly_chart(
            viz.accuracy_figure({state.label(run): asked.tasks}, metric),
            alt="Change of zero-shot accuracy by task",
            config=state.PLOT,
            key=f"accuracy-{run.id}",
        )
        rows = {**asked.tasks, "average of tasks": asked.average}
        st.dataframe(
            [
                {
                    "task": task,
                    "items": items(row),
                    "dense": found.dense,
                    "pruned": found.pruned,
                    "change": found.delta,
                    "±": found.interval if math.isfinite(found.interval) else None,
                    "significant": found.significant,
                }
                for task, row in rows.items()
                if (found := row.measures.get(metric))
            ],
            hide_index=True,
            placeholder="unknown",
            column_config=dict.fromkeys(("dense", "pruned", "change", "±"), PERCENT),
        )
        st.caption(
            "± is half the width of the 95% confidence interval of the paired difference over items. Significant: "
            "McNemar's exact test at the 5% level; for the average, a permutation test."
        )
        if asked.average.limit:
            st.warning(
                f"Only the first {asked.average.limit} items of each task were evaluated: not comparable with full evaluations."
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


def perplexity(run: Run, results: Results) -> None:
    """Perplexity and bits per byte by domain."""
    bits = results.bits_per_byte
    st.dataframe(
        [
            {
                "domain": domain,
                "dense": pair.dense,
                "pruned": pair.pruned,
                "pruned over dense": pair.ratio,
                "bits per byte, dense": bits[domain].dense if domain in bits else None,
                "bits per byte, pruned": bits[domain].pruned if domain in bits else None,
                "tokens": results.tokens.get(domain),
            }
            for domain, pair in results.perplexity.items()
        ],
        hide_index=True,
        placeholder="",
        column_config={
            **dict.fromkeys(("dense", "pruned", "pruned over dense"), TWO_DIGITS),
            **dict.fromkeys(("bits per byte, dense", "bits per byte, pruned"), THREE_DIGITS),
        },
    )
    st.caption(
        f"Held-out text in blocks of {run.config.seq_len} tokens. Bits per byte are comparable across tokenizers."
    )
    st.caption(plain(". ".join(provenance(run))))


def lineage(run: Run, runs: dict[str, Run]) -> list[dict[str, Any]]:
    """The chain of parent runs, oldest first, with the options changed in each."""
    chain = [run]
    while (parent := chain[-1].config.parent) in runs and runs[parent] not in chain:
        chain.append(runs[parent])
    rows: list[dict[str, Any]] = []
    for older, newer in zip([None, *chain[::-1]], chain[::-1], strict=False):
        results = newer.results()
        rows.append(
            {
                "run": state.label(newer),
                "changed": changes(
                    older.config if older else RunConfig.create(method=newer.config.method), newer.config
                ),
                "mean perplexity": results.mean.pruned if results and results.mean else None,
            }
        )
    return rows


def origin(run: Run, runs: dict[str, Run]) -> None:
    """The chain of parent runs, and the command that reproduces this run."""
    st.dataframe(
        lineage(run, runs), hide_index=True, placeholder="", column_config={"mean perplexity": TWO_DIGITS}
    )
    st.code(report.command(run), language="bash", wrap_lines=True)
