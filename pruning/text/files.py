"""From a file's bytes to its characters: compression, byte order marks, line ends, and a limit."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import itertools
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from pruning.formatting import quoted
from pruning.text.signatures import refusal

# Decoded characters that are read of a domain, from files of any kind and from the hub. A document is
# tokenized as a whole, which takes up to 4 us and 170 bytes of memory for each token. 8 million are about
# 2 million tokens of English: 500 blocks of 4,096. A packed file of a few hundred bytes can promise any
# number, and so can a line.
READ_CHARACTERS = 8_000_000
CHARACTER_LIMIT = f"{READ_CHARACTERS:,} characters"
READ_ROWS = 1_000_000  # rows of its tables: a million empty ones take a few bytes of a Parquet file
# Entries that are looked at in a folder: a domain named `/` must not walk the disk for minutes.
FOLDER_ENTRIES = 100_000
CHUNK = 1 << 16  # bytes that are decoded at a time
TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
# What is read in a folder; a file that is named by itself may end as it likes.
TEXTS = (
    ".txt", ".text", ".md", ".markdown", ".rst", ".tex", ".html", ".htm", ".xhtml", ".xml", ".css", ".sql",
    ".sh", ".py", ".pyi", ".js", ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala", ".c", ".h", ".cc", ".cpp",
    ".hpp", ".cu", ".cs", ".go", ".rs", ".swift", ".rb", ".php", ".pl", ".r", ".jl", ".lua", ".hs", ".ml",
    ".clj", ".ex", ".erl", ".log", ".yaml", ".yml", ".toml", ".ipynb",
)  # fmt: skip
KNOWN = (
    "text, source code, JSON Lines, JSON, CSV, TSV, Parquet or Arrow; text may be compressed as .gz, .bz2, "
    ".xz, .zst or .lz4"
)
# A mark of 32 bits begins as one of 16 does, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_SOURCES = ("node_modules", "__pycache__")


_ISO_2022 = re.compile("\x1b[$(]")  # how that encoding changes from one script to another


class Unreadable(Exception):
    """Why a file gives no text and what to do, to follow on its name: `is cut off: copy it again`."""


def _arrow_stream(codec: str) -> Callable[[IO[bytes]], Any]:
    def open_stream(stream: IO[bytes]) -> Any:
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), codec)

    return open_stream


# By ending: the bytes that a compressed file begins with, and what decompresses it.
_COMPRESSIONS: dict[str, tuple[bytes, Callable[[IO[bytes]], Any]]] = {
    ".gz": (b"\x1f\x8b", lambda stream: gzip.GzipFile(fileobj=stream)),
    ".bz2": (b"BZh", bz2.BZ2File),
    ".xz": (b"\xfd7zXZ\0", lzma.LZMAFile),
    ".zst": (b"\x28\xb5\x2f\xfd", _arrow_stream("zstd")),
    ".lz4": (b"\x04\x22\x4d\x18", _arrow_stream("lz4")),
}


def ending(file: Path) -> str:
    """The ending that says what a file holds, in small letters; that of `A.JSONL.gz` is `.jsonl`."""
    name = Path(file.name.lower())
    return Path(name.stem).suffix if name.suffix in _COMPRESSIONS else name.suffix


def list_files(path: Path) -> tuple[list[Path], Counter[str]]:
    """The files that are read under a path.

    Returns:
        The file that the path names, or those of a folder with known endings, sorted, without hidden ones;
        and by ending the number of files in the folder that are passed over.

    Raises:
        Unreadable: the folder holds too many entries, or no file that is read.
    """
    try:
        if not path.is_dir():
            return [path], Counter()
    except OSError as error:  # such as a name longer than the system takes
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    try:
        entries = list(itertools.islice(path.rglob("*"), FOLDER_ENTRIES + 1))
    except OSError as error:  # of a folder within it, such as those of processes that have ended
        raise Unreadable(f"cannot be read: {error.strerror}: name a folder within it") from None
    if len(entries) > FOLDER_ENTRIES:
        raise Unreadable(f"holds more than {FOLDER_ENTRIES:,} entries: name a folder within it")
    files = sorted(entry for entry in entries if not _hidden(entry.relative_to(path)) and not entry.is_dir())
    readable = [file for file in files if ending(file) in (*TABLES, *TEXTS)]
    others = Counter(
        file.suffix.lower() or "without an ending" for file in files if ending(file) not in (*TABLES, *TEXTS)
    )
    if not readable:
        instead = f" ({count_endings(others)})" if others else ""
        raise Unreadable(f"holds nothing to read{instead}: give {KNOWN}")
    return readable, others


def count_endings(files: Counter[str], limit: int = 6) -> str:
    """Numbers of files by ending, the most frequent first: `30 .pdf, 2 .png`."""
    counts = [f"{count:,} {name}" for name, count in files.most_common(limit)]
    others = files.total() - sum(count for _, count in files.most_common(limit))
    return ", ".join(counts + [f"{others:,} others"] * (others > 0))


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") or part in _NOT_SOURCES for part in file.parts)


@contextmanager
def decompressed(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file as a stream, decompressed as its first bytes and not its name tell.

    Raises:
        Unreadable: it does not exist or cannot be read; while it is read, that it is broken or cut off.
    """
    name = None
    try:
        if not file.is_file():
            raise Unreadable(_no_file(file))
        with file.open("rb") as stream:
            head = stream.read(8)
            stream.seek(0)
            name = next((n for n, (magic, _) in _COMPRESSIONS.items() if head.startswith(magic)), None)
            with _COMPRESSIONS[name][1](stream) if name else nullcontext(stream) as content:
                yield content
    except (EOFError, zlib.error, lzma.LZMAError):
        raise Unreadable(_broken(name)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        strerror = getattr(error, "strerror", None)
        reason = _broken(name) if name and not strerror else f"cannot be read: {strerror or error}"
        raise Unreadable(reason) from None


def _broken(name: str | None) -> str:
    return f"is a {name} file that is broken or cut off: copy or download it again"


def _no_file(file: Path) -> str:
    if file.is_symlink():
        return f"is a link to {quoted(file.readlink())}, which is not there: copy the file itself"
    return f"is no file: give {KNOWN}" if file.exists() else "does not exist: give a file or a folder"


def read_head(file: Path) -> bytes:
    """The first 64 KB of a file, decompressed.

    Raises:
        Unreadable: it cannot be read, or is known to hold no text.
    """
    with decompressed(file) as stream:
        head = stream.read(CHUNK)
    if reason := refusal(head, file):
        raise Unreadable(reason)
    return head


def read_text(file: Path, limit: int) -> tuple[str, bool]:
    """The characters of a file, and whether it has more than the limit.

    They are UTF-8, or what a byte order mark says; lines end with `\\n`.

    Args:
        file: compressed or not.
        limit: decoded characters that are read at most.

    Raises:
        Unreadable: it cannot be read, or is no text.
    """
    head = read_head(file)
    if head.startswith((b"PAR1", b"ARROW1")):
        raise Unreadable("is a Parquet or Arrow table: let its name end in .parquet or .arrow")
    mark, encoding = next((entry for entry in _MARKS if head.startswith(entry[0])), (b"", "utf-8"))
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    pieces, characters, position, chunk = [], 0, len(mark), b" "
    with decompressed(file) as stream:
        stream.read(len(mark))
        while chunk and characters <= limit:
            chunk = stream.read(CHUNK)
            position += len(chunk)
            pieces.append(_decode(decoder, chunk, position, encoding))
            characters += len(pieces[-1])
    return "".join(pieces)[:limit], characters > limit


def _decode(decoder: io.IncrementalNewlineDecoder, chunk: bytes, position: int, encoding: str) -> str:
    """The characters that a chunk completes; an empty chunk is the end of a file.

    Args:
        decoder: with what it holds of an unfinished character.
        chunk: of the file.
        position: in the file, in bytes, at which the chunk ends.
        encoding: for the message.
    """
    try:
        text = decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        byte = position - len(error.object) + error.start
        if not chunk:
            raise Unreadable(
                f"is not {name} text (byte {byte:,}, its last character is no whole one): save it as UTF-8, "
                "or copy it again if it is cut off"
            ) from None
        raise Unreadable(f"is not {name} text (byte {byte:,}): save it as UTF-8") from None
    if _ISO_2022.search(text):
        raise Unreadable("is encoded as ISO-2022, such as Japanese mail: save it as UTF-8")
    if "\0" in text:
        raise Unreadable("is no text, or UTF-16 without its byte order mark: save it as UTF-8")
    return text


def replace_surrogates(text: str) -> str:
    """A text with halves of surrogate pairs replaced, which JSON can hold and no tokenizer takes."""
    return _SURROGATES.sub("\ufffd", text) if _SURROGATES.search(text) else text
