from collections.abc import Callable
from functools import partial

import streamlit as st

from ui.lessons import LESSONS, classroom, toy
from ui.lessons.ask import client
from ui.lessons.play import play
from ui.navigation import ensure_frame

ensure_frame()
client()  # loads its model while one reads
lessons = {lesson.key: lesson for lesson in LESSONS}
places: dict[str, Callable[[], None]] = {
    "toy": toy.draw,
    **{key: partial(play, lesson) for key, lesson in lessons.items()},
}
left, right = st.columns([5, 1], vertical_alignment="center")
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
