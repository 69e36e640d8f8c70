"""A GGUF file that is not what it seems gives an answer or one sentence, whatever is wrong with it."""

import logging
import math

import gguf
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from pruning.errors import ModelError
from pruning.models import gguf_input
from pruning.models.folder import locate
from pruning.models.gguf_file import read_gguf
from pruning.models.loading import load
from tests.models.gguf_files import dense, metadata, tensors, write_file, write_model

MODEL = dense(LlamaConfig, num_hidden_layers=2, hidden_size=16, num_attention_heads=4, num_key_value_heads=2)
KEYS = {**metadata(MODEL, "llama"), "llama.rope.scaling.factor": 2.0, "llama.rope.scaling.type": "linear"}
KEYS |= {
    "llama.attention.key_length": 4,
    "tokenizer.ggml.bos_token_id": 3,
    "tokenizer.chat_template": "{{ 1 }}",
}
VALUES = st.one_of(
    st.booleans(),
    st.integers(-3, 20),
    st.sampled_from([2**16, 2**31 - 1, 2**32 - 1, -(2**31)]),
    st.floats(width=32),
    st.text(max_size=4),
    st.lists(st.integers(-3, 20), min_size=1, max_size=4),
    st.lists(st.text(max_size=3), min_size=1, max_size=3),
    st.lists(st.floats(width=32), min_size=1, max_size=3),
    st.just(None),
)
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def answer(file):
    """Logits of a file's model, or what its refusal says."""
    try:
        loaded = load(str(file), "cpu")
    except ModelError as error:
        message = str(error)
        assert len(message.splitlines()) == 1 and message.endswith(".") and len(message) < 1000, message
        return message
    with torch.no_grad():
        return loaded.model(torch.arange(6)[None]).logits


@SETTINGS
@given(
    architecture=st.sampled_from(["llama", "deci"]),
    changes=st.dictionaries(st.sampled_from(sorted(KEYS)), VALUES, min_size=1, max_size=2),
)
def test_whatever_a_key_says_there_is_an_answer_or_a_sentence(architecture, changes, tmp_path):
    present = {key: value for key, value in (KEYS | changes).items() if value is not None}
    keys = {key.replace("llama.", f"{architecture}."): value for key, value in present.items()}
    write_file(tmp_path / "a.gguf", architecture, keys, tensors(MODEL, architecture))
    answer(tmp_path / "a.gguf")


