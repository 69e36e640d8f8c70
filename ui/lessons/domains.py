"""Lesson: whose text decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from pruning.engine.budget import first_mask, scores
from pruning.models.geometry import Site
from pruning.models.mask import Mask, chance_jaccard, jaccard
from pruning.text.sources import EMBEDDED_DOMAINS
from pruning.visualization.style import MARK, SEQUENTIAL, graph, style
from ui import stored
from ui.lessons.ask import ask, shipped
from ui.lessons.shape import Guess, Lesson, Reveal, Value

CALIBRATED, MEASURED = "wiki", "math"


def _controls() -> dict[str, Any]:
    left, right = st.columns(2)
    ratio = left.slider("Pruning ratio", 10, 70, 50, 10, format="%d%%", key="learn-domains-ratio")
    other = right.selectbox(
        "Compare wiki with",
        [name for name in EMBEDDED_DOMAINS if name != CALIBRATED],
        index=2,
        key="learn-domains-other",
    )
    return {"ratio": ratio / 100, "other": other}


def _measure(ratio: float, other: str) -> dict[str, Any]:
    return ask("domains", ratio=ratio)


@st.cache_data(show_spinner=False)
def overlap(model: str, ratio: float, other: str) -> tuple[list[float], list[float]]:
    """By layer the overlap of the MLP channels that two domains would keep, and what chance would give."""
    run, masks = shipped(model), []
    it, shape = stored.iteration(run, 1), run.geometry
    assert shape is not None
    for name in (CALIBRATED, other):
        config = run.config.replace(ratio=ratio, mixture={name: 1.0})
        masks.append(first_mask(scores(it.statistics, it.norms, config), shape, config))
    a, b = masks
    return _by_layer(a, b, jaccard), _by_layer(a, b, chance_jaccard)


def _by_layer(a: Mask, b: Mask, measure: Any) -> list[float]:
    return [measure(a, b, Site(layer, "mlp")) for layer in range(len(a.geometry.layers))]


def _reveal(results: dict[str, Any], guess: Value | None, ratio: float, other: str) -> Reveal:
    dense, pruned = results["dense"], results["pruned"]
    rows = [*EMBEDDED_DOMAINS, "all"]
    times = np.array([[pruned[by][on] / dense[on] for on in EMBEDDED_DOMAINS] for by in rows])
    truth = pruned[CALIBRATED][MEASURED] / dense[MEASURED]
    cells = [[f"{value:.2f}x" for value in row] for row in times]
    at = rows.index(CALIBRATED), EMBEDDED_DOMAINS.index(MEASURED)
    if guess is not None:
        cells[at[0]][at[1]] += f"<br>predicted {float(guess):.1f}"
    figure = graph().Figure(
        graph().Heatmap(
            z=np.log(times),
            x=EMBEDDED_DOMAINS,
            y=rows,
            text=cells,
            texttemplate="%{text}",
            colorscale=SEQUENTIAL,
            showscale=False,
            hovertemplate="calibrated on %{y}, measured on %{x}: perplexity %{text}<extra></extra>",
        )
    )
    figure.update_xaxes(title="measured on")
    figure.update_yaxes(title="calibrated on", autorange="reversed")
    if guess is not None:
        figure.add_shape(
            type="rect",
            x0=at[1] - 0.48,
            x1=at[1] + 0.48,
            y0=at[0] - 0.48,
            y1=at[0] + 0.48,
            line={"color": MARK, "width": 4},
        )
    style(figure, f"Perplexity after removing {ratio:.0%}, times the dense model's", 360)
    shares, rows_of = {}, {}
    for model, title in (("demo", "demo model"), ("smollm2", "SmolLM2")):
        real, chance = overlap(model, ratio, other)
        shares[model] = float(np.mean(real)), float(np.mean(chance))
        rows_of[title] = real
    agree = graph().Figure()
    for title, values in rows_of.items():
        agree.add_scatter(
            x=np.linspace(0, 1, len(values)),
            y=values,
            mode="lines+markers",
            name=f"{title}: {len(values)} layers",
        )
    agree.update_xaxes(title="depth: from the first layer to the last", tickformat=".0%")
    agree.update_yaxes(title="overlap (Jaccard)", range=[0, 1])
    style(agree, f"Overlap of the channels kept by wiki and by {other}", 360)
    return Reveal(
        truth,
        f"Pruned by {CALIBRATED} alone, the demo model has {pruned[CALIBRATED][CALIBRATED] / dense[CALIBRATED]:.2f} times its dense perplexity on {CALIBRATED} and "
        f"{truth:.2f} times on {MEASURED}; pruned by all domains, {pruned['all'][CALIBRATED] / dense[CALIBRATED]:.2f} and "
        f"{pruned['all'][MEASURED] / dense[MEASURED]:.2f} times. The channels that {CALIBRATED} and {other} keep overlap by "
        f"{shares['demo'][0]:.2f} in the demo model (chance: {shares['demo'][1]:.2f}) and by {shares['smollm2'][0]:.2f} in "
        f"SmolLM2 (chance: {shares['smollm2'][1]:.2f}).",
        [
            (
                figure,
                "Perplexity by the domain of calibration and the domain of measurement, with the prediction",
            ),
            (agree, "Overlap by depth of the channels that two domains keep, in two models"),
        ],
    )


LESSON = Lesson(
    key="domains",
    title="Whose text decides",
    question="What does it cost a domain when another domain chooses the channels?",
    before=(
        "The demo model was trained on four domains: encyclopedia (wiki), web, code and math. Each domain uses other "
        "channels, so that each would remove others. Half of the parameters of the demo model's layers is removed, chosen by the "
        "statistics of **wiki alone**. On held-out wiki text its perplexity rises by about a third. Now the same pruned "
        "model reads **math**."
    ),
    guess=Guess(
        "On math, how many times as high as the dense model's is its perplexity?",
        low=1,
        high=10,
        step=0.1,
        start=2,
        unit=" times",
    ),
    first={"ratio": 0.5, "other": "math"},
    beside=("other",),
    controls=_controls,
    measure=_measure,
    reveal=_reveal,
    remember=(
        "The calibration text decides what a model keeps: a domain that was left out loses most. A mixture of all domains "
        "costs each of them more than calibrating on it alone, and spares the others the worst."
    ),
    go=("pages/calibration.py", "See where the domains disagree on the Calibration page"),
)
