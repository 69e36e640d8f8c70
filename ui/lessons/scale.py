"""Lesson: why a toy can mislead."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from pruning.engine.budget import first_mask
from pruning.errors import PruningError
from pruning.formatting import sentence
from pruning.method.scores import fluctuation
from pruning.models.folder import smollm2
from pruning.models.geometry import Site
from pruning.visualization.style import COLOURS, MARK, graph, style
from ui.lessons.ask import ask, dense_stats, shipped
from ui.lessons.draw import PREDICTION, bars, predicted, show
from ui.lessons.shape import Guess, Lesson, Reveal, Value

RATIO = 0.3
MODELS = {"demo": "demo model", "smollm2": "SmolLM2"}


def _controls() -> dict[str, Any]:
    normalise = st.segmented_control(
        "Scores are made comparable by",
        ("share", "soft_share"),
        default="share",
        required=True,
        key="learn-scale-normalise",
        help="share: divided by the total score of the module. soft_share: divided by what the module would total if a "
        "typical channel decided, to the power 3/4.",
    )
    return {"normalise": normalise}


@st.cache_data(show_spinner=False)
def scores_of(model: str) -> dict[Site, np.ndarray]:
    """Fluctuation scores (C,) by site of the dense model, from its shipped run."""
    return {site: fluctuation(stats) for site, stats in dense_stats(model).items()}


@st.cache_data(show_spinner=False)
def kept_shares(model: str, normalise: str, layer: int = 0, typical: tuple[int, ...] = ()) -> list[float]:
    """By layer the share of its MLP channels that one cut at `RATIO` keeps.

    Args:
        model: of a shipped run.
        normalise: how scores are made comparable.
        layer, typical: channels of this layer's MLP whose scores are set to the median, as if they were typical.
    """
    run, scores = shipped(model), dict(scores_of(model))
    assert run.geometry is not None
    values = scores[Site(layer, "mlp")].copy()
    values[list(typical)] = np.median(values)
    scores[Site(layer, "mlp")] = values
    mask = first_mask(scores, run.geometry, run.config.replace(ratio=RATIO, normalise=normalise))
    return [float(mask.kept[Site(layer, "mlp")].mean()) for layer in range(len(run.geometry.layers))]


def _measure(normalise: str) -> dict[str, list[float]]:
    return {model: kept_shares(model, normalise) for model in MODELS}


def _reveal(results: dict[str, list[float]], guess: Value | None, normalise: str) -> Reveal:
    figures = []
    for model in ("smollm2", "demo"):
        values = {f"{layer}": 100 * value for layer, value in enumerate(results[model])}
        figure = bars(
            values,
            f"{MODELS[model]}, {normalise}: MLP channels kept",
            "% of the layer",
            text="",
            height=300,
        )
        figure.update_xaxes(title="layer")
        figure.update_yaxes(range=[0, 105])
        if guess is not None and model == "smollm2":
            predicted(figure, float(guess), f"{PREDICTION} (lowest layer)")
            figure.update_layout(showlegend=True)
        figures.append((figure, f"Share of the MLP channels kept by layer, {MODELS[model]}"))
    low = {model: int(np.argmin(values)) for model, values in results.items()}
    return Reveal(
        100 * min(results["smollm2"]),
        f"With {normalise} at {RATIO:.0%}, the demo model's layers keep {min(results['demo']):.0%} to "
        f"{max(results['demo']):.0%} of their MLP channels. In SmolLM2, layer {low['smollm2']} keeps "
        f"{min(results['smollm2']):.0%}, another up to {max(results['smollm2']):.0%}.",
        figures,
    )


def _more() -> None:
    before = kept_shares("smollm2", "share")
    starved = int(np.argmin(before))
    st.markdown("##### Find the channels responsible")
    st.write(
        f"Under `share`, layer {starved} of SmolLM2 keeps {before[starved]:.0%}. Something makes all its other channels "
        "look expendable. Which channels? Name them, and the cut is computed once more as if their scores were typical. "
        "Other layers of SmolLM2 can be searched as well."
    )
    left, right = st.columns([1, 2])
    layer = left.number_input("Layer", 0, len(before) - 1, starved, key="learn-scale-layer")
    values = scores_of("smollm2")[Site(int(layer), "mlp")]
    named = right.multiselect(
        "Channels responsible", range(len(values)), key="learn-scale-channels", placeholder="none named yet"
    )
    shares = values / values.sum()
    figure = graph().Figure()
    figure.add_bar(
        x=np.arange(len(shares)),
        y=shares,
        marker_color=COLOURS[0],
        marker_line={"width": 2, "color": COLOURS[0]},
        hovertemplate="channel %{x}: %{y:.2%} of the score<extra></extra>",
    )
    for channel in named:
        figure.add_vline(x=channel, line_color=MARK, line_dash="dash")
    figure.update_xaxes(title="channel")
    figure.update_yaxes(title="part of the total", tickformat=".0%")
    style(
        figure.update_layout(bargap=0),
        f"Scores in layer {layer}, as parts of its total: point at the highest to read their channels",
        300,
    )
    show(figure, f"Scores of the channels of layer {layer}")
    if named:
        _check(int(layer), tuple(sorted(named)), float(shares[named].sum()))
    _cost()


def _check(layer: int, named: tuple[int, ...], share: float) -> None:
    before, after = (kept_shares("smollm2", "share", layer, each)[layer] for each in ((), named))
    names = " and ".join(str(channel) for channel in named)
    words = (
        f"Channel{'s' * (len(named) > 1)} {names}: {share:.1%} of the score of layer {layer}. Had they been typical, the "
        f"layer would keep {after:.0%} of its channels instead of {before:.0%}."
    )
    if after >= 1 - RATIO:
        st.success(words + " Found: **massive activations**.", icon=":material/check:")
    elif share > 0.1:
        st.info(words + " That is a part of it: more channels are responsible.", icon=":material/search:")
    else:
        st.info(words + " These are not responsible.", icon=":material/search:")


def _cost() -> None:
    st.markdown("##### The cost")
    try:
        smollm2()
    except PruningError as error:
        st.info(
            f"The pictures above come from a finished run that ships with the app. To measure the perplexity of SmolLM2 "
            f"itself, its weights are missing: {sentence(str(error))}"
        )
        models: tuple[str, ...] = ("demo",)
    else:
        models = tuple(MODELS)
    measured = st.session_state.setdefault("learn-scale-models", ["demo"])
    if "smollm2" in models and "smollm2" not in measured:
        st.write(
            "The demo model is measured at once. SmolLM2 is twenty times as large and takes a minute or more."
        )
        st.button(
            "Measure SmolLM2 as well", icon=":material/timer:", on_click=measured.append, args=("smollm2",)
        )
    costs = []
    for column, model in zip(st.columns(2), [name for name in models if name in measured], strict=False):
        with column:
            perplexities = ask("normalisers", model=model, ratio=RATIO, names=["share", "soft_share"])
            values = {name: each["mean"] for name, each in perplexities.items()}
            figure = bars(
                values, f"{MODELS[model]}: mean perplexity after {RATIO:.0%}", "perplexity", text="%{y:.1f}"
            )
            show(figure, f"Perplexity of {model} by normaliser")
        times = " and ".join(
            f"{values[name] / values['dense']:.2f} times with {name}" for name in ("share", "soft_share")
        )
        costs.append(
            f"the {MODELS[model]}'s is {times}" if model == "demo" else f"{MODELS[model]}'s is {times}"
        )
    st.markdown(f"Against dense, the perplexity grows: {'; '.join(costs)}.")


LESSON = Lesson(
    key="scale",
    title="Why a toy can mislead",
    question="Does what works on a small model work on a real one?",
    before=(
        "Scores of different layers have different sizes. `share` makes them comparable by dividing each by the **total of "
        "its module**. On the demo model (6 layers) that works: every layer keeps a fair part. The same rule now removes 30% "
        "of SmolLM2-135M (30 layers), by the statistics of a run that ships with the app."
    ),
    guess=Guess(
        "The MLP that loses most: what share of its channels does it keep in SmolLM2?", start=40, unit="%"
    ),
    first={"normalise": "share"},
    controls=_controls,
    measure=_measure,
    reveal=_reveal,
    remember=(
        "Trained language models have massive activations, a few channels that carry most of their module's score; a rule "
        "that divides by the total then rates all other channels as worthless. A small model without them cannot show this: "
        "test a rule on a real model before you believe it."
    ),
    go=("pages/importance.py", "Find massive activations of any model on the Importance page"),
    more=_more,
)
