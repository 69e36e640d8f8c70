"""Methods and their open choices on two models, the demo model and SmolLM2-135M: perplexity at 25% and 50%.

    python benchmarks/methods.py run                              # the demo model
    python benchmarks/methods.py run --model smollm2 --data DATA  # needs `make smollm2`; DATA/corpora/*/heldout.jsonl.gz
    python benchmarks/methods.py report                           # tables and figure from what has been run

It goes on where it stopped. Every row is one pruned model, measured on the same held-out blocks. `rise` is the
rise of the mean log-perplexity over the dense model, so exp(rise) is the factor on the geometric mean over the
domains. Calibration text is the embedded one for both; SmolLM2 is measured on other text, from DATA.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gzip
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESULTS, machine, table

from pruning import RunConfig
from pruning.engine.blocks import evaluation_blocks
from pruning.engine.loop import prune_loaded
from pruning.measure.comparison import mean_perplexity
from pruning.measure.perplexity import perplexity
from pruning.models.folder import LoadedModel
from pruning.models.loading import load
from pruning.models.source import InMemory
from pruning.progress import drain
from pruning.text.blocks import TokenBlocks, heldout_blocks
from pruning.text.sources import EMBEDDED_DOMAINS, DomainText

FILE = RESULTS / "methods.jsonl"
SEEDS = (0, 1, 2)
RATIOS = (0.25, 0.5)
DENSE = {"demo": "dense", "smollm2": "dense smollm2"}  # the rows of the dense models
TITLES = {"demo": "demo model", "smollm2": "SmolLM2-135M"}
# What was so before there was a choice: rows of that time have no such field.
BEFORE: dict[str, Any] = {"token_weights": "equal", "worst_domain": 0.0, "sequential": False}
BEFORE |= {"adapt_mixture": False, "name": "", "tags": []}
MIXED = dict.fromkeys(EMBEDDED_DOMAINS, 1.0)

NORMALISERS = ("soft_share", "robust_share", "share", "zscore", "zscore_zero", "zscore_first", "none")
# Changes of one choice at a time, from `share` with five iterations.
CHOICES: dict[str, dict[str, Any]] = {
    "share": {},
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


def grid(model: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(section, label, options) of every run of a model."""
    if model == "smollm2":
        yield from smollm2_grid()
        return
    for ratio in RATIOS:
        base = {"ratio": ratio}
        for seed in SEEDS:
            same = {**base, "seed": seed}
            share = {**same, "normalise": "share", "token_weights": "equal"}
            for method in ("iterative", "flap", "wanda_sp", "magnitude", "random"):
                yield "methods", method, {**same, "method": method}
            yield "methods", "iterative, share", share
            yield "methods", "flap, mixed", {**same, "method": "flap", "mixture": MIXED}
            yield "methods", "wanda_sp, mixed", {**same, "method": "wanda_sp", "mixture": MIXED}
            for rule in NORMALISERS:
                plain = {} if rule == "soft_share" else {"token_weights": "equal"}
                label = f"{rule}, K=5" + (", equal tokens" if plain else "")
                yield "normalisers", label, {**same, "normalise": rule, **plain}
            yield "normalisers", "soft_share, K=5, equal tokens", {**same, "token_weights": "equal"}
            yield "normalisers", "none, K=5", {**same, "normalise": "none"}
            for name in EMBEDDED_DOMAINS:
                yield "domains", f"share, {name} only", {**share, "mixture": {name: 1.0}}
                yield "domains", f"flap, {name} only", {**same, "method": "flap", "mixture": {name: 1.0}}
            yield "domains", "share, mixed", share
            yield "domains", "flap, mixed", {**same, "method": "flap", "mixture": MIXED}
            for label, change in CHOICES.items():
                yield "choices", label, {**share, **change}
    for seed in SEEDS:
        same = {"ratio": 0.5, "seed": seed}
        for rule in ("share", "zscore"):
            for k in range(1, 9):
                options = {**same, "iterations": k, "normalise": rule, "token_weights": "equal"}
                yield "iterations", f"{rule}, K={k}", options
        for samples in (8, 16, 32, 64, 128):
            plain = {"normalise": "share", "token_weights": "equal"}
            yield "samples", f"share, {samples}", {**same, "samples": samples, **plain}
            for mixture in ("wiki", "mixed"):
                weights = MIXED if mixture == "mixed" else {"wiki": 1.0}
                options = {**same, "method": "flap", "mixture": weights, "samples": samples}
                yield "samples", f"flap {mixture}, {samples}", options


