"""JSON in its many shapes: the rows that the person meant, or one sentence."""

import json

import pytest

from pruning.errors import DomainError
from pruning.text import columns, sources
from pruning.text.sources import load_text

TEXTS = [f"The mill by the {i}th bridge turns when the river is high." for i in range(30)]
ROWS = [{"id": i, "text": text, "tags": ["geography", "water"]} for i, text in enumerate(TEXTS)]


def write(tmp_path, content, name="a.json"):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path / name


def read(path, split=("calibration", "heldout")):
    parts = [load_text("x", str(path), part) for part in split]
    return "".join(text for part in parts for text in part.texts), parts[0].source


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(json.dumps(ROWS, indent=2), id="array over several lines"),
        pytest.param(json.dumps(ROWS), id="array on one line"),
        pytest.param("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n", id="array, a row on each line"),
        pytest.param("\n".join(map(json.dumps, ROWS)), id="JSON Lines"),
        pytest.param("\n".join(json.dumps(row, indent=1) for row in ROWS), id="objects over several lines"),
        pytest.param(json.dumps({"version": "1", "data": ROWS}), id="one list of rows"),
        pytest.param(json.dumps({"schema": {"fields": []}, "data": ROWS}), id="pandas table"),
        pytest.param(
            json.dumps({"columns": ["id", "text"], "index": [*range(30)], "data": [*enumerate(TEXTS)]}),
            id="pandas split",
        ),
        pytest.param(
            json.dumps(
                {"id": {str(i): i for i in range(30)}, "text": {str(i): t for i, t in enumerate(TEXTS)}}
            ),
            id="pandas columns",
        ),
        pytest.param(json.dumps({"text": {str(i): t for i, t in enumerate(TEXTS)}}), id="pandas series"),
        pytest.param(json.dumps({str(i): row for i, row in enumerate(ROWS)}), id="pandas index"),
        pytest.param(json.dumps({f"row {i}": row for i, row in enumerate(ROWS)}), id="named rows"),
        pytest.param(json.dumps({"text": TEXTS, "id": [*range(30)]}), id="lists by column"),
        pytest.param(json.dumps({"text": TEXTS}), id="a list by column"),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_table_is_read_however_json_holds_it(tmp_path, content, name):
    text, source = read(write(tmp_path, content, name))
    assert text == "".join(TEXTS)
    assert (source["rows"], source["characters"], source["skipped"]) == (30, len(text), {})
    assert source["read_as"] == ["column 'text'"]


@pytest.mark.parametrize("back", [1, 2, 5, 9, 17, 60, 75, 200, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_that_is_cut_off_is_refused(tmp_path, back, indent):
    content = json.dumps(ROWS, indent=indent)[:-back]
    with pytest.raises(DomainError, match=r"is cut off within its row \d+: copy or download it again"):
        read(write(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        "[",
        '[{"text": "a"},',
        "[tru",
        '["a\\u12',
        '["a\\',
        '[{"a": 1.',
        '{"text": ["a", nul',
        '{"data": [{"text": "a"}',
    ],
)
def test_whatever_it_is_cut_off_within(tmp_path, content):
    with pytest.raises(DomainError, match="is cut off"):
        read(write(tmp_path, content))


@pytest.mark.parametrize("wrapper", [None, {}, {"version": "1.1", "count": 30, "extra": None}])
@pytest.mark.parametrize("indent", [None, 2])
def test_of_an_array_beyond_the_limit_the_whole_rows_before_it_are_read(
    tmp_path, monkeypatch, indent, wrapper
):
    content = json.dumps(ROWS if wrapper is None else wrapper | {"data": ROWS}, indent=indent)
    for limit in range(700, 1200, 37):
        monkeypatch.setattr(sources, "Documents", lambda limit=limit: columns.Documents(limit))
        text, source = read(write(tmp_path, content))
        complete = sum(content.index(f'"text": "{t}"') + len(t) + 80 < limit for t in TEXTS)
        assert complete <= source["rows"] <= complete + 2
        assert text == "".join(TEXTS[: source["rows"]]) and source["cut_at"] and source["skipped"] == {}


def test_an_object_beyond_the_limit_that_is_no_list_of_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "Documents", lambda: columns.Documents(500))
    for content in ({"text": TEXTS}, {"text": {"0": TEXTS[0] * 20}}, {"columns": ["text"] * 99, "data": []}):
        with pytest.raises(DomainError, match="no row ends within its first \\d+ characters"):
            read(write(tmp_path, content))


def test_objects_with_a_list_that_ends_before_the_limit_are_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "Documents", lambda: columns.Documents(900))
    chats = [{"id": i, "messages": [{"role": "user", "content": text}]} for i, text in enumerate(TEXTS)]
    text, source = read(write(tmp_path, "\n".join(json.dumps(chat, indent=1) for chat in chats)))
    assert source["rows"] == 6 and text == "".join(TEXTS[:6]) and source["cut_at"]


