"""The look that all figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pruning.models.geometry import Geometry

Array = np.ndarray
Aggregate = Literal["max", "mean"]
MAX_BINS = 512  # columns of a heatmap: 64 layers of these are 128 KiB on the wire
MAX_SORTED = 4_000_000  # channels whose ranks are worth their time
MAX_POINTS = 30_000  # cells that can be chosen by a click, with five numbers for the hover: 0.7 MB
MAX_FRAMES = 250_000  # cells of all frames of an animation: 1 MB

# One palette for everything; readable on light and dark, and without red-green vision.
SEQUENTIAL = "Cividis"
DIVERGING = (  # ColorBrewer's RdBu, reversed; the live canvas has the same
    *("#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7"),
    *("#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"),
)
COLOURS = ("#2a78b5", "#e07b39", "#3f9b6f", "#b0518f", "#8c7a3d", "#5d6bb0", "#c2483d", "#4aa3a3")
GREY = "rgba(128,128,128,0.35)"
REMOVED = "rgba(128,128,128,0.5)"  # channels that are removed: on both themes unlike the ends of both scales
MARK = "#e8365d"  # the selected channel; visible on every colour of both scales


class SiteStyle(NamedTuple):
    """How pages and figures name and draw the sites of one name, which are the same module of every layer.

    Attributes:
        label: name of the module within a sentence.
        unit, units: what an entry of its masks is, and several of them.
        colour: of its bars and marks.
    """

    label: str
    unit: str
    units: str
    colour: str


SITE_STYLES = {
    "attn": SiteStyle("attention", "query head", "query heads", COLOURS[0]),
    "mlp": SiteStyle("MLP", "MLP channel", "MLP channels", COLOURS[1]),
}


def site_style(name: str) -> SiteStyle:
    """The style of the sites of a name; one without an entry in `SITE_STYLES` gets its own name as label."""
    return SITE_STYLES.get(name) or SiteStyle(name, f"{name} channel", f"{name} channels", COLOURS[2])


def site_names(geometry: Geometry) -> list[str]:
    """Names of the sites of a model, in the order in which a layer computes them."""
    return list(dict.fromkeys(site.name for site in geometry.sites))


def style(figure: Figure, title: str, height: int = 360) -> Figure:
    """The look that all figures share: a title that says what to see, transparent paper, quiet grid."""
    figure.update_layout(
        title={"text": title, "x": 0, "xanchor": "left", "font": {"size": 15}},
        height=height,
        margin={"l": 60, "r": 20, "t": 56, "b": 84 if has_legend(figure) else 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        colorway=COLOURS,
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(gridcolor=GREY, zeroline=False)
    figure.update_yaxes(gridcolor=GREY, zeroline=False)
    return figure


def level(figure: Figure, y: float, name: str) -> None:
    """A dotted line across the figure that the legend names: a label beside it would lie on bars."""
    figure.add_hline(y=y, line_dash="dot", line_color="grey", name=name, showlegend=True)
    figure.update_layout(showlegend=True)


def log_ticks(axis: Any, values: Array, most: int = 9) -> None:
    """Full numbers at 1, 2 and 5 times the powers of ten, or finer; plotly's own leave out the zeros."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return
    low, high = np.log10(positive.min()) - 0.3, np.log10(positive.max()) + 0.3
    powers = 10.0 ** np.arange(np.floor(low), np.ceil(high) + 1)
    for steps in (np.arange(1, 10, 0.5), np.arange(1, 10), (1, 2, 5), (1, 3), (1,)):
        ticks = np.sort(np.outer(powers, steps).ravel())
        ticks = ticks[(np.log10(ticks) >= low) & (np.log10(ticks) <= high)]
        if len(ticks) <= most:
            break
    axis(type="log", tickvals=ticks, ticktext=[f"{tick:,.10g}" for tick in ticks])


def has_legend(figure: Figure) -> bool:
    """Whether a figure tells more than one trace apart."""
    if figure.layout.showlegend is not None:
        return bool(figure.layout.showlegend)
    named = [trace for trace in figure.data if trace.showlegend is not False and trace.type != "heatmap"]
    return len(named) > 1


def graph() -> Any:
    """plotly.graph_objects, imported when the first figure is drawn."""
    import plotly.graph_objects

    return plotly.graph_objects
