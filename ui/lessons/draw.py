"""What the lessons' figures share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pruning.visualization.style import COLOURS, GREY, MARK, graph, style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MANY = 3  # bars, of which more are too narrow for words across


def bars(
    values: Mapping[str, float],
    title: str,
    axis: str,
    guess: float | str | None = None,
    text: str = "%{y:.3g}",
    height: int = 330,
) -> Figure:
    """Bars by name, with a prediction in them: a level for a number, a mark over a bar for a name."""
    figure = graph().Figure()
    colours = [MARK if name == guess else COLOURS[0] for name in values]
    figure.add_bar(
        x=list(values),
        y=list(values.values()),
        marker_color=colours,
        texttemplate=text,
        textposition="outside",
        cliponaxis=False,
        showlegend=False,
    )
    figure.update_yaxes(title=axis, rangemode="tozero")
    if isinstance(guess, str) and guess in values:
        figure.add_annotation(
            x=guess,
            y=0,
            yanchor="bottom",
            yshift=4,
            text="your prediction",
            textangle=-90 if len(values) > MANY else 0,
            showarrow=False,
            font={"color": "white"},
        )
    elif isinstance(guess, int | float):
        level(figure, float(guess))
    return style(figure, title, height)


def level(figure: Figure, value: float, name: str = "your prediction") -> None:
    """A horizontal line where the prediction lies."""
    _line(figure.add_hline, {"y": value}, name)


def upright(figure: Figure, value: float, name: str = "your prediction", colour: str = MARK) -> None:
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


def dotted(figure: Figure, y: float, name: str) -> Figure:
    """A level that the legend names."""
    figure.add_hline(y=y, line_dash="dot", line_color=GREY, name=name, showlegend=True)
    return figure.update_layout(showlegend=True)
