"""`gguf`: a file for llama.cpp.

The architecture is `deci`, the one in stock llama.cpp whose loader takes heads and channels by layer and
biases on every projection. It rotates queries and keys in interleaved pairs where transformers rotates
halves, so their rows are permuted, as llama.cpp's own converters for Llama models do. A bias on pruned query
heads is read by llama.cpp as llama-cpp-python 0.3.36 carries it; older versions refuse it.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.errors import ExportError
from pruning.formats import llamacpp
from pruning.formats.format import FORMATS, Form, Format, Source
from pruning.formats.gguf_vocabulary import PRE_TOKENIZERS, add_tokenizer, pre_tokenizer, vocabulary
from pruning.formats.traits import Traits
from pruning.formats.verify import judged, probe
from pruning.models.architectures import CausalLM, geometry, layer_views

if TYPE_CHECKING:
    from torch import Tensor


GGUF_TYPES = ("f32", "f16", "bf16", "q8_0")
BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}  # of a weight; q8_0 has a scale to 32 weights
DEFAULT = "f16"
TESTED = "llama-cpp-python 0.3.36"
COMPUTES = ("rope:linear", "rope:llama3")  # beyond a plain Llama layer
# Of the largest logit: llama.cpp keeps keys and values in f16 and multiplies q8_0 by q8_0.
TOLERANCES = {"f32": 5e-3, "f16": 1e-2, "bf16": 3e-2, "q8_0": 1e-1}


def _judge(traits: Traits, kind: str | None) -> Form:
    form = Form("gguf", "deci", f"llama.cpp, Ollama, LM Studio (checked with {TESTED})")
    if what := traits.beyond(COMPUTES):
        return replace(form, refusal=f"llama.cpp's deci does not compute {what}: use --format hf.")
    if traits.tokenizer is not None and pre_tokenizer(traits.tokenizer) is None:
        return replace(
            form,
            refusal="the tokenizer is not a byte-level BPE that llama.cpp knows by name "
            f"({', '.join(PRE_TOKENIZERS.values())}): use --format hf.",
        )
    return replace(form, bytes=int(traits.parameters() * BYTES[kind or DEFAULT]))


def _write(source: Source, folder: Path) -> Path:
    kind = source.kind or DEFAULT
    file = folder / f"{source.name}-{kind}.gguf"
    write_gguf(source.loaded.model, source.loaded.tokenizer, file, kind)
    if source.verify:
        check_gguf(source.loaded.model, file)
    return file


def _check(source: Source, written: Path, reference: Tensor) -> float | None:
    """Logits, where llama-cpp-python is installed."""
    import torch

    if not importlib.util.find_spec("llama_cpp"):
        return None
    llm = llamacpp.open_gguf(written)
    try:
        found = torch.from_numpy(llamacpp.logits(llm, probe(*reference.shape)[0].tolist()))
    finally:
        llm.close()
    return judged(reference, found, TOLERANCES[source.kind or DEFAULT])


def _snippet(form: Form, path: Path) -> str:
    return f'from llama_cpp import Llama\nprint(Llama("{path}")("The river", max_tokens=20))'


FORMATS.add(Format(GGUF_TYPES, _judge, _write, _check, _snippet, smaller=False), "gguf")


def write_gguf(model: CausalLM, tokenizer: Any, file: Path, kind: str = "f16") -> dict[str, int]:
    """Write weights, shapes and tokenizer of a model, dense or pruned.

    Rows that `q8_0` cannot take (their length is no multiple of 32) are written as f16, as llama.cpp's
    converters do; norms and biases as f32.

    Returns:
        How many weight matrices were written as each type.

    Raises:
        KeyError: the tokenizer is none that `pre_tokenizer` knows.
    """
    import gguf

    shape, config = geometry(model), model.config
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else {}
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
    add_tokenizer(writer, tokenizer, vocabulary(content, config.vocab_size))

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
