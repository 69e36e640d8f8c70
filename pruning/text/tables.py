"""Tables: the columns and rows of JSON Lines, JSON, CSV and TSV files."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruning.text.columns import COLUMN_SETS, column_names
from pruning.text.files import READ_CHARACTERS, READ_ROWS, UnreadableError, ending, read_text

csv.field_size_limit(READ_CHARACTERS)  # the library's own limit is less than a document
_DELIMITERS = ",;\t|"  # the first in the header; countries with a decimal comma write semicolons
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
# Text behind the point at which decoding fails if the text ends within a value: a part of a number, of an
# escape, or of a word.
_UNFINISHED = re.compile(r"([-+.\deE]*|\\?u?[\da-fA-F]{0,4}|t|tr|tru|f|fa|fal|fals|n|nu|nul)\Z")
# The beginning of an object up to its first list, with plain values before it: `{"version": 1, "data": `. The
# list is read of an object that the limit divides.
_OPENING = re.compile(r'\{\s*(?:"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[-+.\w]+)\s*,\s*)*+"[^"\\]*"\s*:\s*(?=\[)')
_INCOMPLETE = object()
_NO_JSON = (ValueError, RecursionError)  # what the decoder raises
_MAX_ROWS = READ_ROWS + 1  # one more shows that the limit was reached


@dataclass
class Table:
    """Columns of a table, and its rows on demand.

    Attributes:
        columns: names of the columns.
        rows: returns the rows with the named columns; a row is a dictionary by column, or any other value
            that a line of JSON holds.
        skipped: number of lines that are no row, by reason.
        cut: whether the file goes on behind the limit; final once all rows are read.
    """

    columns: list[str]
    rows: Callable[[Sequence[str]], Iterable[Any]]
    skipped: Counter[str] = field(default_factory=Counter)
    cut: bool = False


def read_table(file: Path, limit: int) -> Table:
    """The table of a JSON, CSV or TSV file, at most `limit` characters of it.

    Raises:
        UnreadableError: the file is corrupt, or no such table.
    """
    kind = ending(file)
    text, cut = read_text(file, limit)
    if not text.strip():
        raise UnreadableError("is empty: give a file with text in it")
    if kind in (".csv", ".tsv"):
        return _csv_table(text, kind, cut)
    rows, skipped = _json_rows(text, kind, cut)
    return Table(column_names(rows), lambda _: rows, skipped, cut)


# --- CSV and TSV -------------------------------------------------------------------------------------------


def _csv_rows(text: str, kind: str, cut: bool) -> tuple[list[list[str]], bool]:
    """The rows of a CSV or TSV text, the header first, and whether the file goes on behind them."""
    head = text.split("\n", 1)[0]
    delimiter = "\t" if kind == ".tsv" else next((mark for mark in _DELIMITERS if mark in head), ",")
    end = object.__repr__(text)  # a last line that no file has: a quote that is never closed swallows it
    reader = csv.reader(itertools.chain(io.StringIO(text, newline=""), [end]), delimiter=delimiter)
    rows, starts = [], [1]
    try:
        for row in reader:
            rows.append(row)
            if len(rows) > READ_ROWS + 2:  # with the header, and one more
                cut = True
                break
            starts.append(reader.line_num + 1)
    except csv.Error as error:
        raise UnreadableError(f"cannot be read as {kind[1:]} ({error}): export it again") from None
    if rows[-1] == [end]:
        rows.pop()
    elif not cut:
        raise UnreadableError(
            f"has a quote in line {starts[-2]:,} that is never closed: it is cut off, or write each quote "
            "within quoted text twice"
        )
    return [row for row in rows if row], cut


def _plain_tsv_rows(text: str) -> list[list[str]] | None:
    """The rows of a TSV text without quoting, as most programs write it; None where it may be quoted.

    Spreadsheets quote fields with tabs, line ends or quotes in them, and then write quotes within them twice.
    """
    rows = [line.split("\t") for line in text.split("\n") if line]
    quoted_fields = [field for row in rows for field in row if field.startswith('"')]
    if not quoted_fields or len({len(row) for row in rows}) > 1:
        return None
    is_quoting = all(len(field) > 1 and field.endswith('"') for field in quoted_fields)
    return None if is_quoting else rows


def _csv_table(text: str, kind: str, cut: bool) -> Table:
    rows = _plain_tsv_rows(text) if kind == ".tsv" else None
    if rows is None:
        rows, cut = _csv_rows(text, kind, cut)
    columns, *rows = rows
    for name, count in Counter(columns).items():
        if count > 1:
            raise UnreadableError(f"has {count} columns named {name!r}: rename all but one")
    if cut:
        rows = rows[:-1]  # which may be half of one
    if not rows:
        raise UnreadableError("has no rows below its header: give a file with text in it")
    # the text of a row with more fields than columns would end at its first delimiter
    fitting = [dict(zip(columns, row, strict=False)) for row in rows if len(row) <= len(columns)]
    longer = len(rows) - len(fitting)
    return Table(columns, lambda _: fitting, +Counter({"more fields than columns": longer}), cut)


# --- JSON --------------------------------------------------------------------------------------------------


def _json_rows(text: str, kind: str, cut: bool) -> tuple[list[Any], Counter[str]]:
    """The rows of one JSON value, of several behind each other, or of JSON Lines, as the content tells.

    Args:
        text: not blank.
        kind: ending of the file, for messages.
        cut: whether the file goes on behind the text; an unfinished row at its end is then dropped.

    Returns:
        The rows, and the number of lines that are no row by reason.

    Raises:
        UnreadableError: the text is cut off, or neither JSON nor JSON Lines.
    """
    text = text.strip()
    first, _, others = text.partition("\n")
    skipped: Counter[str] = Counter()
    try:
        if others and _is_json(first):
            raise ValueError("JSON Lines")
        rows = _value_rows(text, cut)
    except _NO_JSON:
        rows, skipped = _line_rows(text, kind, cut)
    if not rows:
        reason = f"no row ends within its first {len(text):,} characters" if cut else "it holds no row"
        raise UnreadableError(f"cannot be read as {kind[1:]} ({reason}): write one JSON object a line")
    return rows, skipped


def _is_json(line: str) -> bool:
    with contextlib.suppress(*_NO_JSON):
        json.loads(line)
        return True
    return False


def _line_rows(text: str, kind: str, cut: bool) -> tuple[list[Any], Counter[str]]:
    """The rows of JSON Lines; lines that are no JSON are counted, and refused if they outnumber the rows."""
    complete = text[: text.rfind("\n") + 1] if cut else text
    lines = io.StringIO(complete, newline="\n")  # and not at U+2028 and its like, which JSON may hold
    rows, broken, first_broken = [], 0, 0
    for number, line in enumerate(itertools.islice(lines, _MAX_ROWS), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except _NO_JSON:
            broken, first_broken = broken + 1, first_broken or number
    if not rows and not cut:
        raise UnreadableError(f"cannot be read as {kind[1:]} (no line is JSON): write one JSON object a line")
    if broken:
        # strings and numbers between lines that are no JSON are pieces of something else
        rows = [row if isinstance(row, dict) else None for row in rows]
        if broken >= len(rows) - rows.count(None):
            raise UnreadableError(
                f"is neither a JSON value nor JSON Lines ({broken:,} of its lines are no JSON by themselves, "
                f"the first is line {first_broken:,}): write one JSON object a line"
            )
    return rows, +Counter({"no JSON": broken})


def _value_rows(text: str, cut: bool) -> list[Any]:
    """The rows of one JSON value, or several JSON values behind each other.

    Raises:
        ValueError, RecursionError: the text is neither.
        UnreadableError: the text is JSON that is cut off.
    """
    if cut and (opening := _OPENING.match(text)):
        with contextlib.suppress(ValueError):  # the list ends before the limit
            rows = _value_rows(text[opening.end() :], cut)
            if _is_table(rows):
                return rows
    is_array = text.startswith("[")
    rows = []
    for row in itertools.islice(_elements(text) if is_array else _values(text), _MAX_ROWS):
        if row is not _INCOMPLETE:
            rows.append(row)
        elif not cut:
            within = f"within its row {len(rows) + 1:,}" if is_array else "before its JSON ends"
            raise UnreadableError(f"is cut off {within}: copy or download it again")
    return _table_rows(rows[0]) if len(rows) == 1 and not is_array else rows


def _elements(text: str) -> Iterator[Any]:
    """The elements of a JSON array; last `_INCOMPLETE` if the text ends before the array does."""
    position = _skip_space(text, 1)
    is_open = text[position : position + 1] != "]"
    while is_open:
        element, position = _decode(text, position)
        yield element
        position = _skip_space(text, position)
        separator = text[position : position + 1]
        if not separator:
            if element is not _INCOMPLETE:
                yield _INCOMPLETE
            return
        if separator not in ",]":
            raise ValueError("no comma between elements")
        if is_open := separator == ",":
            position = _skip_space(text, position + 1)
    if _skip_space(text, position + 1) < len(text):
        raise ValueError("text behind the array")


def _values(text: str) -> Iterator[Any]:
    """JSON values behind each other; last `_INCOMPLETE` if the text ends within one."""
    position = 0
    while position < len(text):
        value, position = _decode(text, position)
        yield value
        position = _skip_space(text, position)


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _decode(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at a position, or `_INCOMPLETE` if the text ends first, and the position behind it.

    Raises:
        ValueError, RecursionError: no JSON begins at the position.
    """
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        unfinished = _UNFINISHED.match(text, error.pos)
        if error.msg.startswith("Unterminated string") or unfinished:
            return _INCOMPLETE, len(text)
        raise


