"""Domains: where their text comes from.

A source is `embedded` (the project's own text), a path (a file or a folder of them, see `files.KNOWN`), a
path with a column as `FILE:COLUMN`, or `hub:NAME` with NAME a preset or `ID[:CONFIG[:COLUMN]]` of a Hugging
Face data set.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning.errors import DomainError
from pruning.formatting import clipped, quoted
from pruning.paths import ASSETS, exists, expand
from pruning.text import hub
from pruning.text.arrow_tables import arrow_table
from pruning.text.columns import SAMPLE, Documents, choose
from pruning.text.files import (
    CHARACTER_LIMIT,
    TABLES,
    Unreadable,
    count_endings,
    ending,
    list_files,
    read_text,
)
from pruning.text.hub import Split
from pruning.text.json_rows import notebook_text
from pruning.text.saved import choose_split, saved_files
from pruning.text.tables import read_table

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

    Returns:
        The documents, and a record of where they came from and what was read. Its `digest` names the
        documents themselves, whatever decided them.

    Raises:
        DomainError: the text cannot be found or read, or it is not said which column it is.
    """
    if source == "embedded":
        return _embedded(name, split)
    if source.startswith("hub:"):
        documents, origin, has_heldout = hub.read(name, source.removeprefix("hub:"), split, seed, tokenizer)
    else:
        documents, origin, has_heldout = _read_path(name, source, split, tokenizer)
        origin["split"] = split
    texts = documents.texts
    if not has_heldout:
        texts = _split_tail(texts, split)
        origin["heldout_share"] = HELDOUT_SHARE
    return DomainText(texts, origin | {"digest": _digest(texts)} | _account(documents))


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
    origin = {"kind": "embedded", "name": name, "split": split, "digest": _digest(texts)}
    return DomainText(texts, origin)


def _split_tail(texts: list[str], split: Split) -> list[str]:
    """The first nine tenths of the characters, or the last tenth; a document at the cut is divided."""
    cut = int(sum(map(len, texts)) * (1 - HELDOUT_SHARE))
    head, tail, start = [], [], 0
    for text in texts:
        at = min(max(cut - start, 0), len(text))
        head.append(text[:at])
        tail.append(text[at:])
        start += len(text)
    return [text for text in (head if split == "calibration" else tail) if text]


# --- files and folders -------------------------------------------------------------------------------------


def _locate(source: str) -> tuple[Path, str | None]:
    """A path, and the column that is named behind it; a colon may be part of a file's name."""
    path, _, column = source.rpartition(":")
    if path and column and not exists(expand(source)) and exists(expand(path)):
        return expand(path), column
    return expand(source), None


def _read_path(
    name: str, source: str, split: Split, tokenizer: Any
) -> tuple[Documents, dict[str, Any], bool]:
    """Documents of a file or folder, where they came from, and whether it has a held-out split of its own."""
    path, column = _locate(source)
    documents, unread, others = Documents(), dict[Path, str](), Counter[str]()
    file, count = path, 0
    try:
        folder, has_heldout = choose_split(path, split)
        files = saved_files(folder)
        if files is None:
            files, others = list_files(folder)
        for file in files:
            if documents.limit or not documents.characters:
                documents.limit = documents.limit or CHARACTER_LIMIT
                break
            try:
                documents.extend(_read(file, column, documents.part(), tokenizer))
            except Unreadable as problem:
                if file == path:
                    raise
                unread[file] = str(problem)  # one file of a folder does not take the others with it
                continue
            count += 1
        if not documents.texts:
            file = path
            raise Unreadable(_nothing(documents, unread))
    except Unreadable as problem:
        raise DomainError(f"domain {quoted(name)}: {quoted(file)} {problem}.") from None
    origin: dict[str, Any] = {"kind": "path", "path": str(path), "files": count}
    origin["revision"] = _digest(documents.texts)
    origin |= {"column": column} if column else {}
    if unread:
        first = list(unread.items())[:LEFT_OUT]
        origin["files_left_out"] = len(unread)
        origin["left_out"] = {str(file.relative_to(path)): reason for file, reason in first}
    if others:
        origin["files_passed_over"] = dict(others.most_common())
    return documents, origin, has_heldout


def _read(file: Path, column: str | None, documents: Documents, tokenizer: Any) -> Documents:
    """Add the documents of a file to those that are given, and return them."""
    kind = ending(file)
    if kind in TABLES:
        is_arrow = kind in (".parquet", ".arrow", ".feather")
        table = (arrow_table if is_arrow else read_table)(file, documents.characters)
        form = choose(table.columns, column) if table.columns or column else ()
        documents.add_rows(table.rows(form), form, tokenizer)
        documents.skipped.update(table.skipped)
        cut = table.cut
    elif column:
        raise Unreadable(f"has no columns: leave out {quoted(':' + column)}")
    elif kind == ".ipynb":
        documents.add(notebook_text(file, documents.characters), "the cells of notebooks")
        cut = False
    else:
        text, cut = read_text(file, documents.characters)
        documents.add(text, "the whole text")
    if cut and not documents.limit:
        documents.limit = CHARACTER_LIMIT
    return documents


def _digest(texts: Iterable[str]) -> str:
    """A name for documents."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()


def _nothing(documents: Documents, unread: Mapping[Path, str]) -> str:
    if unread:
        first, reason = next(iter(unread.items()))
        return f"holds nothing to read; its file {quoted(first.name)} {reason}"
    if sum(documents.skipped.values()) > ("empty" in documents.skipped):
        return f"holds no text (rows: {_count(documents.skipped)}): give a file with text in it"
    if documents.limit:
        return f"has no document within the limit of {documents.limit}: divide its documents"
    return "is empty: give a file with text in it"


# --- what was read -----------------------------------------------------------------------------------------


def _account(documents: Documents) -> dict[str, Any]:
    """What was read, for the run's record."""
    texts = documents.texts
    account = {
        "read_as": list(documents.read_as),
        "rows": len(texts),
        "skipped": dict(documents.skipped),
        "characters": sum(map(len, texts)),
        "sample": texts[len(texts) // 2][:SAMPLE] if texts else "",
    }
    return account | documents.template | ({"cut_at": documents.limit} if documents.limit else {})


def _count(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(skipped).most_common())


def describe_source(source: Mapping[str, Any]) -> str:
    """What was read of a source, in one line; empty for the embedded text.

    Args:
        source: of `DomainText`, or as a run has it in `sources.json`.
    """
    if "rows" not in source:
        return ""
    line = f"{quoted(source.get('path') or source.get('name'))}: {'; '.join(source['read_as'])}, "
    line += f"{source['rows']:,} document{'s' * (source['rows'] != 1)}, {source['characters']:,} characters"
    if source["skipped"]:
        line += f"; skipped {_count(source['skipped'])}"
    if unread := source.get("files_left_out"):
        file, reason = next(iter(source["left_out"].items()))
        line += f"; left out {unread:,} of its files, such as {quoted(file)}, which {clipped(reason, 200)}"
    if others := Counter(source.get("files_passed_over", {})):
        line += f"; passed over {others.total():,} file{'s' * (others.total() != 1)}: {count_endings(others)}"
    if limit := source.get("cut_at"):  # in bytes until version 0.2
        line += f"; stops at the limit of {limit if isinstance(limit, str) else f'{limit:,} bytes'}"
    return line


told = describe_source  # its name in version 0.2, which scripts import
