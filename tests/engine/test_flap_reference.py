"""Scores, head costs and the global threshold against FLAP's formulas, written out once more and literally.

Formulas of arXiv 2312.11983 and its published prune.py, without its accidents: statistics are those of the
formula, the cost of a head is exact, and at the threshold the nearest count wins.
"""

import numpy as np
import pytest
import torch

from pruning import RunConfig
from pruning.engine.loop import prune_loaded
from pruning.models.geometry import Site
from tests.conftest import tiny_loaded

HEAD_DIM, HEADS, HIDDEN, CHANNELS, LAYERS = 4, 8, 32, 48, 3


@torch.no_grad()
def flap_masks(model, ids, ratio):
    """WIFV with AL-AM on an MHA model: per layer (heads kept, channels kept), and the two score lists."""
    inputs = {}
    hooks = []
    for i, layer in enumerate(model.model.layers):
        for kind, module in (("attn", layer.self_attn.o_proj), ("mlp", layer.mlp.down_proj)):
            hooks.append(
                module.register_forward_pre_hook(
                    lambda _, args, key=(i, kind): inputs.setdefault(key, []).append(args[0].double())
                )
            )
    for row in ids:
        model(row[None])
    for hook in hooks:
        hook.remove()

    def wifv(key, weight):
        x = torch.cat(inputs[key]).reshape(-1, weight.shape[1])
        return x.var(dim=0) * (weight.double() ** 2).sum(dim=0)

    def standardise(s):
        return (s - s.mean()) / s.std()

    attn = [
        wifv((i, "attn"), layer.self_attn.o_proj.weight) ** 2 for i, layer in enumerate(model.model.layers)
    ]
    mlp = [wifv((i, "mlp"), layer.mlp.down_proj.weight) for i, layer in enumerate(model.model.layers)]
    attn = torch.stack([standardise(s) for s in attn]).view(LAYERS, HEADS, HEAD_DIM).mean(2)
    mlp = torch.stack([standardise(s) for s in mlp])
    metric = torch.cat([attn.flatten(), mlp.flatten()])
    head_cost = 4 * HEAD_DIM * HIDDEN / (3 * HIDDEN)  # FLAP's 512/3 at head_dim 128
    cost = torch.cat([torch.full((attn.numel(),), head_cost), torch.ones(mlp.numel())]).double()
    order = torch.argsort(metric)
    removed = torch.cat([torch.zeros(1).double(), torch.cumsum(cost[order], 0)])
    count = int((removed - ratio * cost.sum()).abs().argmin())
    keep = torch.ones(len(metric), dtype=torch.bool)
    keep[order[:count]] = False
    return keep[: attn.numel()].view(LAYERS, HEADS), keep[attn.numel() :].view(LAYERS, CHANNELS)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_the_flap_preset_is_flap(ratio, text_file):
    from pruning.engine.blocks import calibration_blocks

    loaded = tiny_loaded("llama_mha")
    config = RunConfig.create(
        method="flap",
        ratio=ratio,
        mixture={"text": 1},
        domains={"text": str(text_file)},
        samples=12,
        seq_len=32,
        eval_blocks=0,
        min_mlp_share=0.001,
    )
    ids = torch.from_numpy(calibration_blocks(config, loaded.tokenizer, loaded.model)[0].ids)
    heads, channels = flap_masks(loaded.model, ids, ratio)
    *_, finished = prune_loaded(loaded, config)
    for layer in range(LAYERS):
        np.testing.assert_array_equal(finished.mask.kept[Site(layer, "attn")], heads[layer])
        np.testing.assert_array_equal(finished.mask.kept[Site(layer, "mlp")], channels[layer])


def test_one_iteration_with_one_domain_and_zscore_is_flap(text_file):
    options = {"mixture": {"text": 1}, "domains": {"text": str(text_file)}, "samples": 8, "seq_len": 32}
    options |= {"ratio": 0.4, "eval_blocks": 0}
    masks = []
    for config in (
        RunConfig.create(method="flap", **options),
        RunConfig.create(
            method="iterative",
            iterations=1,
            normalise="zscore",
            token_weights="equal",
            square_attention=True,
            unit_score="mean",
            **options,
        ),
    ):
        *_, finished = prune_loaded(tiny_loaded("qwen2"), config)
        masks.append(finished.mask)
    for site in masks[0].kept:
        np.testing.assert_array_equal(masks[0].kept[site], masks[1].kept[site])
