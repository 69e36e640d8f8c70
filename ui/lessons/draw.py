"""What the lessons' figures share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import streamlit as st

from pruning.visualization.style import COLOURS, MARK, graph, has_legend, style
from ui import state

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PREDICTION = "your prediction"
CLASS_FONT = 16  # of figures in class mode
# All buttons together cover the title of a figure of half the page's width; dragging zooms, a double click resets.
CONFIG = state.PLOT | {
    "modeBarButtonsToRemove": [
        *("zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "resetScale2d", "select2d", "lasso2d")
    ]
}


def show(figure: Figure, alt: str, key: str | None = None) -> None:
    """Draw a figure of a lesson, in class mode with larger type."""
    if st.session_state.get("class"):
        figure.update_layout(
            font_size=CLASS_FONT,
            title_font_size=CLASS_FONT + 2,
            legend_font_size=CLASS_FONT,
            margin={"t": 44, "b": 92 if has_legend(figure) else 56},
        )
    st.plotly_chart(figure, alt=alt, config=CONFIG, key=key)


def bars(
    values: Mapping[str, float],
    title: str,
    axis: str,
    guess: float | str | None = None,
    text: str = "%{y:.3g}",
    height: int = 330,
) -> Figure:
    """Bars by name, with a prediction in them: a level for a number, a colour for a name."""
    figure = graph().Figure()
    for name, value in values.items():
        figure.add_bar(
            x=[name],
            y=[value],
            marker_color=MARK if name == guess else COLOURS[0],
            texttemplate=text,
            textposition="outside",
            cliponaxis=False,
            name=PREDICTION,
            showlegend=name == guess,
        )
    figure.update_layout(showlegend=guess is not None)
    figure.update_yaxes(title=axis, rangemode="tozero")
    if isinstance(guess, int | float):
        predicted(figure, float(guess))
    return style(figure, title, height)


def predicted(figure: Figure, value: float, name: str = PREDICTION) -> None:
    """A horizontal line where the prediction lies."""
    _line(figure.add_hline, {"y": value}, name)


def upright(figure: Figure, value: float, name: str = PREDICTION, colour: str = MARK) -> None:
    """A vertical line where the prediction lies."""
    _line(figure.add_vline, {"x": value}, name, colour)


def _line(add: Any, where: dict[str, float], name: str, colour: str = MARK) -> None:
    add(**where, line_color=colour, line_dash="dash", line_width=2, name=name, showlegend=True)


def lines(
    rows: Mapping[str, list[float]], title: str, axis: str, x: str = "layer", height: int = 330
) -> Figure:
    """A line for each name, over layers."""
    figure = graph().Figure()
    for name, values in rows.items():
        figure.add_scatter(x=list(range(len(values))), y=values, mode="lines+markers", name=name)
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=axis, rangemode="tozero")
    return style(figure.update_layout(showlegend=True), title, height)
