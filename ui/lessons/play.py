"""How a lesson is played: question, prediction, reveal, controls, what to remember, where to go."""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.lessons import LESSONS, hand, toy
from ui.lessons.draw import show
from ui.lessons.shape import Guess, Lesson, Reveal, Value


def guesses() -> dict[str, Value]:
    """This session's predictions by lesson."""
    return st.session_state.setdefault("guesses", {})


def play(lesson: Lesson) -> None:
    """Draw a lesson as far as the reader has come."""
    number = LESSONS.index(lesson) + 1
    if lesson.key not in guesses():
        st.markdown(f"##### {lesson.question}")
        st.markdown(lesson.before)
        _predict(lesson)
    else:
        _show(lesson, guesses()[lesson.key])
    steps(number)


def _predict(lesson: Lesson) -> None:
    with st.form(f"predict-{lesson.key}"):
        st.markdown(f"**Your prediction.** {lesson.guess.ask}")
        value = _widget(lesson.guess, f"guess-{lesson.key}")
        if st.form_submit_button("Commit to it", type="primary", icon=":material/lock:"):
            if value is None:
                st.warning("Choose one of the answers first; a wrong one teaches as much as a right one.")
            else:
                guesses()[lesson.key] = value
                st.rerun()
    st.caption("The measurement starts when you have committed.")


def _widget(guess: Guess, key: str) -> Value | None:
    if guess.options:
        return st.radio(
            guess.ask, guess.options, index=None, key=key, label_visibility="collapsed", horizontal=True
        )
    numbers = (guess.low, guess.high, guess.start, guess.step)
    low, high, start, step = (int(n) if guess.step >= 1 else float(n) for n in numbers)
    form = "%d" if guess.step >= 1 else "%.1f"
    return float(
        st.slider(guess.range(), low, high, start, step, format=form + guess.unit.replace("%", "%%"), key=key)
    )


def _show(lesson: Lesson, guess: Value) -> None:
    first = lesson.reveal(lesson.measure(**lesson.first), guess, **lesson.first)
    _verdict(lesson, guess, first)
    values: dict[str, Any] = lesson.controls()
    shown = first
    if values != lesson.first:
        marked = guess if lesson.predicted(values) else None
        shown = lesson.reveal(lesson.measure(**values), marked, **values)
    columns = st.columns(len(shown.figures))
    for index, (column, (figure, alt)) in enumerate(zip(columns, shown.figures, strict=True)):
        with column:
            show(figure, alt, f"{lesson.key}-figure-{index}")
    st.markdown(shown.says)
    if lesson.more:
        lesson.more()
    st.info(f"**Remember.** {lesson.remember}", icon=":material/bookmark:")
    with st.expander(f"{lesson.question} What the prediction was about"):
        st.markdown(lesson.before)
        st.markdown(lesson.guess.ask)
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.page_link(lesson.go[0], label=f"For real: {lesson.go[1]}", icon=":material/arrow_outward:")
    right.button(
        "Predict again", key=f"again-{lesson.key}", on_click=_forget, args=(lesson.key,), width="stretch"
    )


def right(lesson: Lesson, guess: Value, truth: Value) -> bool:
    """Whether a prediction is near enough: the same option, or within a tenth of the slider."""
    if isinstance(guess, str) or isinstance(truth, str):
        return guess == truth
    return abs(guess - truth) <= (lesson.guess.high - lesson.guess.low) / 10


def _verdict(lesson: Lesson, guess: Value, reveal: Reveal) -> None:
    predicted, measured = lesson.guess.text(guess), lesson.guess.text(reveal.truth)
    words = f"{lesson.guess.ask} You predicted **{predicted}**. Measured: **{measured}**."
    if right(lesson, guess, reveal.truth):
        st.success(words, icon=":material/check_circle:")
    else:
        st.warning(words, icon=":material/lightbulb:")


def steps(number: int) -> None:
    """Buttons to the lessons before and after one, by its number: the toy is 0, cutting by hand comes last."""
    pages = [("toy", toy.TITLE), *((each.key, f"{n}. {each.title}") for n, each in enumerate(LESSONS, 1))]
    pages.append(("by hand", hand.TITLE))
    st.divider()
    before, done, after = st.columns(3, vertical_alignment="center")
    finished = sum(lesson.key in guesses() for lesson in LESSONS)
    done.progress(finished / len(LESSONS), f"{finished} of {len(LESSONS)} lessons done in this session")
    if number > 0:
        _step(before, *pages[number - 1], "back")
    if number + 1 < len(pages):
        _step(after, *pages[number + 1], "forward", pages[number][0] in (*guesses(), "toy"))


def _step(column: DeltaGenerator, key: str, title: str, direction: str, next_up: bool = False) -> None:
    column.button(
        title,
        on_click=_open,
        args=(key,),
        icon=f":material/arrow_{direction}:",
        width="stretch",
        type="primary" if next_up else "secondary",
    )


def _open(key: str) -> None:
    st.session_state.lesson = key


def _forget(key: str) -> None:
    guesses().pop(key, None)
