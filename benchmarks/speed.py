"""What half of the parameters is worth in speed: decoder layers of a random model in the shape of a Qwen2.5.

    python benchmarks/speed.py                                # 0.5B on the CPU, float32 and bfloat16
    python benchmarks/speed.py --shape 7b --device cuda       # bfloat16 on a GPU

Dense, pruned by 50% with unrounded widths, and with MLP widths rounded to multiples of 16 and 64, turn by turn in
one run. Scores are drawn at random (log-normal, by channel and by head), so that layers get different widths and lose
heads as they do with real ones.
"""

import argparse
import copy
import json
import statistics

import numpy as np
import torch
from common import RESULTS, machine, table
from transformers import AutoModelForCausalLM, Qwen2Config

from pruning import RunConfig
from pruning.engine.budget import dense_scales, next_mask
from pruning.measure.speed import interleave, seconds
from pruning.models.delta import Delta
from pruning.models.layer_view import geometry, layer_views
from pruning.models.mask import Mask
from pruning.models.source import InMemory
from pruning.models.surgery import add_bias
from pruning.progress import drain

# layers, hidden size, MLP channels, query heads, key-value heads, vocabulary, tied embeddings
SHAPES = {
    "0.5b": (24, 896, 4864, 14, 2, 151_936, True),
    "7b": (28, 3584, 18_944, 28, 4, 152_064, False),
    "tiny": (2, 64, 512, 8, 2, 512, True),  # whether this file runs
}


def dense_model(shape, device, dtype):
    layers, hidden, channels, heads, kv_heads, vocabulary, tied = SHAPES[shape]
    config = Qwen2Config(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=channels,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
    )
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def random_mask(shapes, round_to):
    generator = np.random.default_rng(0)
    scores = {site: generator.lognormal(0, 2, shapes.channels(site)) for site in shapes.sites}
    for site, values in scores.items():
        if site.name == "attn":  # over a head's many channels the differences would average out
            heads = shapes.layers[site.layer].heads
            values *= generator.lognormal(0, 2, heads).repeat(shapes.head_dim)
    config = RunConfig.create(iterations=1, round_to=round_to, attention_unit="query_head")
    return next_mask(scores, Mask.full(shapes), 0.5, config, dense_scales(scores, False))


def pruned(dense, mask):
    """A copy without half of its layers' parameters, with the biases that compensation writes."""
    model = copy.deepcopy(dense)
    Delta(mask).apply(InMemory(model))
    for view in layer_views(model):
        for linear in (view.output, view.down):
            add_bias(linear, torch.zeros_like(linear.weight[:, 0]))
    return model


def span(values):
    return f"{min(values)} to {max(values)}"


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="0.5b")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    types = (torch.float32, torch.bfloat16) if args.device == "cpu" else (torch.bfloat16,)
    dense = dense_model(args.shape, device, types[0])
    models, notes = {"dense": dense}, []
    for name, round_to in (("pruned", 1), ("pruned, multiples of 16", 16), ("pruned, multiples of 64", 64)):
        mask = random_mask(geometry(dense), round_to)
        models[name], layers = pruned(dense, mask), mask.pruned.layers
        widths, heads = (
            span([layer["mlp"].entries for layer in layers]),
            span([layer["attn"].entries for layer in layers]),
        )
        notes.append(f"- {name}: ratio {mask.ratio:.4f}, MLP widths {widths}, heads {heads}")
    rows, results = [], []
    for dtype in types:
        for model in models.values():
            model.to(dtype)
        for batch, length in ((1, 128), (1, 512), (4, 256)):
            ids = torch.randint(0, dense.config.vocab_size, (batch, length), device=device)

            def work(model, ids=ids):
                return lambda: seconds(device, lambda: model.base_model(ids, use_cache=False))

            times = drain(interleave([work(model) for model in models.values()], args.repeats, int), int)
            base = statistics.median(times[0])
            for name, values in zip(models, times, strict=True):
                ratios = [d / v for d, v in zip(times[0], values, strict=True)]
                middle = statistics.median(values)
                result = {"dtype": str(dtype)[6:], "batch": batch, "length": length, "model": name}
                result |= {"tokens_per_second": batch * length / middle, "times_dense": base / middle}
                results.append(result | {"range": [min(ratios), max(ratios)]})
                rows.append((result["dtype"], batch, length, name, f"{batch * length / middle:,.0f}",
                             f"{base / middle:.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"))  # fmt: skip
                print(rows[-1], flush=True)
    if args.shape == "tiny":
        return
    head = ("type", "batch", "length", "model", "tokens/s", "times dense", "range of the turns")
    command = (
        f"python benchmarks/speed.py --shape {args.shape} --device {args.device} --repeats {args.repeats}"
    )
    text = f"# Prefill of the decoder layers, Qwen2.5-{args.shape.upper()} shape\n\n{machine()}\n\n"
    text += table(head, rows) + "\n\n" + "\n".join(notes) + f"\n\n`{command}`\n"
    name = "speed" if (args.shape, args.device) == ("0.5b", "cpu") else f"speed-{args.shape}-{device.type}"
    (RESULTS / f"{name}.md").write_text(text)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
