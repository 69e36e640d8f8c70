"""Writing a model as GGUF for llama.cpp.

The architecture is `deci`, the one in stock llama.cpp whose loader takes heads and channels by layer and
biases on every projection. It rotates queries and keys in interleaved pairs where transformers rotates
halves, so their rows are permuted, as llama.cpp's own converters for Llama models do. A bias on pruned query
heads is read by llama.cpp as llama-cpp-python 0.3.36 carries it; older versions refuse it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.config import ExportError
from pruning.sites import CausalLM, geometry, layer_views

if TYPE_CHECKING:
    from torch import Tensor

GGUF_TYPES = ("f32", "f16", "bf16", "q8_0")
BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}  # of a weight; q8_0 has a scale to 32 weights
TESTED = "llama-cpp-python 0.3.36"

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# llama.cpp's name of a pre-tokenizer, by the pattern that tokenizer.json splits text with.
PRE_TOKENIZERS = {_QWEN2: "qwen2", _QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1): "llama-bpe", None: "gpt-2"}


def refusal(
    model_type: str, window: bool, config: Mapping[str, Any], tokenizer: Mapping[str, Any] | None
) -> str:
    """Why llama.cpp's `deci` cannot compute a model, in words with a way out; empty if it can.

    Args:
        model_type: as transformers names the dense model.
        window: whether attention looks back over a window shorter than the context.
        config: as in `config.json`.
        tokenizer: as in `tokenizer.json`; None where that is not known yet.
    """
    if model_type == "qwen3":
        return "llama.cpp's deci has no norms of queries and keys, which Qwen3 has: use --format hf."
    if window:
        return "llama.cpp's deci has no sliding-window attention: use --format hf."
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):  # the others scale attention, or change with the length
        return f"llama.cpp's deci has no rotary embedding of type {kind!r}: use --format hf."
    if tokenizer is not None and _pre_tokenizer(tokenizer) is None:
        return (
            "the tokenizer is not a byte-level BPE that llama.cpp knows by name "
            f"({', '.join(PRE_TOKENIZERS.values())}): use --format hf."
        )
    return ""


def write_gguf(model: CausalLM, tokenizer: Any, file: Path, kind: str = "f16") -> dict[str, int]:
    """Write weights, shapes and tokenizer of a model, dense or pruned.

    Rows that `q8_0` cannot take (their length is no multiple of 32) are written as f16, as llama.cpp's
    converters do; norms and biases as f32.

    Returns:
        How many weight matrices were written as each type.

    Raises:
        ExportError: see `refusal`.
    """
    import gguf

    shape, config = geometry(model), model.config
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else {}
    if why := refusal(config.model_type, False, config.to_dict(), content):  # its caller knows of windows
        raise ExportError(why)
    writer = gguf.GGUFWriter(str(file), "deci")
    writer.add_name(config.name_or_path or "pruned model")
    writer.add_block_count(len(shape.layers))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length([layer.channels for layer in shape.layers])
    writer.add_head_count([layer.heads for layer in shape.layers])
    writer.add_head_count_kv([layer.kv_heads for layer in shape.layers])
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[types[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, tokenizer, _vocabulary(content, config.vocab_size))

    counts: dict[str, int] = {}
    for name, array in _arrays(model):
        if array.ndim == 1:
            writer.add_tensor(name, array)
            continue
        used = "f16" if kind == "q8_0" and array.shape[-1] % 32 else kind
        counts[used] = counts.get(used, 0) + 1
        quantisation = gguf.GGMLQuantizationType[used.upper()]
        writer.add_tensor(name, gguf.quants.quantize(array, quantisation), raw_dtype=quantisation)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return counts


def check_gguf(model: CausalLM, file: Path) -> None:
    """Read a file back: every tensor is there, has its shape, and its values to within its type.

    Raises:
        ExportError: one is not, such as a weight that is beyond the range of f16.
    """
    import gguf

    found = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    for name, array in _arrays(model):
        if (tensor := found.pop(name, None)) is None:
            raise ExportError(f"{name!r} is not in the GGUF file that was written: use --format hf.")
        back = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.tensor_type.name.lower()
        if back.shape != array.shape or not (abs(back - array) <= _rounding(array, kind)).all():
            raise ExportError(
                f"{name!r} does not come back from the GGUF file as it was: {kind} cannot hold its values: "
                "give another --type, such as f32."
            )
    if found:
        raise ExportError(f"the GGUF file that was written holds {min(found)!r} as well: use --format hf.")


def _rounding(array: np.ndarray, kind: str) -> np.ndarray | float:
    """How far a value may lie from what was stored: half a step of the type."""
    if kind == "q8_0":  # 127 steps on each side to the largest of 32 values; the step itself is an f16
        largest = np.abs(array.reshape(-1, 32)).max(axis=1).repeat(32).reshape(array.shape)
        return largest * (0.5 / 127 + 2**-11) * 1.01 + 127 * 2**-25
    bits, least = {"f16": (11, 2**-25), "bf16": (8, 0.0), "f32": (24, 0.0)}[kind]
    return np.abs(array) * 2.0**-bits + least


def _arrays(model: CausalLM) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor as it is to be stored, in float32, by its name in GGUF."""
    head_dim = geometry(model).head_dim
    factors = _rope_factors(model, head_dim)
    if factors is not None:
        yield "rope_freqs.weight", factors
    for name, tensor in _tensors(model, head_dim):
        yield name, tensor.detach().float().cpu().numpy()


