"""Write the demo tasks, `assets/tasks/*.jsonl` and their YAML for lm-evaluation-harness. Seeded.

    python tools/make_tasks.py

Wiki, web and code continue a passage of the embedded held-out text: the true continuation against three of the
same length taken from other documents. The arithmetic tasks ask for a result that training never saw; agreement
asks for the form of the verb that the subject wants, a little way off.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path

from math_problems import problems

ASSETS = Path(__file__).resolve().parent.parent / "assets"
OUT = ASSETS / "tasks"
ITEMS = 200
SEED = 7
Item = dict[str, object]


def heldout(domain: str) -> list[dict[str, str]]:
    lines = (ASSETS / "domains" / f"{domain}.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == "heldout"]


def finish(candidates: list[tuple[str, str, list[str]]], rng: random.Random) -> list[Item]:
    """Items with the right answer at every position equally often."""
    chosen = rng.sample(candidates, min(ITEMS, len(candidates)))
    items = []
    for number, (context, right, wrong) in enumerate(chosen):
        label = number % (len(wrong) + 1)
        items.append({"context": context, "choices": [*wrong[:label], right, *wrong[label:]], "label": label})
    rng.shuffle(items)
    return [{"id": number, **item} for number, item in enumerate(items)]


# --- continuations ---------------------------------------------------------------------------------------


def _nearest(places: list[int], wanted: int) -> int:
    """The place nearest to where one wants to be, or that itself where there is none."""
    return min(places, key=lambda place: abs(place - wanted), default=wanted)


def prose(domain: str, rng: random.Random) -> list[Item]:
    """Half a sentence and what stood before it, then how it goes on."""
    pieces: list[tuple[str, str, str]] = []  # (document, context, continuation)
    for row in heldout(domain):
        words_before: list[str] = []
        for sentence in re.split(r"(?<=[.!?])\s+", row["text"].strip()):
            words = sentence.split()
            if len(words) >= 14 and len(words_before) >= 12 and "\n" not in sentence:
                commas = [i + 1 for i in range(4, len(words) - 6) if words[i].endswith((",", ";"))]
                for cut in sorted({_nearest(commas, len(words) // 2), *([8] if len(words) >= 24 else [])}):
                    context = " ".join([*words_before[-60:], *words[:cut]])
                    pieces.append((row["id"], context, " ".join(words[cut : cut + 14])))
            words_before += words
    candidates = []
    for document, context, right in pieces:
        length = len(right.split())
        others = [c for d, _, c in pieces if d != document and abs(len(c.split()) - length) <= 1]
        others = list(dict.fromkeys(others))
        if len(others) >= 3:
            candidates.append((context, right, rng.sample(others, 3)))
    return finish(candidates, rng)


def code(rng: random.Random) -> list[Item]:
    """Ten lines and then the next two, against two lines at the same depth of other files."""
    pieces: list[tuple[str, str, str]] = []
    for row in heldout("code"):
        lines = [line.rstrip() for line in row["text"].splitlines()]
        for at in range(8, len(lines) - 1):
            if len(lines[at].strip()) > 8 and lines[at + 1].strip() and lines[at - 1].strip():
                context = "\n".join(lines[max(0, at - 12) : at]) + "\n"
                pieces.append((row["id"], context, "\n".join(lines[at : at + 2])))

    def depth(text: str) -> int:
        return len(text) - len(text.lstrip())

    candidates = []
    for document, context, right in pieces:
        language = document.rpartition(".")[2]
        others = [
            c
            for d, _, c in pieces
            if d != document
            and d.endswith(language)
            and depth(c) == depth(right)
            and 0.7 < len(c) / len(right) < 1.4
        ]
        others = [c for c in dict.fromkeys(others) if c != right]
        if len(others) >= 3:
            candidates.append((context, right, rng.sample(others, 3)))
    return finish(candidates, rng)


# --- numbers ---------------------------------------------------------------------------------------------


def near(answer: int, rng: random.Random) -> list[str]:
    """Three other numbers of about the same size."""
    found = {answer + d for d in (-20, -10, -3, -2, -1, 1, 2, 3, 10, 20) if answer + d > 0}
    return [str(n) for n in rng.sample(sorted(found), 3)]


SUMS = "add_two subtract_two multiply_two divide_two add_three gets_more gives_away boxes share price change".split()


def arithmetic(rng: random.Random) -> list[Item]:
    """The result of the last sum: `12 + 7 =`."""
    stream = problems(SEED, reserved=True, templates=SUMS)
    candidates, seen = [], set()
    for problem in itertools.islice(stream, 5000):
        head, _, _ = problem.steps.rpartition(" = ")
        if problem.question not in seen and head:
            seen.add(problem.question)
            context = f"Question: {problem.question}\nSolution: {head} ="
            candidates.append((context, str(problem.answer), near(problem.answer, rng)))
    return finish([c for c in candidates if c[1] != ""], rng)


def answers(rng: random.Random) -> list[Item]:
    """A worked word problem up to its last number."""
    candidates, seen = [], set()
    for problem in itertools.islice(problems(SEED + 1, reserved=True), 5000):
        if problem.question not in seen:
            seen.add(problem.question)
            numbers = [n for n in re.findall(r"\d+", problem.question) if int(n) != problem.answer]
            wrong = list(dict.fromkeys([*numbers, *near(problem.answer, rng)]))[:3]
            candidates.append((problem.prompt, str(problem.answer), wrong))
    return finish(candidates, rng)


# --- agreement -------------------------------------------------------------------------------------------

NOUNS = """author book bridge building car child church city company door dog farmer game garden girl house
idea island key king lake law letter machine member model name officer option painting picture plan player
problem queen report river road room school ship singer song station story student system table teacher test
tool town tree user village wall window word worker writer""".split()
PLURALS = {
    "child": "children",
    "city": "cities",
    "church": "churches",
    "company": "companies",
    "story": "stories",
}
ONE = "The,This,Every,One,Each,That".split(",")
MANY = "The,These,Most,Two,Many,Those".split(",")
BETWEEN = "here|today|of ours|like this|in there|over there|of mine|from here|as such|like those|like that|by now".split(
    "|"
)
ADJECTIVES = "old,new,small,large,first,other,good,second,local,long,open,best".split(",")
ENDS = (
    "very old|not the same|now in use|well known|on the other side|too small for this|the best of all|"
    "still there|important to us|part of the plan|ready for the next year|much larger than before"
).split("|")


def plural(noun: str) -> str:
    return PLURALS.get(noun, noun + "s")


def agreement(rng: random.Random) -> list[Item]:
    """Is or are, was or were, has or have; half of the subjects are plural."""
    candidates: list[tuple[str, str, list[str]]] = []
    seen: set[str] = set()
    while len(candidates) < ITEMS:
        many = len(candidates) % 2 == 1
        noun = rng.choice(NOUNS)
        subject = f"{rng.choice(ADJECTIVES)} {plural(noun) if many else noun}"
        context = f"{rng.choice(MANY if many else ONE)} {subject} {rng.choice(BETWEEN)}"
        if context in seen:
            continue
        seen.add(context)
        end = rng.choice(ENDS)
        forms = rng.choice((("is", "are"), ("was", "were"), ("has been", "have been")))
        candidates.append((context, f"{forms[many]} {end}.", [f"{forms[not many]} {end}."]))
    return finish(candidates, rng)


# --- files -----------------------------------------------------------------------------------------------

YAML = """# {title}
task: prunescope_{name}
tag: prunescope_demo
custom_dataset: !function data.load
dataset_kwargs: {{name: {name}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
target_delimiter: "{delimiter}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""

LOADER = '''"""Where the demo tasks' items come from: the files beside this one."""

from pathlib import Path

from datasets import Dataset


def load(name: str, **_: object) -> dict[str, Dataset]:
    """The items of a task as its test split."""
    return {"test": Dataset.from_json(str(Path(__file__).parent / f"{name}.jsonl"))}
'''

TASKS = {
    "wiki": ("How an encyclopedic sentence goes on", " ", lambda rng: prose("wiki", rng)),
    "web": ("How a sentence of a web page goes on", " ", lambda rng: prose("web", rng)),
    "code": ("The next two lines of a source file", "", code),
    "arithmetic": ("The result of a sum", " ", arithmetic),
    "answers": ("The answer of a worked problem", " ", answers),
    "agreement": ("The form of the verb that the subject wants", " ", agreement),
}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "data.py").write_text(LOADER, encoding="utf-8")
    for name, (title, delimiter, make) in TASKS.items():
        items = make(random.Random(f"{SEED} {name}"))
        lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        (OUT / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        content = YAML.format(title=title, name=name, delimiter=delimiter)
        (OUT / f"{name}.yaml").write_text(content, encoding="utf-8")
        print(f"{name}: {len(items)} items")


if __name__ == "__main__":
    main()
