"""From a row to a document: which columns of a table are its text, and how chats are rendered."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pruning.formatting import listed, quoted
from pruning.text.files import (
    CHARACTER_LIMIT,
    READ_CHARACTERS,
    READ_ROWS,
    UnreadableError,
    replace_surrogates,
)

CHATS = ("messages", "conversations", "conversation")
# Columns whose names say that they hold text: a table is read by the first set that it has. Columns in
# OPTIONAL may be empty in a row: half of the instructions of Alpaca have no input.
COLUMN_SETS: tuple[tuple[str, ...], ...] = (
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
_MAX_DEPTH = 3  # nested objects whose keys are columns, as in `doc.text`
_ABSENT = object()
ROLES = {"human": "user", "gpt": "assistant"}  # as ShareGPT writes them
# The date that templates read as today (`strftime_now`): calibration text must not depend on the day.
# Templates of Llama 3.1 take this date where they are given none.
TEMPLATE_DATE = datetime(2024, 7, 26)
_DIRECTIVES = "aAbBcdDeFHIjklmMpPrRSTuUVwWxXyYzZ"
_FILTERS = "".join(
    f"|replace('%{flag}{directive}', '{TEMPLATE_DATE.strftime(f'%{flag}{directive}')}')"
    for flag in ("", "-")
    for directive in _DIRECTIVES
)
# Data given to a template cannot be called, so the function that it finds is shadowed by a macro. The line
# that this takes gives no output, since transformers trims the line end behind a block.
_FIXED_DATE = f"{{% macro strftime_now(format) %}}{{{{ format{_FILTERS} }}}}{{% endmacro %}}\n"


class SkipRow(Exception):
    """Reason why a row gives no document."""


def choose_columns(columns: Sequence[str], column: str | None, source: str = "FILE") -> tuple[str, ...]:
    """The columns of a table that are read.

    Args:
        columns: names of all columns.
        column: name that a person gave, several joined with `+`; None for the first of `COLUMN_SETS`.
        source: syntax before the name of a column, for the message.

    Raises:
        UnreadableError: the named column is missing, or no name says which column is text.
    """
    if column is None:
        for names in COLUMN_SETS:
            if set(names) <= set(columns):
                return names
        raise UnreadableError(
            f"does not say which column is text: write {source}:COLUMN with one of {listed(columns)}"
        )
    names = (column,) if column in columns else tuple(column.split("+"))
    for name in names:
        if name not in columns:
            similar = difflib.get_close_matches(name, columns, 1)
            hint = f" (did you mean {quoted(similar[0])}?)" if similar else ""
            raise UnreadableError(f"has no column {quoted(name)}{hint}: its columns are {listed(columns)}")
    return names


@dataclass
class Documents:
    """Collects documents up to limits, and accounts for what was left out.

    Attributes:
        characters: number of characters that may still be added.
        rows: number of rows that may still be read.
        texts: the documents.
        read_as: the parts of files that documents were taken from, such as `column text`, in order.
        skipped: number of rows without a document, by reason.
        limit: the limit that was reached before the end, in words; empty if none was.
        template: see `_template_record`; empty if no chat was rendered.
    """

    characters: int = READ_CHARACTERS
    rows: int = READ_ROWS
    texts: list[str] = field(default_factory=list)
    read_as: dict[str, None] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    limit: str = ""
    template: dict[str, str] = field(default_factory=dict)

    def add(self, text: str, read_as: str) -> None:
        """Take a document, unless it exceeds the limit; a blank one is skipped."""
        if not text.strip():
            self.skipped["empty"] += 1
        elif len(text) > self.characters:
            self.limit = CHARACTER_LIMIT
        else:
            self.characters -= len(text)
            self.texts.append(replace_surrogates(text))
            self.read_as[read_as] = None

    def add_rows(self, rows: Iterable[Any], columns: Sequence[str], tokenizer: Any = None) -> None:
        """Take the documents of rows until a limit is reached.

        Args:
            rows: dictionaries by column; a plain string is a document.
            columns: from `choose_columns`.
            tokenizer: its chat template renders chats; without one their turns are joined.
        """
        for row in rows:
            if not self.rows:
                self.limit = f"{READ_ROWS:,} rows"
            if self.limit:
                return
            self.rows -= 1
            try:
                text, read_as = _document(row, columns, tokenizer)
            except SkipRow as reason:
                self.skipped[str(reason)] += 1
            else:
                self.add(text, read_as)
                if read_as.startswith("chats") and _has_template(tokenizer):
                    self.template = self.template or _template_record(tokenizer)

    def extend(self, other: Documents) -> None:
        """Take the documents of a `part`."""
        self.characters, self.rows, self.limit = other.characters, other.rows, other.limit
        self.texts += other.texts
        self.read_as |= other.read_as
        self.skipped += other.skipped
        self.template = self.template or other.template

    def part(self) -> Documents:
        """Empty documents with the remaining limits, to be added by `extend` if all goes well."""
        return Documents(self.characters, self.rows)


def _document(row: Any, columns: Sequence[str], tokenizer: Any) -> tuple[str, str]:
    """The text of a row, and the part of it that this is."""
    if isinstance(row, str):
        return row, "strings"
    if not isinstance(row, dict):
        raise SkipRow("no object")
    if len(columns) > 1:
        parts = [_text(_value(row, name), name in OPTIONAL) for name in columns]
        return "\n".join(filter(None, parts)), f"columns {' + '.join(map(quoted, columns))}, joined"
    if not columns:
        raise SkipRow("empty")
    (name,) = columns
    value = _value(row, name)
    if value is _ABSENT:
        raise SkipRow(f"without {quoted(name)}")
    if isinstance(value, str) and name.rpartition(".")[2] in CHATS:
        value = _parse_chat(value)
    if not isinstance(value, list):
        return _text(value), f"column {quoted(name)}"
    text = _chat_text(value, tokenizer)
    reason = "" if tokenizer is None else ": the model has no chat template"
    rendering = "by the model's chat template" if _has_template(tokenizer) else f"turns joined{reason}"
    return text, f"chats in {quoted(name)}, {rendering}"


def column_names(rows: Iterable[Any]) -> list[str]:
    """The columns of rows in the order of their first appearance; a key of an object is named `doc.text`."""
    names: dict[str, None] = {}
    for row in rows:
        _add_names(names, row, "", _MAX_DEPTH)
    return list(names)


def _add_names(names: dict[str, None], row: Any, prefix: str, depth: int) -> None:
    if isinstance(row, dict) and depth:
        for name, value in row.items():
            if isinstance(name, str):
                names[prefix + name] = None
                _add_names(names, value, f"{prefix}{name}.", depth - 1)


def _value(row: dict[Any, Any], name: str) -> Any:
    """The value of a column such as `text` or `doc.text`; `_ABSENT` if the row has none."""
    if name in row:
        return row[name]
    first, _, key = name.partition(".")
    inner = row.get(first)
    return _value(inner, key) if key and isinstance(inner, dict) else _ABSENT


def _text(value: Any, optional: bool = False) -> str:
    if value is None or value is _ABSENT:
        if optional:
            return ""
        raise SkipRow("null")
    if not isinstance(value, str):
        raise SkipRow("no text")
    if not value.strip() and not optional:
        raise SkipRow("empty")
    return value


# --- chats -------------------------------------------------------------------------------------------------


def _has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer can render a chat."""
    return getattr(tokenizer, "chat_template", None) is not None


