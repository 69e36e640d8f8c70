"""Lesson: what the bias repairs, and what least squares repairs beyond it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from ui.lessons.ask import ask
from ui.lessons.draw import PREDICTION, bars, level
from ui.lessons.shape import Guess, Lesson, Reveal, Value

NAMES = {"none": "nothing", "bias": "bias", "least_squares": "least squares"}


def _controls() -> dict[str, Any]:
    left, right = st.columns(2)
    layer = left.slider("Layer", 0, 5, 2, key="learn-repair-layer")
    share = right.slider("Channels removed", 10, 90, 50, 10, format="%d%%", key="learn-repair-share")
    return {"layer": layer, "share": share / 100}


def _measure(layer: int, share: float) -> dict[str, float]:
    return ask("repair", layer=layer, share=share)


def undone(found: dict[str, float], name: str) -> float:
    """The part of the unrepaired damage that a compensation undoes, in percent; negative where it does harm."""
    return 100 * (1 - found[name] / found["none"])


def _reveal(found: dict[str, float], guess: Value | None, layer: int, share: float) -> Reveal:
    parts = {name: undone(found, name) for name in ("bias", "least_squares")}
    figure = bars(
        {NAMES[name]: value for name, value in parts.items()},
        "Part of the damage that is undone",
        "% undone",
        text="%{y:.0f}%",
    )
    figure.update_yaxes(rangemode="normal")
    if guess is not None:
        level(figure, float(guess), f"{PREDICTION} (bias)")
        figure.update_layout(showlegend=True)
    left = bars(
        {NAMES[name]: 1000 * found[name] for name in NAMES},
        "Damage that is left",
        "0.001 nats a token",
        text="%{y:.1f}",
    )
    harm = "" if parts["bias"] >= 0 else " Here the bias does harm."
    return Reveal(
        parts["bias"],
        f"Without {found['channels']:,} channels of layer {layer} the predictions move by {1000 * found['none']:.1f} "
        f"thousandths of a nat a token. A bias undoes {parts['bias']:.0f}% of that, least squares "
        f"{parts['least_squares']:.0f}%.{harm} The mean of a removed channel is {found['steady']:.2f} standard deviations "
        f"from zero (median).",
        [
            (figure, "Part of the damage undone by bias and by least squares, with the prediction"),
            (left, "Damage left by nothing, bias and least squares"),
        ],
    )


LESSON = Lesson(
    key="repair",
    title="What a repair repairs",
    question="How much of a cut can be mended without training?",
    before=(
        "In layer 2 of the demo model, the half of the MLP channels with the lowest scores is removed. The **bias** adds what they gave *on "
        "average*. **Least squares** also changes the columns that are left, so that they stand in for the removed "
        "channels where the two vary together. Both use calibration text only; neither trains the model. The damage is how "
        "far the predictions move on other text."
    ),
    guess=Guess("What part of the damage does the bias undo?", start=50, unit="%"),
    first={"layer": 2, "share": 0.5},
    controls=_controls,
    measure=_measure,
    reveal=_reveal,
    remember=(
        "The bias restores the mean of the output and nothing else: of channels that vary it undoes little of the damage, "
        "and in the demo model's first and last layer it adds to it. Least squares also uses what the retained channels know of the "
        "removed ones, and leaves less damage in every layer there."
    ),
    go=(
        "pages/prune.py",
        "Prune with the bias (method iterative) or with least squares (method prunescope) on the Prune page",
    ),
)
