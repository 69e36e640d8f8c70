"""A pruned model on disk: safetensors, tokenizer, the dense config, and `pruning.json` with its widths."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from pruning.checksums import digests, write_json
from pruning.errors import ModelError, library_errors
from pruning.files import PRUNING_FILE
from pruning.models.delta import MASK_FILE, write_mask
from pruning.models.layer_view import family_of
from pruning.models.mask import Mask
from pruning.models.source import LayerSource
from pruning.outputs import output_folder
from pruning.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 5_000_000_000


def save(
    source: LayerSource,
    tokenizer: Any,
    folder: str | Path,
    record: dict[str, Any] | None = None,
    mask: Mask | None = None,
    shard: int = SHARD_BYTES,
) -> Path:
    """Write a model so that `loading.load` gives back the same logits bit for bit.

    Args:
        source: of the layers of a dense or pruned model, each of which is asked for once.
        tokenizer: its tokenizer.
        folder: made if it is not there; an earlier checkpoint in it is replaced as a whole.
        record: further content of `pruning.json`, such as the config of the run.
        mask: over the dense model, written beside the weights.
        shard: bytes of a file of weights; a larger one holds a single tensor.

    Raises:
        RunError: the folder holds something else, or cannot be written.
    """
    with output_folder(folder, PRUNING_FILE) as temporary:
        names = write_dense(source, tokenizer, temporary, shard)
        shapes, family = source.geometry(), family_of(source)
        content = {
            "geometry": shapes.to_dict(),
            "biased": {str(site): family.bias_name(site) in names for site in shapes.sites},
            **({"mask": MASK_FILE} if mask else {}),
            **(record or {}),
            "versions": versions(),
        }
        if mask:
            write_mask(mask, temporary)
        write_json(temporary / PRUNING_FILE, content | {"files": digests(temporary)})
    return Path(folder)


def write_dense(source: LayerSource, tokenizer: Any, folder: Path, shard: int = SHARD_BYTES) -> set[str]:
    """Weights, config, generation settings and tokenizer in a folder, as transformers lays them out.

    Returns:
        The names of the tensors.
    """
    with library_errors(ModelError, "the model's config and tokenizer cannot be saved"):
        source.write_config(folder)
        tokenizer.save_pretrained(folder)
    return _write_tensors(source.tensors(), folder, shard)


def _write_tensors(tensors: Iterable[tuple[str, Tensor]], folder: Path, shard: int) -> set[str]:
    """Write files of weights as they fill up, then their index; gives the names of the tensors."""
    files: list[dict[str, int]] = []
    held: dict[str, Tensor] = {}

    def flush() -> None:
        save_file(held, folder / f"part-{len(files)}.safetensors", metadata={"format": "pt"})
        files.append({name: tensor.numel() * tensor.element_size() for name, tensor in held.items()})
        held.clear()

    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if held and size + sum(t.numel() * t.element_size() for t in held.values()) > shard:
            flush()
        held[name] = tensor.detach().cpu().contiguous()
    flush()
    names = ["model.safetensors"]
    if len(files) > 1:
        names = [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
        index = {
            "metadata": {"total_size": sum(sum(file.values()) for file in files)},
            "weight_map": {tensor: name for name, file in zip(names, files, strict=True) for tensor in file},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    for number, name in enumerate(names):
        (folder / f"part-{number}.safetensors").rename(folder / name)
    return {tensor for file in files for tensor in file}
