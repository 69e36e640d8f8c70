"""Formatting of numbers, values and sentences for people."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from pathlib import PurePath

QUOTED = 160  # most characters of a value in a sentence: enough for a path, too few for a file's content
MESSAGE = 700  # most characters of a message; a library may repeat a person's input of any length
LISTED = 12  # most names in a sentence
_REPR = reprlib.Repr()
_REPR.maxlong, _REPR.maxstring = 60, QUOTED
# Markup of Markdown and Streamlit: anywhere, before certain characters, or at the beginning of a line.
_MARKUP = re.compile(r"[\\`*\[\]<>~$|&]|(?<!\w)_|_(?!\w)|:(?=\S)|^[#+=-]|(?<=^\d)[.)]")


def sentence(text: str) -> str:
    """A message with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def plain(text: object) -> str:
    """Text of other origin for Markdown: on one line, with its markup escaped."""
    line = "".join(c if c.isprintable() else " " for c in str(text)).strip()
    return _MARKUP.sub(r"\\\g<0>", line)


def quoted(value: object, limit: int = QUOTED) -> str:
    """A person's input for a message: in quotes, on one line, without control characters.

    Args:
        value: text, a path, or any value from a file.
        limit: most characters; of a longer text beginning and end are shown.
    """
    if not isinstance(value, str | PurePath):
        return _REPR.repr(value)  # clipped for nested lists
    text = str(value)
    if len(text) <= limit:
        return repr(text)
    return f"{repr(text[: limit // 2])[:-1]}…{repr(text[-limit // 4 :])[1:]} ({len(text):,} characters)"


def clipped(text: str, limit: int = MESSAGE) -> str:
    """A library's message, which may repeat input of any length, without its middle."""
    if len(text) <= limit:
        return text
    return f"{text[: 2 * limit // 3]}…{text[-limit // 3 :]}"


def number(value: float | None, digits: int = 2) -> str:
    """A perplexity; `-` for None and NaN."""
    if value is None or value != value:
        return "-"
    if value == float("inf"):
        return "infinite"
    return f"{value:,.{digits}f}" if value < 1e6 else f"{value:.1e}"


def size_text(size: float) -> str:
    """Bytes in powers of 1000, as file managers count."""
    for unit in ("bytes", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def items_text(items: int | None, limit: int | None) -> str:
    """Number of evaluated items, and their limit."""
    return f"{items} items, first {limit}" if limit else f"{items} items"


def seconds_text(seconds: float) -> str:
    """A duration, coarser the longer it is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def listed(names: Sequence[str], limit: int = LISTED) -> str:
    """Quoted names for a sentence, the first of many."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(quoted(name, 60) for name in names[:limit]) + more
