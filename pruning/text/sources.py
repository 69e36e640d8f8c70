"""Domains: where their text comes from.

A source is `embedded` (the project's own text), a path (a file or a folder of them, see
`files.SUPPORTED_FILES`), a path with a column as `FILE:COLUMN`, or `hub:NAME` with NAME a preset or
`ID[:CONFIG[:COLUMN]]` of a Hugging Face data set.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pruning.errors import DomainError, reason_of
from pruning.formatting import clipped, listed, quoted
from pruning.paths import ASSETS, exists, expand
from pruning.text.columns import SAMPLE, Documents, choose_columns, column_names
from pruning.text.files import (
    CHARACTER_LIMIT,
    TABLES,
    UnreadableError,
    count_endings,
    ending,
    list_files,
    notebook_text,
    read_text,
)
from pruning.text.tables import read_table

Split = Literal["calibration", "heldout"]
EMBEDDED_DOMAINS = ("wiki", "web", "code", "math")
MAX_REASONS = 20  # files of a folder for which a run records why they were not read
HELDOUT_SHARE = 0.1  # of a source that has no held-out split of its own: its last tenth


@dataclass(frozen=True)
class DomainText:
    """Documents of one split of a domain, and a record of where they came from."""

    texts: list[str]
    source: dict[str, Any]


def load_text(name: str, source: str, split: Split, seed: int = 0, tokenizer: Any = None) -> DomainText:
    """The documents of a domain.

    Args:
        name: the domain, for messages and for the embedded text.
        source: `embedded`, a path, or `hub:NAME`.
        split: `calibration`, or `heldout` for perplexity. Where the source has no held-out split its last
            tenth serves.
        seed: of the shuffle of a streamed data set.
        tokenizer: its chat template renders chats; without one their turns are joined.

    Returns:
        The documents, and a record of where they came from and what was read. Its `digest` is a hash of the
        documents themselves.

    Raises:
        DomainError: the text cannot be found or read, or no column is known to be text.
    """
    if source == "embedded":
        return _embedded(name, split)
    if source.startswith("hub:"):
        documents, origin, has_heldout = _read_hub(name, source.removeprefix("hub:"), split, seed, tokenizer)
    else:
        documents, origin, has_heldout = _read_path(name, source, split, tokenizer)
        origin["split"] = split
    texts = documents.texts
    if not has_heldout:
        texts = _split_tail(texts, split)
        origin["heldout_share"] = HELDOUT_SHARE
    return DomainText(texts, origin | {"digest": _digest(texts)} | _account(documents))


def check_source(name: str, source: str) -> None:
    """Refuse a source that is bound to fail, as far as this shows without the network; files are read.

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


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()


# --- data sets on the Hugging Face hub ---------------------------------------------------------------------


@dataclass(frozen=True)
class HubDataset:
    """A data set on the hub: its id, configuration and column, and the names of its splits."""

    repo: str
    configuration: str | None = None
    column: str | None = None
    calibration: str = "train"
    heldout: str = "test"


HUB_PRESETS = {
    "wikitext": HubDataset("Salesforce/wikitext", "wikitext-2-raw-v1", "text"),
    "c4": HubDataset("allenai/c4", "en", "text", heldout="validation"),
    "code": HubDataset("codeparrot/codeparrot-clean-valid", column="content", heldout="train"),
    "gsm8k": HubDataset("openai/gsm8k", "main", "question+answer"),
    "openwebmath": HubDataset("open-web-math/open-web-math", column="text", heldout="train"),
}