def smollm2_grid() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """8 blocks a domain; what decides first, the methods with three seeds as far as they have been run."""
    base: dict[str, Any] = {"model": "smollm2", "samples": 8}
    plain = {"token_weights": "equal"}
    for seed in SEEDS:
        for ratio in RATIOS:
            same = {**base, "ratio": ratio, "seed": seed}
            yield "methods", "flap, mixed", {**same, "method": "flap", "mixture": MIXED}
            yield "methods", "iterative", same
            if seed:
                continue
            yield "methods", "iterative, share", {**same, **plain, "normalise": "share"}
            yield "normalisers", "soft_share, K=5", same
            yield "normalisers", "share, K=5, equal tokens", {**same, **plain, "normalise": "share"}
            yield (
                "normalisers",
                "robust_share, K=5, equal tokens",
                {**same, **plain, "normalise": "robust_share"},
            )
    for ratio in RATIOS:
        same = {**base, "ratio": ratio, "seed": 0}
        yield "choices", "soft_share, K=1", {**same, "iterations": 1}
        yield "choices", "soft_share, K=3", {**same, "iterations": 3}
        yield (
            "choices",
            "soft_share, K=3, query heads",
            {**same, "iterations": 3, "attention_unit": "query_head"},
        )
        yield "methods", "wanda_sp, mixed", {**same, "method": "wanda_sp", "mixture": MIXED}


def measure(dense: LoadedModel, options: dict[str, Any], blocks: list[TokenBlocks]) -> dict[str, Any]:
    """Prune a copy of the dense model and measure it."""
    config = RunConfig.create(**options, eval_blocks=0)
    loaded = LoadedModel(
        copy.deepcopy(dense.model), dense.tokenizer, dense.name, dense.path, dense.fingerprint
    )
    forget_peak()
    began = time.perf_counter()
    *_, finished = prune_loaded(loaded, config)
    row = {"ratio": finished.mask.ratio, "seconds": round(time.perf_counter() - began, 2)}
    return {**row, **peak(), "perplexity": values(loaded, blocks)}


def forget_peak() -> None:
    """Let the process's peak memory count from here."""
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> dict[str, int]:
    """Peak resident memory of this process in MB, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return {"memory": int(line.split()[1]) // 1024}
    return {}


def heldout(loaded: LoadedModel, data: Path | None, blocks: int = 12) -> list[TokenBlocks]:
    """All embedded held-out text, or so many blocks a domain of other held-out text."""
    if data is None:
        return evaluation_blocks(RunConfig.create(eval_blocks=None), loaded.tokenizer, loaded.model)
    found = []
    for name in EMBEDDED_DOMAINS:
        with gzip.open(data / "corpora" / name / "heldout.jsonl.gz", "rt", encoding="utf-8") as file:
            text = DomainText([json.loads(line)["text"] for line in file], {})
        found.append(heldout_blocks(name, text, loaded.tokenizer, 256, blocks))
    return found


def values(loaded: LoadedModel, blocks: list[TokenBlocks]) -> dict[str, float]:
    return {
        name: p.value for name, p in drain(perplexity(InMemory(loaded.model), blocks), lambda _: None).items()
    }


def key(options: dict[str, Any]) -> str:
    content = RunConfig.create(**options).model_dump(mode="json")
    for name, value in BEFORE.items():
        if content[name] == value:
            del content[name]
    return json.dumps(content, sort_keys=True)


def run(model: str, data: Path | None) -> None:
    if model == "smollm2" and data is None:
        raise SystemExit("SmolLM2 is measured on held-out text of its own: give --data.")
    RESULTS.mkdir(exist_ok=True)
    dense = load(model)
    blocks = heldout(dense, data)
    rows = read()
    known = next((row for row in rows if row["key"] == DENSE[model]), None)
    done = {row["key"] for row in rows}
    todo = {key(options): options for _, _, options in grid(model)}
    with FILE.open("a", encoding="utf-8") as file:

        def write(row: dict[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        if known is None:
            write({"key": DENSE[model], "machine": machine(), "perplexity": values(dense, blocks)})
        for number, (name, options) in enumerate(todo.items(), 1):
            if name in done:
                continue
            row = {"key": name, **measure(dense, options, blocks)}
            write(row)
            print(f"{number}/{len(todo)} {options} {mean_perplexity(row['perplexity']):.2f}", file=sys.stderr)


def read() -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []
    return [{**row, "key": completed(row["key"])} for row in rows]


def completed(name: str) -> str:
    """A key as today's options write it: rows of earlier versions lack what they did not know."""
    if name in DENSE.values():
        return name
    content = dict.fromkeys(("task_folder", "experiment")) | json.loads(name)
    return json.dumps(content, sort_keys=True)


