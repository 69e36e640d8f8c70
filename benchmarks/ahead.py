"""Beyond the paper's method: least squares, sequential statistics, measured damage, on both models.

    python benchmarks/ahead.py run                              # the demo model
    python benchmarks/ahead.py run --model smollm2 --data DATA  # needs `make smollm2`
    python benchmarks/ahead.py report

Calibration and held-out text are those of benchmarks/methods.py, whose rows of FLAP on the same mixture and of
the paper's method stand beside these. It goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import methods
from common import RESULTS, table
from methods import DENSE, MIXED, TITLES, heldout, key, measure

from pruning.measure.comparison import mean_perplexity
from pruning.models.loading import load

FILE = RESULTS / "ahead.jsonl"
RATIOS = (0.25, 0.5, 0.7)
SQUARES = {"compensation": "least_squares"}
PRUNESCOPE = {**SQUARES, "iterations": 1, "allocation": "measured"}  # the preset, as options
ROWS: dict[str, dict[str, Any]] = {
    "prunescope: least squares, measured damage, K = 1": PRUNESCOPE,
    "flap, mixed": {"method": "flap", "mixture": MIXED},
    "iterative, bias, K = 5 (the paper's)": {},
    "least squares, K = 1": {**SQUARES, "iterations": 1},
    "prunescope, K = 3, sequential": {**PRUNESCOPE, "iterations": 3, "sequential": True},
    "least squares, K = 3": {**SQUARES, "iterations": 3},
    "least squares, K = 3, sequential": {**SQUARES, "iterations": 3, "sequential": True},
    "bias, K = 1": {"iterations": 1},
    "bias, K = 5, mixture auto": {"mixture": "auto"},
}


def grid(model: str) -> Iterator[tuple[str, float, dict[str, Any]]]:
    base = {"model": model, "samples": 8} if model == "smollm2" else {}
    for label, options in ROWS.items():
        for ratio in RATIOS:
            yield label, ratio, {**base, **options, "ratio": ratio, "seed": 0}


def rows() -> dict[str, dict[str, Any]]:
    """Rows of this benchmark and of methods.py, by key."""
    lines = FILE.read_text().splitlines() if FILE.exists() else []
    return {row["key"]: row for row in [*methods.read(), *map(json.loads, lines)]}


def run(model: str, data: Path | None) -> None:
    dense = load(model)
    blocks = heldout(dense, data)
    done = set(rows())
    with FILE.open("a", encoding="utf-8") as file:
        for label, ratio, options in grid(model):
            if key(options) in done:
                continue
            row = {"key": key(options), **measure(dense, options, blocks)}
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(model, label, ratio, f"{mean_perplexity(row['perplexity']):.2f}", file=sys.stderr)


def report() -> None:
    """The table of what was run."""
    known, lines = rows(), []
    for model, title in TITLES.items():
        base = math.log(mean_perplexity(known[DENSE[model]]["perplexity"]))
        found = []
        for label, ratio, options in grid(model):
            if row := known.get(key(options)):
                values = row["perplexity"]
                rise = math.log(mean_perplexity(values)) - base
                cells = [f"{ratio:.0%}", label, *(f"{values[name]:.1f}" for name in MIXED), f"{rise:.3f}"]
                found.append([*cells, f"{row['seconds']:.0f}"])
        head = ["ratio", "method", *MIXED, "rise", "seconds"]
        lines += [f"## {title}", "", table(head, sorted(found, key=lambda cells: cells[0])), ""]
    text = "# Beyond the paper's method\n\n" + (
        "Made by `python benchmarks/ahead.py`. Perplexity by domain; `rise` is the rise of the mean "
        "log-perplexity over the dense model. One seed; text and blocks as in methods.md. The seconds were taken on "
        "a machine that did other work as well and are no comparison.\n\n"
    )
    (RESULTS / "ahead.md").write_text(text + "\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--model", choices=["demo", "smollm2"], default="demo")
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    report() if given.what == "report" else run(given.model, given.data)
