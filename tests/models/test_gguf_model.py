"""What a GGUF file says is computed, as transformers and llama.cpp do, or refused by its name."""

import importlib.util
import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, SeedOssConfig

from pruning.errors import ModelError
from pruning.models.folder import describe, locate, read_config
from pruning.models.gguf_input import header
from pruning.models.loading import load
from tests.conftest import needs_llama_cpp
from tests.models.gguf_files import dense, tensors, write_model

IDS = torch.randint(0, 256, (1, 200), generator=torch.manual_seed(1))
LONG, SHORT = (1 + 0.7 * np.arange(4)).tolist(), (1 + 0.1 * np.arange(4)).tolist()
SCALED = {"{arch}.rope.scaling.factor": 4.0}
YARN = {"{arch}.rope.scaling.type": "yarn", "{arch}.rope.scaling.original_context_length": 64, **SCALED}
YARN_PARAMETERS = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def longrope(short, long, **options):
    return {"rope_type": "longrope", "short_factor": short, "long_factor": long, **options}


# By name: what the file says, and the same in the words of transformers.
ROPES = {
    "plain": ({}, {"rope_type": "default"}),
    "another base": ({}, {"rope_type": "default", "rope_theta": 1e6}),
    "none, with a factor": ({"{arch}.rope.scaling.type": "none", **SCALED}, {"rope_type": "default"}),
    "linear": ({"{arch}.rope.scaling.type": "linear", **SCALED}, {"rope_type": "linear", "factor": 4.0}),
    "a factor of no type": (SCALED, {"rope_type": "linear", "factor": 4.0}),
    "the old key": ({"{arch}.rope.scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
    "yarn": (YARN, YARN_PARAMETERS),
    "yarn with an attention factor": (
        YARN | {"{arch}.rope.scaling.attn_factor": 0.8},
        YARN_PARAMETERS | {"attention_factor": 0.8 * (1 + 0.1 * math.log(4))},
    ),
    "yarn of the whole context": (
        {"{arch}.rope.scaling.type": "yarn", **SCALED},
        YARN_PARAMETERS | {"original_max_position_embeddings": 256},
    ),
}
# Factors by channel, which only a Llama's file can hold.
FACTORS = {
    "llama 3.1": LLAMA3 | {"factor": 8.0, "original_max_position_embeddings": 8192},
    "llama 3.2": LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 8192},
    "llama 3 of a short context": LLAMA3 | {"factor": 4.0, "original_max_position_embeddings": 64},
    "llama 3 of another form": LLAMA3
    | {"factor": 16.0, "high_freq_factor": 8.0, "original_max_position_embeddings": 1000},
    "the same for all channels": {"rope_type": "linear", "factor": 4.0},
    "any": longrope(LONG, LONG, factor=1.0, attention_factor=1.0, original_max_position_embeddings=256),
}


def factors(model):
    """(head_dim / 2,) as the converters write them."""
    dim = model.config.hidden_size // model.config.num_attention_heads
    dim = getattr(model.config, "head_dim", None) or dim
    plain = model.config.rope_parameters["rope_theta"] ** -(np.arange(0, dim, 2) / dim)
    return (plain / model.model.rotary_emb.inv_freq.double().numpy()).astype(np.float32)


@torch.no_grad()
def compare(file, model, llama_cpp=True):
    """A file computes what a model does, is described as it is unpacked, and llama.cpp agrees."""
    read = load(str(file), "cpu").model
    ours, theirs = read(IDS, use_cache=False).logits, model(IDS, use_cache=False).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    summary, folder = describe(str(file)), describe(str(locate(str(file))))
    assert summary == folder
    config, unpacked = header(file).config, read_config(locate(str(file)))
    assert config == {key: unpacked[key] for key in config}
    if llama_cpp and importlib.util.find_spec("llama_cpp"):
        from pruning.formats.llamacpp import logits, open_gguf

        llm = open_gguf(file)
        computed = torch.from_numpy(logits(llm, IDS[0].tolist()))
        llm.close()
        assert (computed - theirs[0]).abs().max() < 1e-3 * theirs.abs().max()
    return read


# --- rotary embeddings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ROPES)
@pytest.mark.parametrize(
    ("architecture", "config"), [("llama", LlamaConfig), ("qwen2", Qwen2Config), ("qwen3", Qwen3Config)]
)
def test_every_kind_of_rotary_embedding_is_the_one_of_transformers(architecture, config, kind, tmp_path):
    keys, parameters = ROPES[kind]
    options = {"head_dim": 16} if architecture == "qwen3" else {}
    model = dense(config, rope_parameters={"rope_theta": 10000.0, **parameters}, **options)
    compare(tmp_path / "a.gguf", write_model(tmp_path / "a.gguf", model, architecture, keys))


@pytest.mark.parametrize("kind", FACTORS)
@pytest.mark.parametrize("head_dim", [8, 64])
def test_rotary_factors_become_the_parameters_that_they_were_made_of(kind, head_dim, tmp_path):
    parameters = {"rope_theta": 10000.0, **FACTORS[kind]}
    for name in ("short_factor", "long_factor"):
        if name in parameters:
            parameters[name] = (1 + np.linspace(0, 3, head_dim // 2)).tolist()
    model = dense(LlamaConfig, head_dim=head_dim, rope_parameters=parameters)
    write_model(tmp_path / "a.gguf", model, arrays={"rope_freqs.weight": factors(model)})
    read = compare(tmp_path / "a.gguf", model)
    if head_dim == 64:
        rope = read.config.rope_parameters
        assert rope["rope_type"] == parameters["rope_type"]
        assert rope.get("factor") == parameters.get("factor")


@torch.no_grad()
def test_long_factors_are_used_beyond_the_original_context_only(tmp_path):
    parameters = longrope(
        SHORT, LONG, factor=4.0, attention_factor=1.2, original_max_position_embeddings=64, rope_theta=1e4
    )
    keys = {f"{{arch}}.rope.scaling.{k}": v for k, v in
            {"type": "longrope", "original_context_length": 64, "attn_factor": 1.2}.items()}  # fmt: skip
    model = dense(LlamaConfig, head_dim=8, rope_parameters=parameters)
    arrays = {"rope_factors_long.weight": LONG, "rope_factors_short.weight": SHORT}
    read = compare(tmp_path / "a.gguf", write_model(tmp_path / "a.gguf", model, keys=keys, arrays=arrays))
    few = IDS[:, :60]  # llama.cpp goes by the context that it was opened with
    torch.testing.assert_close(read(few, use_cache=False).logits, model(few, use_cache=False).logits)


@needs_llama_cpp
@pytest.mark.parametrize(
    ("keys", "arrays"),
    [
        ({"{arch}.rope.scaling.attn_factor": 0.9}, {}),
        (SCALED, {"rope_freqs.weight": LONG}),
        (SCALED | {"{arch}.rope.scaling.attn_factor": 1.1}, {"rope_freqs.weight": LONG}),
    ],
)
@torch.no_grad()
def test_what_transformers_has_no_word_for_is_computed_as_llama_cpp_does(keys, arrays, tmp_path):
    from pruning.formats.llamacpp import logits, open_gguf

    write_model(tmp_path / "a.gguf", dense(LlamaConfig, head_dim=8), keys=keys, arrays=arrays)
    ours = load(str(tmp_path / "a.gguf"), "cpu").model(IDS, use_cache=False).logits[0]
    llm = open_gguf(tmp_path / "a.gguf")
    assert np.abs(logits(llm, IDS[0].tolist()) - ours.numpy()).max() < 1e-3 * ours.abs().max()
    llm.close()


@pytest.mark.parametrize("name", ["hf", "gguf"])
def test_what_is_exported_rotates_as_the_file_says(name, tmp_path, text_file):
    from pruning import RunConfig, prune
    from pruning.formats.write import export

    parameters = LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 64}
    model = dense(LlamaConfig, head_dim=64, rope_parameters=parameters)
    write_model(tmp_path / "a.gguf", model, arrays={"rope_freqs.weight": factors(model)})
    options = {"mixture": {"text": 1}, "domains": {"text": str(text_file)}, "samples": 4, "seq_len": 24}
    config = RunConfig.create(
        model=str(tmp_path / "a.gguf"), ratio=0.4, iterations=1, eval_blocks=0, **options
    )
    run = prune(config).run
    written = export(run.checkpoint, name, tmp_path / "out", "f32" if name == "gguf" else None)
    path = written.path if name == "gguf" else written.path / "config.json"
    config = header(path).config if name == "gguf" else read_config(path.parent)
    assert config["rope_parameters"] == parameters


# --- biases and windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "config", "options", "model_type"),
    [
        ("llama", LlamaConfig, {"attention_bias": True}, "llama"),
        ("llama", LlamaConfig, {"mlp_bias": True}, "llama"),
        ("llama", LlamaConfig, {"attention_bias": True, "mlp_bias": True}, "llama"),
        ("llama", Qwen2Config, {}, "qwen2"),
        ("llama", SeedOssConfig, {"attention_out_bias": False, "mlp_bias": True}, "seed_oss"),
        ("llama", SeedOssConfig, {"attention_bias": False, "attention_out_bias": True}, "llama"),
        ("deci", SeedOssConfig, {"attention_out_bias": True, "mlp_bias": True}, "llama"),
        (
            "deci",
            LlamaConfig,
            {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 48},
            "llama",
        ),
        (  # heads that do not divide the width, which transformers' Llama refuses
            "llama",
            SeedOssConfig,
            {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 8, "attention_bias": False},
            "llama",
        ),
        ("qwen2", Qwen2Config, {}, "qwen2"),
        ("qwen2", Qwen2Config, {"tie_word_embeddings": True}, "qwen2"),
        ("qwen3", Qwen3Config, {"head_dim": 8}, "qwen3"),
    ],
)
def test_biases_are_computed_with(architecture, config, options, model_type, tmp_path):
    if config is SeedOssConfig:
        options = {"head_dim": 4, "attention_dropout": 0.0, "residual_dropout": 0.0, **options}
    model = dense(config, **options)
    read = compare(tmp_path / "a.gguf", write_model(tmp_path / "a.gguf", model, architecture))
    assert read.config.model_type == model_type


@torch.no_grad()
def test_biases_of_some_layers_and_projections_are_computed_with(tmp_path):
    """What the file has no bias for gets zeros where the model type wants one."""
    for names in (("attn_q",), ("attn_v", "ffn_up"), ("attn_output",), ("ffn_down",), ("attn_k", "ffn_down")):
        model = dense(LlamaConfig, attention_bias=True, mlp_bias=True)
        remaining = {f"blk.1.{name}.bias" for name in names}
        biases = {name for name in tensors(model, "llama") if name.endswith("bias")}
        for module in (m for m in model.modules() if getattr(m, "bias", None) is not None):
            module.bias.add_(1.0)
        file = tmp_path / f"{'-'.join(names)}.gguf"
        write_model(file, model, drop=tuple(biases - remaining))
        zeroed = {name: np.zeros_like(array) for name, array in tensors(model, "llama").items()
                  if name in biases - remaining}  # fmt: skip
        write_model(tmp_path / "zeros.gguf", model, arrays=zeroed)
        compare(file, load(str(tmp_path / "zeros.gguf"), "cpu").model)


def test_a_window_shorter_than_the_context_is_mistrals(tmp_path):
    model = dense(MistralConfig, sliding_window=20)
    keys = {"{arch}.attention.sliding_window": 20}
    write_model(tmp_path / "a.gguf", model, keys=keys)
    assert compare(tmp_path / "a.gguf", model, llama_cpp=False).config.model_type == "mistral"
    write_model(tmp_path / "wide.gguf", model, keys={"{arch}.attention.sliding_window": 256})
    assert load(str(tmp_path / "wide.gguf"), "cpu").model.config.model_type == "llama"


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("{arch}.rope.scaling.type", "ntk"),
        ("{arch}.rope.scaling.alpha", 1000.0),
        ("{arch}.rope.scaling.yarn_log_multiplier", 0.1),
        ("{arch}.rope.scaling.attn_factor", 0.0),
        ("{arch}.rope.freq_base", -1.0),
        ("{arch}.rope.freq_base", math.nan),
        ("{arch}.rope.dimension_count", 2),
        ("{arch}.rope.dimension_sections", [1, 1, 0, 0]),
        ("{arch}.attention.value_length", 8),
        ("{arch}.attention.scale", 0.1),
        ("{arch}.attention.causal", False),
        ("{arch}.attention.clamp_kqv", 8.0),
        ("{arch}.attention.sliding_window_pattern", 4),
        ("{arch}.attention.layer_norm_rms_epsilon", "small"),
        ("{arch}.expert_count", 8),
        ("{arch}.logit_scale", 0.5),
        ("{arch}.embedding_scale", 12.0),
        ("{arch}.residual_scale", 0.22),
        ("{arch}.final_logit_softcapping", 30.0),
        ("{arch}.hidden_activation", "gelu"),
        ("{arch}.use_parallel_residual", True),
        ("{arch}.of_tomorrow", 1),
        ("{arch}.block_count", 10**6),
        ("{arch}.embedding_length", "wide"),
        ("{arch}.feed_forward_length", [48, 40, 48]),
        ("{arch}.attention.head_count_kv", 3),
        ("another.context_length", 64),
        ("general.type", "adapter"),
        ("split.count", 3),
        ("tokenizer.ggml.model", "t5"),
        ("tokenizer.ggml.eos_token_id", 257),
        ("tokenizer.ggml.add_bos_token", 1),
        ("tokenizer.ggml.add_bos_token", True),  # and no bos_token_id
        ("tokenizer.ggml.remove_extra_whitespaces", True),
        ("tokenizer.ggml.precompiled_charsmap", [1, 2, 3]),
        ("tokenizer.ggml.merges", ["a nothing"]),
        ("tokenizer.ggml.of_tomorrow", 1),
        ("tokenizer.chat_template", 7),
    ],
)
def test_a_key_that_is_not_known_is_refused_by_its_name(key, value, tmp_path):
    file = tmp_path / "a.gguf"
    write_model(file, dense(LlamaConfig), keys={key: value})
    with pytest.raises(ModelError) as raised:
        load(str(file), "cpu")
    message = str(raised.value)
    words = {"split.count": "one of 3 parts", "tokenizer.ggml.model": "a tokenizer of the kind 't5'"}
    words |= {"tokenizer.ggml.merges": "the merge 'a nothing'"}
    words |= {"{arch}.attention.head_count_kv": "8 query heads for 3 key-value heads"}
    assert words.get(key, key.replace("{arch}", "llama")) in message
    assert len(message.splitlines()) == 1 and len(message) < 500


