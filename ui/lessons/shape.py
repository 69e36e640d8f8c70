"""The shape that all lessons share: a question, a prediction, a measurement, what it shows, what to remember."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Value = float | str


@dataclass(frozen=True)
class Guess:
    """What the reader predicts before anything is shown: one of some options, or a number.

    Attributes:
        ask: the question that the prediction answers.
        options: to choose from; none for a number.
        low, high, step, start: of the slider.
        unit: behind the number.
    """

    ask: str
    options: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 100.0
    step: float = 1.0
    start: float = 50.0
    unit: str = ""

    def text(self, value: Value) -> str:
        """A prediction or a measured value as text."""
        return value if isinstance(value, str) else f"{value:,.{0 if self.step >= 1 else 1}f}{self.unit}"

    def range(self) -> str:
        """The range of a numeric prediction, in words."""
        return f"From {self.low:g} to {self.high:,g}{self.unit}"


@dataclass(frozen=True)
class Reveal:
    """What was measured.

    Attributes:
        truth: the prediction that would have been right.
        says: what the numbers are, in sentences.
        figures: each with its text alternative; the prediction is marked in the first.
    """

    truth: Value
    says: str
    figures: list[tuple[Figure, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Lesson:
    """One lesson.

    Attributes:
        key: in the address.
        title: names its subject.
        question: that it answers.
        before: what the reader has to know to predict, in Markdown.
        guess: the prediction.
        first: initial values of the controls; the prediction is about this case.
        beside: controls that the predicted value does not depend on.
        controls: draws one or two controls, and returns their values.
        measure: the live computation, from the values of the controls.
        reveal: what a measurement shows, from the measurement, the prediction (None in a handout) and the
            values of the controls.
        remember: two sentences.
        go: page of the app for doing it on a real model, and what to do on it.
        more: drawn after the figures, for lessons with a second part.
    """

    key: str
    title: str
    question: str
    before: str
    guess: Guess
    first: dict[str, Any]
    controls: Callable[[], dict[str, Any]]
    measure: Callable[..., Any]
    reveal: Callable[..., Reveal]
    remember: str
    go: tuple[str, str]
    beside: tuple[str, ...] = ()
    more: Callable[[], None] | None = None

    def predicted(self, values: dict[str, Any]) -> bool:
        """Whether the controls still have the values that the prediction is about."""
        return all(values[name] == value for name, value in self.first.items() if name not in self.beside)
