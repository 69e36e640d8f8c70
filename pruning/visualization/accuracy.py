"""Zero-shot accuracy: of both models beside chance, and its change with what may be noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pruning.measure.comparison import TaskRow
from pruning.runs.report import CHANCE
from pruning.visualization.style import COLOURS, GREY, graph, style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def accuracy_levels_figure(tasks: Mapping[str, TaskRow], metric: str = "acc", height: int = 340) -> Figure:
    """Accuracy of the dense and the pruned model by task, with what guessing achieves where that is known.

    Args:
        tasks: by name.
        metric: `acc` or `acc_norm`; a task without it shows the one it has.
        height: in pixels.
    """
    figure = graph().Figure()
    names = [name.removeprefix("prunescope_") for name in tasks]
    rows = [task.measure(metric)[1] for task in tasks.values()]
    for label, values, colour in (
        ("dense", [row.dense for row in rows], GREY),
        ("pruned", [row.pruned for row in rows], COLOURS[0]),
    ):
        figure.add_bar(
            x=names,
            y=values,
            name=label,
            marker_color=colour,
            hovertemplate=f"%{{x}}, {label}: %{{y:.1%}}<extra></extra>",
        )
    figure.add_scatter(
        x=names,
        y=[CHANCE.get(name) for name in tasks],
        name="chance",
        mode="markers",
        marker={"symbol": "line-ew", "size": 44, "line": {"width": 2.5, "color": COLOURS[6]}},
        hovertemplate="%{x}, chance: %{y:.0%}<extra></extra>",
    )
    figure.update_yaxes(title=f"zero-shot {metric}", range=[0, 1.02], tickformat=".0%")
    return style(figure, "Zero-shot accuracy by task", height)


def accuracy_figure(
    runs: Mapping[str, Mapping[str, TaskRow]], metric: str = "acc", height: int = 340
) -> Figure:
    """Change of zero-shot accuracy by task with the paired 95% interval; hollow where it may be noise.

    Args:
        runs: by label the `tasks` of `zeroshot.compare`; tasks are in the order of the first run's changes.
        metric: `acc` or `acc_norm`; a task without it shows the one it has, and says so.
        height: in pixels.
    """
    figure = graph().Figure()
    for number, (label, tasks) in enumerate(runs.items()):
        rows = []
        for name, task in tasks.items():
            measure, row = task.measure(metric)
            notes = [measure] * (measure != metric) + ([f"first {task.limit}"] if task.limit else [])
            rows.append((row.delta, f"{name} ({', '.join(notes)})" if notes else name, row))
        rows.sort(key=lambda row: row[:2])
        figure.add_scatter(
            x=[100 * delta for delta, _, _ in rows],
            y=[name for _, name, _ in rows],
            name=label,
            # no error is known where one item was asked
            error_x={"array": [_bar(row.interval) for _, _, row in rows], "thickness": 1.5},
            mode="markers",
            marker={
                "size": 11,
                "color": COLOURS[number % len(COLOURS)],
                "symbol": ["circle" if row.significant else "circle-open" for _, _, row in rows],
            },
            offsetgroup=str(number),
            customdata=[[100 * row.dense, 100 * row.pruned] for _, _, row in rows],
            hovertemplate=(
                "%{y}: %{customdata[0]:.1f}% dense, %{customdata[1]:.1f}% pruned, "
                "change %{x:+.1f} percentage points<extra></extra>"
            ),
        )
    figure.add_vline(x=0, line_color="grey", line_dash="dot")
    figure.update_layout(scattermode="group")
    figure.update_xaxes(
        title=f"change of {metric} in percentage points, 95% interval; hollow: not significant"
    )
    return style(figure, "Change of zero-shot accuracy", height)


def _bar(interval: float) -> float:
    """An error bar in points; none where the error is not known."""
    return 100 * interval if np.isfinite(interval) else 0.0
