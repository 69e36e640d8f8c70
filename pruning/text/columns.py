"""Which columns of a table are its text, and how a row of them becomes a document. Nothing is guessed."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pruning.formatting import listed, quoted
from pruning.text.chats import CHATS, Skip, chat_text, has_template, parse_chat, template_record
from pruning.text.files import CHARACTER_LIMIT, READ_CHARACTERS, READ_ROWS, Unreadable, replace_surrogates

# Columns that say by their name what they hold, the first that a table has. What is joined may lack the
# columns in OPTIONAL: half of the instructions of Alpaca have no input.
FORMS: tuple[tuple[str, ...], ...] = (
    ("text",),
    ("content",),
    *((name,) for name in CHATS),
    ("instruction", "input", "output"),
    ("instruction", "context", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
)
OPTIONAL = ("input", "context")
SAMPLE = 300  # characters of a document that are kept to show what was read
NESTED = 3  # objects within each other whose keys are columns, as in `doc.text`
ABSENT = object()


def choose(columns: Sequence[str], column: str | None, where: str = "FILE") -> tuple[str, ...]:
    """The columns that are read.

    Args:
        columns: of the table.
        column: that the person named, several with `+`; None where none was.
        where: what stands before the name of a column, for the message.

    Raises:
        Unreadable: the one named is missing, or none was and no name tells which is text.
    """
    if column is None:
        for form in FORMS:
            if set(form) <= set(columns):
                return form
        raise Unreadable(
            f"does not say which column is text: write {where}:COLUMN with one of {listed(columns)}"
        )
    wanted = (column,) if column in columns else tuple(column.split("+"))
    for name in wanted:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, 1)
            hint = f" (did you mean {quoted(near[0])}?)" if near else ""
            raise Unreadable(f"has no column {quoted(name)}{hint}: its columns are {listed(columns)}")
    return wanted


@dataclass
class Documents:
    """Documents as they are gathered, up to the limits, and what was left out.

    Attributes:
        characters: that may still be added.
        rows: that may still be looked at.
        texts: of the documents.
        read_as: what they were taken from, such as `column text`; each once.
        skipped: by reason the number of rows.
        limit: the limit that was reached with more to read, in words; empty where there was not.
        template: what decides how chats were rendered; empty where none was.
    """

    characters: int = READ_CHARACTERS
    rows: int = READ_ROWS
    texts: list[str] = field(default_factory=list)
    read_as: dict[str, None] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    limit: str = ""
    template: dict[str, str] = field(default_factory=dict)

    def add(self, text: str, read_as: str) -> None:
        """Take a document, unless it goes beyond the limit; one without a letter is skipped."""
        if not text.strip():
            self.skipped["empty"] += 1
        elif len(text) > self.characters:
            self.limit = CHARACTER_LIMIT
        else:
            self.characters -= len(text)
            self.texts.append(replace_surrogates(text))
            self.read_as[read_as] = None

    def add_rows(self, rows: Iterable[Any], form: Sequence[str], tokenizer: Any = None) -> None:
        """Take the documents of rows until a limit is reached.

        Args:
            rows: dictionaries by column; a plain string is a document.
            form: the columns, from `choose`.
            tokenizer: whose chat template renders messages; without one their turns are joined.
        """
        for row in rows:
            if not self.rows:
                self.limit = f"{READ_ROWS:,} rows"
            if self.limit:
                return
            self.rows -= 1
            try:
                text, read_as = _document(row, form, tokenizer)
            except Skip as reason:
                self.skipped[str(reason)] += 1
            else:
                self.add(text, read_as)
                if read_as.startswith("chats") and has_template(tokenizer):
                    self.template = self.template or template_record(tokenizer)

    def extend(self, other: Documents) -> None:
        """Take what was gathered of a part, which began with what was left here."""
        self.characters, self.rows, self.limit = other.characters, other.rows, other.limit
        self.texts += other.texts
        self.read_as |= other.read_as
        self.skipped += other.skipped
        self.template = self.template or other.template

    def part(self) -> Documents:
        """Empty documents with the room that is left here, to be added by `extend`."""
        return Documents(self.characters, self.rows)


def _document(row: Any, form: Sequence[str], tokenizer: Any) -> tuple[str, str]:
    if isinstance(row, str):
        return row, "strings"
    if not isinstance(row, dict):
        raise Skip("no object")
    if len(form) > 1:
        parts = [_text(_value(row, name), name in OPTIONAL) for name in form]
        return "\n".join(filter(None, parts)), f"columns {' + '.join(map(quoted, form))}, joined"
    if not form:
        raise Skip("empty")
    (name,) = form
    value = _value(row, name)
    if value is ABSENT:
        raise Skip(f"without {quoted(name)}")
    if isinstance(value, str) and name.rpartition(".")[2] in CHATS:
        value = parse_chat(value)
    if not isinstance(value, list):
        return _text(value), f"column {quoted(name)}"
    text = chat_text(value, tokenizer)
    lacks = "" if tokenizer is None else ": the model has no chat template"
    how = "by the model's chat template" if has_template(tokenizer) else f"turns joined{lacks}"
    return text, f"chats in {quoted(name)}, {how}"


def column_names(rows: Iterable[Any]) -> list[str]:
    """The columns of rows, in the order in which they first come; what objects hold is named `doc.text`."""
    names: dict[str, None] = {}
    for row in rows:
        _add_names(names, row, "", NESTED)
    return list(names)


def _add_names(names: dict[str, None], row: Any, above: str, depth: int) -> None:
    if isinstance(row, dict) and depth:
        for name, value in row.items():
            if isinstance(name, str):
                names[above + name] = None
                _add_names(names, value, f"{above}{name}.", depth - 1)


def _value(row: dict[Any, Any], name: str) -> Any:
    """The value of a column, or of `doc.text` that of a column in an object; `ABSENT` where there is none."""
    if name in row:
        return row[name]
    first, _, within = name.partition(".")
    inner = row.get(first)
    return _value(inner, within) if within and isinstance(inner, dict) else ABSENT


def _text(value: Any, optional: bool = False) -> str:
    if value is None or value is ABSENT:
        if optional:
            return ""
        raise Skip("null")
    if not isinstance(value, str):
        raise Skip("no text")
    if not value.strip() and not optional:
        raise Skip("empty")
    return value
