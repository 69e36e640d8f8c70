"""Worked arithmetic and word problems, generated from templates with a seeded random generator.

    python tools/math_problems.py --count 5 --seed 1

The demo model trains on one part of what the templates can say, the embedded `math` domain and the
demo tasks are drawn from the other: `is_reserved` splits the *questions* by their hash, so no question
of the domain or of a task was ever seen in training, whatever the seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

NAMES = (
    "Ada Ben Carla Dmitri Ela Femi Greta Hugo Ines Jonas Kaya Liam Mina Noor Otto Priya Quinn Rosa Sami Tara "
    "Umar Vera Wendel Xenia Yusuf Zoe"
).split()
THINGS = (
    "apples pears marbles stamps pencils books shells cards buttons coins stickers eggs cups candles bricks "
    "bottles lemons tiles notebooks ribbons"
).split()
PLACES = (
    "a farm|the market|a school|the library|a bakery|the harbour|a workshop|the museum|a garden|the station"
)


@dataclass(frozen=True)
class Problem:
    """One worked problem. `answer` is a whole number, and the last number of `text`."""

    template: str
    question: str
    steps: str
    answer: int

    @property
    def prompt(self) -> str:
        """Everything up to the final number, which is what a reader has to supply."""
        return f"Question: {self.question}\nSolution: {self.steps} The answer is"

    @property
    def text(self) -> str:
        return f"{self.prompt} {self.answer}."


Template = Callable[[random.Random], tuple[str, str, int]]
TEMPLATES: dict[str, Template] = {}


def template(function: Template) -> Template:
    TEMPLATES[function.__name__] = function
    return function


def is_reserved(question: str) -> bool:
    """Whether a question belongs to the embedded domain and the tasks (a fifth of all) and not to training."""
    return hashlib.sha256(question.encode()).digest()[0] % 5 == 0


def problems(seed: int, reserved: bool, templates: list[str] | None = None) -> Iterator[Problem]:
    """Endless problems; with `reserved` those kept from training, without it those to train on."""
    rng = random.Random(seed)
    names = templates or list(TEMPLATES)
    while True:
        name = rng.choice(names)
        question, steps, answer = TEMPLATES[name](rng)
        if is_reserved(question) == reserved:
            yield Problem(name, question, steps, answer)


def _who(r: random.Random, k: int = 1) -> list[str]:
    return r.sample(NAMES, k)


def _thing(r: random.Random) -> str:
    return r.choice(THINGS)


def _place(r: random.Random) -> str:
    return r.choice(PLACES.split("|"))


# --- bare arithmetic -------------------------------------------------------------------------------------


@template
def add_two(r):
    a, b = r.randint(2, 99), r.randint(2, 99)
    return f"What is {a} + {b}?", f"{a} + {b} = {a + b}.", a + b


@template
def subtract_two(r):
    b = r.randint(2, 60)
    a = b + r.randint(1, 60)
    return f"What is {a} - {b}?", f"{a} - {b} = {a - b}.", a - b


@template
def multiply_two(r):
    a, b = r.randint(2, 12), r.randint(2, 12)
    return f"Calculate {a} times {b}.", f"{a} * {b} = {a * b}.", a * b


@template
def divide_two(r):
    b, c = r.randint(2, 12), r.randint(2, 12)
    return f"Divide {b * c} by {b}.", f"{b} * {c} = {b * c}, so {b * c} / {b} = {c}.", c


@template
def add_three(r):
    a, b, c = (r.randint(2, 30) for _ in range(3))
    return (
        f"Find the sum of {a}, {b} and {c}.",
        f"{a} + {b} = {a + b}. {a + b} + {c} = {a + b + c}.",
        a + b + c,
    )


@template
def brackets(r):
    a, b, c = r.randint(2, 9), r.randint(2, 9), r.randint(2, 9)
    return (
        f"Evaluate ({a} + {b}) * {c}.",
        f"First the bracket: {a} + {b} = {a + b}. Then {a + b} * {c} = {(a + b) * c}.",
        (a + b) * c,
    )


@template
def precedence(r):
    a, b, c = r.randint(2, 40), r.randint(2, 9), r.randint(2, 9)
    return (
        f"Evaluate {a} + {b} * {c}.",
        f"Multiplication comes first: {b} * {c} = {b * c}. Then {a} + {b * c} = {a + b * c}.",
        a + b * c,
    )


@template
def square_number(r):
    a = r.randint(2, 15)
    return f"What is the square of {a}?", f"The square of {a} is {a} * {a} = {a * a}.", a * a


@template
def remainder(r):
    b, q = r.randint(3, 9), r.randint(2, 9)
    m = r.randint(1, b - 1)
    n = b * q + m
    return (
        f"What is the remainder when {n} is divided by {b}?",
        f"{b} * {q} = {b * q}, and {n} - {b * q} = {m}.",
        m,
    )


@template
def linear_sum(r):
    x, a = r.randint(2, 40), r.randint(2, 40)
    return (
        f"Solve for x: x + {a} = {x + a}.",
        f"Subtract {a} from both sides: x = {x + a} - {a} = {x}.",
        x,
    )


@template
def linear_product(r):
    x, a = r.randint(2, 12), r.randint(2, 9)
    return f"Solve for x: {a}x = {a * x}.", f"Divide both sides by {a}: x = {a * x} / {a} = {x}.", x


@template
def linear_full(r):
    x, a, b = r.randint(2, 12), r.randint(2, 9), r.randint(1, 20)
    return (
        f"Solve for x: {a}x + {b} = {a * x + b}.",
        f"Subtract {b}: {a}x = {a * x}. Divide by {a}: x = {x}.",
        x,
    )


@template
def percent(r):
    p, n = r.choice((10, 20, 25, 50)), r.choice((20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 240, 300))
    n = n if n * p % 100 == 0 else 100
    return f"What is {p}% of {n}?", f"{p}% of {n} is {n} * {p} / 100 = {n * p // 100}.", n * p // 100


@template
def fraction_of(r):
    d, k = r.randint(2, 6), r.randint(2, 12)
    word = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth"}[d]
    return f"What is {word} of {d * k}?", f"{d * k} / {d} = {k}.", k


@template
def next_in_sequence(r):
    a, d = r.randint(1, 20), r.randint(2, 9)
    seq = [a + i * d for i in range(4)]
    return (
        f"What number comes next: {', '.join(map(str, seq))}?",
        f"Each number is {d} more than the one before it. {seq[-1]} + {d} = {seq[-1] + d}.",
        seq[-1] + d,
    )


@template
def double_sequence(r):
    a = r.randint(1, 9)
    seq = [a * 2**i for i in range(4)]
    return (
        f"Continue the sequence {', '.join(map(str, seq))} with one more number.",
        f"Each number is twice the one before it. {seq[-1]} * 2 = {seq[-1] * 2}.",
        seq[-1] * 2,
    )


@template
def larger_of(r):
    a, b = r.sample(range(10, 100), 2)
    return f"Which number is larger, {a} or {b}?", f"{max(a, b)} is greater than {min(a, b)}.", max(a, b)


@template
def average_of_three(r):
    m, d = r.randint(6, 30), r.randint(1, 5)
    a, b, c = m - d, m, m + d
    return (
        f"Find the average of {a}, {b} and {c}.",
        f"The sum is {a} + {b} + {c} = {3 * m}. Dividing by 3 gives {3 * m} / 3 = {m}.",
        m,
    )


@template
def perimeter(r):
    a, b = r.randint(2, 20), r.randint(2, 20)
    return (
        f"A rectangle is {a} cm long and {b} cm wide. What is its perimeter in centimetres?",
        f"Two sides together are {a} + {b} = {a + b}. The perimeter is 2 * {a + b} = {2 * (a + b)}.",
        2 * (a + b),
    )


@template
def area(r):
    a, b = r.randint(2, 12), r.randint(2, 12)
    return (
        f"A rectangle is {a} m long and {b} m wide. What is its area in square metres?",
        f"The area is length times width, {a} * {b} = {a * b}.",
        a * b,
    )


@template
def triangle_angle(r):
    a, b = r.randrange(20, 90, 5), r.randrange(20, 90, 5)
    return (
        f"Two angles of a triangle measure {a} and {b} degrees. How many degrees has the third?",
        f"The angles of a triangle add up to 180. {a} + {b} = {a + b}, and 180 - {a + b} = {180 - a - b}.",
        180 - a - b,
    )


# --- word problems ---------------------------------------------------------------------------------------


@template
def gets_more(r):
    (n,), t = _who(r), _thing(r)
    a, b = r.randint(3, 50), r.randint(3, 50)
    return (
        f"{n} has {a} {t} and gets {b} more. How many {t} does {n} have now?",
        f"{n} has {a} + {b} = {a + b} {t}.",
        a + b,
    )


@template
def gives_away(r):
    (n, m), t = _who(r, 2), _thing(r)
    b = r.randint(2, 30)
    a = b + r.randint(2, 40)
    return (
        f"{n} had {a} {t} and gave {b} of them to {m}. How many {t} are left?",
        f"{n} has {a} - {b} = {a - b} {t} left.",
        a - b,
    )


@template
def boxes(r):
    (n,), t = _who(r), _thing(r)
    a, b = r.randint(2, 12), r.randint(2, 12)
    return (
        f"{n} packs {a} boxes with {b} {t} in each. How many {t} are there in all?",
        f"There are {a} * {b} = {a * b} {t}.",
        a * b,
    )


@template
def share(r):
    t = _thing(r)
    a, b = r.randint(2, 10), r.randint(2, 12)
    return (
        f"{a} children share {a * b} {t} equally. How many {t} does each child get?",
        f"Each child gets {a * b} / {a} = {b} {t}.",
        b,
    )


@template
def price(r):
    (n,), t = _who(r), _thing(r)
    a, b = r.randint(2, 12), r.randint(2, 9)
    return (
        f"One packet of {t} costs {b} dollars. How much does {n} pay for {a} packets?",
        f"The cost is {a} * {b} = {a * b} dollars.",
        a * b,
    )


@template
def change(r):
    (n,) = _who(r)
    paid = r.choice((10, 20, 50, 100))
    cost = r.randint(2, paid - 1)
    return (
        f"{n} buys a present for {cost} dollars and pays with a {paid} dollar note. How much change is due?",
        f"The change is {paid} - {cost} = {paid - cost} dollars.",
        paid - cost,
    )


@template
def two_purchases(r):
    (n,) = _who(r)
    a, b, c = r.randint(2, 6), r.randint(2, 9), r.randint(2, 20)
    return (
        f"{n} buys {a} tickets at {b} dollars each and a drink for {c} dollars. What is the total?",
        f"The tickets cost {a} * {b} = {a * b} dollars. With the drink it is {a * b} + {c} = {a * b + c} dollars.",
        a * b + c,
    )


@template
def distance(r):
    (n,) = _who(r)
    v, h = r.choice((4, 5, 6, 10, 12, 15, 20, 30, 40, 50, 60)), r.randint(2, 6)
    return (
        f"{n} travels at {v} km per hour for {h} hours. How many kilometres is that?",
        f"Distance is speed times time: {v} * {h} = {v * h}.",
        v * h,
    )


@template
def travel_time(r):
    v, h = r.choice((4, 5, 10, 20, 30, 40, 50, 60)), r.randint(2, 8)
    return (
        f"A train covers {v * h} km at {v} km per hour. How many hours does the journey take?",
        f"Time is distance divided by speed: {v * h} / {v} = {h}.",
        h,
    )


@template
def age_later(r):
    (n,) = _who(r)
    a, b = r.randint(4, 40), r.randint(2, 30)
    return f"{n} is {a} years old. How old will {n} be in {b} years?", f"{a} + {b} = {a + b}.", a + b


@template
def age_difference(r):
    n, m = _who(r, 2)
    b = r.randint(4, 30)
    a = b + r.randint(2, 30)
    return (
        f"{n} is {a} and {m} is {b} years old. How many years older is {n}?",
        f"The difference is {a} - {b} = {a - b} years.",
        a - b,
    )


@template
def times_as_many(r):
    (n, m), t = _who(r, 2), _thing(r)
    a, k = r.randint(2, 12), r.randint(2, 6)
    word = {2: "twice", 3: "three times", 4: "four times", 5: "five times", 6: "six times"}[k]
    return (
        f"{n} has {a} {t}. {m} has {word} as many. How many {t} does {m} have?",
        f"{m} has {k} * {a} = {k * a} {t}.",
        k * a,
    )


@template
def times_as_many_together(r):
    (n, m), t = _who(r, 2), _thing(r)
    a, k = r.randint(2, 12), r.randint(2, 5)
    word = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}[k]
    return (
        f"{n} has {a} {t} and {m} has {word} as many. How many {t} do they have together?",
        f"{m} has {k} * {a} = {k * a} {t}. Together they have {a} + {k * a} = {a + k * a} {t}.",
        a + k * a,
    )


@template
def left_after_two(r):
    (n,), t = _who(r), _thing(r)
    b, c = r.randint(2, 20), r.randint(2, 20)
    a = b + c + r.randint(2, 40)
    return (
        f"{n} starts the day with {a} {t}, sells {b} in the morning and {c} in the afternoon. How many are left?",
        f"{n} sells {b} + {c} = {b + c} {t}. {a} - {b + c} = {a - b - c} are left.",
        a - b - c,
    )


@template
def in_and_out(r):
    place = _place(r)
    b = r.randint(2, 30)
    a = b + r.randint(2, 40)
    c = r.randint(2, 30)
    return (
        f"There were {a} people at {place}. {b} left and {c} arrived. How many people are there now?",
        f"{a} - {b} = {a - b}. {a - b} + {c} = {a - b + c}.",
        a - b + c,
    )


@template
def weeks_to_days(r):
    w = r.randint(2, 12)
    return f"How many days are there in {w} weeks?", f"A week has 7 days, so {w} * 7 = {w * 7}.", w * 7


@template
def hours_to_minutes(r):
    h, m = r.randint(1, 5), r.choice((5, 10, 15, 20, 25, 30, 40, 45))
    return (
        f"How many minutes are {h} hours and {m} minutes?",
        f"{h} * 60 = {h * 60}. {h * 60} + {m} = {h * 60 + m}.",
        h * 60 + m,
    )


@template
def dozens(r):
    n = r.randint(2, 12)
    return f"How many eggs are in {n} dozen?", f"A dozen is 12, so {n} * 12 = {n * 12}.", n * 12


@template
def savings(r):
    (n,) = _who(r)
    a, w = r.randint(2, 12), r.randint(3, 12)
    return (
        f"{n} saves {a} dollars every week. How much has {n} saved after {w} weeks?",
        f"{w} * {a} = {a * w} dollars.",
        a * w,
    )


@template
def weeks_needed(r):
    (n,) = _who(r)
    a, w = r.randint(2, 12), r.randint(3, 12)
    return (
        f"{n} wants a lamp that costs {a * w} dollars and saves {a} dollars a week. How many weeks does it take?",
        f"{a * w} / {a} = {w} weeks.",
        w,
    )


@template
def legs(r):
    a, b = r.randint(2, 12), r.randint(2, 12)
    return (
        f"On a farm there are {a} hens and {b} goats. How many legs do they have in all?",
        f"The hens have {a} * 2 = {2 * a} legs, the goats {b} * 4 = {4 * b}. "
        f"Together {2 * a} + {4 * b} = {2 * a + 4 * b}.",
        2 * a + 4 * b,
    )


@template
def rows_of_seats(r):
    a, b = r.randint(3, 12), r.randint(3, 12)
    c = r.randint(1, min(20, a * b - 1))
    return (
        f"A hall has {a} rows of {b} seats. {c} seats are taken. How many are free?",
        f"There are {a} * {b} = {a * b} seats. {a * b} - {c} = {a * b - c} are free.",
        a * b - c,
    )


@template
def pages_read(r):
    (n,) = _who(r)
    a, d = r.randint(5, 20), r.randint(2, 7)
    total = a * d + r.randint(5, 50)
    return (
        f"{n} reads {a} pages a day of a book of {total} pages. How many pages remain after {d} days?",
        f"In {d} days {n} reads {d} * {a} = {a * d} pages. {total} - {a * d} = {total - a * d} remain.",
        total - a * d,
    )


@template
def recipe(r):
    a, k = r.randint(2, 9), r.randint(2, 6)
    return (
        f"A recipe for one cake needs {a} eggs. How many eggs are needed for {k} cakes?",
        f"{k} * {a} = {k * a} eggs.",
        k * a,
    )


@template
def half_given(r):
    (n,), t = _who(r), _thing(r)
    a, b = r.randint(4, 30), r.randint(2, 20)
    return (
        f"{n} had {2 * a} {t}, gave away half of them and then found {b} more. How many does {n} have?",
        f"Half of {2 * a} is {a}. {a} + {b} = {a + b}.",
        a + b,
    )


@template
def temperature(r):
    a, b = r.randint(5, 20), r.randint(2, 15)
    return (
        f"In the morning it was {a} degrees. By noon it was {b} degrees warmer. What was the temperature at noon?",
        f"{a} + {b} = {a + b}.",
        a + b,
    )


@template
def teams(r):
    k, n = r.randint(3, 9), r.randint(2, 9)
    return (
        f"{k * n} players form teams of {k}. How many teams are there?",
        f"{k * n} / {k} = {n} teams.",
        n,
    )


@template
def wages(r):
    (n,) = _who(r)
    w, h = r.randint(8, 20), r.randint(2, 8)
    return (
        f"{n} earns {w} dollars an hour and works {h} hours. How many dollars does {n} earn?",
        f"{w} * {h} = {w * h} dollars.",
        w * h,
    )


@template
def money_left(r):
    (n,), t = _who(r), _thing(r)
    a, b = r.randint(2, 9), r.randint(2, 9)
    have = a * b + r.randint(2, 40)
    return (
        f"{n} has {have} dollars and buys {a} boxes of {t} at {b} dollars each. How many dollars are left?",
        f"The boxes cost {a} * {b} = {a * b} dollars. {have} - {a * b} = {have - a * b} dollars are left.",
        have - a * b,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reserved", action="store_true", help="the part that training never sees")
    args = parser.parse_args()
    stream = problems(args.seed, args.reserved)
    for _ in range(args.count):
        print(next(stream).text, end="\n\n")


if __name__ == "__main__":
    main()
