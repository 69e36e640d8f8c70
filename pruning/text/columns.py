"""Which columns of a table are its text, and how a row of them becomes a document. Nothing is guessed."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pruning.text.files import Unreadable, whole_characters
from pruning.words import listed, quoted

# Columns that say by their name what they hold, the first that a table has. What is joined may lack the
# columns in OPTIONAL: half of the instructions of Alpaca have no input.
FORMS: tuple[tuple[str, ...], ...] = (
    ("text",),
    ("content",),
    ("messages",),
    ("conversations",),
    ("conversation",),
    ("instruction", "input", "output"),
    ("instruction", "context", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
)
OPTIONAL = ("input", "context")
ROLES = {"human": "user", "gpt": "assistant"}  # as ShareGPT writes them
SAMPLE = 300  # characters of a document that are kept to show what was read


class Skip(Exception):
    """Why a row gives no document."""


def choose(columns: Sequence[str], asked: str | None, where: str = "FILE") -> tuple[str, ...]:
    """The columns that are read.

    Args:
        columns: that there are.
        asked: for by name, several with `+`; None where none was.
        where: what stands before the name of a column, for the message.

    Raises:
        Unreadable: the one asked for is not there, or none was and no name tells which is text.
    """
    if asked is None:
        for form in FORMS:
            if set(form) <= set(columns):
                return form
        raise Unreadable(
            f"does not say which column is text: write {where}:COLUMN with one of {listed(columns)}"
        )
    wanted = (asked,) if asked in columns else tuple(asked.split("+"))
    for name in wanted:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, 1)
            hint = f" (did you mean {quoted(near[0])}?)" if near else ""
            raise Unreadable(f"has no column {quoted(name)}{hint}: its columns are {listed(columns)}")
    return wanted


@dataclass
class Documents:
    """Documents as they are gathered, and what was left out.

    Attributes:
        texts: of the documents.
        read_as: what they were taken from, such as `column text`; each once.
        skipped: by reason the number of rows.
    """

    texts: list[str] = field(default_factory=list)
    read_as: dict[str, None] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, text: str, read_as: str) -> None:
        """Take a document; one without a letter is skipped."""
        if not text.strip():
            self.skipped["empty"] += 1
        else:
            self.texts.append(whole_characters(text))
            self.read_as[read_as] = None

    def add_rows(self, rows: Iterable[Any], form: Sequence[str], tokenizer: Any = None) -> None:
        """Take the documents of rows.

        Args:
            rows: dictionaries by column; a plain string is a document.
            form: the columns, from `choose`.
            tokenizer: whose chat template renders messages; without one their turns are joined.
        """
        for row in rows:
            try:
                self.add(*_document(row, form, tokenizer))
            except Skip as reason:
                self.skipped[str(reason)] += 1


def _document(row: Any, form: Sequence[str], tokenizer: Any) -> tuple[str, str]:
    if isinstance(row, str):
        return row, "strings"
    if not isinstance(row, dict):
        raise Skip("no object")
    if len(form) == 1:
        if form[0] not in row:
            raise Skip(f"without {quoted(form[0])}")
        value = row[form[0]]
        if isinstance(value, list):
            return _chat(value, form[0], tokenizer)
        return _text(value), f"column {quoted(form[0])}"
    parts = [_text(row.get(name), name in OPTIONAL) for name in form]
    return "\n".join(filter(None, parts)), f"columns {' + '.join(map(quoted, form))}, joined"


def _text(value: Any, optional: bool = False) -> str:
    if value is None:
        if optional:
            return ""
        raise Skip("null")
    if not isinstance(value, str):
        raise Skip("no text")
    if not value.strip() and not optional:
        raise Skip("empty")
    return value


# --- chats -------------------------------------------------------------------------------------------------


def _chat(value: list[Any], column: str, tokenizer: Any) -> tuple[str, str]:
    turns = [_turn(turn) for turn in value]
    if not turns:
        raise Skip("empty")
    if getattr(tokenizer, "chat_template", None) is None:
        lacks = "" if tokenizer is None else ": the model has no chat template"
        return "\n\n".join(
            turn["content"] for turn in turns
        ), f"chats in {quoted(column)}, turns joined{lacks}"
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception:  # a template raises what it likes, for roles that do not alternate say
        raise Skip("refused by the chat template") from None
    return str(text), f"chats in {quoted(column)}, by the model's chat template"


def _turn(turn: Any) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise Skip("no text")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if isinstance(content, list):  # parts, some of which may be pictures
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        content = "".join(part for part in parts if isinstance(part, str)) or None
    if not isinstance(role, str) or not isinstance(content, str):
        raise Skip("a turn without role or text")
    return {"role": ROLES.get(role, role), "content": whole_characters(content)}