def _read_hub(
    name: str, identifier: str, split: Split, seed: int, tokenizer: Any
) -> tuple[Documents, dict[str, Any], bool]:
    """Documents of a streamed data set, their origin, and whether it has a held-out split of its own."""
    from datasets import load_dataset
    from huggingface_hub import HfApi

    repo, configuration, column = [*identifier.split(":", 2), "", ""][:3]
    dataset = HUB_PRESETS.get(identifier) or HubDataset(repo, configuration or None, column or None)
    part = getattr(dataset, split)
    documents = Documents()
    columns: tuple[str, ...] = ()
    try:
        revision = HfApi().dataset_info(dataset.repo).sha
        stream = load_dataset(
            dataset.repo,
            dataset.configuration,
            split=part,
            streaming=True,
            revision=revision,
            trust_remote_code=False,
        )
        for row in stream.shuffle(seed=seed, buffer_size=1000):
            columns = columns or choose_columns(column_names([row]), dataset.column, "hub:ID:CONFIG")
            documents.add_rows([row], columns, tokenizer)
            if documents.limit:
                break
        if not documents.texts:
            raise UnreadableError(
                f"has no text in {'+'.join(columns) or 'its rows'}: write hub:ID:CONFIG:COLUMN"
            )
    except UnreadableError as problem:
        raise DomainError(f"domain {name!r}: data set {dataset.repo!r} {problem}.") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        # no such configuration or split, a data set that is a script
        raise DomainError(
            f"domain {name!r}: data set {dataset.repo!r} cannot be read as configuration "
            f"{dataset.configuration or 'default'}, split {part} ({reason_of(error)}): name a configuration "
            "with that split (hub:ID:CONFIG:COLUMN), or give a file."
        ) from None
    except Exception as error:  # the hub's client raises a dozen types for an unreachable or missing data set
        raise DomainError(
            f"domain {name!r}: data set {dataset.repo!r} cannot be read from the hub "
            f"({type(error).__name__}): check the name and the network, or use the embedded text or a file."
        ) from None
    origin: dict[str, Any] = {"kind": "hub", "name": dataset.repo, "config": dataset.configuration}
    origin |= {"column": dataset.column, "split": part, "revision": revision, "seed": seed}
    return documents, origin, dataset.calibration != dataset.heldout


# --- files and folders -------------------------------------------------------------------------------------


def _split_column(source: str) -> tuple[Path, str | None]:
    """A path and the column named behind it; a colon may be part of a file's name."""
    path, _, column = source.rpartition(":")
    if path and column and not exists(expand(source)) and exists(expand(path)):
        return expand(path), column
    return expand(source), None


def _read_path(
    name: str, source: str, split: Split, tokenizer: Any
) -> tuple[Documents, dict[str, Any], bool]:
    """Documents of a file or folder, their origin, and whether it has a held-out split of its own."""
    path, column = _split_column(source)
    documents, reasons, others = Documents(), dict[Path, str](), Counter[str]()
    file, count = path, 0
    try:
        folder, has_heldout = _split_folder(path, split)
        files = _saved_files(folder)
        if files is None:
            files, others = list_files(folder)
        for file in files:
            if documents.limit or not documents.characters:
                documents.limit = documents.limit or CHARACTER_LIMIT
                break
            try:
                documents.extend(_read_file(file, column, documents.part(), tokenizer))
            except UnreadableError as problem:
                if file == path:
                    raise
                reasons[file] = str(problem)  # one unreadable file of a folder leaves the others
                continue
            count += 1
        if not documents.texts:
            file = path
            raise UnreadableError(_empty_reason(documents, reasons))
    except UnreadableError as problem:
        raise DomainError(f"domain {quoted(name)}: {quoted(file)} {problem}.") from None
    origin: dict[str, Any] = {"kind": "path", "path": str(path), "files": count}
    origin["revision"] = _digest(documents.texts)
    origin |= {"column": column} if column else {}
    if reasons:
        first = list(reasons.items())[:MAX_REASONS]
        origin["files_left_out"] = len(reasons)
        origin["left_out"] = {str(file.relative_to(path)): reason for file, reason in first}
    if others:
        origin["files_passed_over"] = dict(others.most_common())
    return documents, origin, has_heldout


