"""All methods on the demo model, and the choices that METHOD leaves open: perplexity at 25% and 50%.

    python benchmarks/methods.py run        # about half an hour on 4 cores; goes on where it stopped
    python benchmarks/methods.py report     # tables and figure from what has been run

Every row is one pruned model, measured on the same held-out blocks. `rise` is the rise of the mean
log-perplexity over the dense model, so exp(rise) is the factor on the geometric mean over the domains.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from common import RESULTS, machine, table

from pruning import RunConfig
from pruning.engine.blocks import evaluation_blocks
from pruning.engine.loop import prune_loaded
from pruning.measure.comparison import mean_perplexity
from pruning.measure.perplexity import perplexity
from pruning.models.folder import LoadedModel
from pruning.models.loading import load
from pruning.progress import drain
from pruning.text.sources import EMBEDDED_DOMAINS

FILE = RESULTS / "methods.jsonl"
SEEDS = (0, 1, 2)
RATIOS = (0.25, 0.5)
MIXED = dict.fromkeys(EMBEDDED_DOMAINS, 1.0)

# Changes of one choice at a time, from the paper's method as it stands in the presets.
CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "normalise=zscore": {"normalise": "zscore"},
    "normalise=zscore_zero": {"normalise": "zscore_zero"},
    "normalise=zscore_first": {"normalise": "zscore_first"},
    "normalise=none": {"normalise": "none"},
    "unit_score=mean": {"unit_score": "mean"},
    "square_attention": {"square_attention": True},
    "fusion=total": {"fusion": "total"},
    "attention_unit=query_head": {"attention_unit": "query_head"},
    "schedule=geometric": {"schedule": "geometric"},
    "schedule=cubic": {"schedule": "cubic"},
    "compensation=none": {"compensation": "none"},
    "allocation=uniform": {"allocation": "uniform"},
    "score=input_variance": {"score": "input_variance"},
    "score=wanda_sp": {"score": "wanda_sp"},
}


def grid() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(section, label, options) of every run."""
    for ratio in RATIOS:
        base = {"ratio": ratio}
        for seed in SEEDS:
            same = {**base, "seed": seed}
            for method in ("iterative", "flap", "wanda_sp", "magnitude", "random"):
                yield "methods", method, {**same, "method": method}
            yield "methods", "flap, mixed", {**same, "method": "flap", "mixture": MIXED}
            yield "methods", "wanda_sp, mixed", {**same, "method": "wanda_sp", "mixture": MIXED}
            for name in EMBEDDED_DOMAINS:
                yield "domains", f"iterative, {name} only", {**same, "mixture": {name: 1.0}}
                yield "domains", f"flap, {name} only", {**same, "method": "flap", "mixture": {name: 1.0}}
            yield "domains", "iterative, mixed", same
            yield "domains", "flap, mixed", {**same, "method": "flap", "mixture": MIXED}
            for label, change in CHOICES.items():
                yield "choices", label, {**same, **change}
    for seed in SEEDS:
        same = {"ratio": 0.5, "seed": seed}
        for rule in ("share", "zscore"):
            for k in range(1, 9):
                yield "iterations", f"{rule}, K={k}", {**same, "iterations": k, "normalise": rule}
        for samples in (8, 16, 32, 64, 128):
            yield "samples", f"iterative, {samples}", {**same, "samples": samples}
            for mixture in ("wiki", "mixed"):
                weights = MIXED if mixture == "mixed" else {"wiki": 1.0}
                options = {**same, "method": "flap", "mixture": weights, "samples": samples}
                yield "samples", f"flap {mixture}, {samples}", options


def measure(dense: LoadedModel, options: dict[str, Any]) -> dict[str, Any]:
    """Prune a copy of the dense model and measure it."""
    config = RunConfig.create(**options, eval_blocks=0)
    loaded = LoadedModel(
        copy.deepcopy(dense.model), dense.tokenizer, dense.name, dense.path, dense.fingerprint
    )
    began = time.perf_counter()
    *_, finished = prune_loaded(loaded, config)
    seconds = time.perf_counter() - began
    ratio = finished.mask.ratio
    return {"ratio": ratio, "perplexity": heldout(loaded), "seconds": round(seconds, 2)}


def heldout(loaded: LoadedModel) -> dict[str, float]:
    """Perplexity on all embedded held-out text."""
    blocks = evaluation_blocks(RunConfig.create(eval_blocks=None), loaded.tokenizer, loaded.model)
    return {name: p.value for name, p in drain(perplexity(loaded.model, blocks), lambda _: None).items()}


def key(options: dict[str, Any]) -> str:
    return json.dumps(RunConfig.create(**options).model_dump(mode="json"), sort_keys=True)


