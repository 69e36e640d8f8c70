"""Scripts other than Latin: exact counts in every reader, and exact bytes for every token."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pruning.models.folder import DEMO
from pruning.text.blocks import count_bytes, heldout_blocks
from pruning.text.sources import DomainText, load_text
from tests.conftest import byte_tokenizer, needs_demo

SAMPLES = {
    "Chinese": "河水从山上流下来，向东奔流。磨坊在桥边。",
    "Japanese": "川のそばの水車小屋は、ゆっくり回る。",
    "Arabic": "ينبع النهر من التلال ويتجه شرقًا.",
    "Hebrew": "הנהר זורם ליד הטחנה.",
    "Devanagari": "नदी पहाड़ियों से निकलती है।",
    "Thai": "แม่น้ำไหลผ่านโรงสี",
    "Cyrillic": "Река течёт мимо мельницы.",
    "emoji": "mill 👩‍👩‍👧 river 🦙🇨🇭 ok",
    "combining marks": "cafe\u0301 Mu\u0308hle q\u0303\u0323",
    "separators": "line\u2028paragraph\u2029next\u0085end\u00a0\u200b\ufeffmark",
    "beyond 16 bits": "𠀀𝔸𐍈",
}
TEXTS = [f"{number} {sample}" for number in range(3) for sample in SAMPLES.values()]


def rows(**options):
    return "\n".join(json.dumps({"text": text}, **options) for text in TEXTS)


def parquet(path):
    pq.write_table(pa.table({"text": TEXTS}), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lambda _: rows(ensure_ascii=False).encode()),
        ("escaped.jsonl", lambda _: rows().encode()),
        ("utf16.jsonl", lambda _: rows(ensure_ascii=False).encode("utf-16")),
        ("big.jsonl", lambda _: b"\xfe\xff" + rows(ensure_ascii=False).encode("utf-16-be")),
        ("utf32.jsonl", lambda _: rows(ensure_ascii=False).encode("utf-32")),
        ("a.json", lambda _: json.dumps(TEXTS, ensure_ascii=False, indent=1).encode()),
        ("a.csv", lambda _: ("text\n" + "".join(f'"{text}"\n' for text in TEXTS)).encode()),
        ("a.tsv", lambda _: ("id\ttext\n" + "".join(f"1\t{text}\n" for text in TEXTS)).encode()),
        ("a.parquet", parquet),
    ],
)
def test_every_reader_counts_characters_of_every_script(tmp_path, name, content):
    (tmp_path / name).write_bytes(content(tmp_path / "made.parquet"))
    parts = [load_text("x", str(tmp_path / name), split) for split in ("calibration", "heldout")]
    source = parts[0].source
    assert "".join(text for part in parts for text in part.texts) == "".join(TEXTS)
    assert source["rows"] == 33 and source["characters"] == sum(map(len, TEXTS)) and source["skipped"] == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_characters_are_whole_wherever_chunks_of_a_file_end(tmp_path, monkeypatch, encoding):
    text = "\n".join(TEXTS)
    (tmp_path / "a.txt").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    for size in range(4, 12):
        monkeypatch.setattr("pruning.text.files.CHUNK", size)
        parts = [load_text("x", str(tmp_path / "a.txt"), split) for split in ("calibration", "heldout")]
        assert "".join(part.texts[0] for part in parts) == text
        assert parts[0].source["characters"] == len(text)


# --- bytes of tokens ---------------------------------------------------------------------------------------


def byte_fallback_tokenizer(prefix):
    """BPE as sentencepiece writes it: words begin with a mark, unknown characters are their bytes."""
    names = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"▁abcdefghilmor",
        "▁m",
        "il",
    ]
    bpe = models.BPE(
        vocab={name: number for number, name in enumerate(names)},
        merges=[("▁", "m"), ("i", "l")],
        unk_token="<unk>",
        byte_fallback=True,
    )
    tokenizer = Tokenizer(bpe)
    marks = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*marks, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def word_tokenizer():
    """Words of which most are unknown; what is between them is dropped."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "mill": 1, "[SEP]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[SEP]")


TOKENIZERS = {
    "byte-level": byte_tokenizer,
    "byte fallback": lambda: byte_fallback_tokenizer(prefix=True),
    "byte fallback without prefix": lambda: byte_fallback_tokenizer(prefix=False),
    "words": word_tokenizer,
    "demo": lambda: AutoTokenizer.from_pretrained(DEMO),
}
EACH = [pytest.param(name, marks=needs_demo if name == "demo" else ()) for name in TOKENIZERS]


@pytest.mark.parametrize("name", EACH)
def test_the_bytes_of_tokens_are_those_of_the_document(name):
    tokenizer = TOKENIZERS[name]()
    for text in (*TEXTS, "".join(TEXTS), " two  spaces ", "\n\ttab\n", "x", ""):
        counts = count_bytes(text, tokenizer)
        assert counts.sum() == len(text.encode()) and (counts >= 0).all()
        assert len(counts) == len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_the_bytes_of_tokens_are_those_of_the_document_for_a_real_model(smollm2):
    for text in TEXTS:
        assert count_bytes(text, smollm2.tokenizer).sum() == len(text.encode())


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name.startswith("byte fall")])
def test_a_byte_of_a_character_is_one_byte(name):
    tokenizer = TOKENIZERS[name]()
    text = " mill 河 é 🦙"
    counts = count_bytes(text, tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert sum(token.startswith("<0x") for token in tokens) == 9
    assert all(count == 1 for token, count in zip(tokens, counts, strict=True) if token.startswith("<0x"))


def test_a_byte_level_token_is_as_many_bytes_as_it_has_letters():
    assert count_bytes("河a", byte_tokenizer()).tolist() == [1, 1, 1, 1]


def test_special_tokens_count_no_bytes_and_unknown_ones_those_of_their_text():
    tokenizer = byte_tokenizer()
    assert count_bytes("ab<|end|>河", tokenizer).tolist() == [1, 1, 0, 1, 1, 1]
    assert count_bytes("mill 河 mill", word_tokenizer()).tolist() == [4, 4, 5]
    assert count_bytes("mill[SEP]mill [UNK]", word_tokenizer()).tolist() == [4, 0, 4, 0]


@pytest.mark.parametrize("seq_len", [2, 3, 5, 8])
def test_held_out_bytes_are_those_of_the_predicted_tokens_also_where_blocks_divide_a_character(seq_len):
    tokenizer = byte_tokenizer()
    stream = b"".join(text.encode() + b"\xff" for text in TEXTS)  # a byte that no text has, for the end
    blocks = heldout_blocks("x", DomainText(TEXTS, {}), tokenizer, seq_len)
    expected = np.frombuffer(stream, np.uint8)[: blocks.ids.size].reshape(blocks.ids.shape)[:, 1:] != 0xFF
    assert blocks.bytes == expected.sum()
    few = heldout_blocks("x", DomainText(TEXTS, {}), tokenizer, seq_len, limit=3)
    assert few.bytes == expected[:3].sum()
