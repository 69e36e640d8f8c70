"""`gguf`: a file for llama.cpp.

The architecture is `deci`, the one in stock llama.cpp whose loader takes heads and channels by layer and
biases on every projection. It rotates queries and keys in interleaved pairs where transformers rotates
halves, so their rows are permuted, as llama.cpp's own converters for Llama models do. A bias on pruned query
heads is read by llama.cpp as llama-cpp-python 0.3.36 carries it; older versions refuse it. Norms of queries
and keys are known to `qwen3` only, which has one width for all layers and no biases, and rotates halves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.errors import ExportError
from pruning.formats import llamacpp
from pruning.formats.format import FORMATS, Form, Format, Source
from pruning.formats.gguf_vocabulary import add_tokenizer, refusal, vocabulary
from pruning.formats.traits import Traits
from pruning.formats.verify import judged, probe
from pruning.models.family import TENSORS, CausalLM
from pruning.models.layer_view import family_of, layer_views

if TYPE_CHECKING:
    from torch import Tensor


# Bytes of a weight; q8_0 has a scale to 32 weights, and the k-quants mix types (about as in Llama models).
BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q6_k": 0.82, "q5_k_m": 0.71, "q4_k_m": 0.61}
K_QUANTS = ("q6_k", "q5_k_m", "q4_k_m")
SUPER_BLOCK = 256  # weights of a row that a k-quant stores together
DEFAULT = "f16"
TESTED = "llama-cpp-python 0.3.36"
# As `verify.TOLERANCE`. The values in the file are compared one by one before; this tells whether llama.cpp
# computes the same with them, so it leaves room for what the types round (SmolLM2 pruned by 30%: f16 0.006,
# bf16 0.04, q8_0 0.15). Of k-quants the file of whole weights is judged, which llama.cpp then quantises: how
# much it rounds is what was asked for.
TOLERANCES = {"f32": 2e-3, "f16": 5e-2, "bf16": 0.2, "q8_0": 0.5} | dict.fromkeys(K_QUANTS, math.inf)


def _judge(traits: Traits, kind: str | None) -> Form:
    layout, shape = traits.family.gguf, traits.geometry
    name = layout.architecture if layout else ""
    form = Form("gguf", name, f"llama.cpp, Ollama, LM Studio (checked with {TESTED})")
    if layout is None:
        return replace(form, refusal=f"{traits.family.name} is not written as GGUF: use --format hf.")
    if what := traits.beyond(layout.computes):
        return replace(form, refusal=f"llama.cpp's {name} does not compute {what}: use --format hf.")
    if (not layout.by_layer and not traits.equal_widths) or (
        not layout.biases and (traits.output_bias or traits.biases)
    ):
        return replace(
            form,
            refusal=f"llama.cpp's {name} has one width for all layers and no biases: use --format hf, or "
            "prune with --allocation equal --compensation none.",
        )
    if traits.tokenizer is not None and (why := refusal(traits.tokenizer)):
        return replace(form, refusal=f"{why}: use --format hf.")
    form = replace(form, bytes=int(traits.parameters() * BYTES[kind or DEFAULT]))
    if kind not in K_QUANTS:
        return form
    if not llamacpp.installed():
        return replace(
            form,
            refusal=f"weights are made {kind} by llama.cpp's own quantiser, which is not installed: "
            "pip install -r requirements-gguf.txt, or use --weights q8_0.",
        )
    rows = {shape.hidden_size, *(shape.channels(site) for site in shape.sites)}
    if any(row % SUPER_BLOCK for row in rows):
        widths = [layer["mlp"].entries for layer in shape.layers]  # no others depend on the rounding
        hint = f" (prune with --round-to {SUPER_BLOCK})" if any(w % SUPER_BLOCK for w in widths) else ""
        return replace(
            form,
            drawback=f"matrices whose rows are no multiple of {SUPER_BLOCK} are stored with more bits{hint}",
        )
    return form


def _write(source: Source, folder: Path) -> Path:
    kind, model = source.kind or DEFAULT, source.loaded.model
    file = folder / f"{source.name}-{kind}.gguf"
    if kind not in K_QUANTS:
        write_gguf(model, source.loaded.tokenizer, file, kind)
        if source.verify:
            check_gguf(model, file)
        return file
    whole = _whole(source, folder)
    write_gguf(model, source.loaded.tokenizer, whole, "f32")
    llamacpp.quantise(whole, file, kind)
    if source.verify:
        check_gguf(model, whole)
    else:
        whole.unlink()
    return file


def _whole(source: Source, folder: Path) -> Path:
    """The file that a k-quant is made from; it is there until it has been checked."""
    return folder / f"{source.name}-f32.gguf"


def _check(source: Source, written: Path, reference: Tensor) -> float | None:
    """Logits, where llama-cpp-python is installed."""
    import torch

    if not llamacpp.installed():
        return None

    def there(file: Path, kind: str) -> float:
        llm = llamacpp.open_gguf(file)
        try:
            found = torch.from_numpy(llamacpp.logits(llm, probe(*reference.shape)[0].tolist()))
        finally:
            llm.close()
        return judged(reference, found, TOLERANCES[kind])

    kind = source.kind or DEFAULT
    if kind in K_QUANTS:
        whole = _whole(source, written.parent)
        there(whole, "f32")
        whole.unlink()
    return there(written, kind)


def _snippet(form: Form, path: Path) -> str:
    return f'from llama_cpp import Llama\nprint(Llama("{path}")("The river", max_tokens=20))'


FORMATS.add(Format(tuple(BYTES), _judge, _write, _check, _snippet, smaller=False), "gguf")


def write_gguf(model: CausalLM, tokenizer: Any, file: Path, kind: str = "f16") -> dict[str, int]:
    """Write weights, shapes and tokenizer of a model, dense or pruned.

    Rows that `q8_0` cannot take (their length is no multiple of 32) are written as f16, as llama.cpp's
    converters do; norms and biases as f32.

    Returns:
        How many weight matrices were written as each type.

    Raises:
        ExportError: the tokenizer is none that llama.cpp knows.
    """
    import gguf

    family, config, views = family_of(model), model.config, layer_views(model)
    layout = family.gguf
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else {}
    if why := refusal(content):  # where the checkpoint had no tokenizer.json to judge it by
        raise ExportError(f"{why}: use --format hf.")
    assert layout is not None  # or it was refused
    head_dim = family.head_dim(config.to_dict())
    writer = gguf.GGUFWriter(str(file), layout.architecture)
    writer.add_name(config.name_or_path or "pruned model")
    writer.add_block_count(len(views))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    layers = [family.layer_config({spec.name: view.shape(spec) for spec in family.sites}) for view in views]
    for add, key in (
        (writer.add_feed_forward_length, "intermediate_size"),
        (writer.add_head_count, "num_attention_heads"),
        (writer.add_head_count_kv, "num_key_value_heads"),
    ):
        add([layer[key] for layer in layers] if layout.by_layer else layers[0][key])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(_theta(config))
    for key, value in layout.metadata(config).items():
        add_value = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add_value(f"{layout.architecture}.{key}", value)
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
                "give another --weights, such as f32."
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
    factors = _rope_factors(model)
    if factors is not None:
        yield "rope_freqs.weight", factors
    for name, tensor in _tensors(model):
        yield name, tensor.detach().float().cpu().numpy()


def _tensors(model: CausalLM) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by its name in GGUF, queries and keys permuted where llama.cpp rotates pairs."""
    family, embedding = family_of(model), model.get_input_embeddings().weight
    layout, head_dim = family.gguf, family.head_dim(model.config.to_dict())
    assert layout is not None
    yield "token_embd.weight", embedding
    yield "output_norm.weight", model.get_submodule(family.final_norm).weight + layout.gain
    if model.get_output_embeddings().weight is not embedding:  # whatever the config says
        yield "output.weight", model.get_output_embeddings().weight
    for view in layer_views(model):
        block = f"blk.{view.number}"
        for path, name in {**layout.norms, **layout.head_norms}.items():
            yield f"{block}.{name}.weight", view.module(path).weight + layout.gain
        for role, kind, tensor in view.tensors_by_role():
            rotated = layout.pairs and role in ("query", "key")
            yield f"{block}.{TENSORS[role]}.{kind}", interleave(tensor, head_dim) if rotated else tensor


def interleave(tensor: Tensor, head_dim: int) -> Tensor:
    """Rows (heads * head_dim, ...) from rotary halves to rotary pairs, head by head."""
    heads = tensor.reshape(-1, 2, head_dim // 2, *tensor.shape[1:])
    return heads.transpose(1, 2).reshape(tensor.shape)


def _theta(config: Any) -> float:
    """The base of the rotary embedding, of full attention where there are several."""
    rotary = config.rope_parameters
    return float(rotary.get("full_attention", rotary)["rope_theta"])


def _rope_factors(model: CausalLM) -> np.ndarray | None:
    """(head_dim / 2,) what the plain rotary frequencies are divided by; None where they are plain."""
    frequencies = getattr(model.base_model.rotary_emb, "inv_freq", None)
    if frequencies is None:  # one for each type of layer, and what scales them is refused
        return None
    frequencies = frequencies.double().cpu().numpy()
    plain = 1.0 / _theta(model.config) ** (np.arange(len(frequencies)) / len(frequencies))
    factors = plain / frequencies
    return None if np.allclose(factors, 1.0, rtol=1e-5) else factors.astype(np.float32)
