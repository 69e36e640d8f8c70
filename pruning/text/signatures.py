"""Files that hold no plain text, known by their first bytes: what each is, and what to do about it."""

from __future__ import annotations

import codecs
from pathlib import PurePath

_AS_TEXT = "save it as plain text"
_UNPACK = "unpack it and give the file or folder that it holds"
_TABLE = "export it as CSV or JSON Lines"
_NO_TEXT = "give a file with text in it"
_MODEL = "give text, not a model's weights"
# The bytes that a file begins with, what it is, and what to do.
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
# What a zip file with these endings, or with these names among its first, is.
_ZIPPED = (
    (".docx", b"word/", "a Word document", _AS_TEXT),
    (".xlsx", b"xl/", "an Excel workbook", "save it as CSV"),
    (".pptx", b"ppt/", "a PowerPoint presentation", _AS_TEXT),
    (".epub", b"application/epub+zip", "an EPUB book", _AS_TEXT),
    (".ods", b"opendocument.spreadsheet", "an OpenDocument spreadsheet", "save it as CSV"),
    (".odt", b"vnd.oasis.opendocument", "an OpenDocument text", _AS_TEXT),
    (".pt", b"/data.pkl", "a PyTorch file", _MODEL),
)  # fmt: skip


def refusal(head: bytes, file: PurePath) -> str | None:
    """Why a file cannot be read as text and what to do, to follow on its name; None where nothing is known.

    Args:
        head: the first kilobytes of the file, decompressed.
        file: its name, which tells apart what is packed in zip files.
    """
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, what, advice in _SIGNATURES:
        # letters alone are the beginning of many a text; what follows them in such a file is not
        if start.startswith(signature) and (not signature.isalnum() or not _is_text(head)):
            return f"is {what}: {advice}"
    if head.startswith(_PICKLES):
        return f"is a Python pickle, which is never opened: {_TABLE}"
    if head[257:262] == b"ustar":
        return f"is a tar archive: {_UNPACK}"
    if head.startswith(_ZIP):
        for ending, name, what, advice in _ZIPPED:
            if file.suffix.lower() == ending or name in head:
                return f"is {what}: {advice}"
        return f"is a zip archive: {_UNPACK}"
    return None


def _is_text(head: bytes) -> bool:
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(
            head
        )  # it may end within a character
    except UnicodeDecodeError:
        return False
