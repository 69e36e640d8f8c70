"""Domains: where their text comes from.

A source is `embedded` (the project's own text), a path (text, JSON Lines, Parquet; a folder of these), or
`hub:NAME` with NAME a preset or `ID[:CONFIG[:COLUMN]]` of a Hugging Face data set.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pruning.errors import DomainError
from pruning.paths import ASSETS

Split = Literal["calibration", "heldout"]


# id, configuration, columns, split for calibration, split for held-out text
HUB_PRESETS: dict[str, tuple[str, str | None, tuple[str, ...], str, str]] = {
    "wikitext": ("Salesforce/wikitext", "wikitext-2-raw-v1", ("text",), "train", "test"),
    "c4": ("allenai/c4", "en", ("text",), "train", "validation"),
    "code": ("codeparrot/codeparrot-clean-valid", None, ("content",), "train", "train"),
    "gsm8k": ("openai/gsm8k", "main", ("question", "answer"), "train", "test"),
    "openwebmath": ("open-web-math/open-web-math", None, ("text",), "train", "train"),
}
TEXT_SUFFIXES = (".txt", ".md", ".text")
TABLE_SUFFIXES = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
HELDOUT_SHARE = 0.1  # of a source that has no held-out split of its own: its last tenth


@dataclass(frozen=True)
class DomainText:
    """Documents of a domain's split and where they came from."""

    texts: list[str]
    source: dict[str, Any]


def load_text(name: str, source: str, split: Split, seed: int = 0, characters: int = 4_000_000) -> DomainText:
    """The documents of a domain.

    Args:
        name: the domain, for messages and for the embedded text.
        source: `embedded`, a path, or `hub:NAME`.
        split: `calibration`, or `heldout` for perplexity. Where the source has no held-out split its last
            tenth serves.
        seed: shuffles a streamed data set.
        characters: of a streamed data set no more than about this many are read.

    Raises:
        DomainError: the text cannot be found or read.
    """
    if source == "embedded":
        return _embedded(name, split)
    if source.startswith("hub:"):
        return _hub(name, source.removeprefix("hub:"), split, seed, characters)
    return _path(name, Path(source), split)


def check_source(name: str, source: str) -> None:
    """What can be known of a source without reading it.

    Raises:
        DomainError: there is no such embedded text or path.
    """
    if source == "embedded":
        _check_embedded(name)
    elif not source.startswith("hub:"):
        _files(name, Path(source))


def _check_embedded(name: str) -> None:
    if name not in EMBEDDED_DOMAINS:
        raise DomainError(
            f"there is no embedded domain {name!r}: choose one of {', '.join(EMBEDDED_DOMAINS)}."
        )


def _embedded(name: str, split: Split) -> DomainText:
    _check_embedded(name)
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


def _files(name: str, path: Path) -> list[Path]:
    if not path.exists():
        raise DomainError(
            f"domain {name!r}: {str(path)!r} does not exist: give a text, JSON Lines or Parquet file."
        )
    known = (*TEXT_SUFFIXES, *TABLE_SUFFIXES)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    files = [file for file in files if file.name.removesuffix(".gz").endswith(known)]
    if not files:
        raise DomainError(
            f"domain {name!r}: nothing to read at {str(path)!r}: known endings are {', '.join(known)}."
        )
    return files


def _path(name: str, path: Path, split: Split) -> DomainText:
    texts: list[str] = []
    digest = hashlib.blake2b(digest_size=16)
    for file in _files(name, path):
        try:
            digest.update(file.read_bytes())
            suffix = Path(file.name.removesuffix(".gz")).suffix
            texts += (
                [file.read_text(encoding="utf-8")] if suffix in TEXT_SUFFIXES else _table(name, file, suffix)
            )
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise DomainError(f"domain {name!r}: cannot read {str(file)!r}: {reason}.") from None
    source = {"kind": "path", "path": str(path), "split": split, "revision": digest.hexdigest()}
    return DomainText(_split_tail([text for text in texts if text.strip()], split), source)


def _table(name: str, file: Path, suffix: str) -> list[str]:
    from datasets import Dataset, load_dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        data = load_dataset(TABLE_SUFFIXES[suffix], data_files=str(file), split="train")
    except (DatasetGenerationError, ValueError):
        raise DomainError(f"domain {name!r}: {str(file)!r} cannot be read as {suffix[1:]}.") from None
    assert isinstance(data, Dataset)
    column = next((c for c in ("text", "content", *data.column_names) if c in data.column_names), "")
    texts = data[column] if column else []
    if not texts or not isinstance(texts[0], str):
        raise DomainError(f"domain {name!r}: {str(file)!r} has no column of text: name it 'text'.")
    return list(texts)


def _hub(name: str, what: str, split: Split, seed: int, characters: int) -> DomainText:
    from datasets import load_dataset
    from huggingface_hub import HfApi

    if what in HUB_PRESETS:
        repo, configuration, columns, *splits = HUB_PRESETS[what]
    else:
        repo, _, rest = what.partition(":")
        config_name, _, column = rest.partition(":")
        configuration, columns, splits = config_name or None, (column or "text",), ["train", "test"]
    part = splits[split == "heldout"]
    texts: list[str] = []
    try:
        revision = HfApi().dataset_info(repo).sha
        stream = load_dataset(repo, configuration, split=part, streaming=True, revision=revision)
        size = 0
        for row in stream.shuffle(seed=seed, buffer_size=1000):
            texts.append("\n".join(row[column] for column in columns))
            size += len(texts[-1])
            if size > characters:
                break
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        # no such column, one that is no text, no such configuration or split, a data set that is a script
        asked = f"{configuration or 'default'}:{'+'.join(columns)}, split {part}"
        problem = str(error).strip().splitlines()[0].rstrip(".")[:200] if str(error) else type(error).__name__
        raise DomainError(
            f"domain {name!r}: data set {repo!r} does not hold {asked} ({problem}): write "
            "hub:ID:CONFIG:COLUMN."
        ) from None
    except Exception as error:  # the hub's client raises a dozen types for "not reachable" and "not there"
        raise DomainError(
            f"domain {name!r}: data set {repo!r} cannot be read from the hub ({type(error).__name__}): "
            "check the name and the network, or use the embedded text or a file."
        ) from None
    if splits[0] == splits[1]:
        texts = _split_tail(texts, split)
    source = {
        "kind": "hub",
        "name": repo,
        "config": configuration,
        "split": part,
        "revision": revision,
        "seed": seed,
    }
    return DomainText(texts, source)


EMBEDDED_DOMAINS = ("wiki", "web", "code", "math")
