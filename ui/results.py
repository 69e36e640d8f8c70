"""Results page: summary of one run, and the table of runs."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import streamlit as st

from pruning.errors import CorruptFileError
from pruning.formatting import number, size_text
from pruning.measure.comparison import TaskRow
from pruning.runs.jobs import job
from pruning.runs.report import DIVERGENCE, MeasuredRun
from pruning.runs.run import Run
from pruning.runs.schema import Results
from ui import mixtures, source, state
from ui.navigation import go

RATIO, PERCENT, NATS = (st.column_config.NumberColumn(format=each) for each in ("%.2f", "percent", "%.3f"))
# Columns of the table of runs; the download has more.
COLUMNS = {
    "run": st.column_config.TextColumn(width=300, pinned=True),
    "tags": None,
    "ratio": PERCENT,
    "divergence": st.column_config.NumberColumn(format="%.3f", help=f"{DIVERGENCE}, mean over domains"),
    "Δ divergence": st.column_config.TextColumn(
        help="change of the divergence against the best of these runs, with its 95% interval"
    ),
    "worst": st.column_config.NumberColumn(
        "worst perplexity",
        format="%.2fx",
        help="perplexity over the dense model's, of the domain that lost most",
    ),
    "worst domain": st.column_config.TextColumn("domain", help="the domain that lost most"),
    "mean": st.column_config.NumberColumn(
        "mean perplexity",
        format="%.2fx",
        help="perplexity over the dense model's, geometric mean over domains",
    ),
    "Δ perplexity": st.column_config.TextColumn(
        help="change of the mean perplexity against the best of these runs, with its 95% interval"
    ),
    "accuracy": st.column_config.NumberColumn(
        format="percent", help="change of the average zero-shot accuracy against the dense model"
    ),
    "tasks": None,
    "size": st.column_config.NumberColumn(format="percent", help="parameters kept, of the dense model's"),
    "KV cache": st.column_config.NumberColumn(
        "KV bytes", format="localized", help="KV cache in bytes per token, in 16 bit"
    ),
    "speed": st.column_config.NumberColumn(format="%.2fx", help="decoding speed over dense"),
}


def row(run: Run, results: Results, best: Results | None = None) -> dict[str, Any]:
    """Table row of a run: settings, sizes, and perplexities relative to the dense model.

    Args:
        run: a finished run.
        results: its results.
        best: results of the best run among comparable ones; None without comparison.
    """
    answers, size = results.zero_shot, results.parameters
    average = answers.average if answers else TaskRow()
    worst, worst_ratio = results.worst or (None, None)
    measured = MeasuredRun(run, results)
    other = MeasuredRun(run, best) if best and best is not results else None
    diverged, rise = other and measured.rise(other, "divergence"), other and measured.rise(other)
    return {
        "run": state.label(run),
        "tags": ", ".join(run.config.tags),
        "ratio": results.achieved_ratio,
        "divergence": results.mean_divergence.value if results.mean_divergence else None,
        "Δ divergence": diverged.text("divergence") if diverged else None,
        "worst": worst_ratio,
        "worst domain": worst,
        "mean": results.mean.ratio if results.mean else None,
        "Δ perplexity": rise.text("perplexity") if rise else None,
        "accuracy": average.acc.delta if average.acc else None,
        "items": items(average),
        "tasks": ", ".join(answers.tasks) if answers else "",
        # a prefix, as a domain may be called "size"
        **{f"divergence {name}": rise.value for name, rise in results.divergence.items() if name != "mean"},
        **{f"perplexity {name}": pair.ratio for name, pair in results.domains.items()},
        "parameters": size.pruned,
        "size": size.pruned / size.dense,
        "KV cache": cache_bytes(run),
        "speed": measured_speed(run),
        "method": run.config.method,
        "iterations": run.config.iterations,
    }


def items(task: TaskRow) -> str | None:
    """The number of evaluated items; `first N` if a limit was set."""
    return f"first {task.limit}" if task.limit else f"{task.items}" if task.items else None


def cache_bytes(run: Run) -> int | None:
    """KV cache bytes per token of the pruned model in 16 bit; None where its mask is corrupt or missing."""
    with contextlib.suppress(CorruptFileError, IndexError):
        return 2 * run.iterations()[-1].mask.pruned.cache_values
    return None


def measured_speed(run: Run) -> float | None:
    """Decoding speed relative to the dense model; None if it was not measured on the Speed tab."""
    cells = job(state.store(), f"bench-{run.id}").output.get("speed", [])
    medians = [cell["decode"]["median"] for cell in cells if cell["batch"] == 1]
    return medians[1] / medians[0] if len(medians) > 1 else None


def table(rows: list[dict[str, Any]]) -> None:
    """The table of runs with the columns that have values."""
    st.dataframe(
        [{name: row[name] for name in COLUMNS} for row in rows],
        hide_index=True,
        column_order=[name for name in COLUMNS if any(row[name] not in (None, "") for row in rows)],
        placeholder="",
        column_config={name: column for name, column in COLUMNS.items() if column},
    )


def lead(run: Run, results: Results) -> None:
    """What a run kept, what it saved, and what to do next."""
    kept, saved, following = (column.container(border=True, height="stretch") for column in st.columns(3))
    with kept:
        st.markdown("**Kept**")
        if mean := results.mean_divergence:
            spread = f"± {mean.interval:.3f}" if math.isfinite(mean.interval) else None
            st.metric(
                "Divergence, nats per token",
                number(mean.value, 3),
                spread,
                delta_color="off",
                delta_arrow="off",
                help=f"{DIVERGENCE}: mean over domains, with its 95% interval over blocks of held-out text.",
            )
        left, right = st.columns(2)
        if results.worst and results.mean:
            domain, ratio = results.worst
            left.metric(
                f"Worst: {domain}",
                f"{number(ratio)}x",
                help="Perplexity over the dense model's of the domain that lost most.",
            )
            right.metric(
                "Mean",
                f"{number(results.mean.ratio)}x",
                help="Geometric mean over domains of perplexity over dense.",
            )
            st.caption("Perplexity over the dense model's: 1.00x is no loss.")
        else:
            st.caption("Perplexity was not measured.")
        if results.zero_shot and (accuracy := results.zero_shot.average.acc):
            st.caption(
                f"Zero-shot accuracy {accuracy.dense:.1%} → {accuracy.pruned:.1%}, {len(results.zero_shot.tasks)} tasks; "
                "chance is in the figure below."
            )
        else:
            st.caption("Zero-shot tasks were not evaluated.")
    with saved:
        st.markdown("**Saved**")
        before, after = results.parameters.dense, results.parameters.pruned
        left, right = st.columns(2)
        left.metric(
            "Weights", size_text(2 * after), f"{after / before - 1:.0%}", delta_color="off", help="In 16 bit."
        )
        if run.geometry and (cache := cache_bytes(run)):
            dense = 2 * run.geometry.cache_values
            change = f"{cache / dense - 1:.0%}" if cache != dense else None
            right.metric(
                "KV cache", size_text(cache), change, delta_color="off", help="Per token, in 16 bit."
            )
        speed = measured_speed(run)
        st.caption(
            f"Decoding {speed:.2f} times as fast as dense, measured on this machine."
            if speed
            else "Speed is not measured yet: see the Speed tab below."
        )
    with following:
        st.markdown("**Next**")
        more = min(90, round(100 * run.config.ratio) + 10)
        st.button(
            "Export it", icon=":material/download:", width="stretch", on_click=_show_tab, args=(run, "Export")
        )
        if st.button(
            f"Prune further ({more}%)",
            icon=":material/content_cut:",
            width="stretch",
            on_click=_settings_of,
            args=(run, more),
            help="Opens the Prune page with the settings of this run and this ratio; a new run begins at the dense model.",
        ):
            go("pages/prune.py")
        if st.button(
            "Another mixture",
            icon=":material/tune:",
            width="stretch",
            on_click=_settings_of,
            args=(run, None),
            help="Opens the Masks page with the settings of this run: move the mixture and compare with the run's mask.",
        ):
            st.session_state.other = mixtures.OWN
            go("pages/masks.py")


def _show_tab(run: Run, name: str) -> None:
    st.session_state[f"tab-{run.id}"] = name


def _settings_of(run: Run, ratio: int | None) -> None:
    """Callback: display a run, and put its settings into the sidebar, with another ratio in percent if given."""
    source.copy(run, state.domain_names(run))
    st.session_state.run = run.id
    if ratio:
        st.session_state.ratio = ratio
