"""A GGUF file as its specification lays it out: metadata and tensors, every length compared with the file's.

The `gguf` package makes several arrays of each token of a vocabulary, which takes ten times as long, and
checks no length. What the numbers of a packed tensor are is left to it. Needs no torch.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pruning.errors import ModelError
from pruning.formatting import quoted

VERSIONS = (2, 3)
HEADER_BYTES = 100_000_000  # those of the largest vocabularies have some ten million
MAX_DIMENSIONS = 4  # of a tensor; ggml has no more
MAX_ENTRIES = 1_000_000  # metadata keys, or tensors; the largest models have some thousands
# struct's letters for the value types of the format; besides these there are strings and arrays of either.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
AGAIN = "copy or download it again"  # the way out where a file contradicts itself


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor of a GGUF file.

    Attributes:
        name: as llama.cpp names it.
        shape: rows first, as torch has it.
        type: as ggml names it, such as Q4_K.
        begin, end: its bytes in the file.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    begin: int
    end: int


@dataclass(frozen=True)
class GGUFFile:
    """The header of a GGUF file.

    Attributes:
        path: of the file.
        metadata: numbers, strings and lists of either by key, in the file's order.
        tensors: by name.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]

    def error(self, reason: str, way_out: str = "give the model's folder with safetensors") -> ModelError:
        """The error for a file that holds what is not supported."""
        return ModelError(f"the GGUF file {quoted(self.path)} {reason}: {way_out}.")

    def value_error(self, key: str, reason: str) -> ModelError:
        """The error for a metadata key whose value is not supported."""
        return self.error(f"says {key} = {quoted(self.metadata.get(key))}, {reason}")

    def array(self, name: str) -> np.ndarray:
        """The numbers of a tensor, in float32 and its shape.

        Raises:
            ModelError: they are packed in a way that the `gguf` package does not know.
        """
        import gguf

        tensor = self.tensors[name]
        kind = gguf.GGMLQuantizationType[tensor.type]
        data = np.memmap(self.path, mode="r", offset=tensor.begin, shape=(tensor.end - tensor.begin,))
        rows = gguf.quant_shape_to_byte_shape(tensor.shape, kind)
        try:
            return np.asarray(gguf.dequantize(data.reshape(rows), kind)).reshape(tensor.shape)
        except NotImplementedError:
            raise self.error(f"packs {name!r} as {tensor.type}, which is not supported") from None


class _Reader:
    """Reads values from the bytes of a file, one after another; a length beyond its end is an error."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.position = data, 0

    def skip(self, size: int) -> int:
        """Advance by a number of bytes, and return where they begin."""
        begin = self.position
        if size > len(self.data) - begin:
            raise ValueError(f"it ends within what begins at byte {begin:,}")
        if begin + size > HEADER_BYTES:
            raise ValueError(f"its header has more than {HEADER_BYTES:,} bytes")
        self.position = begin + size
        return begin

    def numbers(self, kind: str, count: int) -> tuple[Any, ...]:
        begin = self.skip(count * struct.calcsize(f"<{kind}"))
        return struct.unpack_from(f"<{count}{kind}", self.data, begin)

    def number(self, kind: str) -> Any:
        return self.numbers(kind, 1)[0]

    def text(self) -> str:
        begin = self.skip(self.number("Q"))
        return self.data[begin : self.position].decode("utf-8")

    def values(self, kind: int, count: int) -> list[Any]:
        if kind == _STRING:
            return [self.text() for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"it holds a value of type {kind}, which the format does not have")
        numbers = self.numbers(_SCALARS[kind], count)
        return [_shortest(value) for value in numbers] if kind == _FLOAT32 else list(numbers)

    def value(self) -> Any:
        kind = self.number("I")
        if kind == _ARRAY:
            element, count = self.number("I"), self.number("Q")
            return self.values(element, count)
        return self.values(kind, 1)[0]


def _shortest(value: float) -> float:
    """A float32 by its shortest decimal: 1e-05, and not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def read_gguf(path: Path) -> GGUFFile:
    """The header of a GGUF file.

    Raises:
        ModelError: it is no GGUF file, or only a part of one.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, data)
    except (OSError, ValueError, struct.error, OverflowError, MemoryError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise ModelError(
            f"{quoted(path)} is no GGUF file, or only a part of one ({reason}): copy or download it again."
        ) from None


def _read(path: Path, data: mmap.mmap) -> GGUFFile:
    reader = _Reader(data)
    if data[:4] != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    reader.skip(4)
    if (version := reader.number("I")) not in VERSIONS:
        raise ModelError(
            f"the GGUF file {quoted(path)} has version {version:#x} of the format, and supported are "
            f"{' and '.join(map(str, VERSIONS))} (little-endian): convert the model again with a current "
            "llama.cpp."
        )
    tensor_count, key_count = reader.numbers("Q", 2)
    if max(tensor_count, key_count) > MAX_ENTRIES:
        raise ValueError(f"it announces {key_count:,} keys and {tensor_count:,} tensors")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        if (key := reader.text()) in metadata:
            raise ValueError(f"it has the key {quoted(key, 60)} twice")
        metadata[key] = reader.value()
    entries = [_tensor_entry(reader) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 2**20:
        raise ValueError(f"its general.alignment is {quoted(alignment)}")
    start = -(-reader.position // alignment) * alignment
    tensors: dict[str, GGUFTensor] = {}
    for name, shape, kind, offset in entries:
        if name in tensors:
            raise ValueError(f"it has the tensor {quoted(name, 60)} twice")
        tensors[name] = _tensor(name, shape, kind, start + offset)
        if tensors[name].end > len(data):
            raise ValueError(f"it ends within the tensor {quoted(name, 60)}")
    return GGUFFile(path, metadata, tensors)


def _tensor_entry(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """The name, shape, number of the type, and offset behind the header of a tensor."""
    name, count = reader.text(), reader.number("I")
    if count > MAX_DIMENSIONS:
        raise ValueError(f"its tensor {quoted(name, 60)} has {count} dimensions")
    return name, reader.numbers("Q", count)[::-1], reader.number("I"), reader.number("Q")


def _tensor(name: str, shape: tuple[int, ...], number: int, begin: int) -> GGUFTensor:
    import gguf

    try:
        kind = gguf.GGMLQuantizationType(number)
    except ValueError:
        raise ValueError(f"its tensor {quoted(name, 60)} has the unknown type {number}") from None
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if not shape or 0 in shape or shape[-1] % block:
        raise ValueError(
            f"its tensor {quoted(name, 60)} has the shape {shape}, which {kind.name} cannot hold"
        )
    return GGUFTensor(name, shape, kind.name, begin, begin + math.prod(shape) // block * size)