def spread(values: list[float], digits: int = 2) -> str:
    mean = statistics.fmean(values)
    error = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{error}"


def rise(row: dict[str, Any], dense: dict[str, float]) -> float:
    return math.log(mean_perplexity(row["perplexity"]) / mean_perplexity(dense))


def report() -> None:
    found = {row["key"]: row for row in read()}
    cells: dict[tuple[str, str, str, float], list[dict[str, Any]]] = defaultdict(list)
    for model in DENSE:
        for section, label, options in grid(model):
            row = found.get(key(options))
            if row and row not in cells[model, section, label, options["ratio"]]:
                cells[model, section, label, options["ratio"]].append(row)
    text = [
        "# Methods on two models",
        "Made by `python benchmarks/methods.py run`, `... run --model smollm2 --data DATA` and `... report`. "
        "Perplexity in blocks of 256 tokens: of the demo model on all embedded held-out text with 32 calibration "
        "blocks a domain, of SmolLM2-135M-Instruct on 12 blocks a domain of other held-out text with 8. Mean and "
        "standard deviation over seeds where there are several; `mean` is the geometric mean over the domains, "
        "`rise` the rise of the mean log-perplexity over the dense model.",
        "## Both models side by side",
        side_by_side(cells, found),
    ]
    titles = {
        "methods": "methods (presets: `flap` calibrates on wiki, `wanda_sp` on web)",
        "normalisers": "normalisers of the iterative method",
        "domains": "one domain against all",
        "iterations": "one cut against several, 50%",
        "samples": "calibration blocks of each domain, 50%",
        "choices": "the method's open choices, one changed at a time",
    }
    for model, dense_key in DENSE.items():
        if dense_key not in found:
            continue
        dense = found[dense_key]["perplexity"]
        text += [
            f"## {TITLES[model]}",
            f"Machine: {found[dense_key]['machine']}.",
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
                    spread([rise(row, dense) for row in group], 3),
                ]
                for (m, s, label, ratio), group in cells.items()
                if (m, s) == (model, section) and group
            ]
            lines.sort(key=lambda line: line[1])
            if lines:
                text += [f"### {TITLES[model]}: {title}"]
                text += [table(["", "ratio", *dense, "mean", "rise"], lines)]
    (RESULTS / "methods.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    dense = found["dense"]["perplexity"]
    demo = {cell[1:]: group for cell, group in cells.items() if cell[0] == "demo"}
    figure({name: [rise(row, dense) for row in group] for name, group in demo.items()})


def side_by_side(cells: dict, found: dict) -> str:
    """Rise by method on each model; a row for what both have been measured with."""
    columns = [(model, ratio) for model in DENSE for ratio in RATIOS]
    rows: dict[str, dict[tuple[str, float], str]] = defaultdict(dict)
    for (model, section, label, ratio), group in cells.items():
        if section in ("methods", "normalisers") and group:
            dense = found[DENSE[model]]["perplexity"]
            rows[label][model, ratio] = spread([rise(row, dense) for row in group], 3)
    lines = [
        [label, *(row.get(column, "") for column in columns)]
        for label, row in rows.items()
        if {model for model, _ in row} == set(DENSE)
    ]
    return table(["rise", *(f"{TITLES[model]}, {100 * ratio:.0f}%" for model, ratio in columns)], lines)


def figure(rises: dict[tuple[str, str, float], list[float]]) -> None:
    """Rise against iterations and against samples, every seed a point."""
    from plotly.subplots import make_subplots

    fig = make_subplots(
        cols=2,
        shared_yaxes=True,
        subplot_titles=(
            "Rise by number of iterations, demo model",
            "Rise by calibration blocks, demo model",
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
    parser.add_argument("--model", choices=tuple(DENSE), default="demo")
    parser.add_argument("--data", type=Path, help="folder with corpora/DOMAIN/heldout.jsonl.gz")
    args = parser.parse_args()
    if args.what == "run":
        run(args.model, args.data)
    else:
        report()
