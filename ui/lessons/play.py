"""How a lesson is played: question, prediction, reveal, controls, what to remember, where to go."""

from __future__ import annotations

from typing import Any

import streamlit as st

from ui import state
from ui.lessons import LESSONS
from ui.lessons.shape import Guess, Lesson, Reveal, Value

CLASS_FONT = 17  # of figures in class mode


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
        with st.expander(f"{lesson.question} What the prediction was about"):
            st.markdown(lesson.before)
            st.markdown(lesson.guess.ask)
        _show(lesson, guesses()[lesson.key])
    _steps(number)


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
    st.caption("The measurement appears when you have committed. Nobody but you sees your prediction.")


def _widget(guess: Guess, key: str) -> Value | None:
    if guess.options:
        return st.radio(
            guess.ask, guess.options, index=None, key=key, label_visibility="collapsed", horizontal=True
        )
    numbers = (guess.low, guess.high, guess.start, guess.step)
    low, high, start, step = (int(n) if guess.step >= 1 else float(n) for n in numbers)
    form = "%d" if guess.step >= 1 else "%.1f"
    return float(
        st.slider(
            guess.ask,
            low,
            high,
            start,
            step,
            format=form + guess.unit.replace("%", "%%"),
            key=key,
            label_visibility="collapsed",
        )
    )


def _show(lesson: Lesson, guess: Value) -> None:
    first = lesson.reveal(lesson.measure(**lesson.first), guess, **lesson.first)
    _verdict(lesson, guess, first)
    given: dict[str, Any] = lesson.controls()
    shown = first
    if given != lesson.first:
        shown = lesson.reveal(lesson.measure(**given), guess, **given)
    columns = st.columns(len(shown.figures))
    for index, (column, (figure, alt)) in enumerate(zip(columns, shown.figures, strict=True)):
        if st.session_state.get("class"):
            figure.update_layout(font_size=CLASS_FONT, title_font_size=CLASS_FONT + 2)
        column.plotly_chart(figure, alt=alt, config=state.PLOT, key=f"{lesson.key}-figure-{index}")
    st.markdown(shown.says)
    if lesson.more:
        lesson.more()
    st.info(f"**Remember.** {lesson.remember}", icon=":material/bookmark:")
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.page_link(lesson.go[0], label=f"For real: {lesson.go[1]}", icon=":material/arrow_outward:")
    right.button(
        "Predict again",
        key=f"again-{lesson.key}",
        on_click=_forget,
        args=(lesson.key,),
        width="stretch",
    )


def right(lesson: Lesson, guess: Value, truth: Value) -> bool:
    """Whether a prediction is near enough: the same option, or within a tenth of the slider."""
    if isinstance(guess, str) or isinstance(truth, str):
        return guess == truth
    return abs(guess - truth) <= (lesson.guess.high - lesson.guess.low) / 10


def _verdict(lesson: Lesson, guess: Value, found: Reveal) -> None:
    said, measured = lesson.guess.text(guess), lesson.guess.text(found.truth)
    words = f"You predicted **{said}**. Measured: **{measured}**."
    if right(lesson, guess, found.truth):
        st.success(words, icon=":material/check_circle:")
    else:
        st.warning(words + " Find out why:", icon=":material/lightbulb:")


def _steps(number: int) -> None:
    st.divider()
    before, done, after = st.columns([1, 2, 1], vertical_alignment="center")
    finished = sum(lesson.key in guesses() for lesson in LESSONS)
    done.progress(finished / len(LESSONS), f"{finished} of {len(LESSONS)} lessons done in this session")
    if number > 1:
        before.button(
            f"{number - 1}. {LESSONS[number - 2].title}",
            on_click=_open,
            args=(LESSONS[number - 2].key,),
            icon=":material/arrow_back:",
            width="stretch",
        )
    if number < len(LESSONS):
        after.button(
            f"{number + 1}. {LESSONS[number].title}",
            on_click=_open,
            args=(LESSONS[number].key,),
            icon=":material/arrow_forward:",
            width="stretch",
            type="primary" if LESSONS[number - 1].key in guesses() else "secondary",
        )


def _forget(key: str) -> None:
    guesses().pop(key, None)


def _open(key: str) -> None:
    st.session_state.lesson = key
