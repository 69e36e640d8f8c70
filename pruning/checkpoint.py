"""A pruned model on disk: safetensors, tokenizer, the dense config, and `pruning.json` with its widths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pruning.config import RunError
from pruning.models import PRUNING_FILE
from pruning.sites import CausalLM, geometry
from pruning.surgery import output_biases


def save(model: CausalLM, tokenizer: Any, folder: str | Path, record: dict[str, Any] | None = None) -> Path:
    """Write a model so that `models.load` gives back the same logits bit for bit.

    Args:
        model: dense or pruned.
        tokenizer: its tokenizer.
        folder: made if it is not there, replaced as a whole if it is.
        record: what else `pruning.json` is to say, such as the config of the run.

    Raises:
        RunError: the folder cannot be written.
    """
    folder = Path(folder)
    temporary = folder.with_name(folder.name + ".tmp")
    shapes, biased = geometry(model), output_biases(model)
    content = {
        "geometry": shapes.to_dict(),
        "biased": {str(site): str(site) in biased for site in shapes.sites},
        **(record or {}),
    }
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / PRUNING_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(
            f"the model cannot be written to {str(folder)!r}: {error.strerror or error}."
        ) from None
    return folder
