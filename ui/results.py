"""Helpers of the Results page: what runs kept and saved, side by side, and the table of all finished ones."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pruning.formatting import number, size_text
from pruning.measure.comparison import TaskRow
from pruning.runs.jobs import job
from pruning.runs.run import Run
from pruning.runs.schema import Results
from ui import mixtures, source, state
from ui.navigation import go

PERCENT = st.column_config.NumberColumn(format="percent")


def worst(results: Results) -> tuple[str, float] | None:
    """The domain that lost most, and its perplexity over the dense model's; None where none was measured."""
    found = {name: pair.ratio for name, pair in results.perplexity.items() if name != "mean"}
    return max(found.items(), key=lambda item: item[1]) if found else None


def row(run: Run, results: Results) -> dict[str, Any]:
    """A table row of a run: settings, sizes, and perplexities relative to the dense model."""
    asked = results.zero_shot
    average = asked.average if asked else TaskRow()
    perplexities = {name: pair.ratio for name, pair in results.perplexity.items()}
    lost, size = worst(results), results.parameters
    return {
        "run": state.label(run),
        "tags": ", ".join(run.config.tags),
        "ratio": results.achieved_ratio,
        "worst": lost[1] if lost else None,
        "worst domain": lost[0] if lost else None,
        "mean": perplexities.pop("mean", None),
        "accuracy": average.acc.delta if average.acc else None,
        "items": items(average),
        "tasks": ", ".join(asked.tasks) if asked else "",
        **{
            f"perplexity {name}": ratio for name, ratio in perplexities.items()
        },  # a domain may be called "left"
        "parameters": size.pruned,
        "left": size.pruned / size.dense,
        "KV cache": cache_bytes(run),
        "speed": measured_speed(run),
        "method": run.config.method,
        "iterations": run.config.iterations,
    }


def items(row: TaskRow) -> str | None:
    """The number of evaluated items; `first N` if a limit was set."""
    return f"first {row.limit}" if row.limit else f"{row.items}" if row.items else None


def cache_bytes(run: Run) -> int:
    """KV cache bytes per token of the pruned model in 16 bit."""
    return 2 * run.iterations()[-1].mask.pruned.cache_values


def measured_speed(run: Run) -> float | None:
    """Decoding speed relative to the dense model; None if it was not measured on the Speed tab."""
    cells = job(state.store(), f"bench-{run.id}").output.get("speed", [])
    medians = [cell["decode"]["median"] for cell in cells if cell["batch"] == 1]
    return medians[1] / medians[0] if len(medians) > 1 else None


def table(rows: list[dict[str, Any]]) -> None:
    """The table of all runs, the columns that decide; the download has the others."""
    columns = [
        "run",
        "tags",
        "ratio",
        "worst",
        "worst domain",
        "mean",
        "accuracy",
        "tasks",
        "left",
        "KV cache",
        "speed",
    ]
    rows = [{name: row[name] for name in columns} for row in rows]
    shown = [name for name in columns if any(row[name] not in (None, "") for row in rows)]
    helps = {
        "worst": "perplexity over dense of the domain that lost most",
        "mean": "geometric mean over domains",
    }
    st.dataframe(
        rows,
        hide_index=True,
        column_order=shown,
        placeholder="",
        column_config={
            "run": st.column_config.TextColumn(width=300, pinned=True),
            "ratio": PERCENT,
            "worst domain": st.column_config.TextColumn("domain", help="the domain that lost most"),
            "left": st.column_config.NumberColumn(
                format="percent", help="parameters left, of the dense model's"
            ),
            "KV cache": st.column_config.NumberColumn(format="localized", help="bytes per token in 16 bit"),
            "accuracy": st.column_config.NumberColumn(
                format="percent", help="change of the average zero-shot accuracy against the dense model"
            ),
            "speed": st.column_config.NumberColumn(
                "speed x", format="%.2f", help="decoding speed over dense"
            ),
            **{
                name: st.column_config.NumberColumn(f"{name} ppl x", format="%.2f", help=words)
                for name, words in helps.items()
            },
        },
    )
    st.caption(
        "ppl x: perplexity on held-out text over the dense model's (1.00: no change). A click on a header sorts."
    )


def lead(run: Run, results: Results) -> None:
    """What a run kept, what it saved, and what to do next."""
    kept, saved, following = st.columns(3)
    with kept.container(border=True, height="stretch"):
        st.markdown("**Kept**")
        left, right = st.columns(2)
        if (lost := worst(results)) and results.mean:
            left.metric(
                f"Worst: {lost[0]}",
                f"x {number(lost[1])}",
                help="Perplexity over the dense model's of the domain that lost most.",
            )
            right.metric(
                "Mean",
                f"x {number(results.mean.ratio)}",
                help="Geometric mean over domains of perplexity over dense.",
            )
            st.caption("Perplexity over the dense model's: x 1.00 is no loss.")
        else:
            st.caption("Perplexity was not measured.")
        asked = results.zero_shot
        if asked and asked.average.acc:
            found = asked.average.acc
            st.caption(
                f"Zero-shot accuracy {found.dense:.1%} → {found.pruned:.1%}, {len(asked.tasks)} tasks; chance is in the "
                "figure below."
            )
        else:
            st.caption("Zero-shot tasks were not evaluated.")
    with saved.container(border=True, height="stretch"):
        st.markdown("**Saved**")
        before, after = results.parameters.dense, results.parameters.pruned
        left, right = st.columns(2)
        left.metric(
            "Weights", size_text(2 * after), f"{after / before - 1:.0%}", delta_color="off", help="In 16 bit."
        )
        cache = cache_bytes(run)
        if cache and run.geometry:
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
    with following.container(border=True, height="stretch"):
        st.markdown("**Next**")
        more = min(90, round(100 * run.config.ratio) + 10)
        st.button(
            "Export it", icon=":material/download:", width="stretch", on_click=_show_tab, args=(run, "Export")
        )
        if st.button(
            f"Cut more: {more}%",
            icon=":material/content_cut:",
            width="stretch",
            on_click=_from_here,
            args=(run, more),
            help="Opens the Prune page with the settings of this run and this ratio; a new run begins at the dense model.",
        ):
            go("pages/prune.py")
        if st.button(
            "Another mixture",
            icon=":material/tune:",
            width="stretch",
            on_click=_from_here,
            args=(run, None),
            help="Opens the Masks page with the settings of this run: move the mixture and compare with the run's mask.",
        ):
            st.session_state.other = mixtures.OWN
            go("pages/masks.py")


def _show_tab(run: Run, name: str) -> None:
    st.session_state[f"tab-{run.id}"] = name


def _from_here(run: Run, ratio: int | None) -> None:
    """Callback: the settings of a run in the sidebar, and the run on view."""
    source.copy(run, state.domain_names(run))
    st.session_state.run = run.id
    if ratio:
        st.session_state.ratio = ratio
