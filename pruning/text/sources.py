"""Domains: where their text comes from.

A source is `embedded` (the project's own text), a path (a file or a folder of them, see `files.KNOWN`), a
path with a column as `FILE:COLUMN`, or `hub:NAME` with NAME a preset or `ID[:CONFIG[:COLUMN]]` of a Hugging
Face data set.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning.errors import DomainError
from pruning.paths import ASSETS, exists, expand
from pruning.text import hub
from pruning.text.columns import SAMPLE, Documents, choose
from pruning.text.files import READ_BYTES, TABLES, Unreadable, candidates, decode, ending, read_bytes
from pruning.text.hub import Split
from pruning.text.tables import read_table
from pruning.words import quoted

EMBEDDED_DOMAINS = ("wiki", "web", "code", "math")
LEFT_OUT = 20  # files of a folder whose reason is kept
HELDOUT_SHARE = 0.1  # of a source that has no held-out split of its own: its last tenth


@dataclass(frozen=True)
class DomainText:
    """Documents of a domain's split and where they came from."""

    texts: list[str]
    source: dict[str, Any]


def load_text(name: str, source: str, split: Split, seed: int = 0, tokenizer: Any = None) -> DomainText:
    """The documents of a domain.

    Args:
        name: the domain, for messages and for the embedded text.
        source: `embedded`, a path, or `hub:NAME`.
        split: `calibration`, or `heldout` for perplexity. Where the source has no held-out split its last
            tenth serves.
        seed: shuffles a streamed data set.
        tokenizer: of the model, whose chat template renders messages; without one their turns are joined.

    Raises:
        DomainError: the text cannot be found or read, or it is not said which column it is.
    """
    if source == "embedded":
        return _embedded(name, split)
    if source.startswith("hub:"):
        found, where, own_split = hub.read(name, source.removeprefix("hub:"), split, seed, tokenizer)
    else:
        found, where = _path(name, source, tokenizer)
        where, own_split = {**where, "split": split}, False
    texts = found.texts if own_split else _split_tail(found.texts, split)
    return DomainText(texts, where | _account(found))


def check_source(name: str, source: str) -> None:
    """What can be known of a source without the network and the model: files are read.

    Raises:
        DomainError: there is no such embedded text or path, or nothing to read in it.
    """
    if not source.startswith("hub:"):
        load_text(name, source, "calibration")


def _embedded(name: str, split: Split) -> DomainText:
    if name not in EMBEDDED_DOMAINS:
        raise DomainError(
            f"there is no embedded domain {quoted(name)}: choose one of {', '.join(EMBEDDED_DOMAINS)}."
        )
    path = ASSETS / "domains" / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [row["text"] for row in rows if row["split"] == split]
    return DomainText(texts, {"kind": "embedded", "name": name, "split": split})


def _split_tail(texts: list[str], split: Split) -> list[str]:
    """The first nine tenths of the characters, or the last tenth; a document at the cut is divided."""
    cut = int(sum(map(len, texts)) * (1 - HELDOUT_SHARE))
    head, tail, seen = [], [], 0
    for text in texts:
        at = min(max(cut - seen, 0), len(text))
        head.append(text[:at])
        tail.append(text[at:])
        seen += len(text)
    return [text for text in (head if split == "calibration" else tail) if text]


# --- files and folders -------------------------------------------------------------------------------------


def _locate(source: str) -> tuple[Path, str | None]:
    """A path, and the column that is named behind it; a colon may be part of a file's name."""
    path, _, column = source.rpartition(":")
    if path and column and not exists(expand(source)) and exists(expand(path)):
        return expand(path), column
    return expand(source), None


def _path(name: str, source: str, tokenizer: Any) -> tuple[Documents, dict[str, Any]]:
    path, column = _locate(source)
    found, left_out = Documents(), dict[Path, str]()
    file, files, room, cut = path, 0, READ_BYTES, False
    try:
        for file in candidates(path):
            if room <= 0:
                cut = True
                break
            try:
                size, more = _read(file, column, room, found, tokenizer)
            except Unreadable as problem:
                if file == path:
                    raise
                left_out[file] = str(problem)  # one file of a folder does not take the others with it
                continue
            files, room, cut = files + 1, room - size, cut or more
        if not found.texts:
            file = path
            raise Unreadable(_nothing(found, left_out))
    except Unreadable as problem:
        raise DomainError(f"domain {quoted(name)}: {quoted(file)} {problem}.") from None
    where: dict[str, Any] = {"kind": "path", "path": str(path), "files": files, "revision": _digest(found)}
    where |= {"column": column} if column else {}
    where |= {"cut_at": READ_BYTES} if cut else {}
    if left_out:
        first = list(left_out.items())[:LEFT_OUT]
        where["files_left_out"] = len(left_out)
        where["left_out"] = {str(left.relative_to(path)): why for left, why in first}
    return found, where


def _read(file: Path, column: str | None, room: int, found: Documents, tokenizer: Any) -> tuple[int, bool]:
    """Take the documents of a file; returns how many bytes of them there are, and whether there are more."""
    if ending(file) in TABLES:
        table = read_table(file, room)
        form = choose(table.columns, column) if table.columns or column else ()
        before = len(found.texts)
        found.add_rows(list(table.rows(form)), form, tokenizer)  # all of a file, or nothing
        found.skipped.update(table.skipped)
        return sum(map(len, found.texts[before:])), table.cut
    if column:
        raise Unreadable(f"has no columns: leave out {quoted(':' + column)}")
    data, cut = read_bytes(file, room)
    found.add(decode(data, cut), "the whole text")
    return len(data), cut


def _digest(found: Documents) -> str:
    """A name for the documents as they were read."""
    digest = hashlib.blake2b(digest_size=16)
    for text in found.texts:
        digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()


def _nothing(found: Documents, left_out: Mapping[Path, str]) -> str:
    if left_out:
        first, why = next(iter(left_out.items()))
        return f"holds nothing to read; its file {quoted(first.name)} {why}"
    if sum(found.skipped.values()) > 1:
        return f"holds no text (rows: {_counted(found.skipped)}): give a file with text in it"
    return "is empty: give a file with text in it"


# --- what was read -----------------------------------------------------------------------------------------


def _account(found: Documents) -> dict[str, Any]:
    """What was read, for the run's record."""
    return {
        "read_as": list(found.read_as),
        "rows": len(found.texts),
        "skipped": dict(found.skipped),
        "characters": sum(map(len, found.texts)),
        "sample": found.texts[len(found.texts) // 2][:SAMPLE] if found.texts else "",
    }


def _counted(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(skipped).most_common())


def told(source: Mapping[str, Any]) -> str:
    """What was read of a source, in one line; empty for the embedded text.

    Args:
        source: of `DomainText`, or as a run has it in `sources.json`.
    """
    if "rows" not in source:
        return ""
    line = f"{quoted(source.get('path') or source.get('name'))}: {'; '.join(source['read_as'])}, "
    line += f"{source['rows']:,} document{'s' * (source['rows'] != 1)}, {source['characters']:,} characters"
    if source["skipped"]:
        line += f"; skipped {_counted(source['skipped'])}"
    if left_out := source.get("files_left_out"):
        line += f"; left out {left_out:,} of its files, such as {quoted(next(iter(source['left_out'])))}"
    if limit := source.get("cut_at"):
        line += f"; nothing is read beyond {limit / 1e6:.0f} MB"
    return line
