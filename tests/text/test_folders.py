"""What people drop in: folders of mixed files, saved datasets, compressed and packed files."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import datasets
import pyarrow as pa
import pytest

from pruning.errors import DomainError
from pruning.text.sources import describe_source, load_text

TEXT = "The mill by the bridge turns when the river is high.\n" * 20


def read(path, split="calibration"):
    text = load_text("x", str(path), split)
    return "".join(text.texts), text.source


def test_what_a_folder_holds_beside_text_is_counted_by_ending(tmp_path):
    (tmp_path / "README.md").write_text(TEXT)
    for number in range(12):
        (tmp_path / f"{number}.PDF").write_bytes(b"%PDF-1.4")
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG")
    (tmp_path / "LICENSE").write_text("a licence")
    (tmp_path / ".hidden").write_text("not counted")
    source = read(tmp_path)[1]
    assert source["files_passed_over"] == {".pdf": 12, ".png": 12, "without an ending": 1}
    assert "passed over 25 files: 12 .pdf, 12 .png, 1 without an ending" in describe_source(source)
    (tmp_path / "README.md").unlink()
    with pytest.raises(DomainError, match=r"holds nothing to read \(12 .pdf, 12 .png, 1 without"):
        read(tmp_path)


def test_one_file_that_is_passed_over_is_said_too(tmp_path):
    (tmp_path / "a.log").write_text(TEXT)
    (tmp_path / "b.htm").write_text("<p>by the mill</p>")
    (tmp_path / "c.docx").write_bytes(b"PK\x03\x04")
    source = read(tmp_path)[1]
    assert source["files"] == 2 and "passed over 1 file: 1 .docx" in describe_source(source)


def test_a_link_to_nothing_in_a_folder_is_left_out_by_name(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / "c.pdf").symlink_to(tmp_path / "gone.pdf")
    source = read(tmp_path)[1]
    assert "is a link to" in source["left_out"]["b.txt"] and source["files_passed_over"] == {".pdf": 1}


def test_of_many_endings_the_most_frequent_are_named(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    for ending in range(9):
        for number in range(10 - ending):
            (tmp_path / f"{number}.x{ending}").write_text("")
    line = describe_source(read(tmp_path)[1])
    assert line.endswith("passed over 54 files: 10 .x0, 9 .x1, 8 .x2, 7 .x3, 6 .x4, 5 .x5, 9 others")


# --- datasets ----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    datasets.disable_progress_bars()

    def save(content, shards=1):
        if isinstance(content, dict):
            content = datasets.DatasetDict(content)
            content.save_to_disk(tmp_path / "saved", num_shards=dict.fromkeys(content, shards))
        else:
            content.save_to_disk(tmp_path / "saved", num_shards=shards)
        return tmp_path / "saved"

    return save


def rows(word, count=100):
    return datasets.Dataset.from_dict({"id": [*range(count)], "text": [f"{word} {i} " for i in range(count)]})


def test_a_saved_dataset_is_read_in_its_order(saved):
    path = saved(rows("row").shuffle(seed=1), shards=3)
    order = datasets.load_from_disk(path)["text"]
    text, source = read(path)
    assert text + read(path, "heldout")[0] == "".join(order)
    assert (source["files"], source["rows"]) == (3, 100) and source["heldout_share"] == 0.1
    (path / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(DomainError, match="saved dataset without its file 'data-00001-of-00003.arrow'"):
        read(path)
    (path / "state.json").write_text("{}")
    with pytest.raises(DomainError, match="is a saved dataset that is broken"):
        read(path)


@pytest.mark.parametrize("heldout", ["test", "validation"])
def test_the_splits_of_saved_datasets_are_calibration_and_held_out_text(saved, heldout):
    path = saved({"train": rows("row"), heldout: rows("other", 20)})
    assert read(path)[0].startswith("row 0 row 1") and read(path)[0].endswith("row 99 ")
    text, source = read(path, "heldout")
    assert text.startswith("other 0 ") and text.endswith("other 19 ") and "heldout_share" not in source


def test_saved_datasets_without_a_split_to_calibrate_on_name_theirs(saved):
    path = saved({"a": rows("row"), "b": rows("row")})
    with pytest.raises(DomainError, match="with the splits 'a', 'b' and no 'train': name the folder of one"):
        read(path)
    assert read(path / "a")[0].startswith("row 0 ")
    path = saved({"train": rows("row")})
    assert read(path, "heldout")[0].endswith("row 99 ") and read(path)[1]["heldout_share"] == 0.1


# --- compressed and packed ---------------------------------------------------------------------------------

COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
    "lz4": lambda content: pa.compress(content, codec="lz4", asbytes=True),
}


@pytest.mark.parametrize("kind", COMPRESS)
def test_compressed_text_is_known_by_its_bytes(tmp_path, kind):
    lines = "".join(json.dumps({"text": f"{i} {TEXT}"}) + "\n" for i in range(200))
    content = COMPRESS[kind](lines.encode())
    for name in (f"a.jsonl.{kind}", "a.jsonl", "A.JSONL.GZ"):
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name)[1]["rows"] == 200
    (tmp_path / f"a.txt.{kind}").write_bytes(COMPRESS[kind](TEXT.encode()))
    assert read(tmp_path)[1]["files"] == 4
    (tmp_path / f"a.jsonl.{kind}").write_bytes(content[:-9])
    with pytest.raises(DomainError, match=f"is a .{kind} file that is broken or cut off"):
        read(tmp_path / f"a.jsonl.{kind}")


def packed(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in names:
            file.writestr(name, TEXT)
    return stream.getvalue()


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        file.addfile(tarfile.TarInfo("a.txt"), io.BytesIO(b""))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.pdf",
            b"%PDF-1.4\n1 0 obj << /Type /Catalog >> endobj\n" * 20,
            "is a PDF document: save it as plain",
        ),
        ("a.txt", b"\n%PDF-1.4\nin letters and digits alone\n", "is a PDF document"),
        ("a.txt", gzip.compress(b"%PDF-1.4\n"), "is a PDF document"),
        ("a.ps", b"%!PS-Adobe-3.0\n", "is a PostScript document"),
        ("a.rtf", b"{\\rtf1\\ansi The mill}", "is an RTF document"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "is a document of an older Microsoft"),
        (
            "a.docx",
            packed("[Content_Types].xml", "word/document.xml"),
            "is a Word document: save it as plain",
        ),
        ("letter", packed("[Content_Types].xml", "word/document.xml"), "is a Word document"),
        ("a.docx", b"PK\x03\x04\x14", "is a Word document"),
        ("a.xlsx", packed("xl/workbook.xml"), "is an Excel workbook: save it as CSV"),
        ("a.pptx", packed("ppt/presentation.xml"), "is a PowerPoint presentation"),
        ("a.odt", packed("content.xml"), "is an OpenDocument text"),
        ("a.epub", packed("mimetype"), "is an EPUB book"),
        ("a.zip", packed("a.txt"), "is a zip archive: unpack it"),
        ("a.jsonl", packed("a.jsonl"), "is a zip archive: unpack it"),
        ("a.tar", tarred(), "is a tar archive: unpack it"),
        ("a.tar.gz", gzip.compress(tarred()), "is a tar archive: unpack it"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c\0\4", "is a 7-Zip archive"),
        ("a.pkl", b"\x80\x04\x95\x0b", "is a Python pickle, which is never opened"),
        ("a.sqlite", b"SQLite format 3\0" + b"\0" * 99, "is an SQLite database"),
        ("a.npy", b"\x93NUMPY\x01\0", "is a NumPy array"),
        ("a.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF", "is a JPEG image"),
        ("a.wav", b"RIFF\x24\0\0\0WAVE", "is a sound, film or image file"),
        ("a.gguf", b"GGUF\x03\0\0\0", "is a GGUF model"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DomainError, match=says) as error:
        read(tmp_path / name)
    assert ": " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "start", ["RIFF raff", "ID3 is a tag", "Objective", "ORC and elf", "PK", "BZ", "%P", "GGUF files"]
)
def test_text_that_begins_like_another_file_is_text(tmp_path, start):
    (tmp_path / "a.txt").write_text(start + " é" * 70_000)
    assert read(tmp_path / "a.txt")[0].startswith(start)
