"""Tables that Arrow reads: Parquet and Arrow files, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.text.files import Unreadable, ending, read_head
from pruning.text.tables import Table
from pruning.words import quoted, size_text

if TYPE_CHECKING:
    import pyarrow

BATCH = 64  # rows that are decoded at a time
_DICTIONARY = {"RLE_DICTIONARY", "PLAIN_DICTIONARY"}
# Encodings in which a string takes its own bytes, but for a dictionary. In others rows share beginnings.
_PLAIN = _DICTIONARY | {"PLAIN", "RLE", "BIT_PACKED"}
# A column of more bytes that was packed to less than a hundredth is made to fill a memory. Text packs to a
# half or a tenth.
UNPACKED_BYTES, MOST_PACKED = 64_000_000, 100


def arrow_table(file: Path, limit: int) -> Table:
    """The table of a Parquet or Arrow file.

    Raises:
        Unreadable: it is broken, or no such table.
    """
    read_head(file)  # says plainly what does not exist
    if file.suffix.lower() != ending(file):
        raise Unreadable(f"is {ending(file)[1:]} that was compressed once more: decompress it")
    return _parquet(file, limit) if ending(file) == ".parquet" else _arrow(file, limit)


def _parquet(file: Path, limit: int) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(file)
        encodings = _string_encodings(metadata)
        # a string that is repeated in a million rows stays one string
        repeated = [path for path, names in encodings.items() if names & _DICTIONARY and names <= _PLAIN]
        content = pyarrow.parquet.ParquetFile(file, read_dictionary=repeated, metadata=metadata)
        names = _names(metadata.schema.to_arrow_schema())
    except (OSError, ValueError, pyarrow.ArrowException):
        raise Unreadable("cannot be read as parquet: copy or download it again") from None

    def batches(columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
        is_expanding = any(
            not used <= _PLAIN and _is_within(path, columns) for path, used in encodings.items()
        )
        for number in range(metadata.num_row_groups):
            _check_packing(metadata.row_group(number), columns)
            yield from content.iter_batches(1 if is_expanding else BATCH, [number], list(columns))

    return _table(names, batches, limit)


def _string_encodings(metadata: Any) -> dict[str, set[str]]:
    """By path of a column of strings the encodings of its parts."""
    encodings: dict[str, set[str]] = {}
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.physical_type == "BYTE_ARRAY":
                encodings.setdefault(chunk.path_in_schema, set()).update(chunk.encodings)
    return encodings


def _is_within(path: str, columns: Sequence[str]) -> bool:
    """Whether a column is one of those chosen, holds one of them or is a part of one."""
    return any(f"{path}.".startswith(f"{name}.") or name.startswith(f"{path}.") for name in columns)


def _check_packing(group: Any, columns: Sequence[str]) -> None:
    for chunk in map(group.column, range(group.num_columns)):
        packed, unpacked = chunk.total_compressed_size, chunk.total_uncompressed_size
        is_bomb = unpacked > UNPACKED_BYTES and unpacked > MOST_PACKED * packed
        if is_bomb and _is_within(chunk.path_in_schema, columns):
            raise Unreadable(
                f"holds {size_text(unpacked)} packed into {size_text(packed)} in its column "
                f"{quoted(chunk.path_in_schema)}: give text that was not made to fill a memory"
            )


def _arrow(file: Path, limit: int) -> Table:
    import pyarrow

    try:
        source = pyarrow.memory_map(str(file))
        try:
            content = pyarrow.ipc.open_file(source)
            parts: Iterable[Any] = map(content.get_batch, range(content.num_record_batches))
        except pyarrow.ArrowInvalid:
            source.seek(0)
            parts = content = pyarrow.ipc.open_stream(source)
    except (OSError, ValueError, pyarrow.ArrowException):
        raise Unreadable("cannot be read as arrow: copy or download it again") from None
    return _table(_names(content.schema), lambda columns: _selected(parts, columns), limit)


def _selected(parts: Iterable[Any], columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    for part in parts:
        chosen = part.select([name for name in part.schema.names if _is_within(name, columns)])
        for start in range(0, len(chosen), BATCH):
            yield chosen.slice(start, BATCH)


def _names(schema: pyarrow.Schema) -> list[str]:
    """The columns of a schema; what is within a struct is named `doc.text`."""
    names = []
    for field in schema:
        names.append(field.name)
        if hasattr(field.type, "fields"):
            names += [f"{field.name}.{name}" for name in _names(field.type.fields)]
    return names


def _table(names: list[str], batches: Any, limit: int) -> Table:
    import pyarrow

    def rows(columns: Sequence[str]) -> Iterator[Any]:
        try:
            for batch in batches(columns):
                if _text_bytes(batch.to_struct_array()) <= limit:
                    yield from batch.to_pylist()
                    continue
                for row in range(len(batch)):
                    single = batch.slice(row, 1)
                    if _text_bytes(single.to_struct_array()) > 4 * limit:  # a character has up to 4
                        table.cut = True
                        return
                    yield from single.to_pylist()
        except (OSError, ValueError, pyarrow.ArrowException):
            raise Unreadable("is broken in its rows: copy or download it again") from None

    table = Table(names, rows)
    return table


def _text_bytes(array: Any) -> int:
    """Bytes of all strings in an array as they are once each is one of its own."""
    import pyarrow.compute as pc
    from pyarrow import types

    kind = array.type
    if types.is_dictionary(kind):
        lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
        return pc.sum(lengths).as_py() or 0
    if types.is_struct(kind):
        return sum(map(_text_bytes, array.flatten()))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _text_bytes(array.flatten())
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind):
        return pc.sum(pc.binary_length(array)).as_py() or 0
    return int(array.nbytes)
