"""Figures of results: perplexity, accuracy, retention, trade-offs, experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.measure.comparison import TaskRow
from pruning.measure.significance import interval
from pruning.runs.report import CHANCE, Retained, axis_title, item_limits, rise
from pruning.visualization.style import COLOURS, GREY, Array, graph, level, log_ticks, style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pruning.runs.folder import StoredIteration
    from pruning.runs.schema import Results


def perplexity_data(iterations: Sequence[StoredIteration]) -> dict[str, tuple[Array, Array]]:
    """Iteration numbers and perplexities by domain, with their geometric mean as `mean`."""
    numbers = np.array([iteration.number for iteration in iterations])
    values = [{name: p.value for name, p in it.metrics.perplexity.items()} for it in iterations]
    names = list(values[0]) if values else []
    data = {name: (numbers, np.array([v[name] for v in values])) for name in names}
    if len(names) > 1:  # geometric, as everywhere
        data["mean"] = (numbers, np.exp(np.mean([np.log(series) for _, series in data.values()], axis=0)))
    return data


def perplexity_figure(data: Mapping[str, tuple[Array, Array]], title: str = "", height: int = 360) -> Figure:
    """Perplexity by iteration, a line a domain, the dense model at 0."""
    go = graph()
    figure = go.Figure()
    for name, (numbers, values) in data.items():
        mean = name == "mean"
        figure.add_scatter(
            x=numbers,
            y=values,
            name=name,
            mode="lines+markers",
            line={"width": 3.5 if mean else 1.8, "dash": "dash" if mean else "solid"},
            hovertemplate=f"{name}, iteration %{{x}}: %{{y:.2f}}<extra></extra>",
        )
    last = max((int(numbers[-1]) for numbers, _ in data.values()), default=0)
    # of its own accord plotly puts a single point between iteration -1 and 1
    figure.update_xaxes(title="iteration (0 is the dense model)", dtick=1, range=(-0.1, max(last, 1) + 0.1))
    figure.update_yaxes(title="perplexity on held-out text (log)")
    log_ticks(figure.update_yaxes, np.concatenate([values for _, values in data.values()] or [np.empty(0)]))
    return style(figure, title or "Perplexity by iteration and domain", height)


def tradeoff_figure(
    runs: Mapping[str, tuple[float, float, str]], of: str = "worst domain", title: str = "", height: int = 340
) -> Figure:
    """Runs by parameters kept and perplexity; a line joins the Pareto-optimal runs.

    Args:
        runs: by label the share of the dense model's parameters kept, a perplexity over the dense model's,
            and the method, which gives the colour.
        of: name of the perplexity.
        title: title of the figure.
        height: height in pixels.
    """
    figure = graph().Figure()
    methods = list(dict.fromkeys(method for _, _, method in runs.values()))
    points = sorted({(size, cost) for size, cost, _ in runs.values()})
    front = [p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)]
    figure.add_scatter(
        x=[x for x, _ in front],
        y=[y for _, y in front],
        mode="lines",
        name="no other run beats these",
        line={"color": GREY, "dash": "dot"},
    )
    for number, method in enumerate(methods):
        rows = [(label, *value[:2]) for label, value in runs.items() if value[2] == method]
        figure.add_scatter(
            x=[x for _, x, _ in rows],
            y=[y for _, _, y in rows],
            mode="markers",
            name=method,
            marker={"size": 11, "color": COLOURS[number % len(COLOURS)]},
            customdata=[[label] for label, _, _ in rows],
            hovertemplate=f"%{{customdata[0]}}<br>%{{x:.1%}} kept, {of} %{{y:.2f}}x<extra></extra>",
        )
    figure.update_xaxes(title="parameters kept, of the dense model's", tickformat=".0%")
    figure.update_yaxes(title=f"perplexity over dense, {of}")
    log_ticks(figure.update_yaxes, np.array([cost for _, cost, _ in runs.values()]))
    return style(figure, title or f"Size against {of}", height)


def domain_cost_figure(runs: Mapping[str, Results], height: int = 340) -> Figure:
    """Divergence from the dense model by domain and run; perplexity over dense where some did not measure it.

    Args:
        runs: results by label.
        height: height in pixels.
    """
    figure = graph().Figure()
    by_divergence = all(results.divergence for results in runs.values())
    for label, results in runs.items():
        if by_divergence:
            costs = {name: rise.value for name, rise in results.divergence.items()}
            spread = [rise.interval for rise in results.divergence.values()]
        else:
            costs, spread = {name: pair.ratio for name, pair in results.perplexity.items()}, []
        figure.add_bar(
            name=label,
            x=list(costs),
            y=[cost if np.isfinite(cost) else None for cost in costs.values()],
            error_y={"array": [half if np.isfinite(half) else 0 for half in spread]},
            hovertemplate="%{x}: %{y:.3f}<extra>" + label + "</extra>",
        )
    if by_divergence:
        figure.update_yaxes(title="KL, nats per token, 95% interval")
        return style(figure, "Divergence from the dense model by domain", height)
    level(figure, 1, "dense")
    figure.update_yaxes(title="perplexity over dense")
    return style(figure, "Perplexity over dense by domain", height)


def experiment_figure(
    frame: Any, title: str, x: str | None, series: Sequence[str], metric: str = "perplexity", of: str = "mean"
) -> Figure:
    """A grid's means as lines over an option, or as bars, with every seed as a point.

    Args:
        frame: the tidy frame of its runs.
        title: title of the figure.
        x: option along the axis; None draws a bar for each value of the first of `series`.
        series: options that distinguish lines or bars; those with one value are left out.
        metric: divergence, perplexity, bits_per_byte, acc or acc_norm.
        of: the `mean` over domains or tasks, a line for `each` of them, or the name of one.
    """
    go = graph()
    measured = frame[frame["metric"] == metric]
    rows = rise(measured, of)
    x = x or series[0]
    rows = rows[rows["value"].notna()]
    infinite = int(np.isinf(rows["value"]).sum())  # a mean with one of them is infinite, and not drawn
    apart = dict.fromkeys((*(["name"] if of == "each" else []), *series, "ratio"))
    names = [name for name in apart if name != x and rows[name].nunique() > 1]
    label = (
        rows[names].apply(lambda row: ", ".join(map(_cell, names, row)), axis=1)
        if names
        else [""] * len(rows)
    )
    lines = rows[x].dtype.kind in "iuf"
    figure = go.Figure()
    for number, (name, group) in enumerate(rows.assign(label=label).groupby("label")):
        colour = COLOURS[number % len(COLOURS)]
        means = group.groupby(x)["value"].mean()
        shared = {
            "x": means.index,
            "y": means,
            "name": str(name),
            "legendgroup": str(name),
            "showlegend": bool(name),
        }
        if lines:
            figure.add_scatter(**shared, mode="lines", line_color=colour)
        else:
            figure.add_bar(**shared, marker_color=colour, opacity=0.6, offsetgroup=str(number))
        figure.add_scatter(
            x=group[x],
            y=group["value"],
            customdata=group[["seed"]],
            mode="markers",
            marker={"color": colour, "size": 7, "line": {"width": 1, "color": "white"}},
            legendgroup=str(name),
            showlegend=False,
            offsetgroup=None if lines else str(number),
            hovertemplate=f"{x} %{{x}}: %{{y:.3f}}, seed %{{customdata[0]}}<extra>{name}</extra>",
        )
    figure.update_layout(scattermode="overlay" if lines else "group", barmode="group")
    figure.update_xaxes(title=x)
    if lines and x == "samples":
        figure.update_xaxes(type="log", tickvals=sorted(set(rows[x])))
    missing = f"; {infinite} infinite values not drawn" if infinite else ""
    figure.update_yaxes(title=axis_title(metric, of, item_limits(measured)) + missing)
    return style(figure, title, 420)


def _cell(name: str, value: Any) -> str:
    if name == "ratio" or name.startswith("share_"):
        return f"{value:.0%}"
    return f"iterations = {value}" if name == "iterations" else str(value)


def retention_figure(runs: Mapping[str, Sequence[Retained]], height: int = 340) -> Figure:
    """Retention of each capability, pruned over dense, for one run or several.

    Args:
        runs: by label the rows of `report.retention`.
        height: height in pixels.
    """
    figure = graph().Figure()
    for number, (label, retention) in enumerate(runs.items()):
        for source, pattern in (("text", ""), ("tasks", "/")):
            rows = [row for row in retention if row.source == source]
            if not rows:
                continue
            ratio = "perplexity, dense over pruned" if source == "text" else "accuracy, pruned over dense"
            figure.add_bar(
                x=[row.capability for row in rows],
                y=[row.value for row in rows],
                error_y={
                    "array": [interval(row.standard_error or 0) for row in rows],
                    "visible": source == "tasks",
                },
                name=f"{label}: {source}" if len(runs) > 1 else f"{source} ({ratio})",
                marker={"color": COLOURS[number % len(COLOURS)], "pattern": {"shape": pattern}},
                customdata=[
                    [", ".join(row.of) + (f" (first {row.limit})" if row.limit else "")] for row in rows
                ],
                hovertemplate=f"%{{x}}: %{{y:.1%}} {ratio}<br>%{{customdata[0]}}<extra>{label}</extra>",
            )
    level(figure, 1, "dense")
    figure.update_yaxes(title="pruned over dense", tickformat=".0%")
    return style(figure, "Retained performance by capability", height)


def accuracy_levels_figure(tasks: Mapping[str, TaskRow], metric: str = "acc", height: int = 340) -> Figure:
    """Accuracy of the dense and the pruned model by task, beside the accuracy of guessing.

    Args:
        tasks: rows by name of the task.
        metric: `acc` or `acc_norm`; a task without it shows the one it has.
        height: height in pixels.
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
        metric: `acc` or `acc_norm`; a task without it shows the one it has, by name.
        height: height in pixels.
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
            error_x={
                # a single item gives no error
                "array": [100 * row.interval if np.isfinite(row.interval) else 0.0 for _, _, row in rows],
                "thickness": 1.5,
            },
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
