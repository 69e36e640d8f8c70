"""The handout: all lessons' questions on one page, in Markdown and HTML, without answers or with them."""

from __future__ import annotations

from html import escape

from ui.lessons import LESSONS
from ui.lessons.shape import Lesson, Reveal

TITLE = "Pruning a language model: seven predictions"
INTRO = "Write down each prediction before the measurement is shown. Open the app, choose Learn, and take the lessons in order."
BLANK = "My prediction: ________________   Measured: ________________   Why: ______________________________________"
STYLE = """@page { size: A4; margin: 14mm 15mm }
body { font: 9.6pt/1.34 system-ui, sans-serif; color: #1d2733; background: #fff; max-width: 180mm; margin: auto }
h1 { font-size: 15pt; margin: 0 0 1mm } h2 { font-size: 10.5pt; margin: 2.6mm 0 0.6mm } p { margin: 0.6mm 0 }
.full { font-size: 7.9pt; line-height: 1.22 } .full h2 { font-size: 9pt; margin: 1.4mm 0 0.3mm } .full p { margin: 0.3mm 0 }
.fill { display: flex; gap: 4mm; margin: 6mm 0 5mm } .fill span { border-bottom: 0.3mm solid #777; flex: 1 }
.fill span:last-child { flex: 2.4 } .answer { border-left: 1mm solid #2a78b5; padding-left: 2.5mm }"""


def answers() -> dict[str, Reveal]:
    """What every lesson measures in the case that its prediction is about; takes a while the first time."""
    return {
        lesson.key: lesson.reveal(lesson.measure(**lesson.first), None, **lesson.first) for lesson in LESSONS
    }


def _answer(lesson: Lesson, reveal: Reveal) -> str:
    return f"Measured: {lesson.guess.text(reveal.truth)}. {reveal.says}"


def _options(lesson: Lesson) -> str:
    guess = lesson.guess
    if guess.options:
        return "Choose: " + "; ".join(guess.options) + "."
    return f"{guess.range()}."


def markdown(reveals: dict[str, Reveal] | None = None) -> str:
    """The handout as Markdown; with answers where these are given."""
    parts = [f"# {TITLE}", INTRO]
    for number, lesson in enumerate(LESSONS, 1):
        parts.append(f"## {number}. {lesson.question}")
        parts.append(f"{lesson.guess.ask} {_options(lesson)}")
        if reveals is None:
            parts.append(BLANK)
        else:
            parts += [f"> {_answer(lesson, reveals[lesson.key])}", lesson.remember]
    return "\n\n".join(parts) + "\n"


def html(reveals: dict[str, Reveal] | None = None) -> str:
    """The same as one HTML page that prints on one sheet of A4."""
    body = [f"<h1>{escape(TITLE)}</h1><p>{escape(INTRO)}</p>"]
    for number, lesson in enumerate(LESSONS, 1):
        body.append(f"<h2>{number}. {escape(lesson.question)}</h2>")
        body.append(f"<p>{escape(lesson.guess.ask)} {escape(_options(lesson))}</p>")
        if reveals is None:
            body.append(
                '<p class="fill">My prediction: <span></span> Measured: <span></span> Why: <span></span></p>'
            )
        else:
            body.append(f'<p class="answer">{escape(_answer(lesson, reveals[lesson.key]))}</p>')
            body.append(f"<p><b>Remember.</b> {escape(lesson.remember)}</p>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(TITLE)}</title>'
        f'<style>{STYLE}</style></head><body class="{"full" if reveals else "blank"}">{"".join(body)}</body></html>'
    )
