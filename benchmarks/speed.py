"""What half of the parameters is worth in speed: decoder layers of a Qwen2.5-0.5B-shaped random model on the CPU.

    python benchmarks/speed.py

Dense, pruned by 50% with widths as they fall, and with MLP widths rounded to multiples of 64, turn by turn in one
run. Scores are drawn at random (log-normal), so that layers get different widths as they do with real ones.
"""

import argparse
import copy
import json
import statistics
import time

import numpy as np
import torch
from common import RESULTS, machine, table
from transformers import AutoModelForCausalLM, Qwen2Config

from pruning import RunConfig
from pruning.masks import Mask, dense_scales, next_mask
from pruning.sites import geometry, layer_views
from pruning.surgery import add_bias, remove

SHAPE = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
SHAPE |= {
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}


def pruned(dense, round_to, unit):
    """A copy without half of its layers' parameters, with the biases that compensation writes."""
    generator = np.random.default_rng(0)
    shapes = geometry(dense)
    scores = {site: generator.lognormal(0, 2, shapes.channels(site)) for site in shapes.sites}
    config = RunConfig.create(ratio=0.5, iterations=1, round_to=round_to, attention_unit=unit)
    mask = next_mask(scores, Mask.full(shapes), 0.5, config, dense_scales(scores, False))
    model = copy.deepcopy(dense)
    remove(model, Mask.full(shapes), mask)
    for view in layer_views(model):
        for linear in (view.output, view.down):
            add_bias(linear, torch.zeros(shapes.hidden_size))
    return model, mask


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dense = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPE), dtype=torch.float32).eval()
    models, notes = {"dense": dense}, {}
    for name, round_to in (("pruned", 1), ("pruned, multiples of 64", 64)):
        models[name], mask = pruned(dense, round_to, "query_head")
        widths = [layer.channels for layer in mask.pruned.layers]
        heads = [layer.heads for layer in mask.pruned.layers]
        notes[name] = (
            f"ratio {mask.ratio:.4f}, MLP widths {min(widths)} to {max(widths)}, heads {min(heads)} to {max(heads)}"
        )
    rows, results = [], []
    for dtype in (torch.float32, torch.bfloat16):
        for model in models.values():
            model.to(dtype)
        for batch, length in ((1, 128), (1, 512), (4, 256)):
            ids = torch.randint(0, SHAPE["vocab_size"], (batch, length))
            seconds = {name: [] for name in models}
            for turn in range(args.repeats + 2):
                for name, model in models.items():
                    began = time.perf_counter()
                    model.base_model(ids, use_cache=False)
                    if turn >= 2:
                        seconds[name].append(time.perf_counter() - began)
            base = statistics.median(seconds["dense"])
            for name, values in seconds.items():
                ratios = [d / v for d, v in zip(seconds["dense"], values, strict=True)]
                middle = statistics.median(values)
                result = {"dtype": str(dtype)[6:], "batch": batch, "length": length, "model": name}
                result |= {"tokens_per_second": batch * length / middle, "times_dense": base / middle}
                result |= {"range": [min(ratios), max(ratios)]}
                results.append(result)
                rows.append((result["dtype"], batch, length, name, f"{batch * length / middle:,.0f}",
                             f"{base / middle:.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"))  # fmt: skip
                print(rows[-1], flush=True)
    head = ("type", "batch", "length", "model", "tokens/s", "times dense", "range of the turns")
    text = f"# Prefill of the decoder layers, Qwen2.5-0.5B shape\n\n{machine()}\n\n{table(head, rows)}\n\n"
    text += "\n".join(f"- {name}: {note}" for name, note in notes.items())
    text += f"\n\n`python benchmarks/speed.py --repeats {args.repeats}`\n"
    (RESULTS / "speed.md").write_text(text)
    (RESULTS / "speed.json").write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
