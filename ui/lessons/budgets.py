"""Lesson: which layers to prune."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pruning.visualization.style import COLOURS, level
from ui.lessons.ask import ask
from ui.lessons.draw import bars
from ui.lessons.shape import Guess, Lesson, Reveal, Value

LAYERS = 6


def _controls() -> dict[str, Any]:
    left, right = st.columns(2, vertical_alignment="bottom")
    ratio = left.slider("Pruning ratio", 10, 70, 50, 10, format="%d%%", key="learn-budgets-ratio")
    measured = right.toggle(
        "Also by measured sensitivity (up to half a minute the first time)",
        key="learn-budgets-measured",
        help="Each module is cut alone at five sizes, and the divergence of the predictions is measured.",
    )
    return {"ratio": ratio / 100, "measured": measured}


def _measure(ratio: float, measured: bool) -> dict[str, Any]:
    results = ask("budgets", ratio=ratio, allocations=["uniform", "global"])
    if measured:
        more = ask("budgets", ratio=ratio, allocations=["measured"])
        return results | {"allocations": results["allocations"] | more["allocations"]}
    return results


def _reveal(results: dict[str, Any], guess: Value | None, ratio: float, measured: bool) -> Reveal:
    dense, by = results["dense"]["mean"], results["allocations"]
    kept = {f"layer {layer}": value for layer, value in enumerate(by["global"]["retained"])}
    most = max(kept, key=lambda name: kept[name])
    least = min(kept, key=lambda name: kept[name])
    figure = bars(
        {name: 100 * value for name, value in kept.items()},
        "What each layer keeps: global budget",
        "% of its parameters",
        guess,
        text="%{y:.0f}%",
    )
    figure.update_traces(textposition="inside", insidetextanchor="start")  # clear of the lines at the tops
    level(figure, 100 * (1 - ratio), "uniform budget")
    if measured:
        figure.add_scatter(
            x=list(kept),
            y=[100 * value for value in by["measured"]["retained"]],
            mode="markers",
            marker={"symbol": "diamond", "size": 11, "color": COLOURS[1]},
            name="measured budget",
        )
    means = {name: each["perplexity"]["mean"] for name, each in by.items()}
    cost = bars(means, f"Mean perplexity after {ratio:.0%}", "perplexity", text="%{y:.1f}")
    level(cost, dense, f"dense: {dense:.1f}")
    costs = ", ".join(f"{name} {value:.1f}" for name, value in means.items())
    return Reveal(
        most,
        f"With one ranking of all units at {ratio:.0%}, {most} keeps {kept[most]:.0%} of its parameters, {least} "
        f"keeps {kept[least]:.0%}. Mean perplexity: dense {dense:.1f}, {costs}.",
        [
            (figure, "Share of each layer that is kept, with the predicted layer"),
            (cost, "Mean perplexity by allocation"),
        ],
    )


LESSON = Lesson(
    key="budgets",
    title="Which layers to prune",
    question="Should every layer lose the same share?",
    before=(
        "Half of the parameters of the demo model's six layers is removed. A **uniform** budget removes half of every layer. A "
        "**global** budget ranks all heads and channels of all layers together and removes the lowest, wherever they are. A "
        "**measured** budget first cuts each module alone and measures the cost."
    ),
    guess=Guess(
        "Which layer keeps most under the global budget?",
        options=tuple(f"layer {layer}" for layer in range(LAYERS)),
    ),
    first={"ratio": 0.5, "measured": False},
    beside=("measured",),
    controls=_controls,
    measure=_measure,
    reveal=_reveal,
    remember=(
        "Layers are not equally dispensable, so that a budget that may differ by layer costs less than a uniform one at the "
        "same ratio. A global ranking is only as good as the comparison of scores between layers, which the next lesson is "
        "about."
    ),
    go=(
        "pages/sensitivity.py",
        "See on the Sensitivity page what a cut of each module costs, and how an allocation uses it",
    ),
)
