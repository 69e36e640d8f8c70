"""The page for the teacher: a class of 40 minutes, minute by minute, and the handouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from ui.lessons import LESSONS, handout, toy
from ui.lessons.shape import Reveal

TOTAL = 40  # minutes
TOY, LESSON, CLOSE = 4, 5, 1  # minutes for the toy, each lesson, and the end
TITLE = f"For the teacher: {TOTAL} minutes"


@dataclass(frozen=True)
class Move:
    """What to do with a lesson after its reveal.

    Attributes:
        do: what the teacher does with the controls.
        ask: the question to the class.
        hear: the answer to listen for.
        cases: the values of the controls then, where they have to be measured.
    """

    do: str
    ask: str
    hear: str
    cases: tuple[dict[str, Any], ...] = ()


MOVES = {
    "toy": Move(
        "Drag channel 1's points apart until another channel is removed first.",
        "What does the bias know of a token?",
        "Nothing: it is the same for every token.",
    ),
    "channel": Move(
        "Move through the tokens.",
        "Do frequent and rare words need the same number of channels?",
        "No: 'the', 'in' and the full stop need about half as many as pieces of rare words.",
    ),
    "fluctuation": Move(
        "Set 'nothing' in place of the channel.",
        "Why is the order of the two reversed?",
        "Without a bias the mean is lost too, and the large channel is nearly all mean.",
    ),
    "repair": Move(
        "Go to layer 0, where the bias does harm.",
        "In lesson 2 the bias recovered nearly all of the loss. What is different here?",
        "There the mean was several standard deviations, here a fraction of one.",
        ({"layer": 0},),
    ),
    "domains": Move(
        "Read the row 'all'.",
        "Which mixture would you choose for a model that must not forget math?",
        "One with math in it: with four domains, math loses little more than when calibrated on math alone.",
    ),
    "cascade": Move(
        "Set soft_share, then 30%.",
        "When are five cuts not worth five calibrations?",
        "Where one cut does little harm: at a low ratio, or with comparable scores.",
        ({"normalise": "soft_share"}, {"normalise": "soft_share", "ratio": 0.3}),
    ),
    "budgets": Move(
        "Switch on the measured budget.",
        "Both spare layer 0, but differ on layer 1. Which do you trust?",
        "The perplexity decides, and here the two are close.",
        ({"measured": True},),
    ),
    "scale": Move(
        "Have the class name the channels responsible.",
        "Which of today's results would you check on a real model first?",
        "Those that compare scores of different layers: lessons 5 and 6.",
    ),
}


def schedule() -> list[tuple[int, int, str, Move]]:
    """First and last minute, what is on the screen, and what to do."""
    steps = [("toy", TOY, toy.TITLE)]
    steps += [(lesson.key, LESSON, f"Lesson {n}: {lesson.title}") for n, lesson in enumerate(LESSONS, 1)]
    rows, now = [], 0
    for key, minutes, title in steps:
        rows.append((now, now + minutes, title, MOVES[key]))
        now += minutes
    close = Move(
        "Hand out the answers.",
        "Which rule of today would you trust on a model that you do not know?",
        "A measured one.",
    )
    return [*rows, (now, now + CLOSE, "The end", close)]


def draw() -> None:
    """The plan, how to prepare, and the handouts."""
    st.markdown(
        "**Before the class.** On the computer that you project from, press *Measure the answers* at the end of this page: "
        "the measurements are kept until the app is closed, and appear at once when the class commits. SmolLM2 in lesson 7 "
        "is measured by a button there. Switch on **class mode**, and print the handout without answers.\n\n"
        "**Each lesson** takes five minutes: one to read the question, one in which everybody writes down a prediction and "
        "a vote decides what you commit to, one for the reveal, two for the question below."
    )
    st.table(
        [
            {
                "minutes": f"{start} to {end}",
                "on the screen": title,
                "after the reveal": move.do,
                "ask": move.ask,
                "listen for": move.hear,
            }
            for start, end, title, move in schedule()
        ]
    )
    st.subheader("Handouts", anchor=False)
    st.write(
        "One page each. HTML prints on one sheet; Markdown can be edited. The answers are measured on this computer."
    )
    _downloads("without answers", handout.markdown(), handout.html())
    if st.session_state.get("answers") or st.button(
        "Measure the answers (one to two minutes)", icon=":material/timer:"
    ):
        reveals = prepare()
        st.session_state.answers = True
        _downloads("with answers", handout.markdown(reveals), handout.html(reveals))


def prepare() -> dict[str, Reveal]:
    """Measure what the class will ask for, and give the answers of the handout."""
    for lesson in LESSONS:
        for case in MOVES[lesson.key].cases:
            lesson.measure(**lesson.first | case)
    return handout.answers()


def _downloads(name: str, markdown: str, html: str) -> None:
    file = f"prunescope-handout-{name.replace(' ', '-')}"
    with st.container(horizontal=True):
        st.download_button(f"HTML, {name}", html, f"{file}.html", "text/html", on_click="ignore")
        st.download_button(f"Markdown, {name}", markdown, f"{file}.md", "text/markdown", on_click="ignore")
