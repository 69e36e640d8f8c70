"""Tokens per second of a pruned real model in the engines that serve it, against depth pruning.

    python benchmarks/engine_speed.py            # needs `make smollm2` and `make engines`
    python benchmarks/engine_speed.py --engines llamacpp

SmolLM2 pruned by 30%, with unrounded widths and in multiples of 16, 64, 128 and 256, beside the dense model and the
dense model without its last layers, as many as the first cut has fewer parameters. All are open and take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from common import RESULTS, machine, table

from pruning import RunConfig, prune
from pruning.measure.speed import bench, drop_layers, size
from pruning.models.folder import LoadedModel
from pruning.models.loading import load
from pruning.progress import drain
from pruning.serving.bench import bench_engine

ENGINES = ("transformers", "llamacpp", "vllm")
BATCHES, LENGTHS, NEW_TOKENS, REPEATS = (1, 8, 32), (128,), 16, 3
WIDTHS = {1: "unrounded widths"} | {step: f"multiples of {step}" for step in (16, 64, 128, 256)}
FILE = RESULTS / "engine_speed.json"


def models(folder: Path) -> list[LoadedModel]:
    """The dense model, its cuts, and the rival."""
    dense = replace(load("smollm2", "cpu", "float32"), name="dense")
    every = [dense]
    for step, name in WIDTHS.items():
        config = RunConfig.create(
            model="smollm2", ratio=0.3, iterations=1, samples=8, eval_blocks=0, round_to=step
        )
        cut = load(str(prune(config, folder).run.checkpoint), "cpu", "float32")
        every.append(replace(cut, name=f"pruned, {name}"))
    rival = drop_layers(load("smollm2", "cpu", "float32"), size(every[1]).parameters)
    return [*every, replace(rival, name="fewer layers")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    args = parser.parse_args()
    results = json.loads(FILE.read_text()) if FILE.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        every = models(Path(folder))
        parameters = {model.name: size(model).parameters for model in every}
        for engine in args.engines:
            counts = every, BATCHES, LENGTHS, NEW_TOKENS, REPEATS
            timed = bench(*counts) if engine == "transformers" else bench_engine(engine, *counts)
            speeds = drain(timed, lambda step: print(step.detail, file=sys.stderr))
            results[engine] = {"machine": machine(), "speed": [each.to_dict() for each in speeds]}
            FILE.write_text(json.dumps(results, indent=1) + "\n")
    rows = []
    for engine, part in results.items():
        dense = {cell["batch"]: cell for cell in part["speed"] if cell["model"] == "dense"}
        for cell in part["speed"]:
            speeds = []
            for what in ("prefill", "decode"):
                median = cell[what]["median"]
                speeds += [f"{median:,.0f}", f"{median / dense[cell['batch']][what]['median']:.2f}"]
            rows.append((engine, cell["batch"], cell["model"], f"{parameters[cell['model']]:,}", *speeds))
    head = (
        "engine",
        "batch",
        "model",
        "parameters",
        "prefill, tokens/s",
        "times dense",
        "decode, tokens/s",
        "times dense",
    )
    machines = "; ".join(dict.fromkeys(part["machine"] for part in results.values()))
    text = f"# SmolLM2-135M, pruned by 30%, in the engines\n\n{machines}\n\nfloat32, prompts of {LENGTHS[0]} tokens, "
    text += f"{NEW_TOKENS} tokens written; median of {REPEATS} turns.\n\n{table(head, rows)}\n\n`python benchmarks/engine_speed.py`\n"
    (RESULTS / "engine_speed.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
