"""Loading a model: the demo, a folder, a hub id, or a pruned checkpoint of this project.

torch and transformers are imported by the functions that need them, so that a page can describe a model
without them.
"""

from __future__ import annotations

from typing import Literal

from pruning.errors import ModelError
from pruning.models.checks import check_ids, check_tokenizer
from pruning.models.folder import (
    LoadedModel,
    dense_type,
    describe,
    fingerprint,
    locate,
    read_config,
    read_record,
)

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def pick_device(device: str) -> str:
    """`auto` as cuda, mps or cpu; anything else as it is.

    Raises:
        ModelError: the device is not there.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ModelError(f"the device {device!r} is not there: use auto, cpu, cuda or mps.") from None
    return device


def load(name: str, device: str = "auto", dtype: Dtype | Literal["stored"] = "auto") -> LoadedModel:
    """Load a dense model or a pruned checkpoint.

    Args:
        name: `demo`, `smollm2`, a folder or a GGUF file, or a hub id.
        device: `auto`, or as torch names it.
        dtype: `auto` is float32 on a CPU and the checkpoint's own elsewhere, `stored` that everywhere.

    Raises:
        ModelError: no such model, weights that are missing, broken or more than the architecture has, no
            tokenizer, an unsupported architecture.
    """
    import torch
    from transformers import AutoTokenizer
    from transformers.utils import logging

    from pruning.models.reading import cut_by_masks, read_dense, read_pruned

    logging.disable_progress_bar()  # the library's own bars would break ours
    path = locate(name)
    record = read_record(path)
    if base := record.get("base"):
        return cut_by_masks(load(base, device, dtype), path, name)
    dense_type(read_config(path))
    check_tokenizer(path)
    if not record:
        describe(str(path))  # whose weights are those of its config
    device = pick_device(device)
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "stored"
    torch_dtype = None if dtype == "stored" else getattr(torch, dtype)
    try:
        model = (read_pruned if record else read_dense)(path, torch_dtype)
        # with the config at hand the library need not run an export's modelling file to find it
        tokenizer = AutoTokenizer.from_pretrained(path, config=model.config)
    except (
        OSError,
        ValueError,
        RuntimeError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
    ) as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ModelError(f"the model in {str(path)!r} cannot be loaded: {reason}") from None
    check_ids(path, model.get_input_embeddings().num_embeddings)
    return LoadedModel(model.to(device).eval(), tokenizer, name, path, fingerprint(path))