def _template_record(tokenizer: Any) -> dict[str, str]:
    """Digest and date of a tokenizer's chat template, for the run's record."""
    rules = json.dumps([tokenizer.chat_template, tokenizer.special_tokens_map], sort_keys=True, default=str)
    digest = hashlib.blake2b(rules.encode(errors="replace"), digest_size=16).hexdigest()
    return {"chat_template": digest, "template_date": TEMPLATE_DATE.date().isoformat()}


def _chat_text(value: list[Any], tokenizer: Any) -> str:
    """A chat as one text.

    Args:
        value: turns, each with `role` and `content`, or `from` and `value` as ShareGPT writes them.
        tokenizer: its chat template renders the turns; without one they are joined.

    Raises:
        SkipRow: a turn has no role or text, or the template refuses the chat.
    """
    turns = [_turn(turn) for turn in value]
    if not turns:
        raise SkipRow("empty")
    if not _has_template(tokenizer):
        return "\n\n".join(turn["content"] for turn in turns)
    try:
        template = _FIXED_DATE + tokenizer.get_chat_template()
        return str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False))
    except Exception:  # templates raise errors of any type, such as for roles that do not alternate
        raise SkipRow("refused by the chat template") from None


def _parse_chat(value: str) -> list[Any] | str:
    """The turns that a string holds as JSON; a string that does not begin like JSON is returned itself.

    Raises:
        SkipRow: the string begins like JSON, and is no valid list.
    """
    if not value.lstrip().startswith(("[", "{")):
        return value
    try:
        turns = json.loads(value)
    except (ValueError, RecursionError):
        turns = None
    if not isinstance(turns, list):
        raise SkipRow("no list of turns")
    return turns


def _turn(turn: Any) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise SkipRow("no text")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if isinstance(content, list):  # parts, some of which may be pictures
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        content = "".join(part for part in parts if isinstance(part, str)) or None
    if not isinstance(role, str) or not isinstance(content, str):
        raise SkipRow("a turn without role or text")
    return {"role": ROLES.get(role, role), "content": replace_surrogates(content)}
