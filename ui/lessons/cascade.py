"""Lesson: one cut against five."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pruning.visualization.style import level
from ui.lessons.ask import ask
from ui.lessons.draw import PREDICTION, bars, lines, predicted
from ui.lessons.shape import Guess, Lesson, Reveal, Value

LAYERS = 6
SHIFTED, SHARE = (
    2,
    0.5,
)  # layers that are cut to see the shift, and the share of their channels that is removed


def _controls() -> dict[str, Any]:
    left, right = st.columns(2)
    ratio = left.select_slider(
        "Pruning ratio", (30, 50, 70), 70, format_func=lambda v: f"{v}%", key="learn-cascade-ratio"
    )
    normalise = right.segmented_control(
        "Scores are made comparable by",
        ("share", "soft_share"),
        default="share",
        required=True,
        key="learn-cascade-normalise",
        help="share divides each score by the total of its module. soft_share, the default of the app, divides by less "
        "where the scores are uneven.",
    )
    return {"ratio": ratio / 100, "normalise": normalise}


def _measure(ratio: float, normalise: str) -> dict[str, Any]:
    results = ask("cascade", ratio=ratio, normalise=normalise)
    return results | {"shift": ask("shift", layers=SHIFTED, share=SHARE)["layers"]}


def _reveal(results: dict[str, Any], guess: Value | None, ratio: float, normalise: str) -> Reveal:
    dense, one, several = (results[name]["mean"] for name in ("dense", "one", "several"))
    figure = bars(
        {"one cut": one, "five cuts": several},
        f"Mean perplexity after {ratio:.0%}, {normalise}",
        "perplexity",
        text="%{y:.1f}",
    )
    level(figure, dense, f"dense: {dense:.1f}")
    if guess is not None:
        predicted(figure, float(guess) / 100 * one, f"{PREDICTION} (five cuts)")
    shift = lines(
        {"variance after / before, median over MLP channels": results["shift"]},
        f"Layers 0 and {SHIFTED - 1} lose {SHARE:.0%} of their channels",
        "variance, times",
    )
    shift.update_yaxes(rangemode="normal")
    level(shift, 1.0, "as before")
    later = results["shift"][SHIFTED:]
    return Reveal(
        100 * several / one,
        f"At {ratio:.0%} with {normalise}, the mean perplexity is {one:.1f} after one cut and {several:.1f} after five "
        f"(dense: {dense:.1f}), {100 * several / one:.0f}% of it. On the right, nothing after layer {SHIFTED - 1} was "
        f"changed, yet the variances there are {min(later):.2f} to {max(later):.2f} times their earlier values.",
        [
            (figure, "Perplexity after one cut and after five, with the prediction"),
            (shift, "Variance after a cut of the first layers over that before, by layer"),
        ],
    )


LESSON = Lesson(
    key="cascade",
    title="One cut against five",
    question="Why prune in small steps?",
    before=(
        "Scores come from the model as it is. Cutting an early layer changes what all later layers see, and the scores there "
        "grow stale. Pruned **in one cut**, everything is decided by the statistics of the dense model. **In five cuts**, "
        "new statistics are collected before each. Here 70% of the parameters of the demo model's layers is removed, once in one cut, "
        "once in five."
    ),
    guess=Guess(
        "How high is the mean perplexity after five cuts, in percent of that after one cut?",
        low=20,
        high=150,
        start=100,
        unit="%",
    ),
    first={"ratio": 0.7, "normalise": "share"},
    controls=_controls,
    measure=_measure,
    reveal=_reveal,
    remember=(
        "Every cut shifts the statistics of later layers, so that small cuts with fresh statistics avoid mistakes that one large "
        "cut makes. How much that helps depends on the ratio and on how scores are made comparable: try 30%, and soft_share."
    ),
    go=("pages/prune.py", "Set the number of iterations of a run on the Prune page"),
)
