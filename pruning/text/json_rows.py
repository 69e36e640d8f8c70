"""Rows of JSON: of one value, of values behind each other, or of JSON Lines, as the content tells."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pruning.text.columns import FORMS
from pruning.text.files import READ_ROWS, Unreadable, read_text

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
# What is behind the point at which decoding fails if the text ends within a value: a part of a number, of an
# escape, or of a word.
_UNFINISHED = re.compile(r"([-+.\deE]*|\\?u?[\da-fA-F]{0,4}|t|tr|tru|f|fa|fal|fals|n|nu|nul)\Z")
# The beginning of an object up to its first list, with plain values before it: `{"version": 1, "data": `. The
# list is read of an object that the limit divides.
_OPENING = re.compile(r'\{\s*(?:"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[-+.\w]+)\s*,\s*)*+"[^"\\]*"\s*:\s*(?=\[)')
_INCOMPLETE = object()
MOST_ROWS = READ_ROWS + 1  # with one more it is known that the limit was reached


def parse_rows(text: str, kind: str, cut: bool) -> tuple[list[Any], Counter[str]]:
    """The rows of a JSON text, and by reason the number of lines that are no row.

    Args:
        text: not blank.
        kind: ending of the file, for messages.
        cut: whether the file goes on behind the text; an unfinished row at its end is then dropped.

    Raises:
        Unreadable: it is cut off, or neither JSON nor JSON Lines.
    """
    text = text.strip()
    first, _, others = text.partition("\n")
    skipped: Counter[str] = Counter()
    try:
        if others and _is_json(first):
            raise ValueError("JSON Lines")
        rows = _value_rows(text, cut)
    except (ValueError, RecursionError):
        rows, skipped = _line_rows(text, kind, cut)
    if not rows:
        reason = f"no row ends within its first {len(text):,} characters" if cut else "it holds no row"
        raise Unreadable(f"cannot be read as {kind[1:]} ({reason}): write one JSON object a line")
    return rows, skipped


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


# --- JSON Lines --------------------------------------------------------------------------------------------


def _line_rows(text: str, kind: str, cut: bool) -> tuple[list[Any], Counter[str]]:
    """A row for each line; lines that are no JSON are counted, unless they are the most."""
    complete = text[: text.rfind("\n") + 1] if cut else text
    lines = io.StringIO(complete, newline="\n")  # and not at U+2028 and its like, which JSON may hold
    rows, broken, first_broken = [], 0, 0
    for number, line in enumerate(itertools.islice(lines, MOST_ROWS), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError):
            broken, first_broken = broken + 1, first_broken or number
    if not rows and not cut:
        raise Unreadable(f"cannot be read as {kind[1:]} (no line is JSON): write one JSON object a line")
    if broken:
        # strings and numbers between lines that are no JSON are pieces of something else
        rows = [row if isinstance(row, dict) else None for row in rows]
        if broken >= len(rows) - rows.count(None):
            raise Unreadable(
                f"is neither a JSON value nor JSON Lines ({broken:,} of its lines are no JSON by themselves, "
                f"the first is line {first_broken:,}): write one JSON object a line"
            )
    return rows, +Counter({"no JSON": broken})


# --- one value, or several behind each other ---------------------------------------------------------------


def _value_rows(text: str, cut: bool) -> list[Any]:
    """The rows of one JSON value, or the values of several.

    Raises:
        ValueError, RecursionError: it is none of both.
        Unreadable: it is one, and cut off.
    """
    if cut and (opening := _OPENING.match(text)):
        with contextlib.suppress(ValueError):  # the list ends before the limit
            rows = _value_rows(text[opening.end() :], cut)
            if _is_table(rows):
                return rows
    is_array = text.startswith("[")
    rows = []
    for row in itertools.islice(_elements(text) if is_array else _values(text), MOST_ROWS):
        if row is not _INCOMPLETE:
            rows.append(row)
        elif not cut:
            within = f"within its row {len(rows) + 1:,}" if is_array else "before its JSON ends"
            raise Unreadable(f"is cut off {within}: copy or download it again")
    return _table_rows(rows[0]) if len(rows) == 1 and not is_array else rows


def _elements(text: str) -> Iterator[Any]:
    """The elements of the array that a text is; last `_INCOMPLETE` if the text ends before the array."""
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
    """The values that stand behind each other; last `_INCOMPLETE` if the text ends within one."""
    position = 0
    while position < len(text):
        value, position = _decode(text, position)
        yield value
        position = _skip_space(text, position)


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _decode(text: str, position: int) -> tuple[Any, int]:
    """The value at a position and where it ends; `_INCOMPLETE` if the text ends first.

    Raises:
        ValueError, RecursionError: there is no JSON.
    """
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        unfinished = _UNFINISHED.match(text, error.pos)
        if error.msg.startswith("Unterminated string") or unfinished:
            return _INCOMPLETE, len(text)
        raise


# --- a table in one object ---------------------------------------------------------------------------------


def _table_rows(value: Any) -> list[Any]:
    """The rows of one JSON value that is no array.

    An object is a row itself, unless it holds a table: pandas' `columns`, `index`, `split` and `table`, lists
    by column, or one list of rows. Of several lists of rows each row is named by its key: `train.text`.
    """
    if not isinstance(value, dict) or any(
        all(isinstance(value.get(name), str) for name in form) for form in FORMS
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
    by_column = any(set(form) <= value.keys() for form in FORMS)
    by_row = any(set(form) <= inner.keys() for form in FORMS) or all(name.isdecimal() for name in value)
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


# --- notebooks ---------------------------------------------------------------------------------------------


def notebook_text(file: Path, limit: int) -> str:
    """The Markdown and code of a Jupyter notebook, cell after cell, without outputs.

    Raises:
        Unreadable: it is no notebook, broken, or longer than the limit, which outputs count for.
    """
    text, cut = read_text(file, limit)
    if cut:
        raise Unreadable(f"is a notebook of more than {limit:,} characters: clear its outputs")
    try:
        cells = json.loads(text)["cells"]
        sources = [cell["source"] for cell in cells if cell["cell_type"] in ("markdown", "code")]
        return "\n\n".join("".join(source) for source in sources)
    except (ValueError, RecursionError, KeyError, TypeError):
        raise Unreadable("is no notebook, or broken: save it again") from None