@SETTINGS
@given(data=st.data())
def test_whatever_bytes_a_header_holds_there_is_an_answer_or_a_sentence(data, tmp_path):
    write_file(tmp_path / "intact.gguf", "llama", KEYS, tensors(MODEL, "llama"))
    content = bytearray((tmp_path / "intact.gguf").read_bytes())
    end = min(tensor.begin for tensor in read_gguf(tmp_path / "intact.gguf").tensors.values())
    for _ in range(data.draw(st.integers(1, 3))):
        offset = data.draw(st.integers(0, end - 9))
        new = data.draw(st.sampled_from([b"\0", b"\xff", b"\xff" * 8, b"\0\0\0\x7f", b"A"]))
        content[offset : offset + len(new)] = new
    size = data.draw(st.sampled_from([len(content), len(content) - 7, end, end // 2, 20, 3, 0]))
    (tmp_path / "a.gguf").write_bytes(content[:size])
    answer(tmp_path / "a.gguf")


def test_lengths_are_compared_with_the_file_before_anything_is_read(tmp_path):
    write_file(tmp_path / "a.gguf", "llama", KEYS, tensors(MODEL, "llama"))
    content = (tmp_path / "a.gguf").read_bytes()
    huge = (2**62).to_bytes(8, "little")
    counts = (
        content[:8] + huge + content[16:],
        content[:16] + huge + content[24:],
        content[:24] + huge + content[32:],
    )
    for broken in counts:
        (tmp_path / "b.gguf").write_bytes(broken)
        assert "is no GGUF file, or only a part of one (" in answer(tmp_path / "b.gguf")
    for version, other in (("0x1", b"GGUF\x01\0\0\0"), ("0x3000000", b"GGUF\0\0\0\x03")):
        (tmp_path / "b.gguf").write_bytes(other + content[8:])
        message = answer(tmp_path / "b.gguf")
        assert f"has version {version} of the format" in message and "convert the model again" in message


def test_the_header_is_that_of_the_gguf_package(tmp_path):
    write_file(tmp_path / "a.gguf", "llama", KEYS, tensors(MODEL, "llama"))
    ours, theirs = read_gguf(tmp_path / "a.gguf"), gguf.GGUFReader(tmp_path / "a.gguf")
    for key, value in ours.metadata.items():
        expected = theirs.get_field(key).contents()
        assert math.isclose(value, expected, rel_tol=1e-7) if isinstance(value, float) else value == expected
    assert {t.name: (t.data_offset, t.n_bytes, t.tensor_type.name) for t in theirs.tensors} == {
        t.name: (t.begin, t.end - t.begin, t.type) for t in ours.tensors.values()
    }


def test_numbers_are_read_as_they_were_meant(tmp_path):
    """1e-5 in float32 is 9.999999747378752e-06 in Python."""
    write_model(tmp_path / "a.gguf", dense(LlamaConfig, rms_norm_eps=1e-5))
    assert gguf_input.header(tmp_path / "a.gguf").config["rms_norm_eps"] == 1e-5


# --- the cache and the log


def test_what_an_earlier_reader_unpacked_is_not_believed(tmp_path, monkeypatch):
    write_model(tmp_path / "a.gguf", dense(LlamaConfig))
    first = locate(str(tmp_path / "a.gguf"))
    monkeypatch.setattr(gguf_input, "READER_VERSION", gguf_input.READER_VERSION + 1)
    assert locate(str(tmp_path / "a.gguf")) != first


def test_the_log_says_what_is_read_and_how_far_it_is(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(gguf_input, "PROGRESS_SECONDS", 0.0)
    write_model(tmp_path / "a.gguf", dense(LlamaConfig))
    with caplog.at_level(logging.INFO, "pruning"):
        locate(str(tmp_path / "a.gguf"))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("pruning")]
    assert "unpacking a.gguf: 100%" in lines
    caplog.clear()
    with caplog.at_level(logging.INFO, "pruning"):
        locate(str(tmp_path / "a.gguf"))
    assert not any("unpacking" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0", "F16", "BF16", "F64"])
def test_packed_weights_are_their_numbers(kind, tmp_path):
    arrays = tensors(MODEL, "llama")
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    array = torch.randn(4, 64, generator=torch.manual_seed(0)).numpy()
    if kind == "F64":
        writer.add_tensor("x", array.astype("float64"))
    else:
        type_ = gguf.GGMLQuantizationType[kind]
        packed = gguf.quants.quantize(array, type_)
        writer.add_tensor("x", packed, raw_dtype=type_)
    writer.add_tensor("y", arrays["output_norm.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = read_gguf(tmp_path / "a.gguf")
    if kind == "F64":
        with pytest.raises(ModelError, match="packs 'x' as F64, which is not supported"):
            file.array("x")
    else:
        assert (file.array("x") == gguf.quants.dequantize(packed, type_)).all()
    assert (file.array("y") == arrays["output_norm.weight"]).all()


def test_large_models_are_unpacked_in_float16_unless_that_cannot_hold_them(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_input, "EXACT_PARAMETERS", 1)
    write_model(tmp_path / "a.gguf", MODEL)
    state = load(str(tmp_path / "a.gguf"), "cpu", "stored").model.state_dict()
    for name, tensor in MODEL.state_dict().items():
        assert (state[name] == tensor.half()).all()
    write_model(tmp_path / "b.gguf", MODEL, arrays={"output_norm.weight": [1e5] * 16})
    assert "holds values in 'output_norm.weight' that float16 cannot hold" in answer(tmp_path / "b.gguf")
