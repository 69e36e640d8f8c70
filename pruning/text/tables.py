"""Rows of JSON Lines, JSON, CSV, TSV and Parquet files. A line that is no JSON is skipped and counted."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruning.text.files import READ_BYTES, Unreadable, decode, ending, read_bytes

csv.field_size_limit(READ_BYTES)  # the library's own limit is less than a document


@dataclass
class Table:
    """A table's columns, and its rows when asked.

    Attributes:
        columns: names.
        rows: gives the rows, as far as they have one of the columns named; a row is a dictionary by column,
            or what a line holds instead.
        skipped: by reason the number of lines that are no row.
        cut: whether the file has more rows than the limit lets be read; what is known once they are read.
    """

    columns: list[str]
    rows: Callable[[Sequence[str]], Iterable[Any]]
    skipped: Counter[str] = field(default_factory=Counter)
    cut: bool = False


def read_table(file: Path, limit: int = READ_BYTES) -> Table:
    """The table of a file, at most `limit` bytes of it.

    Raises:
        Unreadable: it is broken, or no such table.
    """
    kind = ending(file)
    if kind == ".parquet":
        return _parquet(file, limit)
    data, cut = read_bytes(file, limit)
    text = decode(data, cut)
    if not text.strip():
        raise Unreadable("is empty: give a file with text in it")
    return _csv(text, kind, cut) if kind in (".csv", ".tsv") else _json(text, kind, cut)


def _columns(rows: Iterable[Any]) -> list[str]:
    names = dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row if isinstance(key, str))
    return list(names)


def _json(text: str, kind: str, cut: bool) -> Table:
    skipped: Counter[str] = Counter()
    # A list of rows over many lines is common under every one of these endings.
    rows = _document(text) if kind == ".json" or text.lstrip().startswith("[") else None
    if rows is None:
        lines = text.split("\n")  # and not at U+2028 and its like, which JSON may hold
        rows = [row for row in map(_row, lines[:-1] if cut else lines) if row is not BLANK]
        skipped["no JSON"] = sum(row is BROKEN for row in rows)
        rows = [row for row in rows if row is not BROKEN]
    if not rows:
        long = f"no row ends within its first {len(text):,} characters" if cut else "no line is JSON"
        raise Unreadable(f"cannot be read as {kind[1:]} ({long}): write one JSON object a line")
    return Table(_columns(rows), lambda _: rows, +skipped, cut)


BLANK, BROKEN = object(), object()


def _row(line: str) -> Any:
    if not line.strip():
        return BLANK
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return BROKEN


def _document(text: str) -> list[Any] | None:
    """The rows of one JSON value; None where the text is none."""
    content = _row(text)
    if content is BROKEN or content is BLANK:
        return None
    return content if isinstance(content, list) else [content]


def _csv(text: str, kind: str, cut: bool) -> Table:
    head = text.split("\n", 1)[0]
    # spreadsheets of countries with a decimal comma write semicolons
    delimiter = "\t" if kind == ".tsv" else ";" if ";" in head and "," not in head else ","
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise Unreadable(f"cannot be read as {kind[1:]} ({error}): export it again") from None
    if cut:
        rows = rows[:-1]
    if not rows:
        raise Unreadable("has no rows below its header: give a file with text in it")
    return Table(_columns(rows), lambda _: rows, cut=cut)


def _parquet(file: Path, limit: int) -> Table:
    import pyarrow
    import pyarrow.parquet

    read_bytes(file, 4)  # says plainly what is not there
    failures = (OSError, ValueError, pyarrow.ArrowException)
    try:
        content = pyarrow.parquet.ParquetFile(file)
        names = content.schema_arrow.names
    except failures:
        raise Unreadable("cannot be read as parquet: copy or download it again") from None

    def rows(columns: Sequence[str]) -> Iterator[Any]:
        room = limit
        try:
            for batch in content.iter_batches(1000, columns=list(columns)):
                yield from batch.to_pylist()
                room -= batch.nbytes
                if room <= 0:
                    table.cut = True
                    return
        except failures:
            raise Unreadable("is broken in its rows: copy or download it again") from None

    table = Table(names, rows)
    return table
