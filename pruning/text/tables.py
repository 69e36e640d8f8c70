"""Tables: the columns and rows of JSON Lines, JSON, CSV, TSV, Parquet and Arrow files."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruning.text.columns import column_names
from pruning.text.files import READ_CHARACTERS, READ_ROWS, Unreadable, ending, read_text
from pruning.text.json_rows import parse_rows

csv.field_size_limit(READ_CHARACTERS)  # the library's own limit is less than a document
_DELIMITERS = ",;\t|"  # the first in the header; countries with a decimal comma write semicolons


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


def read_table(file: Path, limit: int) -> Table:
    """The table of a JSON, CSV or TSV file, at most `limit` characters of it.

    Raises:
        Unreadable: it is broken, or no such table.
    """
    kind = ending(file)
    text, cut = read_text(file, limit)
    if not text.strip():
        raise Unreadable("is empty: give a file with text in it")
    if kind in (".csv", ".tsv"):
        return _csv(text, kind, cut)
    rows, skipped = parse_rows(text, kind, cut)
    return Table(column_names(rows), lambda _: rows, skipped, cut)


def _csv(text: str, kind: str, cut: bool) -> Table:
    if kind == ".tsv" and (table := _plain_tsv(text, cut)):
        return table
    head = text.split("\n", 1)[0]
    delimiter = "\t" if kind == ".tsv" else next((mark for mark in _DELIMITERS if mark in head), ",")
    end = object.__repr__(text)  # a last line that no file has: a quote that is never closed swallows it
    lines = itertools.chain(io.StringIO(text, newline=""), [end])
    reader = csv.reader(lines, delimiter=delimiter)
    rows, starts = [], [1]
    try:
        for row in reader:
            rows.append(row)
            if len(rows) > READ_ROWS + 2:  # with the header, and one more
                cut = True
                break
            starts.append(reader.line_num + 1)
    except csv.Error as error:
        raise Unreadable(f"cannot be read as {kind[1:]} ({error}): export it again") from None
    if rows[-1] != [end] and not cut:
        raise Unreadable(
            f"has a quote in line {starts[-2]:,} that is never closed: it is cut off, or write each quote "
            "within quoted text twice"
        )
    columns, *content = [row for row in rows[: -1 if rows[-1] == [end] else None] if row]
    return _csv_table(columns, content[:-1] if cut else content, cut)


def _plain_tsv(text: str, cut: bool) -> Table | None:
    """A TSV file without quoting, as most programs write it; None where its quotes are no characters.

    Spreadsheets quote fields with tabs, line ends or quotes in them, and then write quotes within them twice.
    """
    rows = [line.split("\t") for line in text.split("\n") if line]
    quoted_fields = [field for row in rows for field in row if field.startswith('"')]
    if not quoted_fields or len({len(row) for row in rows}) > 1:
        return None
    if all(len(field) > 1 and field.endswith('"') for field in quoted_fields):
        return None
    columns, *content = rows
    return _csv_table(columns, content[:-1] if cut else content, cut)


def _csv_table(columns: list[str], rows: list[list[str]], cut: bool) -> Table:
    for name, count in Counter(columns).items():
        if count > 1:
            raise Unreadable(f"has {count} columns named {name!r}: rename all but one")
    if not rows:
        raise Unreadable("has no rows below its header: give a file with text in it")
    # the text of a row with more fields than columns would end at its first delimiter
    fitting = [dict(zip(columns, row, strict=False)) for row in rows if len(row) <= len(columns)]
    longer = len(rows) - len(fitting)
    return Table(columns, lambda _: fitting, +Counter({"more fields than columns": longer}), cut)