@pytest.mark.parametrize(
    "name",
    ["blk.0.attn_qkv.weight", "blk.0.attn_q_norm.weight", "blk.7.attn_q.bias", "blk.0.ffn_gate_inp.weight",
     "output.bias", "rope_factors_long.weight", "blk.0.attn_norm.bias", "token_embd_norm.weight",
     "blk.0.attn_q.scale"],
)  # fmt: skip
def test_a_tensor_that_is_not_known_is_refused_by_its_name(name, tmp_path):
    write_model(tmp_path / "a.gguf", dense(LlamaConfig), arrays={name: np.ones(4)})
    with pytest.raises(ModelError, match=f"holds the tensor '{name}', which is not supported"):
        describe(str(tmp_path / "a.gguf"))


@pytest.mark.parametrize(
    ("architecture", "keys", "arrays", "says"),
    [
        ("qwen2", {"{arch}.attention.sliding_window": 20}, {}, "qwen2.attention.sliding_window = 20"),
        ("qwen2", {}, {"rope_freqs.weight": LONG}, "the tensor 'rope_freqs.weight'"),
        ("qwen3", {}, {"blk.1.ffn_up.bias": np.ones(48)}, "the tensor 'blk.1.ffn_up.bias'"),
        (
            "llama",
            YARN,
            {"rope_freqs.weight": LONG},
            "'rope_freqs.weight' beside llama.rope.scaling.type 'yarn'",
        ),
        ("llama", {}, {"rope_freqs.weight": [1, 2, -3, 4]}, "'rope_freqs.weight', which is not 4 numbers"),
        ("llama", {"{arch}.rope.scaling.type": "longrope"}, {}, "lacks 'rope_factors_short.weight'"),
        (
            "llama",
            {"{arch}.attention.sliding_window": 20},
            {"blk.0.attn_q.bias": np.ones(64)},
            "sliding_window = 20 and holds 'blk.0.attn_q.bias'",
        ),
        ("deci", {"{arch}.attention.head_count": [8, 0, 8]}, {}, "head_count = 0 of layer 1"),
        ("deci", {"{arch}.feed_forward_length": [48, 0, 48]}, {}, "feed_forward_length = 0 of layer 1"),
        ("deci", {"{arch}.feed_forward_length": [48, 48]}, {}, "its 3 layers need one width for each"),
    ],
)
def test_what_a_family_does_not_compute_is_refused(architecture, keys, arrays, says, tmp_path):
    config = {"qwen2": Qwen2Config, "qwen3": Qwen3Config}.get(architecture, LlamaConfig)
    write_model(tmp_path / "a.gguf", dense(config, head_dim=8), architecture, keys, arrays)
    with pytest.raises(ModelError) as raised:
        load(str(tmp_path / "a.gguf"), "cpu")
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "keys",
    [
        {"general.file_type": 0, "general.tags": ["a"], "general.sampling.temp": 0.6},
        {"quantize.imatrix.file": "imatrix.dat", "quantize.imatrix.chunks_count": 128},
        {"split.count": 1, "split.no": 0, "split.tensors.count": 30},
        {"{arch}.expert_count": 0, "{arch}.vocab_size": 257, "{arch}.attention.scale": 0.5},
        {"{arch}.logit_scale": 1.0, "{arch}.attention.causal": True, "{arch}.pooling_type": 0},
        {"tokenizer.ggml.fim_pre_token_id": 3, "tokenizer.ggml.add_sep_token": False},
    ],
)
def test_what_changes_nothing_may_be_said(keys, tmp_path):
    model = dense(LlamaConfig)
    file = tmp_path / "a.gguf"
    compare(file, write_model(file, model, keys=keys), llama_cpp="split.count" not in keys)  # uint16 there
