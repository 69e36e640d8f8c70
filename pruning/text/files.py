"""From a file's bytes to its characters: signatures, compression, byte order marks, line ends, a limit."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import itertools
import json
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from pruning.formatting import quoted

# Decoded characters that are read of a domain, from files of any kind and from the hub. A document is
# tokenized in one piece, which takes up to 4 us and 170 bytes of memory for each token. 8 million are about
# 2 million tokens of English: 500 blocks of 4,096. A compressed file of a few hundred bytes can promise any
# number, and so can a line.
READ_CHARACTERS = 8_000_000
CHARACTER_LIMIT = f"{READ_CHARACTERS:,} characters"
READ_ROWS = 1_000_000  # rows read of a domain: a million empty ones take a few bytes of a Parquet file
FOLDER_ENTRIES = 100_000  # entries listed of a folder: a domain named `/` must not walk the disk for minutes
CHUNK = 1 << 16  # bytes decoded at a time
TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
# Endings that are read in a folder; a file that is named by itself may have any.
TEXTS = (
    ".txt", ".text", ".md", ".markdown", ".rst", ".tex", ".html", ".htm", ".xhtml", ".xml", ".css", ".sql",
    ".sh", ".py", ".pyi", ".js", ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala", ".c", ".h", ".cc", ".cpp",
    ".hpp", ".cu", ".cs", ".go", ".rs", ".swift", ".rb", ".php", ".pl", ".r", ".jl", ".lua", ".hs", ".ml",
    ".clj", ".ex", ".erl", ".log", ".yaml", ".yml", ".toml", ".ipynb",
)  # fmt: skip
SUPPORTED_FILES = (
    "text, source code, JSON Lines, JSON, CSV, TSV, Parquet or Arrow; text may be compressed as .gz, .bz2, "
    ".xz, .zst or .lz4"
)
# A mark of 32 bits begins as one of 16 does, so it is looked for first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_ISO_2022 = re.compile("\x1b[$(]")  # escape sequences with which that encoding changes its script
_GENERATED_FOLDERS = ("node_modules", "__pycache__")

_AS_TEXT = "save it as plain text"
_UNPACK = "unpack it and give the file or folder that it holds"
_TABLE = "export it as CSV or JSON Lines"
_NO_TEXT = "give a file with text in it"
_MODEL = "give text, not a model's weights"
# The first bytes of a file that holds no plain text, the name of its kind, and what to do about it.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com", "a Git LFS pointer, not the file itself", "run 'git lfs pull'"),
    (b"%PDF-", "a PDF document", _AS_TEXT),
    (b"%!PS", "a PostScript document", _AS_TEXT),
    (b"{\\rtf", "an RTF document", _AS_TEXT),
    (b"AT&TFORM", "a DjVu document", _AS_TEXT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an older Microsoft Office", _AS_TEXT),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"SQLite format 3\0", "an SQLite database", _TABLE),
    (b"ORC", "an ORC table", _TABLE),
    (b"Obj\x01", "an Avro table", _TABLE),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _TABLE),
    (b"\x93NUMPY", "a NumPy array", _TABLE),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", _NO_TEXT),
    (b"\xff\xd8\xff", "a JPEG image", _NO_TEXT),
    (b"GIF87a", "a GIF image", _NO_TEXT),
    (b"GIF89a", "a GIF image", _NO_TEXT),
    (b"RIFF", "a sound, film or image file", _NO_TEXT),
    (b"ID3", "a sound file", _NO_TEXT),
    (b"OggS", "a sound file", _NO_TEXT),
    (b"\x7fELF", "a program", _NO_TEXT),
    (b"GGUF", "a GGUF model", _MODEL),
)  # fmt: skip
# Pickles of protocol 2 and later begin with their protocol and one of these opcodes.
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_ZIP = b"PK\x03\x04"
# Ending of a zip file, a name among its first entries, the name of its kind, and what to do about it.
_ZIP_KINDS = (
    (".docx", b"word/", "a Word document", _AS_TEXT),
    (".xlsx", b"xl/", "an Excel workbook", "save it as CSV"),
    (".pptx", b"ppt/", "a PowerPoint presentation", _AS_TEXT),
    (".epub", b"application/epub+zip", "an EPUB book", _AS_TEXT),
    (".ods", b"opendocument.spreadsheet", "an OpenDocument spreadsheet", "save it as CSV"),
    (".odt", b"vnd.oasis.opendocument", "an OpenDocument text", _AS_TEXT),
    (".pt", b"/data.pkl", "a PyTorch file", _MODEL),
)  # fmt: skip


class UnreadableError(Exception):
    """Reason why a file gives no text and the way out, as a suffix of its name: `is empty: give another`."""


def _arrow_stream(codec: str) -> Callable[[IO[bytes]], Any]:
    def open_stream(stream: IO[bytes]) -> Any:
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), codec)

    return open_stream


# By ending of a compressed file: its first bytes, and what decompresses it.
_COMPRESSIONS: dict[str, tuple[bytes, Callable[[IO[bytes]], Any]]] = {
    ".gz": (b"\x1f\x8b", lambda stream: gzip.GzipFile(fileobj=stream)),
    ".bz2": (b"BZh", bz2.BZ2File),
    ".xz": (b"\xfd7zXZ\0", lzma.LZMAFile),
    ".zst": (b"\x28\xb5\x2f\xfd", _arrow_stream("zstd")),
    ".lz4": (b"\x04\x22\x4d\x18", _arrow_stream("lz4")),
}


def ending(file: Path) -> str:
    """Lower-case ending of a file without that of its compression: `.jsonl` of `A.JSONL.gz`."""
    name = Path(file.name.lower())
    return Path(name.stem).suffix if name.suffix in _COMPRESSIONS else name.suffix


def list_files(path: Path) -> tuple[list[Path], Counter[str]]:
    """The files under a path that hold text.

    Returns:
        The path itself if it is a file, else the folder's files with an ending in `TABLES` or `TEXTS`,
        sorted, without hidden ones; and the number of the folder's other files by ending.

    Raises:
        UnreadableError: the folder cannot be listed, holds too many entries, or no file with text.
    """
    try:
        if not path.is_dir():
            return [path], Counter()
    except OSError as error:  # such as a name longer than the system takes
        raise UnreadableError(f"cannot be read: {error.strerror}") from None
    try:
        entries = list(itertools.islice(path.rglob("*"), FOLDER_ENTRIES + 1))
    except OSError as error:  # of a folder within it, such as those of processes that have ended
        raise UnreadableError(f"cannot be read: {error.strerror}: name a folder within it") from None
    if len(entries) > FOLDER_ENTRIES:
        raise UnreadableError(f"holds more than {FOLDER_ENTRIES:,} entries: name a folder within it")
    texts, others = [], Counter[str]()
    for entry in sorted(entries):
        if _is_hidden(entry.relative_to(path)) or entry.is_dir():
            continue
        if ending(entry) in (*TABLES, *TEXTS):
            texts.append(entry)
        else:
            others[entry.suffix.lower() or "without an ending"] += 1
    if not texts:
        contents = f" ({count_endings(others)})" if others else ""
        raise UnreadableError(f"holds nothing to read{contents}: give {SUPPORTED_FILES}")
    return texts, others


def count_endings(files: Counter[str], limit: int = 6) -> str:
    """Numbers of files by ending, the most frequent first: `30 .pdf, 2 .png`."""
    frequent = files.most_common(limit)
    counts = [f"{count:,} {name}" for name, count in frequent]
    others = files.total() - sum(count for _, count in frequent)
    return ", ".join(counts + [f"{others:,} others"] * (others > 0))


def _is_hidden(file: Path) -> bool:
    return any(part.startswith(".") or part in _GENERATED_FOLDERS for part in file.parts)


@contextmanager
def open_decompressed(file: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading; its first bytes, not its name, say how it is compressed.

    Raises:
        UnreadableError: the file does not exist or cannot be opened, or what is read of it is corrupt.
    """
    name = None
    try:
        if not file.is_file():
            raise UnreadableError(_missing_reason(file))
        with file.open("rb") as stream:
            head = stream.read(8)
            stream.seek(0)
            name = next((n for n, (magic, _) in _COMPRESSIONS.items() if head.startswith(magic)), None)
            with _COMPRESSIONS[name][1](stream) if name else nullcontext(stream) as content:
                yield content
    except (
        EOFError,
        zlib.error,
        lzma.LZMAError,
        OSError,
        ValueError,
    ) as error:  # ValueError: a NUL in the name
        strerror = getattr(error, "strerror", None)
        reason = f"is a {name} file that is broken or cut off: copy or download it again"
        raise UnreadableError(
            reason if name and not strerror else f"cannot be read: {strerror or error}"
        ) from None


