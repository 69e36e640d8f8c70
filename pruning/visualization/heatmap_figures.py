"""Layers by channels drawn: heatmaps that fit the screen, can be clicked, and play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.formatting import sentence
from pruning.visualization.style import (
    DIVERGING,
    GONE,
    KIND_NAMES,
    MARK,
    MAX_POINTS,
    SEQUENTIAL,
    Array,
    graph,
    style,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


from pruning.visualization.heatmaps import Heatmap, colour_limits, height_of


def importance_figure(
    data: Heatmap,
    title: str = "",
    limits: tuple[float, float] | None = None,
    height: int | None = None,
    choosable: bool = False,
    chosen: tuple[int, int] | None = None,
) -> Figure:
    """A heatmap of layers by channels; what is gone is grey.

    Args:
        data: from `importance_data` or `mask_map_data`.
        title: says what to see.
        limits: ends of the colour scale, to be the same over iterations; by default the 1st and 99th
            percentile of these values.
        height: in pixels; by the number of layers when left out.
        choosable: lays an invisible marker on every cell, because cells of a heatmap cannot be selected; it
            tells the rank and what is kept as well.
        chosen: layer and channel to mark.
    """
    go = graph()
    low, high = limits or colour_limits([data])
    near = f"layer %{{y}}, {data.unit} near %{{x:.0f}}"
    figure = go.Figure(
        go.Heatmap(
            z=data.values,
            x=data.columns,
            y=data.rows,
            zmin=low,
            zmax=high,
            colorscale=DIVERGING if data.diverging else SEQUENTIAL,
            colorbar={"title": {"text": data.what, "side": "right"}, "thickness": 12},
            hoverongaps=False,
            hovertemplate=f"{near}<br>{data.what} %{{z:.3f}}<extra></extra>",
        )
    )
    if choosable and data.values.size <= MAX_POINTS:
        figure.update_traces(hoverinfo="skip", hovertemplate=None)
        figure.add_trace(_markers(data))
    if chosen is not None and chosen[0] in data.rows and data.first[0] <= chosen[1] <= data.last[-1]:
        figure.add_scatter(
            x=[chosen[1]],
            y=[chosen[0]],
            mode="markers",
            marker={"symbol": "circle-open", "size": 15, "color": MARK, "line": {"width": 3}},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.update_yaxes(
        range=[data.rows[-1] + 0.5, data.rows[0] - 0.5],
        showgrid=False,
        title="layer",
        dtick=max(1, len(data.values) // 12),
    )
    figure.update_xaxes(
        range=[data.first[0] - 0.5, data.last[-1] + 0.5],
        showgrid=False,
        title=data.unit + (f", {data.last[0] - data.first[0] + 1} per column" if data.binned else ""),
    )
    style(
        figure,
        title or f"{sentence(data.what)}: {KIND_NAMES[data.kind]}",
        height or height_of(len(data.values)),
    )
    # Streamlit's theme pads the axes: what is gone would frame the figure
    return figure.update_layout(plot_bgcolor=GONE, margin_pad=0)


def _markers(data: Heatmap) -> Any:
    """An invisible marker on every cell: what the pointer meets."""
    shape = data.values.shape
    x, y = np.broadcast_to(data.columns, shape), np.broadcast_to(data.rows[:, None], shape)
    # of the hover, first the channel that a click opens; each number counts where layers have 27,648 channels
    parts: list[Array] = [x if data.peak is None else data.peak]
    template = f"layer %{{y}}, {data.unit} %{{x}}"
    if data.binned:
        parts += [np.broadcast_to(data.first, shape), np.broadcast_to(data.last, shape)]
        template = f"layer %{{y}}, {data.unit}s %{{customdata[1]}} to %{{customdata[2]}}"
    if data.peak is not None and (data.binned or data.ordered):
        template += "<br>largest: channel %{customdata[0]}"
    for array, before, form, after in (
        (data.values, f"{data.what} ", ":.3f", ""),
        (data.rank, "rank ", ":,.0f", ""),
        (data.kept, "", ":.0%", " retained"),
    ):
        if array is not None:
            template += f"<br>{before}%{{customdata[{len(parts)}]{form}}}{after}"
            parts.append(array)
    flat = [part.astype(np.float32).ravel() for part in parts]
    hidden = {"marker": {"opacity": 0}}
    return graph().Scattergl(
        x=x.astype(np.float32).ravel(),
        y=y.astype(np.float32).ravel(),
        customdata=np.stack(flat, axis=1),
        mode="markers",
        marker={"symbol": "square", "size": 9, "opacity": 0},
        selected=hidden,
        unselected=hidden,
        hovertemplate=template + "<extra></extra>",
        showlegend=False,
    )


def animation_figure(
    frames: Mapping[str, Heatmap],
    title: str,
    limits: tuple[float, float] | None = None,
    height: int | None = None,
) -> Figure:
    """Heatmaps of several iterations in one figure with a play button; colours mean the same in all.

    Args:
        frames: by name, in order; all of the same shape, together of at most `MAX_FRAMES` cells.
        title: says what to see.
        limits: ends of the colour scale; from all frames by default.
        height: in pixels; by the number of layers when left out.
    """
    go = graph()
    limits = limits or colour_limits(list(frames.values()))
    first = next(iter(frames.values()))
    figure = importance_figure(first, title, limits, height or height_of(len(first.values), 430))
    figure.frames = [
        go.Frame(name=name, data=[go.Heatmap(z=data.values)], traces=[0]) for name, data in frames.items()
    ]
    still: dict[str, Any] = {"mode": "immediate", "transition": {"duration": 0}}
    play = {**still, "fromcurrent": True, "frame": {"duration": 900, "redraw": True}}
    once = {**still, "frame": {"duration": 0, "redraw": True}}
    buttons = [
        {"label": "Play", "method": "animate", "args": [None, play]},
        {"label": "Pause", "method": "animate", "args": [[None], once]},
    ]
    steps = [{"label": name, "method": "animate", "args": [[name], once]} for name in frames]
    figure.update_layout(
        updatemenus=[
            {"type": "buttons", "direction": "left", "x": 0, "y": -0.3, "yanchor": "top", "buttons": buttons}
        ],
        sliders=[
            {
                "x": 0.2,
                "len": 0.8,
                "y": -0.25,
                "yanchor": "top",
                "steps": steps,
                "currentvalue": {"prefix": ""},
            }
        ],
    )
    return figure.update_layout(margin={"b": 150})
