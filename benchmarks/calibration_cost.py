"""What the statistics cost: a calibration pass over a plain forward of the decoder layers on the same blocks.

    python benchmarks/calibration_cost.py [--model demo] [--device auto] [--rounds 7]

Three ways in turn, in one run: the whole-model forward without lm_head, the forward a layer at a time without
statistics, and the calibration pass. The ratio is of medians; the target is at most 1.15 on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from common import RESULTS, machine

from pruning import RunConfig
from pruning.engine.blocks import calibration_blocks
from pruning.engine.calibration import calibrate
from pruning.models.layer_pass import TokenStream
from pruning.models.layer_view import geometry
from pruning.models.loading import load
from pruning.models.mask import Mask
from pruning.models.source import InMemory
from pruning.progress import drain


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--calibration-blocks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    loaded = load(args.model, args.device)
    model, mask = loaded.model, Mask.full(geometry(loaded.model))
    device = next(model.parameters()).device
    blocks = calibration_blocks(
        RunConfig.create(model=args.model, samples=args.calibration_blocks), loaded.tokenizer, model
    )
    source = InMemory(model)
    batches = [batch.ids.to(device) for batch in TokenStream(source, blocks).batches]

    def full_model() -> None:
        for ids in batches:
            model.base_model(input_ids=ids, use_cache=False)

    def layerwise() -> None:
        stream = TokenStream(source, blocks)
        for index in range(len(source)):
            with source.layer(index) as view:
                for _ in stream.push(index, view):
                    pass

    def statistics_pass() -> None:
        drain(calibrate(source, blocks, mask), lambda _: None)

    seconds: dict[str, list[float]] = {"whole": [], "layerwise": [], "statistics": []}
    for number in range(args.rounds + 1):
        for name, function in (
            ("whole", full_model),
            ("layerwise", layerwise),
            ("statistics", statistics_pass),
        ):
            began = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds[name], seconds["whole"], strict=True))
        for name in ("layerwise", "statistics")
    }
    result = {
        "machine": machine(),
        "model": args.model,
        "tokens": sum(ids.numel() for ids in batches),
        "median_seconds": {name: round(value, 4) for name, value in medians.items()},
        "ratio_to_whole_forward": {name: round(value, 3) for name, value in ratios.items()},
    }
    print(json.dumps(result, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"calibration_cost_{device.type}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
