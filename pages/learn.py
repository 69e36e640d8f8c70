from collections.abc import Callable
from functools import partial

import streamlit as st

from ui import glossary
from ui.lessons import LESSONS, classroom, hand, teacher, toy
from ui.lessons.ask import client
from ui.lessons.play import play, steps
from ui.navigation import ensure_frame

ensure_frame()
client()  # loads its model while one reads
st.html(classroom.OWN)
views: dict[str, tuple[str, Callable[[], None]]] = {
    "toy": (toy.TITLE, toy.draw),
    **{
        lesson.key: (f"{number}. {lesson.title}", partial(play, lesson))
        for number, lesson in enumerate(LESSONS, 1)
    },
    "by hand": (hand.TITLE, hand.draw),
    "glossary": ("Glossary", partial(glossary.draw, {each.key: each.title for each in LESSONS})),
    "teacher": (teacher.TITLE, teacher.draw),
}
chosen = st.segmented_control(
    "Lesson",
    list(views),
    default="toy",
    required=True,
    key="lesson",
    bind="query-params",
    persist_state="session",
    label_visibility="collapsed",
)
title, draw = views[chosen]
classroom.title(title)
draw()
if chosen == "toy":
    steps(0)
