"""CSV, Parquet and Arrow: each row as it was meant, and no more memory than the limit needs."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from pruning.errors import DomainError
from pruning.text import columns, sources
from pruning.text.sources import load_text

TEXTS = [f"The mill by the {i}th bridge turns when the river is high." for i in range(30)]


def read(path, split=("calibration", "heldout")):
    parts = [load_text("x", str(path), part) for part in split]
    return "".join(text for part in parts for text in part.texts), parts[0].source


# --- CSV ---------------------------------------------------------------------------------------------------

ODD = ['"No", said the miller, "not; today".', "two\nlines\n\n", "\ttabs\t|bars|", "plain"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_quoting_is_that_of_spreadsheets(tmp_path, delimiter, line_end):
    quoted = ['"' + text.replace('"', '""').replace("\n", line_end) + '"' for text in ODD]
    lines = [f"id{delimiter}text", *(f"{i}{delimiter}{text}" for i, text in enumerate(quoted))]
    (tmp_path / "a.csv").write_bytes((line_end.join(lines) + line_end).encode())
    text, source = read(tmp_path / "a.csv")
    assert text == "".join(ODD) and source["rows"] == 4 and source["characters"] == len(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_table_is_unicode_by_its_mark(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes("id,text\n1,Übermühle – 河\n".encode(encoding))
    assert read(tmp_path / "a.csv")[0] == "Übermühle – 河"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis"])
def test_a_table_in_another_encoding_is_refused(tmp_path, encoding):
    text = "水車" if encoding == "shift_jis" else "Mühle"
    (tmp_path / "a.csv").write_bytes(f"id,text\n1,{text}\n".encode(encoding))
    with pytest.raises(DomainError, match=r"is not UTF-8 text \(byte \d+\): save it as UTF-8"):
        read(tmp_path / "a.csv")


def test_text_with_a_delimiter_that_is_not_quoted_is_never_cut_short(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,Once, by the river\n2,twice\n")
    text, source = read(tmp_path / "a.csv")
    assert text == "twice" and source["skipped"] == {"more fields than columns": 1}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('id,text\n1,"the end is lost\n2,next\n', "has a quote in line 2 that is never closed"),
        ("text\n", "no rows below its header"),
        ("text,text\na,b\n", "has 2 columns named 'text'"),
        ("a river runs\nby the mill\n", "does not say which column is text: .*'a river runs'"),
    ],
)
def test_a_csv_file_that_is_broken_is_refused(tmp_path, content, says):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DomainError, match=says):
        read(tmp_path / "a.csv")


def test_the_row_at_the_limit_is_left_out_also_within_quotes(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("text\n" + "".join(f'"{text}\n"\n' for text in TEXTS))
    for limit in range(600, 700, 7):
        monkeypatch.setattr(sources, "Documents", lambda limit=limit: columns.Documents(limit))
        text, source = read(tmp_path / "a.csv")
        assert text == "\n".join([*TEXTS[: source["rows"]], ""]) and source["rows"] >= 8 and source["cut_at"]


# --- Parquet and Arrow -------------------------------------------------------------------------------------


def nested(texts):
    return pa.table({"doc": [{"body": text, "n": i} for i, text in enumerate(texts)]})


def chats(texts):
    return pa.table({"messages": [[{"role": "user", "content": text}] for text in texts]})


def write(table, path, **options):
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
    elif path.suffix == ".feather":
        pa.feather.write_feather(table, path)
    else:
        kind = pa.ipc.new_stream if path.stem == "stream" else pa.ipc.new_file
        with kind(path, table.schema) as file:
            file.write_table(table)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "file.arrow", "stream.arrow", "a.feather"])
def test_columns_of_strings_structs_and_lists(tmp_path, name):
    path = tmp_path / name
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        table = pa.table({"id": [*range(30)], "text": pa.array(TEXTS).cast(kind)})
        assert read(write(table, path))[0] == "".join(TEXTS)
    if path.suffix == ".arrow":
        table = pa.table(
            {"text": pa.array(TEXTS, pa.string_view()), "n": pa.array([1, 2, 3] * 10).dictionary_encode()}
        )
        assert read(write(table, path))[0] == "".join(TEXTS)
        with pytest.raises(DomainError, match="holds no text .rows: 30 no text"):
            read(f"{path}:n")
    assert read(f"{write(nested(TEXTS), path)}:doc.body")[0] == "".join(TEXTS)
    assert read(write(chats(TEXTS), path))[0] == "".join(TEXTS)
    with pytest.raises(DomainError, match="does not say which column is text: .*'doc', 'doc.body', 'doc.n'"):
        read(write(nested(TEXTS), path))
    with pytest.raises(DomainError, match="holds no text .rows: 30 no text"):
        read(f"{path}:doc.n")


@pytest.mark.parametrize("make", [lambda texts: pa.table({"text": texts}), chats], ids=["strings", "chats"])
@pytest.mark.parametrize("name", ["a.parquet", "file.arrow", "stream.arrow"])
def test_the_limit_counts_characters_and_whole_rows(tmp_path, monkeypatch, make, name):
    texts = [f"{i:02} " + "河水" * 100 for i in range(50)]  # 203 characters, 603 bytes
    path = write(make(texts), tmp_path / name)
    for limit, rows in ((202, 0), (203, 1), (1015, 5), (1217, 5), (10_150, 50)):
        monkeypatch.setattr(sources, "Documents", lambda limit=limit: columns.Documents(limit))
        if not rows:
            with pytest.raises(DomainError, match="has no document within the limit"):
                read(path)
            continue
        text, source = read(path)
        assert text == "".join(texts[:rows]) and ("cut_at" in source) == (rows < 50)


def test_rows_without_text_end_as_well(tmp_path, monkeypatch):
    path = write(pa.table({"text": pa.nulls(5_000, pa.string())}), tmp_path / "a.parquet")
    monkeypatch.setattr(sources, "Documents", lambda: columns.Documents(rows=100))
    with pytest.raises(DomainError, match="holds no text .rows: 100 null"):
        read(path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}]
)
def test_a_small_file_of_long_text_takes_little_memory(tmp_path, options):
    """A thousand rows of the same 200,000 characters are a file of some hundred bytes."""
    long = "The river runs by the mill and the mill runs by the river. " * 3_400
    path = write(pa.table({"text": [long] * 1000}), tmp_path / "a.parquet", compression="zstd", **options)
    code = (
        "import sys, json, pyarrow.parquet, pyarrow.compute\n"
        "from pruning.text.sources import load_text\n"
        "peak = lambda: next(int(l.split()[1]) for l in open('/proc/self/status') if 'VmHWM' in l)\n"
        "before = peak()\n"
        "source = load_text('x', sys.argv[1], 'calibration').source\n"
        "print(json.dumps([source['characters'], source['rows'], peak() - before]))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    characters, rows, kilobytes = json.loads(answer.stdout)
    assert characters == rows * len(long) <= 8_000_000 < characters + len(long)
    assert kilobytes < 200_000


def test_a_string_that_was_packed_to_fill_a_memory_is_refused(tmp_path):
    table = pa.table({"text": ["x" * 70_000_000]})
    path = write(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(DomainError, match=r"holds 70.0 MB packed into .* KB, more than 100 to 1: export"):
        read(path)


def test_rows_that_are_encoded_in_two_ways_are_all_read_once(tmp_path):
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "a.parquet", schema) as file:
        file.write_table(pa.table({"text": TEXTS[:10]}))
    delta = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    write(pa.table({"text": TEXTS}), tmp_path / "b.parquet", **delta, row_group_size=7)
    assert read(tmp_path / "a.parquet")[0] == "".join(TEXTS[:10])
    assert read(tmp_path / "b.parquet")[0] == "".join(TEXTS)


def test_a_damaged_table_is_refused(tmp_path):
    for name in ("a.parquet", "file.arrow", "stream.arrow"):
        complete = write(pa.table({"text": TEXTS}), tmp_path / name).read_bytes()
        for content in (
            complete[:-9],
            complete[: len(complete) // 2],
            complete[:20] + b"\xff" * 90 + complete[110:],
        ):
            (tmp_path / name).write_bytes(content)
            try:
                read(tmp_path / name)
            except DomainError as error:
                assert "copy or download it again" in str(error) or "text" in str(error)
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(complete))
    with pytest.raises(DomainError, match="is parquet that was compressed once more: decompress it"):
        read(tmp_path / "a.parquet.gz")
    (tmp_path / "blob").write_bytes(b"PAR1" + b"\0" * 20)
    with pytest.raises(DomainError, match="is a Parquet or Arrow table: let its name end in"):
        read(tmp_path / "blob")


def test_a_quote_in_a_tsv_file_is_a_character_unless_fields_are_quoted(tmp_path):
    file = tmp_path / "a.tsv"
    file.write_text("text\tlabel\n" + "".join(f'"Hello {i}\tx\n' for i in range(4)))
    texts = (
        load_text("x", f"{file}:text", "calibration").texts + load_text("x", f"{file}:text", "heldout").texts
    )
    assert "".join(texts) == '"Hello 0"Hello 1"Hello 2"Hello 3'
    file.write_text('text\tlabel\n"a\tb ""c"""\tx\n"d"\ty\n')
    texts = (
        load_text("x", f"{file}:text", "calibration").texts + load_text("x", f"{file}:text", "heldout").texts
    )
    assert "".join(texts) == 'a\tb "c"d'


def test_an_encoding_with_escapes_is_refused_by_name(tmp_path):
    (tmp_path / "mail.txt").write_bytes("川は東へ流れる。".encode("iso2022_jp") * 20)
    with pytest.raises(DomainError, match="is encoded as ISO-2022"):
        load_text("x", str(tmp_path / "mail.txt"), "calibration")
