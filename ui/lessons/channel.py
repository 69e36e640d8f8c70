"""Lesson: what a channel is."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from pruning.visualization.style import COLOURS, graph, style
from ui.lessons.ask import ask
from ui.lessons.draw import upright
from ui.lessons.shape import Guess, Lesson, Reveal, Value

TEXT = "The river rises in the mountains and flows to the sea."
LAYERS = 6
TOKEN = 9


def _controls() -> dict[str, Any]:
    left, right = st.columns(2)
    layer = left.slider("Layer", 0, LAYERS - 1, 2, key="learn-channel-layer")
    tokens = ask("follow", text=TEXT, layer=layer)["tokens"]
    token = right.select_slider(
        "Token",
        range(len(tokens)),
        TOKEN,
        format_func=lambda i: f"{i}: {tokens[i]!r}",
        key="learn-channel-token",
    )
    return {"layer": layer, "token": token}


def _measure(layer: int, token: int) -> dict[str, Any]:
    return ask("follow", text=TEXT, layer=layer)


def half(activations: np.ndarray, norms: np.ndarray) -> tuple[np.ndarray, int]:
    """Shares of all contributions that the 1..C largest have together (C,), and how many have half.

    Args:
        activations: (C,) of one token.
        norms: (C,) of the weight columns.
    """
    sizes = np.sort(np.abs(activations) * norms)[::-1]
    shares = np.cumsum(sizes) / sizes.sum()
    return shares, int((shares < 0.5).sum()) + 1


def _reveal(results: dict[str, Any], guess: Value | None, layer: int, token: int) -> Reveal:
    activations, norms = np.array(results["activations"][token]), np.array(results["norms"])
    shares, count = half(activations, norms)
    top = int(np.argmax(np.abs(activations) * norms))
    word = results["tokens"][token]
    figure = graph().Figure()
    figure.add_scatter(
        x=np.arange(1, len(shares) + 1), y=shares, mode="lines", line_color=COLOURS[0], showlegend=False
    )
    upright(figure, count, f"measured: {count}", COLOURS[1])
    if guess is not None:
        upright(figure, float(guess))
    figure.update_xaxes(title="channels, the largest contribution first")
    figure.update_yaxes(title="part of all", tickformat=".0%", range=[0, 1.02])
    style(figure.update_layout(showlegend=True), f"{count} channels carry half of all contributions", 330)
    raw = graph().Figure()
    raw.add_bar(x=np.arange(len(activations)), y=activations, marker_color=COLOURS[0], marker_line_width=0)
    raw.update_xaxes(title="channel")
    raw.update_yaxes(title="activation")
    style(raw.update_layout(bargap=0), f"What token {word!r} sends into down_proj", 330)
    return Reveal(
        float(count),
        f"Token {word!r} passes {len(shares):,} channels of layer {layer}; the {count} with the largest contributions "
        f"carry half of all. The largest single one is channel {top}: activation {activations[top]:.2f}, weight norm "
        f"{norms[top]:.2f}, contribution {abs(activations[top]) * norms[top]:.2f}.",
        [
            (figure, "Part of all contributions carried by the largest channels, with the prediction"),
            (raw, "Activations of one token over the channels"),
        ],
    )


LESSON = Lesson(
    key="channel",
    title="What a channel is",
    question="How many channels does one token need?",
    before=(
        f"The demo model reads: *{TEXT}* In every layer, the MLP turns each token into 1,024 numbers, its "
        "**activations**. The matrix `down_proj` multiplies each of them with one of its columns and adds everything up: "
        r"$y = \sum_j x_j W_{:,j}$. One number and its column are a **channel**; its **contribution** is as long as "
        r"$|x_j| \cdot \lVert W_{:,j} \rVert$. Pruning removes whole channels."
    ),
    guess=Guess(
        "Layer 2, the token 'ount' of 'mountains': how many of the 1,024 channels together carry half of all "
        "contributions?",
        low=1,
        high=1024,
        start=512,
        unit=" channels",
    ),
    first={"layer": 2, "token": TOKEN},
    controls=_controls,
    measure=_measure,
    reveal=_reveal,
    remember=(
        "A channel is one input of an output projection, with the weight column that multiplies it. For a single token a "
        "minority of the channels does half of the work, but other tokens use other channels: which one to remove is a "
        "question about many tokens."
    ),
    go=("pages/importance.py", "See all channels of all layers on the Importance page"),
)