def _table_rows(value: Any) -> list[Any]:
    """The rows of one JSON value that is no array.

    An object is a row itself, unless it holds a table: pandas' `columns`, `index`, `split` and `table`, lists
    by column, or one list of rows. Of several lists of rows each row is named by its key: `train.text`.
    """
    if not isinstance(value, dict) or any(
        all(isinstance(value.get(name), str) for name in form) for form in COLUMN_SETS
    ):
        return [value]
    if {"columns", "data"} <= value.keys() <= {"columns", "index", "data"} and _is_grid(value["data"]):
        names = value["columns"] if isinstance(value["columns"], list) else []
        return [dict(zip(map(str, names), row, strict=False)) for row in value["data"]]
    columns = list(value.values())
    if columns and all(isinstance(column, dict) and column.keys() == columns[0].keys() for column in columns):
        return _nested_rows(value)
    tables = {name: column for name, column in value.items() if _is_table(column)}
    if tables:
        return [row if len(tables) == 1 else {name: row} for name, rows in tables.items() for row in rows]
    lists = [column for column in columns if isinstance(column, list) and not _is_chat(column)]
    if len(lists) == len(columns) and len(set(map(len, lists))) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    return [value]


def _nested_rows(value: dict[str, dict[str, Any]]) -> list[Any]:
    """The rows of objects with equal keys: pandas' `columns`, or `index` if the inner keys name columns."""
    inner = next(iter(value.values()))
    by_column = any(set(form) <= value.keys() for form in COLUMN_SETS)
    by_row = any(set(form) <= inner.keys() for form in COLUMN_SETS) or all(name.isdecimal() for name in value)
    if by_column or (not by_row and inner and all(name.isdecimal() for name in inner)):
        return [{name: column[index] for name, column in value.items()} for index in inner]
    return list(value.values()) if by_row else [value]


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, dict) for row in value)
        and not _is_chat(value)
    )


def _is_grid(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, list) for row in value)


def _is_chat(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in value)
