"""From a file's bytes to its characters: packing, byte order marks, line ends, and no more than a limit."""

from __future__ import annotations

import codecs
import gzip
import itertools
import re
import zlib
from pathlib import Path

from pruning.words import quoted

# Unpacked bytes that the files of one domain give at most. They are tokenized as a whole, which takes up to
# 4 us and 170 bytes of memory for each. 8 MB are about 2 million tokens: 500 blocks of 4,096. A packed file
# of a few kilobytes can promise any number, and so can a line.
READ_BYTES = 8_000_000
# Entries that are looked at in a folder: a domain named `/` must not walk the disk for minutes.
FOLDER_ENTRIES = 100_000
TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
# What is read in a folder; a file that is named by itself may end as it likes.
TEXTS = (
    ".txt", ".text", ".md", ".markdown", ".rst", ".tex", ".html", ".css", ".sql", ".sh", ".py", ".pyi", ".js",
    ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".cs", ".go",
    ".rs", ".swift", ".rb", ".php", ".pl", ".r", ".jl", ".lua", ".hs", ".ml", ".clj", ".ex", ".erl",
)  # fmt: skip
KNOWN = "text, source code, JSON Lines, JSON, CSV, TSV or Parquet, as they are or as .gz"
# A mark of 32 bits begins as one of 16 does, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GZIP = b"\x1f\x8b"
_LFS = b"version https://git-lfs.github.com/spec/"
_HALVES = re.compile("[\ud800-\udfff]")
_NOT_SOURCES = ("node_modules", "__pycache__")


class Unreadable(Exception):
    """Why a file gives no text and what to do, to follow on its name: `is cut off: copy it again`."""


def ending(file: Path) -> str:
    """The ending that says what a file holds, in small letters; that of `A.JSONL.gz` is `.jsonl`."""
    name = file.name.lower().removesuffix(".gz")
    return Path(name).suffix


def candidates(path: Path) -> list[Path]:
    """The file that a path names, or those of a folder with known endings, without hidden ones.

    Raises:
        Unreadable: the folder holds too many entries, or no such file.
    """
    try:
        if not path.is_dir():
            return [path]
    except OSError as error:  # such as a name longer than the system takes
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    entries = list(itertools.islice(path.rglob("*"), FOLDER_ENTRIES + 1))
    if len(entries) > FOLDER_ENTRIES:
        raise Unreadable(f"holds more than {FOLDER_ENTRIES:,} entries: name a folder within it")
    files = sorted(file for file in entries if ending(file) in (*TABLES, *TEXTS) and file.is_file())
    files = [file for file in files if not _hidden(file.relative_to(path))]
    if not files:
        raise Unreadable(f"holds nothing to read: give {KNOWN}")
    return files


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") or part in _NOT_SOURCES for part in file.parts)


def read_bytes(file: Path, limit: int) -> tuple[bytes, bool]:
    """The unpacked bytes of a file, at most `limit`, and whether there are more.

    Whether it is packed is told by its bytes and not by its name.

    Raises:
        Unreadable: it is not there, cannot be read, or breaks off.
    """
    try:
        if not file.is_file():
            raise Unreadable(_no_file(file))
        with file.open("rb") as stream:
            packed = stream.read(2) == _GZIP
            stream.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=stream) as unpacked:
                    data = unpacked.read(limit + 1)
            else:
                data = stream.read(limit + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise Unreadable("is a .gz file that is broken or cut off: copy or download it again") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if data.startswith(_LFS):
        raise Unreadable("is a Git LFS pointer and not the file itself: run 'git lfs pull'")
    return data[:limit], len(data) > limit


def _no_file(file: Path) -> str:
    if file.is_symlink():
        return f"is a link to {quoted(file.readlink())}, which is not there: copy the file itself"
    return f"is no file: give {KNOWN}" if file.exists() else "does not exist: give a file or a folder"


def decode(data: bytes, cut: bool) -> str:
    """Bytes as text with `\\n` at the ends of lines: UTF-8, or what a byte order mark says.

    Args:
        data: of a file.
        cut: whether it goes on behind them, so that they may end within a character.

    Raises:
        Unreadable: they are no text.
    """
    mark, encoding = next((entry for entry in _MARKS if data.startswith(entry[0])), (b"", "utf-8"))
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data[len(mark) :], final=not cut)
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"is not {encoding.upper().removesuffix('-LE').removesuffix('-BE')} text (byte "
            f"{error.start + len(mark):,}): save it as UTF-8"
        ) from None
    if "\0" in text:
        raise Unreadable("is no text, or UTF-16 without its byte order mark: save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def whole_characters(text: str) -> str:
    """A text with halves of surrogate pairs replaced, which JSON can hold and no tokenizer takes."""
    return _HALVES.sub("\ufffd", text) if _HALVES.search(text) else text
