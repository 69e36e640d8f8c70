"""Our calibration against a loop of the published kind, doing the same work: same model, samples and length.

    python benchmarks/versus_reference.py [--calibration-blocks 32] [--rounds 3]

The loop is written after the description of FLAP's and Wanda's published code: for every layer, hooks that
update running statistics in float32, one sample after another, and then a second pass through the layer for
its outputs. The target is at least twice as fast on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from common import RESULTS, machine
from torch import Tensor

from pruning import RunConfig
from pruning.engine.blocks import calibration_blocks
from pruning.engine.calibration import calibrate
from pruning.models.layer_view import geometry, layer_views
from pruning.models.loading import load
from pruning.models.mask import Mask
from pruning.models.source import InMemory
from pruning.progress import drain


class Running:
    """Mean and summed squares of one module's input, a sample at a time."""

    def __init__(self, channels: int) -> None:
        self.samples = 0
        self.mean = torch.zeros(channels)
        self.fluctuation = torch.zeros(channels)

    def add_batch(self, inputs: Tensor) -> None:
        x = inputs.reshape(-1, inputs.shape[-1]).t().float()  # (C, tokens), as the published code turns it
        old = self.mean.clone()
        self.mean *= self.samples / (self.samples + 1)
        self.mean += x.mean(dim=1) / (self.samples + 1)
        self.fluctuation += torch.sum((x - self.mean[:, None]) * (x - old[:, None]), dim=1)
        self.samples += 1


@torch.no_grad()
def reference(model: torch.nn.Module, ids: Tensor) -> None:
    inputs = [InMemory(model).embed(row[None]) for row in ids]
    states = [state for state, _ in inputs]
    for number, view in enumerate(layer_views(model)):
        running = {kind: Running(view.projection(kind).in_features) for kind in ("attn", "mlp")}
        hooks = [
            view.projection(kind).register_forward_hook(
                lambda _, args, __, r=running[kind]: r.add_batch(args[0])
            )
            for kind in ("attn", "mlp")
        ]
        for index, state in enumerate(states):
            view.layer(state, **inputs[index][1][number])
        for hook in hooks:
            hook.remove()
        states = [view.layer(state, **inputs[index][1][number]) for index, state in enumerate(states)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--calibration-blocks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    loaded = load(args.model, "cpu")
    mask = Mask.full(geometry(loaded.model))
    blocks = calibration_blocks(
        RunConfig.create(model=args.model, samples=args.calibration_blocks), loaded.tokenizer, loaded.model
    )
    ids = torch.cat([torch.from_numpy(domain.ids) for domain in blocks])
    seconds: dict[str, list[float]] = {"reference": [], "ours": []}
    for number in range(args.rounds + 1):
        began = time.perf_counter()
        reference(loaded.model, ids)
        middle = time.perf_counter()
        drain(calibrate(loaded.source, blocks, mask), lambda _: None)
        if number:  # the first round warms up
            seconds["reference"].append(middle - began)
            seconds["ours"].append(time.perf_counter() - middle)
    result = {
        "machine": machine(),
        "model": args.model,
        "samples": len(ids),
        "seq_len": ids.shape[1],
        "median_seconds": {name: round(statistics.median(values), 3) for name, values in seconds.items()},
        "times_as_fast": round(
            statistics.median(a / b for a, b in zip(seconds["reference"], seconds["ours"], strict=True)), 2
        ),
    }
    print(json.dumps(result, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "versus_reference.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
