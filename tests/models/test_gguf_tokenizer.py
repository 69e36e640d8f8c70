"""The tokenizer that a GGUF file says splits text as llama.cpp does, also after it was saved."""

import pytest
from transformers import AutoTokenizer, LlamaConfig

from pruning.models.loading import load
from tests.conftest import needs_llama_cpp
from tests.models.gguf_files import dense, metadata, write_model

TEXTS = [
    "It's 12345 metres,  x =   42;\n\n    na\u00efve_value(3.14)\n",
    "a<|end|> b",
    "\u65e5\u672c \U0001f680",
    "a",
]
BOS = {"tokenizer.ggml.bos_token_id": 5}
FLAG = "tokenizer.ggml.add_{}_token"
MERGES = ["1 2", "12 3", "\u0120 x", "\u0120 \u0120", "\u0120\u0120 \u0120", "a l", "u e"]


def bpe(**keys):
    """Keys of a byte-level BPE with some merges, among them one of a token that no merges make."""
    tokens = list(metadata(dense(LlamaConfig), "llama")["tokenizer.ggml.tokens"])
    tokens += [left + right for left, right in (merge.split(" ") for merge in MERGES)]
    tokens[0] = "!"
    tokens += ["metres", "<|a b|>", "<\uff5cname\uff5c>"]
    types = [1] * len(tokens)
    types[256] = types[-2] = 3
    types[-1] = 4
    return {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
    } | keys


def write(file, **keys):
    tokenizer = bpe(**keys)
    size = len(tokenizer["tokenizer.ggml.tokens"])
    write_model(file, dense(LlamaConfig, vocab_size=size), keys=tokenizer)


@needs_llama_cpp
@pytest.mark.parametrize("rule", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
@pytest.mark.parametrize(
    "keys",
    [BOS, BOS | {FLAG.format("bos"): True}, BOS | {FLAG.format("bos"): False, FLAG.format("eos"): True}],
)
def test_a_byte_level_bpe_splits_text_and_begins_and_ends_it_as_llama_cpp_does(rule, keys, tmp_path):
    from pruning.formats.llamacpp import open_gguf

    write(tmp_path / "a.gguf", **{"tokenizer.ggml.pre": rule}, **keys)
    loaded, llm = load(str(tmp_path / "a.gguf"), "cpu"), open_gguf(tmp_path / "a.gguf")
    saved = AutoTokenizer.from_pretrained(loaded.path)
    for text in [*TEXTS, "<|a b|>c <\uff5cname\uff5c>"]:
        ids = llm.tokenize(text.encode(), add_bos=True, special=True)
        assert loaded.tokenizer(text).input_ids == saved(text).input_ids == ids
        assert loaded.tokenizer.decode(loaded.tokenizer(text, add_special_tokens=False).input_ids) == text
    llm.close()


def test_what_ends_a_turn_ends_a_generated_text_too(tmp_path):
    ends = {"tokenizer.ggml.eot_token_id": 7, "tokenizer.ggml.eom_token_id": 8}
    write(tmp_path / "a.gguf", **ends)
    loaded = load(str(tmp_path / "a.gguf"), "cpu")
    assert loaded.model.generation_config.eos_token_id == [256, 7, 8]
    assert loaded.tokenizer.eos_token_id == loaded.model.config.eos_token_id == 256


def test_chat_templates_go_along(tmp_path):
    key = "tokenizer.chat_template"
    write(tmp_path / "a.gguf", **{key: "one", f"{key}s": ["tool_use"], f"{key}.tool_use": "two"})
    assert load(str(tmp_path / "a.gguf"), "cpu").tokenizer.chat_template == {
        "default": "one",
        "tool_use": "two",
    }
    write(tmp_path / "b.gguf", **{key: "one"})
    assert load(str(tmp_path / "b.gguf"), "cpu").tokenizer.chat_template == "one"
