"""Loading a model: the demo, a folder, a hub id, or a pruned checkpoint of this project.

torch and transformers are imported by the functions that need them, so that a page can describe a model
without them.
"""

from __future__ import annotations

from typing import Literal

from pruning.errors import ModelError, library_errors
from pruning.formatting import quoted, size_text
from pruning.models.checks import check_ids, check_tokenizer
from pruning.models.folder import (
    LoadedModel,
    check_files,
    dense_type,
    describe,
    fingerprint,
    locate,
    read_config,
    read_record,
)
from pruning.progress import announced, log

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
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        present = ["auto", "cpu"] + ["cuda"] * torch.cuda.is_available()
        present += ["mps"] * torch.backends.mps.is_available()
        raise ModelError(
            f"the device {device!r} is not available on this machine: use {' or '.join(present)}."
        ) from None
    return device


def load(
    name: str,
    device: str = "auto",
    dtype: Dtype | Literal["stored"] = "auto",
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a dense model or a pruned checkpoint.

    Args:
        name: `demo`, `smollm2`, a folder or a GGUF file, or a hub id.
        device: `auto`, or as torch names it.
        dtype: `auto` is float32 on a CPU and the checkpoint's own elsewhere, `stored` that everywhere.
        trust_remote_code: whether the folder's own Python code may run, where it brings a tokenizer with it.

    Raises:
        ModelError: no such model, weights that are missing, broken or more than the architecture has, no
            tokenizer, an unsupported architecture, or a tokenizer whose code is not trusted.
    """
    import torch
    from transformers.utils import logging

    from pruning.models.reading import cut_by_masks, read_dense, read_pruned, read_tokenizer

    logging.disable_progress_bar()  # the library's own bars would break ours
    path = locate(name)
    check_files(path)
    record = read_record(path)
    if base := record.get("base"):
        return cut_by_masks(load(base, device, dtype, trust_remote_code), path, name)
    dense_type(read_config(path))
    check_tokenizer(path)
    if not record:
        describe(str(path))  # whose weights are those of its config
    device = pick_device(device)
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "stored"
    torch_dtype = None if dtype == "stored" else getattr(torch, dtype)
    size = size_text(sum(file.stat().st_size for file in path.glob("*.safetensors")))
    loading = announced(f"loading the model {quoted(path.name)} ({size})")
    with loading, library_errors(ModelError, f"the model in {quoted(path)} cannot be loaded"):
        model = (read_pruned if record else read_dense)(path, torch_dtype)
        tokenizer, code = read_tokenizer(path, model.config, trust_remote_code)
        check_ids(path, model.get_input_embeddings().num_embeddings)
        model = model.to(device).eval()
    for file, checksum in code.items():
        log.info(f"{file} of the model's folder was run (checksum {checksum})")
    return LoadedModel(model, tokenizer, name, path, fingerprint(path), code)