def _missing_reason(file: Path) -> str:
    if file.is_symlink():
        return f"is a link to {quoted(file.readlink())}, which is not there: copy the file itself"
    return (
        f"is no file: give {SUPPORTED_FILES}" if file.exists() else "does not exist: give a file or a folder"
    )


def read_head(file: Path) -> bytes:
    """The first 64 KB of a file, decompressed.

    Raises:
        UnreadableError: the file cannot be read, or its first bytes are those of something other than text.
    """
    with open_decompressed(file) as stream:
        head = stream.read(CHUNK)
    if reason := _unsupported_reason(head, file):
        raise UnreadableError(reason)
    return head


def read_text(file: Path, limit: int) -> tuple[str, bool]:
    """The characters of a file in UTF-8 or what its byte order mark says, with lines that end in `\\n`.

    Args:
        file: a text file, compressed or not.
        limit: number of characters that are read at most.

    Returns:
        The text, and whether the file has more than `limit` characters.

    Raises:
        UnreadableError: the file cannot be read, or is no text.
    """
    head = read_head(file)
    if head.startswith((b"PAR1", b"ARROW1")):
        raise UnreadableError("is a Parquet or Arrow table: let its name end in .parquet or .arrow")
    mark, encoding = next((entry for entry in _BYTE_ORDER_MARKS if head.startswith(entry[0])), (b"", "utf-8"))
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    pieces, characters, position, chunk = [], 0, len(mark), b" "
    with open_decompressed(file) as stream:
        stream.read(len(mark))
        while chunk and characters <= limit:
            chunk = stream.read(CHUNK)
            position += len(chunk)
            pieces.append(_decode(decoder, chunk, position, encoding))
            characters += len(pieces[-1])
    return "".join(pieces)[:limit], characters > limit


