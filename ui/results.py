"""Helpers of the Results page: the table of all finished runs, and the metrics and lineage of one run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.experiments.paper import paper
from pruning.measure.comparison import TaskRow
from pruning.runs.jobs import job
from pruning.runs.outcome import Results
from pruning.runs.run import Run
from ui import report, state

PERCENT = st.column_config.NumberColumn(format="percent")
TWO_DIGITS, THREE_DIGITS = (st.column_config.NumberColumn(format=f"%.{digits}f") for digits in (2, 3))


def row(run: Run, results: Results) -> dict[str, Any]:
    """A table row of a run: settings, sizes, and perplexities relative to the dense model."""
    average = results.zero_shot.average if results.zero_shot else TaskRow()
    perplexities = {name: pair.ratio for name, pair in results.perplexity.items()}
    mean = {"mean": perplexities.pop("mean")} if "mean" in perplexities else {}
    return {
        "run": state.label(run),
        "ratio": results.achieved_ratio,
        "iterations": run.config.iterations,
        **mean,
        "accuracy": average.acc.delta if average.acc else None,
        "items": items(average),
        **perplexities,
        "parameters": results.parameters.pruned,
        "KV cache": cache_bytes(run, results),
        "speed": measured_speed(run),
        "method": run.config.method,
    }


def items(row: TaskRow) -> str | None:
    """The number of evaluated items; `first N` if a limit was set."""
    return f"first {row.limit}" if row.limit else f"{row.items}" if row.items else None


def cache_bytes(run: Run, results: Results) -> int | None:
    """KV cache bytes per token of the pruned model in 16 bit."""
    layers = results.iterations[-1].layers
    if run.geometry is None or not layers:
        return None
    return 2 * dataclasses.replace(run.geometry, layers=layers).cache_values


def measured_speed(run: Run) -> float | None:
    """Decoding speed relative to the dense model; None if it was not measured on the Speed tab."""
    cells = job(state.store(), f"bench-{run.id}").output.get("speed", [])
    medians = [cell["decode"]["median"] for cell in cells if cell["batch"] == 1]
    return medians[1] / medians[0] if len(medians) > 1 else None


def table(runs: dict[str, tuple[Run, Results]], rows: list[dict[str, Any]]) -> None:
    """The table of all runs; the first row is the dense model."""
    dense = dict.fromkeys(rows[0]) | {
        "run": "dense",
        "method": "",
        "ratio": 0.0,
        "accuracy": 0.0,
        "speed": 1.0,
    }
    domains = list(dict.fromkeys(name for _, results in runs.values() for name in results.perplexity))
    sizes = {
        (results.parameters.dense, 2 * run.geometry.cache_values)
        for run, results in runs.values()
        if run.geometry
    }
    if len(sizes) == 1:  # one dense model for all
        dense["parameters"], dense["KV cache"] = sizes.pop()
    dense |= dict.fromkeys(domains, 1.0)
    st.dataframe(
        [dense, *rows],
        hide_index=True,
        column_config={
            "run": st.column_config.TextColumn(width="medium", pinned=True),
            "ratio": PERCENT,
            "parameters": st.column_config.NumberColumn(format="localized"),
            "KV cache": st.column_config.NumberColumn(format="localized", help="bytes per token in 16 bit"),
            "accuracy": st.column_config.NumberColumn(
                format="percent", help="change of the average zero-shot accuracy against the dense model"
            ),
            "speed": st.column_config.NumberColumn(
                "speed x",
                format="%.2f",
                help="decoding speed over dense, measured on the Speed tab below",
            ),
            **{
                name: st.column_config.NumberColumn(
                    f"{name} ppl x", format="%.2f", help="perplexity over dense"
                )
                for name in domains
            },
        },
    )
    st.caption(
        "Columns marked x are relative to the dense model (1.00: no change); ppl is perplexity on held-out text. "
        "Accuracy is the change of the average zero-shot accuracy over tasks. Click a column header to sort."
    )


def accuracy(run: Run, results: Results) -> None:
    """Zero-shot accuracy by task with confidence intervals of the change, and the paper's reported figures."""
    if asked := results.zero_shot:
        metrics = [m for m in ("acc", "acc_norm") if any(m in row.measures for row in asked.tasks.values())]
        metric = st.segmented_control(
            "Metric", metrics, default=metrics[0], required=True, key=f"metric-{run.id}"
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
        column_config={
            **dict.fromkeys(("dense", "pruned", "pruned over dense"), TWO_DIGITS),
            **dict.fromkeys(("bits per byte, dense", "bits per byte, pruned"), THREE_DIGITS),
        },
    )
    st.caption(
        f"Held-out text in blocks of {run.config.seq_len} tokens. Bits per byte are comparable across tokenizers."
    )


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
    st.dataframe(lineage(run, runs), hide_index=True, column_config={"mean perplexity": TWO_DIGITS})
    st.code(report.command(run), language="bash")


def changes(before: RunConfig, after: RunConfig) -> str:
    """The options that differ between two configs, without those set by a changed method's preset."""
    found = [f"method {after.method}"] if before.method != after.method else []
    preset = RunConfig.create(method=after.method)
    for name in RunConfig.model_fields:
        old, new = getattr(before, name), getattr(after, name)
        brought = before.method != after.method and new == getattr(preset, name)
        if old == new or brought or name in ("method", "parent", "experiment"):
            continue
        if isinstance(new, dict):
            new = " ".join(
                f"{key} {value:.0%}" if isinstance(value, float) else key for key, value in new.items()
            )
        found.append(f"{name} {new:.0%}" if name == "ratio" else f"{name} {new}")
    return ", ".join(found) or "no option changed"
