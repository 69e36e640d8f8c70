"""Numbers and sentences for people."""

from __future__ import annotations

from collections.abc import Sequence

LISTED = 12  # names in a sentence; of a table with hundreds of columns the first do


def sentence(text: str) -> str:
    """A message with its first letter large."""
    return text[:1].upper() + text[1:]


def number(value: float | None, digits: int = 2) -> str:
    """A perplexity; `-` where there is none."""
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
    """How many items were asked, and whether these were only the first of more."""
    return f"{items} items, first {limit}" if limit else f"{items} items"


def seconds_text(seconds: float) -> str:
    """A duration, coarser the longer it is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def listed(names: Sequence[str], limit: int = LISTED) -> str:
    """Names for a sentence, quoted, the first of many."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
