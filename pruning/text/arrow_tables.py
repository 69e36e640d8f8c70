"""Tables that Arrow reads: Parquet and Arrow files, a few rows at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from pyarrow import types

from pruning.formatting import size_text
from pruning.text.files import UnreadableError, ending, read_head
from pruning.text.tables import Table

BATCH = 64  # rows decoded at a time
# A row group above this size and this compression is made to fill a memory: text compresses to a half or a
# tenth.
UNPACKED_BYTES, MAX_PACKING = 64_000_000, 100


def read_arrow_table(file: Path, limit: int) -> Table:
    """The table of a Parquet or Arrow file.

    Raises:
        UnreadableError: the file is corrupt, compressed once more, or no such table.
    """
    read_head(file)  # its message for a file that does not exist is plainer than the library's
    if file.suffix.lower() != ending(file):
        raise UnreadableError(f"is {ending(file)[1:]} that was compressed once more: decompress it")
    return _parquet(file, limit) if ending(file) == ".parquet" else _arrow(file, limit)


def _parquet(file: Path, limit: int) -> Table:
    try:
        content = pyarrow.parquet.ParquetFile(file)
        leaves = map(content.schema.column, range(len(content.schema)))
        strings = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        # a string that is repeated in a million rows stays one string
        repeating = pyarrow.parquet.ParquetFile(file, read_dictionary=strings)
        names = _names(content.schema_arrow)
        _check_packing(file, content.metadata)
    except (OSError, ValueError, pyarrow.ArrowException):
        raise UnreadableError("cannot be read as parquet: copy or download it again") from None

    def batches(columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
        rows = 0
        try:
            for batch in repeating.iter_batches(BATCH, columns=list(columns)):
                rows += len(batch)
                yield batch
        except OSError as error:
            if "Not yet implemented" not in str(error):
                raise
            # strings that share their beginnings (DELTA_BYTE_ARRAY) are not decoded that way: row by row
            yield from itertools.islice(content.iter_batches(1, columns=list(columns)), rows, None)

    return _table(names, batches, limit)


def _check_packing(file: Path, metadata: Any) -> None:
    packed = file.stat().st_size
    for number in range(metadata.num_row_groups):
        unpacked = metadata.row_group(number).total_byte_size
        if unpacked > UNPACKED_BYTES and unpacked > MAX_PACKING * packed:
            raise UnreadableError(
                f"holds {size_text(unpacked)} packed into {size_text(packed)}, more than {MAX_PACKING} to 1: "
                "export its text as JSON Lines"
            )


def _arrow(file: Path, limit: int) -> Table:
    try:
        source = pyarrow.memory_map(str(file))
        try:
            content = pyarrow.ipc.open_file(source)
            parts: Iterable[Any] = map(content.get_batch, range(content.num_record_batches))
        except pyarrow.ArrowInvalid:
            source.seek(0)
            parts = content = pyarrow.ipc.open_stream(source)
        names = _names(content.schema)
    except (OSError, ValueError, pyarrow.ArrowException):
        raise UnreadableError("cannot be read as arrow: copy or download it again") from None
    return _table(names, lambda columns: _selected(parts, columns), limit)


def _selected(parts: Iterable[Any], columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    paths = [f"{column}." for column in columns]  # `doc.text.` begins with its top column `doc.`
    for part in parts:
        names = [name for name in part.schema.names if any(path.startswith(f"{name}.") for path in paths)]
        selected = part.select(names)
        selected.validate(full=True)  # offsets that point outside of the file end the process
        for start in range(0, len(selected), BATCH):
            yield selected.slice(start, BATCH)


def _names(schema: pyarrow.Schema) -> list[str]:
    """The columns of a schema; a field of a struct is named `doc.text`."""
    names: list[str] = []
    for field in schema:
        names.append(field.name)
        if hasattr(field.type, "fields"):
            names += [f"{field.name}.{name}" for name in _names(field.type.fields)]
    return names


def _table(names: list[str], batches: Any, limit: int) -> Table:
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
            raise UnreadableError("is broken in its rows: copy or download it again") from None

    table = Table(names, rows)
    return table


def _text_bytes(array: Any) -> int:
    """Bytes of all strings in an array, repeated ones counted each time."""
    kind = array.type
    if types.is_struct(kind):
        return sum(map(_text_bytes, array.flatten()))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _text_bytes(array.flatten())
    is_repeating = types.is_dictionary(kind)
    strings = array.dictionary if is_repeating else array
    if types.is_string_view(strings.type):
        strings = strings.cast(pyarrow.large_string())
    if not (types.is_string(strings.type) or types.is_large_string(strings.type)):
        return int(array.nbytes)
    lengths = pyarrow.compute.binary_length(strings)
    total = pyarrow.compute.sum(lengths.take(array.indices) if is_repeating else lengths)
    return total.as_py() or 0