def test_pieces_of_something_else_are_not_json_lines(tmp_path):
    tail = json.dumps(ROWS, indent=2)[300:]  # its strings are lines that are JSON by themselves
    with pytest.raises(DomainError, match=r"neither a JSON value nor JSON Lines \(\d+ of its lines are no"):
        read(write(tmp_path, tail))
    with pytest.raises(DomainError, match="neither a JSON value nor JSON Lines"):
        read(write(tmp_path, json.dumps(ROWS, indent=2).replace('"id": 7,', '"id": 7'), "a.jsonl"))
    mixed = [*map(json.dumps, ROWS), '"water"', "}", "17"]
    assert read(write(tmp_path, "\n".join(mixed)))[1]["skipped"] == {"no JSON": 1, "no object": 2}


def test_of_several_lists_of_rows_one_is_named(tmp_path):
    path = write(tmp_path, {"train": ROWS, "test": [{"text": "another"}]})
    with pytest.raises(DomainError, match="which column is text: write FILE:COLUMN .*'train.text'"):
        read(path)
    assert read(f"{path}:train.text")[0] == "".join(TEXTS)


def test_an_object_with_text_and_lists_is_one_row(tmp_path):
    text, source = read(write(tmp_path, {"text": "One page of a book.", "notes": [{"page": 1}, {"page": 2}]}))
    assert text == "One page of a book." and source["rows"] == 1
    chat = {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]}
    assert read(write(tmp_path, chat))[0] == "Where?\n\nHere."
    with pytest.raises(DomainError, match="does not say which column is text: .*'name', 'scripts'"):
        read(write(tmp_path, {"name": "app", "scripts": {"build": "make"}}))


def test_what_is_within_an_object_is_named_by_a_dot(tmp_path):
    path = write(tmp_path, [{"doc": {"body": text, "n": 1}} for text in TEXTS])
    assert read(f"{path}:doc.body")[0] == "".join(TEXTS)
    assert read(f"{path}:doc.body")[1]["read_as"] == ["column 'doc.body'"]
    with pytest.raises(DomainError, match="has no column 'doc.bodi' .did you mean 'doc.body'"):
        read(f"{path}:doc.bodi")


def test_turns_that_are_packed_into_a_string_are_a_chat(tmp_path):
    packed = json.dumps([{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}])
    rows = [{"messages": packed}, {"messages": "[{"}, {"messages": "{}"}, {"messages": "Hello."}]
    text, source = read(write(tmp_path, rows))
    assert text == "Where?\n\nHere.Hello."
    assert source["read_as"] == ["chats in 'messages', turns joined", "column 'messages'"]
    assert source["skipped"] == {"no list of turns": 2}


def test_a_notebook_gives_its_cells_without_outputs(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Rivers\n", "and mills"]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"text": ["1\n"]}]},
        {"cell_type": "raw", "source": "not shown"},
    ]
    text, source = read(write(tmp_path, {"cells": cells, "nbformat": 4}, "a.ipynb"))
    assert text == "# Rivers\nand mills\n\nprint(1)" and source["read_as"] == ["the cells of notebooks"]
    for broken in ("{}", "{", '{"cells": [1]}', '{"cells": [{"cell_type": "code", "source": 5}]}'):
        with pytest.raises(DomainError, match="is no notebook, or broken"):
            read(write(tmp_path, broken, "a.ipynb"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "it holds no row"),
        ("{}", "is empty"),
        ("not JSON at all", "no line is JSON"),
        ('{"text": {}}', "it holds no row"),
        ('{"columns": 5, "data": [[1]]}', "is empty"),
        ('{"columns": [["a"]], "data": [["x"]]}', "does not say which column"),
        ("[[1, 2], [3, 4]]", "holds no text .rows: 2 no object"),
        ("[" + "9" * 5000 + "]", "no line is JSON"),
    ],
)
def test_json_without_text_is_refused(tmp_path, content, says):
    with pytest.raises(DomainError, match=says) as error:
        read(write(tmp_path, content))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
