"""A pruned model on disk: safetensors, tokenizer, the dense config, and `pruning.json` with its widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from pruning.folders import PRUNING_FILE, replacing
from pruning.masks import Mask
from pruning.model_files import MASK_FILE
from pruning.runs import versions
from pruning.sites import CausalLM, geometry
from pruning.surgery import output_biases


def save(
    model: CausalLM,
    tokenizer: Any,
    folder: str | Path,
    record: dict[str, Any] | None = None,
    mask: Mask | None = None,
    shard: str = "5GB",
) -> Path:
    """Write a model so that `models.load` gives back the same logits bit for bit.

    Args:
        model: dense or pruned.
        tokenizer: its tokenizer.
        folder: made if it is not there; an earlier checkpoint in it is replaced as a whole.
        record: what else `pruning.json` is to say, such as the config of the run.
        mask: over the dense model, written beside the weights.
        shard: a file of weights is no larger.

    Raises:
        RunError: the folder holds something else, or cannot be written.
    """
    shapes, biased = geometry(model), output_biases(model)
    content = {
        "geometry": shapes.to_dict(),
        "biased": {str(site): str(site) in biased for site in shapes.sites},
        **({"mask": MASK_FILE} if mask else {}),
        **(record or {}),
        "versions": versions(),
    }
    with replacing(folder) as temporary:
        model.save_pretrained(temporary, max_shard_size=shard)
        tokenizer.save_pretrained(temporary)
        if mask:
            save_file({str(s): array for s, array in mask.retained.items()}, temporary / MASK_FILE)
        (temporary / PRUNING_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return Path(folder)
