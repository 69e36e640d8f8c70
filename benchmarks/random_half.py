"""Half of the demo model's MLP channels at random: what the demo has to show when nothing is chosen well.

python benchmarks/random_half.py
"""

from __future__ import annotations

import copy

import numpy as np
from common import RESULTS, machine, table

from pruning import RunConfig
from pruning.engine.blocks import evaluation_blocks
from pruning.measure.perplexity import perplexity
from pruning.measure.tasks import compare, zero_shot
from pruning.models.delta import Delta
from pruning.models.folder import LoadedModel
from pruning.models.geometry import Site
from pruning.models.layer_view import geometry
from pruning.models.loading import load
from pruning.models.mask import Mask
from pruning.progress import drain


def main() -> None:
    dense = load("demo")
    full = Mask.full(geometry(dense.model))
    rng = np.random.default_rng(0)
    kept = dict(full.kept)
    for layer, shape in enumerate(full.geometry.layers):
        kept[Site(layer, "mlp")] = rng.permutation(
            np.arange(shape["mlp"].entries) < shape["mlp"].entries // 2
        )
    half = LoadedModel(copy.deepcopy(dense.model), dense.tokenizer, "half", dense.path, dense.fingerprint)
    Delta(Mask(full.geometry, kept)).apply(half.source)
    blocks = evaluation_blocks(RunConfig.create(eval_blocks=None), dense.tokenizer, dense.model)
    values = [drain(perplexity(m.source, blocks), lambda _: None) for m in (dense, half)]
    answers = [
        drain(zero_shot(m, ["demo"], name), lambda _: None) for m, name in ((dense, "dense"), (half, "half"))
    ]
    rows = [
        [f"perplexity {n}", f"{values[0][n].value:.2f}", f"{values[1][n].value:.2f}", ""] for n in values[0]
    ]
    for name, row in compare(*answers).tasks.items():
        acc = row.acc
        error = f"{100 * acc.delta:+.1f} ± {100 * acc.interval:.1f}, p = {acc.p_value:.2g}"
        rows.append([f"{name} acc", f"{100 * acc.dense:.1f}", f"{100 * acc.pruned:.1f}", error])
    text = f"# Half of the MLP channels removed at random\n\n{machine()}\n\n" + table(
        ["", "dense", "half", "paired change"], rows
    )
    (RESULTS / "random_half.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