def run() -> None:
    RESULTS.mkdir(exist_ok=True)
    dense = load("demo")
    rows = read()
    if rows and rows[0]["fingerprint"] != dense.fingerprint:
        raise SystemExit(f"{FILE} is of another demo model: remove it to measure this one.")
    done = {row["key"] for row in rows}
    todo = {key(options): options for _, _, options in grid()}
    with FILE.open("a", encoding="utf-8") as file:
        if not rows:
            file.write(
                json.dumps(
                    {
                        "key": "dense",
                        "fingerprint": dense.fingerprint,
                        "machine": machine(),
                        "perplexity": heldout(dense),
                    }
                )
                + "\n"
            )
        for number, (name, options) in enumerate(todo.items(), 1):
            if name in done:
                continue
            row = {"key": name, **measure(dense, options)}
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{number}/{len(todo)} {options} {mean_perplexity(row['perplexity']):.2f}", file=sys.stderr)


def read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []


def report() -> None:
    rows = read()
    dense = rows[0]["perplexity"]
    found = {row["key"]: row for row in rows}
    cells: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    for section, label, options in grid():
        if key(options) in found:
            cells[section, label, options["ratio"]].append(found[key(options)])

    def rise(row: dict[str, Any]) -> float:
        return math.log(mean_perplexity(row["perplexity"]) / mean_perplexity(dense))

    def spread(values: list[float], digits: int = 2) -> str:
        mean = statistics.fmean(values)
        return (
            f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}"
            if len(values) > 1
            else f"{mean:.{digits}f}"
        )

    titles = {
        "methods": "Methods (presets: `flap` calibrates on wiki, `wanda_sp` on web)",
        "domains": "One domain against all",
        "iterations": "One cut against several, 50%",
        "samples": "Calibration blocks of each domain, 50%",
        "choices": "The method's open choices, one changed at a time",
    }
    header = ["", "ratio", *dense, "mean", "rise"]
    text = [
        "# Methods on the demo model",
        "Made by `python benchmarks/methods.py run` and `... report`. Perplexity on all embedded held-out text "
        "in blocks of 256 tokens, mean and standard deviation over seeds "
        f"{', '.join(map(str, SEEDS))}; `mean` is the geometric mean over the domains, `rise` the rise of the mean "
        "log-perplexity over the dense model.",
        f"Machine: {rows[0]['machine']}.",
        table(
            ["dense", *dense, "mean"],
            [["", *(f"{v:.2f}" for v in dense.values()), f"{mean_perplexity(dense):.2f}"]],
        ),
    ]
    for section, title in titles.items():
        lines = [
            [
                label,
                f"{100 * ratio:.0f}%",
                *(spread([row["perplexity"][name] for row in group], 1) for name in dense),
                spread([mean_perplexity(row["perplexity"]) for row in group], 1),
                spread([rise(row) for row in group], 3),
            ]
            for (s, label, ratio), group in cells.items()
            if s == section
        ]
        lines.sort(key=lambda line: line[1])
        text += [f"## {title}", table(header, lines)]
    (RESULTS / "methods.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    figure({name: [rise(row) for row in group] for name, group in cells.items()})


def figure(rises: dict[tuple[str, str, float], list[float]]) -> None:
    """Rise against iterations and against samples, every seed a point."""
    from plotly.subplots import make_subplots

    fig = make_subplots(
        cols=2,
        shared_yaxes=True,
        subplot_titles=(
            "Several small cuts beat one, if scores keep a fixed scale",
            "Fewer samples hurt FLAP more",
        ),
    )
    series: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for (section, label, _), values in rises.items():
        if section in ("iterations", "samples"):
            name, _, x = label.partition(", ")
            series[section, name] += [(int(x.removeprefix("K=")), value) for value in values]
    colours = ("#0b6e99", "#d1495b", "#0b6e99", "#edae49", "#d1495b")
    for ((section, name), points), colour in zip(series.items(), colours, strict=False):
        points.sort()
        xs = sorted({x for x, _ in points})
        means = [statistics.fmean([y for x, y in points if x == at]) for at in xs]
        column = 1 if section == "iterations" else 2
        fig.add_scatter(x=xs, y=means, name=name, line_color=colour, col=column, row=1, legendgroup=section)
        fig.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="markers",
            marker_color=colour,
            marker_opacity=0.4,
            showlegend=False,
            col=column,
            row=1,
        )
    fig.update_xaxes(title="iterations K", row=1, col=1)
    fig.update_xaxes(title="blocks of each domain", type="log", row=1, col=2, tickvals=[8, 16, 32, 64, 128])
    fig.update_yaxes(title="rise of the mean log-perplexity at 50%", row=1, col=1)
    fig.update_layout(template="plotly_white", width=1100, height=430)
    fig.write_image(RESULTS / "methods.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    {"run": run, "report": report}[parser.parse_args().what]()