def _decode(decoder: io.IncrementalNewlineDecoder, chunk: bytes, position: int, encoding: str) -> str:
    """The characters that a chunk completes.

    Args:
        decoder: incremental, so that it holds the bytes of an unfinished character.
        chunk: the next bytes of the file; empty at its end.
        position: byte of the file at which the chunk ends.
        encoding: name of the encoding, for the message.
    """
    try:
        text = decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        byte = position - len(error.object) + error.start
        if not chunk:
            raise UnreadableError(
                f"is not {name} text (byte {byte:,}, its last character is no whole one): save it as UTF-8, "
                "or copy it again if it is cut off"
            ) from None
        raise UnreadableError(f"is not {name} text (byte {byte:,}): save it as UTF-8") from None
    if _ISO_2022.search(text):
        raise UnreadableError("is encoded as ISO-2022, such as Japanese mail: save it as UTF-8")
    if "\0" in text:
        raise UnreadableError("is no text, or UTF-16 without its byte order mark: save it as UTF-8")
    return text


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates in a text: JSON can hold them, and no tokenizer takes them."""
    return _SURROGATES.sub("\ufffd", text) if _SURROGATES.search(text) else text


def _unsupported_reason(head: bytes, file: Path) -> str | None:
    """Reason why a file is not read as text, as a suffix of its name; None if its first bytes may be text."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, what, advice in _SIGNATURES:
        # a signature of letters alone may begin a text as well
        if start.startswith(signature) and (not signature.isalnum() or not _is_text(head)):
            return f"is {what}: {advice}"
    if head.startswith(_PICKLES):
        return f"is a Python pickle, which is never opened: {_TABLE}"
    if head[257:262] == b"ustar":
        return f"is a tar archive: {_UNPACK}"
    if head.startswith(_ZIP):
        for ending, name, what, advice in _ZIP_KINDS:
            if file.suffix.lower() == ending or name in head:
                return f"is {what}: {advice}"
        return f"is a zip archive: {_UNPACK}"
    return None


def _is_text(head: bytes) -> bool:
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(head)  # may end within a character
    except UnicodeDecodeError:
        return False


def notebook_text(file: Path, limit: int) -> str:
    """The Markdown and code of a Jupyter notebook, cell after cell, without outputs.

    Raises:
        UnreadableError: the file is no notebook, corrupt, or longer than the limit with its outputs.
    """
    text, cut = read_text(file, limit)
    if cut:
        raise UnreadableError(f"is a notebook of more than {limit:,} characters: clear its outputs")
    try:
        cells = json.loads(text)["cells"]
        sources = [cell["source"] for cell in cells if cell["cell_type"] in ("markdown", "code")]
        return "\n\n".join("".join(source) for source in sources)
    except (ValueError, RecursionError, KeyError, TypeError):
        raise UnreadableError("is no notebook, or broken: save it again") from None
