"""Lesson: fluctuation against magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from pruning.models.geometry import Site
from pruning.visualization.style import COLOURS, graph, log_ticks, site_style, style
from ui.lessons.ask import ask, dense_stats
from ui.lessons.draw import bars
from ui.lessons.shape import Guess, Lesson, Reveal, Value

LARGE, SMALL = "the large, constant one", "the small, busy one"
CONSTANT = 3  # standard deviations of a mean, from which a channel is called constant
SITES = ("0.attn", "1.attn", "3.attn", "3.mlp")


def pair(site: Site) -> tuple[int, int, dict[str, np.ndarray]]:
    """A large, constant channel of the demo model, a smaller, busier one, and the arrays (C,) that say so.

    The first has the highest steadiness among the tenth of the channels with the largest root mean
    square output; the second has the highest fluctuation among those whose output is less than half as large.
    """
    stats = dense_stats("demo")[site]
    size, busy = np.sqrt(stats.mean_square) * stats.norm, np.sqrt(stats.variance) * stats.norm
    big = np.argsort(size)[::-1][: len(size) // 10]
    steady = stats.steadiness
    constant = int(big[np.argmax(steady[big])])
    smaller = np.flatnonzero(size < size[constant] / 2)
    return (
        constant,
        int(smaller[np.argmax(busy[smaller])]),
        {"size": size, "busy": busy, "mean": stats.mean, "steady": steady},
    )


def _controls() -> dict[str, Any]:
    left, right = st.columns(2)
    site = left.selectbox("Module", SITES, format_func=_name, key="learn-fluctuation-site")
    repair = right.segmented_control(
        "In place of the channel",
        ("bias", "none"),
        default="bias",
        required=True,
        key="learn-fluctuation-repair",
        format_func={"bias": "its mean, as a bias", "none": "nothing"}.__getitem__,
    )
    return {"site": site, "repair": repair}


def _name(site: str) -> str:
    layer, name = Site.parse(site)
    return f"layer {layer}, {site_style(name).label}"


def _measure(site: str, repair: str) -> dict[str, Any]:
    constant, busy, _ = pair(Site.parse(site))
    return ask("lose", site=site, channels=[constant, busy])


def _reveal(results: dict[str, Any], guess: Value | None, site: str, repair: str) -> Reveal:
    constant, busy, values = pair(Site.parse(site))
    steady = values["steady"][constant]
    large, small = (LARGE, SMALL) if steady >= CONSTANT else ("the large one", "the small one")
    costs = {large: 1000 * results[str(constant)][repair], small: 1000 * results[str(busy)][repair]}
    cheaper = min(costs, key=lambda name: costs[name])
    how = "its mean kept as a bias" if repair == "bias" else "nothing in its place"
    figure = bars(costs, f"Cost of removing it, {how}", "0.001 nats per token", guess)
    cloud = graph().Figure()
    cloud.add_scatter(
        x=values["size"],
        y=values["busy"],
        mode="markers",
        marker={"size": 5, "color": COLOURS[0]},
        name="all",
    )
    for channel, name, symbol, colour in (
        (constant, large, "diamond", COLOURS[2]),
        (busy, small, "star", COLOURS[1]),
    ):
        cloud.add_scatter(
            x=[values["size"][channel]],
            y=[values["busy"][channel]],
            mode="markers",
            marker={"size": 14, "symbol": symbol, "color": colour},
            name=name,
        )
    log_ticks(cloud.update_xaxes, values["size"])
    log_ticks(cloud.update_yaxes, values["busy"])
    cloud.update_xaxes(title="root mean square x weight norm")
    cloud.update_yaxes(title="deviation x norm")
    style(cloud, f"Magnitude (across) and fluctuation, {_name(site)}", 330)
    rank = {name: int((values[key] > values[key][constant]).sum()) + 1 for name, key in _KEYS.items()}
    return Reveal(
        cheaper,
        f"Channel {constant} is rank {rank['magnitude']} of {len(values['size'])} by magnitude and rank "
        f"{rank['fluctuation']} by fluctuation; its mean is {values['mean'][constant]:.2f}, "
        f"{steady:.1f} standard deviations from zero. Without it "
        f"the predictions move by {1000 * results[str(constant)]['bias']:.3f} thousandths of a nat where its mean stays as "
        f"a bias, and by {1000 * results[str(constant)]['none']:.3f} where nothing replaces it. For channel {busy}, less than half "
        f"as large, it is {1000 * results[str(busy)]['bias']:.3f} and {1000 * results[str(busy)]['none']:.3f}."
        + (" In this module no large channel is constant." if steady < CONSTANT else ""),
        [
            (figure, "Cost of removing each of two channels, with the prediction"),
            (cloud, "Magnitude and fluctuation of all channels of the module, with the two marked"),
        ],
    )


_KEYS = {"magnitude": "size", "fluctuation": "busy"}

LESSON = Lesson(
    key="fluctuation",
    title="Fluctuation against magnitude",
    question="Which channel can go: a large one that never changes, or a small one that does?",
    before=(
        "Two channels feed the attention output of layer 0. One is **large but constant**: about the same value for "
        "every token. The other is **small but busy**: less than half as large, but different from token to token. One of "
        "them is removed, and what it added *on average* stays as a constant, a **bias**. Then we measure how far the "
        "model's predictions move (their KL divergence from the dense model's)."
    ),
    guess=Guess("Which removal moves the predictions less?", options=(LARGE, SMALL)),
    first={"site": SITES[0], "repair": "bias"},
    controls=_controls,
    measure=_measure,
    reveal=_reveal,
    remember=(
        "What is constant can be replaced by a constant, however large it is: this is why the score is variance times squared "
        "weight norm, not size. This holds only because a bias replaces the mean: remove the same channel without it "
        "and its size counts again."
    ),
    go=("pages/importance.py", "Compare 'fluctuation score' and 'root mean square' on the Importance page"),
)