def _tensors(model: CausalLM, head_dim: int) -> list[tuple[str, Tensor]]:
    """Every tensor by its name in GGUF, queries and keys permuted."""
    found: list[tuple[str, Tensor]] = [
        ("token_embd.weight", model.get_input_embeddings().weight),
        ("output_norm.weight", model.model.norm.weight),
    ]
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:  # whatever it says
        found.append(("output.weight", model.get_output_embeddings().weight))
    for index, view in enumerate(layer_views(model)):
        block = f"blk.{index}"
        found.append((f"{block}.attn_norm.weight", view.layer.input_layernorm.weight))
        found.append((f"{block}.ffn_norm.weight", view.layer.post_attention_layernorm.weight))
        for name, linear in (
            ("attn_q", view.query),
            ("attn_k", view.key),
            ("attn_v", view.value),
            ("attn_output", view.output),
            ("ffn_gate", view.gate),
            ("ffn_up", view.up),
            ("ffn_down", view.down),
        ):
            for kind, tensor in linear.named_parameters():
                rotated = name in ("attn_q", "attn_k")
                found.append((f"{block}.{name}.{kind}", interleave(tensor, head_dim) if rotated else tensor))
    return found


def interleave(tensor: Tensor, head_dim: int) -> Tensor:
    """Rows (heads * head_dim, ...) from rotary halves to rotary pairs, head by head."""
    heads = tensor.reshape(-1, 2, head_dim // 2, *tensor.shape[1:])
    return heads.transpose(1, 2).reshape(tensor.shape)


def _rope_factors(model: CausalLM, head_dim: int) -> np.ndarray | None:
    """(head_dim / 2,) what the plain rotary frequencies are divided by; None where they are plain."""
    theta = model.config.rope_parameters["rope_theta"]
    plain = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    factors = plain / model.model.rotary_emb.inv_freq.double().cpu().numpy()
    return None if np.allclose(factors, 1.0, rtol=1e-5) else factors.astype(np.float32)


# --- the tokenizer ---------------------------------------------------------------------------------------


def _pre_tokenizer(content: Mapping[str, Any]) -> str | None:
    """llama.cpp's name of how a `tokenizer.json` splits text; None if it has none, or it is no such BPE."""
    stages = content.get("pre_tokenizer") or {}
    stages = stages.get("pretokenizers", [stages])
    patterns = [s["pattern"].get("Regex") for s in stages if s.get("type") == "Split"]
    byte_level = any(s.get("type") == "ByteLevel" for s in stages)
    if (content.get("model") or {}).get("type") != "BPE" or not byte_level or len(patterns) > 1:
        return None
    return PRE_TOKENIZERS.get(patterns[0] if patterns else None)


def _vocabulary(content: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Tokens, types, merges and the pre-tokenizer's name, from what `tokenizer.json` holds."""
    import gguf

    bpe = content["model"]
    tokens = {index: token for token, index in bpe["vocab"].items()}
    types = dict.fromkeys(tokens, gguf.TokenType.NORMAL)
    for added in content.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    return {
        "pre": _pre_tokenizer(content),
        "tokens": [tokens.get(i, f"[PAD{i}]") for i in range(size)],
        "types": [types.get(i, gguf.TokenType.UNUSED) for i in range(size)],
        "merges": [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]],
    }


def _add_tokenizer(writer: Any, tokenizer: Any, vocabulary: dict[str, Any]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["types"])
    # llama.cpp wants the list to be there and GGUF has no empty ones: a merge that never applies does no harm
    writer.add_token_merges(vocabulary["merges"] or ["\u0120 \u0120"])
    for name in ("bos", "eos", "pad"):
        if (token := getattr(tokenizer, f"{name}_token_id", None)) is not None:
            getattr(writer, f"add_{name}_token_id")(token)
    first = tokenizer("a").input_ids[:1]
    writer.add_add_bos_token(first == [tokenizer.bos_token_id] != [None])
    if template := getattr(tokenizer, "chat_template", None):
        named = isinstance(template, dict)  # several: for tools, say, beside the default one
        writer.add_chat_template(
            [{"name": name, "template": text} for name, text in template.items()] if named else template
        )
