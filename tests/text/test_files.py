"""Files as people have them: each gives its text, with what was left out, or one sentence."""

import functools
import gzip
import json

import pytest

from pruning.errors import DomainError
from pruning.text import columns, files, sources
from pruning.text.sources import describe_source, load_text
from tests.conftest import byte_tokenizer

DOCUMENTS = [
    f"The ferry leaves at {hour} and reaches the island before the shops open." for hour in range(24)
]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS)


def chat(asked, answered, role="role", content="content", names=("user", "assistant")):
    return [{role: names[0], content: asked}, {role: names[1], content: answered}]


def rows(*content):
    return "".join(json.dumps(row) + "\n" for row in content)


def read(path, tokenizer=None, split=("calibration", "heldout")):
    """All documents of a file in order, and what its record says."""
    parts = [load_text("x", str(path), part, tokenizer=tokenizer) for part in split]
    return [text for part in parts for text in part.texts], parts[0].source


def joined(texts):
    return "".join(texts).replace("\n", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("DATA.JSONL", LINES.encode()),
        ("notes.ndjson", LINES.encode()),
        ("crlf.jsonl", LINES.replace("\n", "\r\n").encode()),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("utf16.jsonl", LINES.encode("utf-16")),
        ("[v1] notes*?.jsonl", LINES.encode()),
        ("part.JSONL.GZ", gzip.compress(LINES.encode())),
        ("not_gzip.jsonl.gz", LINES.encode()),
        ("packed but not said.jsonl", gzip.compress(LINES.encode())),
        ("list.json", json.dumps([{"text": text} for text in DOCUMENTS], indent=1).encode()),
        ("strings.json", json.dumps(DOCUMENTS).encode()),
        ("table.csv", ("id,text\n" + "".join(f'{i},"{t}"\n' for i, t in enumerate(DOCUMENTS))).encode()),
        ("table.tsv", ("id\ttext\n" + "".join(f"{i}\t{t}\n" for i, t in enumerate(DOCUMENTS))).encode()),
        ("comma.csv", ("id;text\n" + "".join(f"{i};{t}\n" for i, t in enumerate(DOCUMENTS))).encode()),
        ("NOTES.TXT", "\n".join(DOCUMENTS).encode()),
        ("notes.txt.gz", gzip.compress("\n".join(DOCUMENTS).encode())),
        ("mac.txt", "\r".join(DOCUMENTS).encode()),
        ("utf16.txt", "\n".join(DOCUMENTS).encode("utf-16")),
        ("README.md", "\n".join(DOCUMENTS).encode()),
        ("source.py", "\n".join(DOCUMENTS).encode()),
        ("no ending", "\n".join(DOCUMENTS).encode()),
    ],
)
def test_every_kind_of_file_gives_its_text(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    texts, source = read(tmp_path / name)
    assert joined(texts) == joined(DOCUMENTS)
    assert source["skipped"] == {} and source["sample"] in "\n".join(DOCUMENTS)


def test_a_file_with_brackets_in_its_name_is_not_the_one_beside_it(tmp_path):
    (tmp_path / "part1.jsonl").write_text(rows({"text": "the wrong file " * 9}))
    (tmp_path / "part[1].jsonl").write_text(LINES)
    texts, source = read(tmp_path / "part[1].jsonl")
    assert joined(texts) == joined(DOCUMENTS)
    assert source["path"] == str(tmp_path / "part[1].jsonl")


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ('{"text": null}', "null"),
        ('{"text": 17}', "no text"),
        ('{"title": "no text here"}', "without 'text'"),
        ('{"text": "  "}', "empty"),
        ("17", "no object"),
        ('{"text": "cut o', "no JSON"),
        ("[" * 20_000, "no JSON"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_odd_rows_are_skipped_and_counted(tmp_path, odd, reason, first):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{odd}\n{LINES}" if first else f"{LINES}{odd}\n{odd}")
    texts, source = read(path)
    assert joined(texts) == joined(DOCUMENTS)
    assert source["skipped"] == {reason: 1 if first else 2} and source["rows"] == 24
    assert f"skipped {1 if first else 2} {reason}" in describe_source(source)


@pytest.mark.parametrize(
    ("content", "read_as", "text"),
    [
        ({"id": "c0", "text": "a", "content": "b"}, "column 'text'", "a"),
        ({"lang": "python", "content": "x = 1"}, "column 'content'", "x = 1"),
        (
            {"instruction": "Shorten.", "input": "A b c.", "output": "A."},
            "columns 'instruction' + 'input' + 'output', joined",
            "Shorten.\nA b c.\nA.",
        ),
        (
            {"instruction": "Say a.", "input": "", "output": "A."},
            "columns 'instruction' + 'input' + 'output', joined",
            "Say a.\nA.",
        ),
        ({"question": "1+1?", "answer": "2"}, "columns 'question' + 'answer', joined", "1+1?\n2"),
        ({"id": 1, "messages": chat("Q?", "A.")}, "chats in 'messages', turns joined", "Q?\n\nA."),
        (
            {"id": "s", "conversations": chat("Q?", "A.", "from", "value", ("human", "gpt"))},
            "chats in 'conversations', turns joined",
            "Q?\n\nA.",
        ),
    ],
)
def test_tables_whose_columns_say_what_they_hold(tmp_path, content, read_as, text):
    path = tmp_path / "table.jsonl"
    path.write_text(rows(*[content] * 20))
    texts, source = read(path, split=("calibration",))
    assert texts[0] == text and source["read_as"] == [read_as]


def test_a_column_is_never_guessed(tmp_path):
    path = tmp_path / "code.jsonl"
    path.write_text(rows(*({"lang": "python", "path": f"{i}.py", "code": f"x = {i}"} for i in range(20))))
    with pytest.raises(
        DomainError, match="does not say which column .* FILE:COLUMN .*'lang', 'path', 'code'"
    ):
        read(path)
    assert read(f"{path}:code")[0][:2] == ["x = 0", "x = 1"]
    assert read(f"{path}:path+code")[0][0] == "0.py\nx = 0"
    assert read(f"{path}:code")[1]["column"] == "code"
    with pytest.raises(DomainError, match="has no column 'cod' \\(did you mean 'code'\\?\\)"):
        read(f"{path}:cod")
    (tmp_path / "code.jsonl:code").write_text("a file with a colon in its name")
    assert joined(read(f"{path}:code")[0]) == "a file with a colon in its name"


def test_chats_pass_the_chat_template(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if messages[0].content == 'bad' %}{{ raise_exception('no') }}{% endif %}"
    )
    parts = [{"type": "image"}, {"type": "text", "text": "Q?"}]
    path = tmp_path / "chat.jsonl"
    path.write_text(
        rows(
            {"conversations": chat("Q?", "A.", "from", "value", ("human", "gpt"))},
            {"conversations": chat(parts, "A.")},
            {"conversations": chat("bad", "A.")},
            {"conversations": [{"role": "user"}]},
            {"conversations": []},
        )
    )
    texts, source = read(path, tokenizer)
    assert joined(texts) == "<user>Q?<assistant>A." * 2
    assert source["read_as"] == ["chats in 'conversations', by the model's chat template"]
    refused = {"refused by the chat template": 1, "a turn without role or text": 1, "empty": 1}
    assert source["skipped"] == refused


TODAY = "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%-d/%m/%y %A') }} {{ messages[0].content }}"
MACRO = (
    "{% macro day() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}"
    "{% if strftime_now is defined %}{{ day() }}{% endif %}"
)


def test_chats_do_not_depend_on_the_day(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text(rows(*[{"messages": chat("Q?", "A.")}] * 20))
    tokenizer = byte_tokenizer()
    for template, text in ((TODAY, "26 Jul 2024 26/07/24 Friday Q?"), (MACRO, "2024-07-26")):
        tokenizer.chat_template = template
        texts, source = read(path, tokenizer, split=("calibration",))
        assert texts[0] == text and source["template_date"] == "2024-07-26"


@pytest.mark.parametrize(
    "start", ["", "\n", "  \n", "  {% if true %}x{% endif %}", "\n  {%- if true %}x{% endif %}"]
)
def test_the_fixed_date_changes_nothing_else_of_a_template(tmp_path, start):
    path = tmp_path / "chat.jsonl"
    path.write_text(rows(*[{"messages": chat("Q?", "A.")}] * 20))
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = start + "{% for m in messages %}\n  <{{ m.role }}>\n{% endfor %}\n"
    expected = tokenizer.apply_chat_template(chat("Q?", "A."), tokenize=False)
    assert read(path, tokenizer, split=("calibration",))[0][0] == expected


def test_the_record_changes_with_the_template_and_what_it_reads(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text(rows(*[{"messages": chat("Q?", "A.")}] * 20))
    records = []
    for template, end in (
        ("{{ messages[0].content }}", "<|end|>"),
        ("{{ messages[0].content }} ", "<|end|>"),
    ):
        tokenizer = byte_tokenizer()
        tokenizer.chat_template, tokenizer.eos_token = template, end
        records.append(read(path, tokenizer)[1]["chat_template"])
    tokenizer.eos_token = "e"
    records.append(read(path, tokenizer)[1]["chat_template"])
    assert len(set(records)) == 3
    assert "chat_template" not in read(path)[1]


def test_the_digest_is_that_of_the_documents_of_a_split(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.jsonl").write_text(LINES + rows({"text": "one more, at the end"}))
    a, b = (load_text("x", str(tmp_path / name), "calibration").source for name in ("a.jsonl", "b.jsonl"))
    assert a["digest"] != b["digest"] and a["revision"] != b["revision"]
    assert a["digest"] == load_text("x", str(tmp_path / "a.jsonl"), "calibration").source["digest"]
    assert a["digest"] != load_text("x", str(tmp_path / "a.jsonl"), "heldout").source["digest"]
    assert load_text("wiki", "embedded", "heldout").source["digest"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.txt", None, "does not exist: give a file or a folder"),
        ("empty.txt", b"", "is empty"),
        ("blank.txt", b" \n\n \n", "is empty"),
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n \n", "is empty"),
        ("head.csv", b"id,text\n", "no rows below its header"),
        (
            "rows.jsonl",
            rows({"text": ""}, {"text": None}).encode(),
            r"holds no text \(rows: 1 empty, 1 null\)",
        ),
        ("numbers.json", b"[1, 2, 3]", "holds no text .rows: 3 no object"),
        ("cut.jsonl.gz", gzip.compress(LINES.encode())[:-20], "is a .gz file that is broken or cut off"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\xff\xfe", "is a PNG image: give a file with text in it"),
        ("latin.txt", "é".encode("latin-1"), "is not UTF-8 text .byte 0, its last character is no whole one"),
        ("latin2.txt", "vallée du moulin".encode("latin-1"), "is not UTF-8 text .byte 4.: save it as UTF-8"),
        ("cut.txt", "河".encode()[:-1], "save it as UTF-8, or copy it again if it is cut off"),
        ("utf16.txt", "no mark".encode("utf-16-le"), "UTF-16 without its byte order mark"),
        ("odd.txt", b"\xff\xfe\x00", "is not UTF-16 text"),
        ("broken.jsonl", b"{broken", "cannot be read as jsonl .no line is JSON."),
        ("a.parquet", b"PAR1 not", "cannot be read as parquet"),
        ("lfs.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    ],
)
def test_files_that_give_no_text(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DomainError, match=says) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "~nobody-here/x", "a" * 300 + "/b.txt", "\ud800.txt"])
def test_paths_that_cannot_be(path):
    with pytest.raises(DomainError) as error:
        read(path)
    assert len(str(error.value)) < 400 and str(error.value).isprintable()


def test_a_link_to_nothing_is_said(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(DomainError, match="is a link to .*gone.txt.*, which is not there"):
        read(tmp_path / "a.txt")


def test_a_folder_gives_its_files_and_says_which_it_left_out(tmp_path):
    for name in (
        "b/two.py",
        "a.md",
        ".git/config.txt",
        "node_modules/x.js",
        "picture.png",
        "code.jsonl",
        "c.TXT",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}\n")
    (tmp_path / "code.jsonl").write_text(rows({"code": "x", "lang": "py"}))
    texts, source = read(tmp_path, split=("calibration",))
    assert "".join(texts).startswith("content of a.md\ncontent of b/two.py\n")
    assert source["files"] == 3 and source["files_left_out"] == 1
    assert "does not say which column" in source["left_out"]["code.jsonl"]
    assert (
        "left out 1 of its files, such as 'code.jsonl', which does not say which column"
        in describe_source(source)
    )


def test_a_folder_without_text_is_said(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(DomainError, match="holds nothing to read"):
        read(tmp_path)


def test_no_more_is_read_than_the_limit(tmp_path, monkeypatch):
    """A line or a packed file of any length costs what the limit says; the rest is left out, and said."""
    monkeypatch.setattr(sources, "Documents", functools.partial(columns.Documents, 1000))
    (tmp_path / "line.txt").write_text("é" * 5_000)
    texts, source = read(tmp_path / "line.txt")
    assert joined(texts) == "é" * 1000 and source["cut_at"] == "8,000,000 characters"
    assert "stops at the limit of 8,000,000 characters" in describe_source(source)
    (tmp_path / "rows.jsonl").write_text(LINES)
    texts, source = read(tmp_path / "rows.jsonl")
    assert 5 < len(texts) < 15 and source["skipped"] == {} and "cut_at" in source
    for name, content in (("bomb.jsonl.gz", b'{"text": "' + b"0" * 10**7), ("bomb.csv.gz", b"0" * 10**7)):
        (tmp_path / name).write_bytes(gzip.compress(content))
        with pytest.raises(DomainError, match="no row ends within|no rows below|no document within"):
            read(tmp_path / name)
    (tmp_path / "b").mkdir()
    for number in range(5):
        (tmp_path / "b" / f"{number}.txt").write_text("ab " * 200)
    source = read(tmp_path / "b")[1]
    assert source["files"] == 2 and source["characters"] < 1100 and "cut_at" in source


def test_a_folder_with_a_disk_in_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FOLDER_ENTRIES", 5)
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("text")
    with pytest.raises(DomainError, match="holds more than 5 entries"):
        read(tmp_path)


def test_halves_of_characters_are_replaced(tmp_path):
    (tmp_path / "a.jsonl").write_text(rows(*[{"text": "a\ud800b" + "c" * 20}]))
    texts, _ = read(tmp_path / "a.jsonl")
    assert joined(texts).startswith("a\ufffdb")
    byte_tokenizer()(texts)


def test_the_record_keeps_the_beginning_of_a_document_only(tmp_path):
    (tmp_path / "a.txt").write_text("word " * 10_000)
    assert len(read(tmp_path / "a.txt")[1]["sample"]) == columns.SAMPLE
