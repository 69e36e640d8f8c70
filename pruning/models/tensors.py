"""The stored tensors of a model folder, read without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pruning.errors import ModelError

WEIGHTS = "model*.safetensors"


def stored_tensors(path: Path, pattern: str = WEIGHTS) -> Iterator[tuple[str, Path, int, dict[str, Any]]]:
    """Name, file, offset and header (`dtype`, `shape`, `data_offsets`) of every stored tensor.

    Raises:
        ModelError: a file is broken.
    """
    for file in sorted(path.glob(pattern)):
        try:
            with file.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                if not 0 < size < file.stat().st_size:
                    raise ValueError
                header = json.loads(stream.read(size))
            header.pop("__metadata__", None)
            for tensor in header.values():
                tensor["shape"], tensor["data_offsets"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(
                f"{str(file)!r} is no safetensors file, or only a part of one: copy or download it again."
            ) from None
        for name, tensor in header.items():
            yield name, file, 8 + size, tensor


def weights_digest(path: Path) -> str:
    """A name for the stored tensors of a model folder, whatever files they are spread over; reads them all.

    Raises:
        ModelError: a file is broken.
    """
    digest = hashlib.blake2b(digest_size=16)
    found = list(stored_tensors(path)) or list(stored_tensors(path, "*.safetensors"))  # none beside masks
    for name, file, offset, tensor in sorted(found, key=lambda entry: entry[0]):
        digest.update(f"{name} {tensor.get('dtype')} {tensor['shape']}".encode())
        begin, end = tensor["data_offsets"]
        with file.open("rb") as stream:
            stream.seek(offset + begin)
            digest.update(stream.read(end - begin))
    return digest.hexdigest()
