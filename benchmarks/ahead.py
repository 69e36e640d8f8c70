"""Beyond the paper's method: least squares, sequential statistics, measured damage, on both models.

    python benchmarks/ahead.py run                              # the demo model
    python benchmarks/ahead.py run --model smollm2 --data DATA  # needs `make smollm2`
    python benchmarks/ahead.py optipfair --model smollm2 --data DATA  # needs `pip install --no-deps optipfair`
    python benchmarks/ahead.py report

Calibration and held-out text are those of benchmarks/methods.py, whose rows of FLAP on the same mixture and of
the paper's method stand beside these. It goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import methods
from common import RESULTS, table
from methods import DENSE, MIXED, TITLES, heldout, key, measure, values

from pruning import RunConfig
from pruning.engine.blocks import calibration_blocks
from pruning.measure.comparison import mean_perplexity
from pruning.method.presets import METHODS
from pruning.models.architectures import geometry
from pruning.models.loading import load

FILE = RESULTS / "ahead.jsonl"
RATIOS = (0.25, 0.5, 0.7)
SQUARES = {"compensation": "least_squares"}
FRESH = METHODS["prunescope"]  # as options: least squares, sequential, K = 3
MEASURED = {**SQUARES, "allocation": "measured"}
OPTIPFAIR = "optipfair 0.4.2, data-driven, MLP channels only"
ROWS: dict[str, dict[str, Any]] = {
    "prunescope: least squares, K = 3, sequential": FRESH,
    "flap, mixed": {"method": "flap", "mixture": MIXED},
    "iterative, bias, K = 5 (the paper's)": {},
    "bias, K = 1": {"iterations": 1},
    "bias, K = 5, mixture auto": {"mixture": "auto"},
    "least squares, K = 1": {**SQUARES, "iterations": 1},
    "least squares, K = 3": {**SQUARES, "iterations": 3},
    "least squares, K = 5": SQUARES,
    "least squares, measured damage, K = 1": {**MEASURED, "iterations": 1},
    "least squares, measured damage, K = 3, sequential": {**FRESH, **MEASURED},
}


def grid(model: str) -> Iterator[tuple[str, float, dict[str, Any]]]:
    base = {"model": model, "samples": 8} if model == "smollm2" else {}
    for label, options in ROWS.items():
        for ratio in RATIOS:
            yield label, ratio, {**base, **options, "ratio": ratio, "seed": 0}
    if model == "smollm2":  # four times the tokens
        for label in [*ROWS][:2]:
            yield (
                f"{label}, 32 blocks",
                0.25,
                {**base, **ROWS[label], "ratio": 0.25, "seed": 0, "samples": 32},
            )


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


def optipfair(model: str, data: Path | None) -> None:
    """A peer that prunes by weights and activations (optipfair's MAW with data), on the same calibration blocks."""
    import torch
    from optipfair import prune_model

    dense = load(model)
    blocks, shape = heldout(dense, data), geometry(dense.model)
    mlp = sum(shape.parameters(site) for site in shape.sites if site.kind == "mlp")
    text = calibration_blocks(
        RunConfig.create(samples=8 if model == "smollm2" else 32), dense.tokenizer, dense.model
    )
    for ratio in RATIOS:
        pruned = copy.deepcopy(dense.model)
        prune_model(
            pruned,
            pruning_percentage=100 * ratio * shape.linear_parameters / mlp,
            dataloader=[{"input_ids": torch.from_numpy(each.ids)} for each in text],
            show_progress=False,
        )
        row = {
            "key": f"{OPTIPFAIR}, {model}, {ratio}",
            "perplexity": values(replace(dense, model=pruned), blocks),
        }
        with FILE.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def report() -> None:
    """The table of what was run."""
    known, lines = rows(), []
    for model, title in TITLES.items():
        base = math.log(mean_perplexity(known[DENSE[model]]["perplexity"]))
        found = []
        keys = [(label, ratio, key(options)) for label, ratio, options in grid(model)]
        keys += [(OPTIPFAIR, ratio, f"{OPTIPFAIR}, {model}, {ratio}") for ratio in RATIOS]
        for label, ratio, name in keys:
            if row := known.get(name):
                here = row["perplexity"]
                rise = math.log(mean_perplexity(here)) - base
                cells = [f"{ratio:.0%}", label, *(f"{here[domain]:.1f}" for domain in MIXED), f"{rise:.3f}"]
                found.append([*cells, f"{row['seconds']:.0f}" if "seconds" in row else ""])
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
    parser.add_argument("what", choices=["run", "optipfair", "report"])
    parser.add_argument("--model", choices=["demo", "smollm2"], default="demo")
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    if given.what == "report":
        report()
    else:
        (run if given.what == "run" else optipfair)(given.model, given.data)
