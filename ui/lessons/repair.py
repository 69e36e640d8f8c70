"""Lesson: what the bias recovers, and what least squares recovers beyond it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from ui.lessons.ask import ask
from ui.lessons.draw import PREDICTION, bars, predicted
from ui.lessons.shape import Guess, Lesson, Reveal, Value

NAMES = {"none": "nothing", "bias": "bias", "least_squares": "least squares"}


def _controls() -> dict[str, Any]:
    left, right = st.columns(2)
    layer = left.slider("Layer", 0, 5, 2, key="learn-repair-layer")
    share = right.slider("Channels removed", 10, 90, 50, 10, format="%d%%", key="learn-repair-share")
    return {"layer": layer, "share": share / 100}


def _measure(layer: int, share: float) -> dict[str, float]:
    return ask("repair", layer=layer, share=share)


def recovered(results: dict[str, float], name: str) -> float:
    """The part of the loss that a compensation recovers, in percent; negative where it does harm."""
    return 100 * (1 - results[name] / results["none"])


def _reveal(results: dict[str, float], guess: Value | None, layer: int, share: float) -> Reveal:
    parts = {name: recovered(results, name) for name in ("bias", "least_squares")}
    figure = bars(
        {NAMES[name]: value for name, value in parts.items()},
        "Part of the loss that is recovered",
        "% recovered",
        text="%{y:.0f}%",
    )
    figure.update_yaxes(rangemode="normal")
    if guess is not None:
        predicted(figure, float(guess), f"{PREDICTION} (bias)")
        figure.update_layout(showlegend=True)
    remaining = bars(
        {NAMES[name]: 1000 * results[name] for name in NAMES},
        "Remaining loss",
        "0.001 nats per token",
        text="%{y:.1f}",
    )
    harm = "" if parts["bias"] >= 0 else " Here the bias does harm."
    return Reveal(
        parts["bias"],
        f"Without {results['channels']:,} channels of layer {layer} the predictions move by {1000 * results['none']:.1f} "
        f"thousandths of a nat per token. A bias recovers {parts['bias']:.0f}% of that, least squares "
        f"{parts['least_squares']:.0f}%.{harm} The mean of a removed channel is {results['steady']:.2f} standard deviations "
        f"from zero (median).",
        [
            (figure, "Part of the loss recovered by bias and by least squares, with the prediction"),
            (remaining, "Loss that remains with nothing, bias and least squares"),
        ],
    )


LESSON = Lesson(
    key="repair",
    title="What compensation recovers",
    question="How much of the loss can be recovered without training?",
    before=(
        "In layer 2 of the demo model, the half of the MLP channels with the lowest scores is removed. The **bias** adds their mean "
        "output. **Least squares** also changes the remaining columns, so that they replace the removed "
        "channels as far as the two are correlated. Both use calibration text only; neither trains the model. The loss is how "
        "far the predictions move on other text."
    ),
    guess=Guess("What part of the loss does the bias recover?", start=50, unit="%"),
    first={"layer": 2, "share": 0.5},
    controls=_controls,
    measure=_measure,
    reveal=_reveal,
    remember=(
        "The bias restores the mean of the output and nothing else: of channels that vary it recovers little, "
        "and in the demo model's first and last layer it does harm. Least squares also uses the correlation of the kept with the "
        "removed channels, and recovers more in every layer there."
    ),
    go=(
        "pages/prune.py",
        "Prune with the bias (method iterative) or with least squares (method prunescope) on the Prune page",
    ),
)
