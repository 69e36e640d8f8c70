"""A pruned model on disk: safetensors, tokenizer, the dense config, and `pruning.json` with its widths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from pruning.config import RunError
from pruning.masks import Mask
from pruning.models import MASK_FILE, PRUNING_FILE
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
        folder: made if it is not there, replaced as a whole if it is.
        record: what else `pruning.json` is to say, such as the config of the run.
        mask: over the dense model, written beside the weights.
        shard: a file of weights is no larger.

    Raises:
        RunError: the folder cannot be written.
    """
    folder = Path(folder)
    temporary = folder.with_name(folder.name + ".tmp")
    shapes, biased = geometry(model), output_biases(model)
    content = {
        "geometry": shapes.to_dict(),
        "biased": {str(site): str(site) in biased for site in shapes.sites},
        **({"mask": MASK_FILE} if mask else {}),
        **(record or {}),
        "versions": versions(),
    }
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(temporary, max_shard_size=shard)
        tokenizer.save_pretrained(temporary)
        if mask:
            save_file({str(s): array for s, array in mask.retained.items()}, temporary / MASK_FILE)
        (temporary / PRUNING_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(
            f"the model cannot be written to {str(folder)!r}: {error.strerror or error}."
        ) from None
    return folder