def _read_file(file: Path, column: str | None, documents: Documents, tokenizer: Any) -> Documents:
    """Add the documents of a file to those that are given, and return them."""
    kind, cut = ending(file), False
    if kind in TABLES:
        if kind in (".parquet", ".arrow", ".feather"):
            from pruning.text.arrow_tables import read_arrow_table as read
        else:
            read = read_table
        table = read(file, documents.characters)
        columns = choose_columns(table.columns, column) if table.columns or column else ()
        documents.add_rows(table.rows(columns), columns, tokenizer)
        documents.skipped.update(table.skipped)
        cut = table.cut
    elif column:
        raise UnreadableError(f"has no columns: leave out {quoted(':' + column)}")
    elif kind == ".ipynb":
        documents.add(notebook_text(file, documents.characters), "the cells of notebooks")
    else:
        text, cut = read_text(file, documents.characters)
        documents.add(text, "the whole text")
    if cut and not documents.limit:
        documents.limit = CHARACTER_LIMIT
    return documents


def _empty_reason(documents: Documents, reasons: Mapping[Path, str]) -> str:
    """Reason why a path gave no document, as a suffix of its name."""
    if reasons:
        file, reason = next(iter(reasons.items()))
        return f"holds nothing to read; its file {quoted(file.name)} {reason}"
    if sum(documents.skipped.values()) > ("empty" in documents.skipped):
        return f"holds no text (rows: {_count(documents.skipped)}): give a file with text in it"
    if documents.limit:
        return f"has no document within the limit of {documents.limit}: divide its documents"
    return "is empty: give a file with text in it"


# --- folders that `save_to_disk` of Hugging Face's `datasets` wrote ----------------------------------------


def _split_folder(path: Path, split: Split) -> tuple[Path, bool]:
    """The folder of a split in a saved `DatasetDict`, and whether there is a held-out one; else the path.

    Raises:
        UnreadableError: the dataset has no split `train`, or its record is corrupt.
    """
    if not exists(path / "dataset_dict.json"):
        return path, False
    splits = _read_list(path / "dataset_dict.json", "splits")
    if "train" not in splits:
        raise UnreadableError(
            f"is a saved dataset with the splits {listed(splits)} and no 'train': name the folder of one "
            "split"
        )
    heldout = next((name for name in ("test", "validation") if name in splits), None)
    return path / ("train" if split == "calibration" or heldout is None else heldout), heldout is not None


def _saved_files(path: Path) -> list[Path] | None:
    """The Arrow files of a saved `Dataset` in their order; None for any other path.

    Raises:
        UnreadableError: one of the files is missing, or the record of them is corrupt.
    """
    if not all(exists(path / name) for name in ("state.json", "dataset_info.json")):
        return None
    records = _read_list(path / "state.json", "_data_files")
    names = [record.get("filename") if isinstance(record, dict) else None for record in records]
    files = [path / Path(str(name)).name for name in names]
    for file in files:
        if not file.is_file():
            raise UnreadableError(f"is a saved dataset without its file {quoted(file.name)}: copy all of it")
    return files


def _read_list(file: Path, key: str) -> list[Any]:
    """A list in a JSON file that must not be empty."""
    try:
        content = json.loads(file.read_bytes())[key]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        content = None
    if not isinstance(content, list) or not content:
        raise UnreadableError("is a saved dataset that is broken: copy it or save it again")
    return content


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
        source: record of `DomainText`, or of a domain in a run's `sources.json`.
    """
    if "rows" not in source:
        return ""
    line = f"{quoted(source.get('path') or source.get('name'))}: {'; '.join(source['read_as'])}, "
    line += f"{source['rows']:,} document{'s' * (source['rows'] != 1)}, {source['characters']:,} characters"
    if source["skipped"]:
        line += f"; skipped {_count(source['skipped'])}"
    if count := source.get("files_left_out"):
        file, reason = next(iter(source["left_out"].items()))
        line += f"; left out {count:,} of its files, such as {quoted(file)}, which {clipped(reason, 200)}"
    if others := Counter(source.get("files_passed_over", {})):
        line += f"; passed over {others.total():,} file{'s' * (others.total() != 1)}: {count_endings(others)}"
    if limit := source.get("cut_at"):  # in bytes until version 0.2
        line += f"; stops at the limit of {limit if isinstance(limit, str) else f'{limit:,} bytes'}"
    return line


told = describe_source  # its name in version 0.2, kept for scripts that import it
