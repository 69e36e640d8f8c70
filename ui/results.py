"""What the Results page says of finished runs: the table of all, one run's measures, and where it came from."""

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
    """A run as a row: what it was, what it takes, and its perplexities over those of the dense model."""
    average = results.zero_shot.average if results.zero_shot else TaskRow()
    perplexities = {name: pair.ratio for name, pair in results.perplexity.items()}
    mean = {"mean": perplexities.pop("mean")} if "mean" in perplexities else {}
    return {
        "run": state.label(run),
        "ratio": results.achieved_ratio,
        "K": run.config.iterations,
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
    """How many items were asked; `first N` where a limit cut them short."""
    return f"first {row.limit}" if row.limit else f"{row.items}" if row.items else None


def cache_bytes(run: Run, results: Results) -> int | None:
    """Of one token in the pruned model, in 16 bit."""
    layers = results.iterations[-1].layers
    if run.geometry is None or not layers:
        return None
    return 2 * dataclasses.replace(run.geometry, layers=layers).cache_values


def measured_speed(run: Run) -> float | None:
    """Decoded tokens per second over the dense model's, where the Speed tab was used."""
    cells = job(state.store(), f"bench-{run.id}").output.get("speed", [])
    medians = [cell["decode"]["median"] for cell in cells if cell["batch"] == 1]
    return medians[1] / medians[0] if len(medians) > 1 else None


def table(runs: dict[str, tuple[Run, Results]], rows: list[dict[str, Any]]) -> None:
    """All runs below the dense model, which every figure is held against."""
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
            "KV cache": st.column_config.NumberColumn(format="localized", help="bytes a token in 16 bit"),
            "accuracy": st.column_config.NumberColumn(
                format="percent", help="change of the average zero-shot accuracy"
            ),
            "speed": st.column_config.NumberColumn(
                "speed x",
                format="%.2f",
                help="decoded tokens per second over dense, from the Speed tab below",
            ),
            **{
                name: st.column_config.NumberColumn(f"{name} x", format="%.2f", help="perplexity over dense")
                for name in domains
            },
        },
    )
    st.caption(
        "Columns marked x: over that of the dense model, so perplexity 1.00 would be no loss. Accuracy is the change of "
        "the average over tasks. Click a head to sort."
    )


def accuracy(run: Run, results: Results) -> None:
    """Accuracy by task with the error bars of the change, and the paper's figures beside it."""
    if asked := results.zero_shot:
        metrics = [m for m in ("acc", "acc_norm") if any(m in row.measures for row in asked.tasks.values())]
        metric = st.segmented_control(
            "Metric", metrics, default=metrics[0], required=True, key=f"metric-{run.id}"
        )
        st.plotly_chart(
            viz.accuracy_figure({state.label(run): asked.tasks}, metric),
            alt="Change of accuracy by task",
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
                    "more than noise": found.significant,
                }
                for task, row in rows.items()
                if (found := row.measures.get(metric))
            ],
            hide_index=True,
            column_config=dict.fromkeys(("dense", "pruned", "change", "±"), PERCENT),
        )
        st.caption(
            "± is the 95% interval of the paired difference, item by item. More than noise: McNemar's exact test at 5%; "
            "for the average, a permutation test."
        )
        if asked.average.limit:
            st.warning(
                f"Only the first {asked.average.limit} items of a task were asked: a quick look, not for comparison."
            )
    elif run.config.tasks:
        st.info("The tasks are still being measured, or were interrupted: the Prune page says which.")
    else:
        st.caption("No zero-shot tasks were measured. Switch them on for a new run on the Prune page.")
    st.markdown("**The paper's figures, not ours**")
    content = paper()["main"]
    st.dataframe(
        [
            {"the paper's": key, **dict(zip(content["columns"], values, strict=True))}
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
                "x": pair.ratio,
                "bits per byte, dense": bits[domain].dense if domain in bits else None,
                "bits per byte, pruned": bits[domain].pruned if domain in bits else None,
                "tokens": results.tokens.get(domain),
            }
            for domain, pair in results.perplexity.items()
        ],
        hide_index=True,
        column_config={
            **dict.fromkeys(("dense", "pruned", "x"), TWO_DIGITS),
            **dict.fromkeys(("bits per byte, dense", "bits per byte, pruned"), THREE_DIGITS),
        },
    )
    st.caption(f"Held-out text in blocks of {run.config.seq_len} tokens. Bits per byte compare tokenizers.")


def lineage(run: Run, runs: dict[str, Run]) -> list[dict[str, Any]]:
    """The chain of runs that this one was made from, the first one first, and what was changed each time."""
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
    """The chain of runs that led to this one, and the command that repeats it."""
    st.dataframe(lineage(run, runs), hide_index=True, column_config={"mean perplexity": TWO_DIGITS})
    st.code(report.command(run), language="bash")


def changes(before: RunConfig, after: RunConfig) -> str:
    """What differs between two configs, in words; what a changed method brings with it is left out."""
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
    return ", ".join(found) or "nothing but the defaults"
