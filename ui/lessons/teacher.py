"""The page for the teacher: a class of 40 minutes, minute by minute, and the handouts."""

from __future__ import annotations

import streamlit as st

from ui.lessons import LESSONS, handout, toy

TOTAL = 40  # minutes
TOY, LESSON, CLOSE = 4, 5, 1  # of the toy, of each lesson, of the end
TITLE = f"For the teacher: {TOTAL} minutes"
# What to do with each lesson after its reveal, and what to ask.
MOVES = {
    "toy": "Drag channel 1's points apart until another channel is the first to go. Ask: what does the bias know of a token?",
    "channel": "Move through the tokens. Ask: do rare and frequent words need the same number of channels?",
    "fluctuation": "Set 'nothing' in place of the channel. Ask: why does the order of the two turn round?",
    "repair": "Go to layer 0, where the bias does harm. Ask: what is different there, if both fit the same text?",
    "domains": "Read the row 'decided by all'. Ask: which mixture would you choose for a model that must not forget math?",
    "cascade": "Set soft_share, then 30%. Ask: when are five cuts not worth five calibrations?",
    "budgets": "Go to 70%. Ask: what would make you distrust a layer that retains almost everything?",
    "scale": "Have the class name the channels to blame. Ask: which of today's results would you check on a real model first?",
}


def schedule() -> list[tuple[int, int, str, str]]:
    """First and last minute, what is on the screen, and what to do."""
    steps = [("toy", TOY, toy.TITLE)]
    steps += [(lesson.key, LESSON, f"Lesson {n}: {lesson.title}") for n, lesson in enumerate(LESSONS, 1)]
    rows, now = [], 0
    for key, minutes, title in steps:
        rows.append((now, now + minutes, title, MOVES[key]))
        now += minutes
    close = "Each names one rule of today that held on the demo model only, or on both models. Hand out the answers."
    return [*rows, (now, now + CLOSE, "The end", close)]


def draw() -> None:
    """The plan, how to prepare, and the handouts."""
    st.markdown(
        "**Before the class.** Open each lesson once on the computer that you project from and commit to any prediction: "
        "what was measured is kept until the app is closed, and appears at once. Then reload the page, which forgets "
        "your predictions, and switch on **class mode**. Print the handout without answers.\n\n"
        "**Each lesson** takes five minutes: one to read the question, one in which everybody writes down a prediction and "
        "a vote decides what you commit to, one for the reveal, two for the move and the question below."
    )
    rows = [
        {"minutes": f"{start} to {end}", "on the screen": title, "after the reveal": move}
        for start, end, title, move in schedule()
    ]
    st.table(rows)
    st.subheader("Handouts", anchor=False)
    st.write(
        "One page each. HTML prints on one sheet; Markdown can be edited. The answers are measured on this computer."
    )
    _downloads("without answers", handout.markdown(), handout.html())
    if st.session_state.get("answers") or st.button(
        "Measure the answers (about a minute)", icon=":material/timer:"
    ):
        found = handout.answers()
        st.session_state.answers = True
        _downloads("with answers", handout.markdown(found), handout.html(found))


def _downloads(name: str, markdown: str, html: str) -> None:
    file = f"prunescope-handout-{name.replace(' ', '-')}"
    with st.container(horizontal=True):
        st.download_button(f"HTML, {name}", html, f"{file}.html", "text/html", on_click="ignore")
        st.download_button(f"Markdown, {name}", markdown, f"{file}.md", "text/markdown", on_click="ignore")
