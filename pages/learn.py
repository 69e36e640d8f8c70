from collections.abc import Callable
from functools import partial

import streamlit as st

from ui import glossary
from ui.lessons import LESSONS, classroom, hand, teacher, toy
from ui.lessons.ask import client
from ui.lessons.play import play
from ui.navigation import ensure_frame

ensure_frame()
client()  # loads its model while one reads
lessons: dict[str, Callable[[], None]] = {lesson.key: partial(play, lesson) for lesson in LESSONS}
places = {
    "toy": toy.draw,
    **lessons,
    "by hand": hand.draw,
    "glossary": glossary.draw,
    "teacher": teacher.draw,
}
left, right = st.columns([6, 1], vertical_alignment="center")
with right:
    classroom.toggle()
chosen = left.segmented_control(
    "Lesson",
    list(places),
    default="toy",
    required=True,
    key="lesson",
    bind="query-params",
    persist_state="session",
    label_visibility="collapsed",
)
places[chosen]()
