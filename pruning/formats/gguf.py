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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.errors import ExportError
from pruning.formats import llamacpp
from pruning.formats.checkpoint_info import CheckpointInfo
from pruning.formats.format import FORMATS, ExportJob, ExportPlan, Format
from pruning.formats.gguf_vocabulary import add_tokenizer, unsupported_reason, vocabulary
from pruning.formats.verify import check_difference, probe
from pruning.models.family import CausalLM
from pruning.models.gguf_model import parameters
from pruning.models.layer_view import family_of, layer_views

if TYPE_CHECKING:
    from torch import Tensor


# Bytes of a weight; q8_0 has a scale to 32 weights, and the k-quants mix types (about as in Llama models).
BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q6_k": 0.82, "q5_k_m": 0.71, "q4_k_m": 0.61}
K_QUANTS = ("q6_k", "q5_k_m", "q4_k_m")
SUPER_BLOCK = 256  # weights of a row that a k-quant stores together
DEFAULT = "f16"
TESTED = "llama-cpp-python 0.3.36"
_LOADS_IN = "llama.cpp, Ollama, LM Studio"
# As `verify.TOLERANCE`. The values in the file are compared one by one before; these only show whether
# llama.cpp computes the same with them, so they leave room for what the types round (SmolLM2 pruned by 30%:
# f16 0.006, bf16 0.04, q8_0 0.15). Of a k-quant the f32 file is checked, which llama.cpp then quantises: how
# much it rounds is what was asked for.
TOLERANCES = {"f32": 2e-3, "f16": 5e-2, "bf16": 0.2, "q8_0": 0.5} | dict.fromkeys(K_QUANTS, math.inf)


def _unsupported_reason(info: CheckpointInfo, kind: str | None) -> str:
    if (layout := info.family.gguf) is None:
        return f"{info.family.name} is not written as GGUF: use --format hf."
    name = layout.architecture
    if feature := info.unsupported_feature(layout.computes):
        return f"llama.cpp's {name} does not compute {feature}: use --format hf."
    biased = info.output_bias or info.biases
    if (not layout.by_layer and not info.equal_widths) or (not layout.biases and biased):
        return (
            f"llama.cpp's {name} has one width for all layers and no biases: use --format hf, or prune with "
            "--allocation equal --compensation none."
        )
    if info.tokenizer is not None and (reason := unsupported_reason(info.tokenizer)):
        return f"{reason}: use --format hf."
    if kind in K_QUANTS and not llamacpp.installed():
        return (
            f"weights are made {kind} by llama.cpp's own quantiser, which is not installed: pip install -r "
            "requirements-gguf.txt, or use --weights q8_0."
        )
    return ""


def _plan(info: CheckpointInfo, kind: str | None) -> ExportPlan:
    layout, shape = info.family.gguf, info.geometry
    name, loads_in = layout.architecture if layout else "", f"{_LOADS_IN} (checked with {TESTED})"
    if reason := _unsupported_reason(info, kind):
        return ExportPlan("gguf", name, loads_in, unsupported_reason=reason)
    drawback = ""
    rows = {shape.hidden_size, *(shape.channels(site) for site in shape.sites)}
    if kind in K_QUANTS and any(row % SUPER_BLOCK for row in rows):
        widths = [layer["mlp"].entries for layer in shape.layers]  # no others depend on the rounding
        hint = f" (prune with --round-to {SUPER_BLOCK})" if any(w % SUPER_BLOCK for w in widths) else ""
        drawback = f"matrices whose rows are no multiple of {SUPER_BLOCK} are stored with more bits{hint}"
    return ExportPlan("gguf", name, loads_in, drawback, int(info.parameters() * BYTES[kind or DEFAULT]))


def _write(job: ExportJob, folder: Path) -> Path:
    kind, model = job.kind or DEFAULT, job.loaded.model
    file = folder / f"{job.name}-{kind}.gguf"
    unquantised = _unquantised(job, file)
    write_gguf(model, job.loaded.tokenizer, unquantised, "f32" if kind in K_QUANTS else kind)
    if job.verify:
        check_gguf(model, unquantised)
    if unquantised != file:
        llamacpp.quantise(unquantised, file, kind)
        if not job.verify:
            unquantised.unlink()
    return file


def _unquantised(job: ExportJob, file: Path) -> Path:
    """The file that a k-quant is made from, which the check removes; of other types the file itself."""
    return file.with_name(f"{job.name}-f32.gguf") if job.kind in K_QUANTS else file


def _check(job: ExportJob, written: Path, reference: Tensor) -> float | None:
    """Compare logits, where llama-cpp-python is installed."""
    import torch

    if not llamacpp.installed():
        return None

    def check(file: Path, kind: str) -> float:
        llm = llamacpp.open_gguf(file)
        try:
            exported = torch.from_numpy(llamacpp.logits(llm, probe(*reference.shape)[0].tolist()))
        finally:
            llm.close()
        return check_difference(reference, exported, TOLERANCES[kind])

    if (unquantised := _unquantised(job, written)) != written:
        check(unquantised, "f32")
        unquantised.unlink()
    return check(written, job.kind or DEFAULT)


def _snippet(plan: ExportPlan, path: Path) -> str:
    return f'from llama_cpp import Llama\nprint(Llama("{path}")("The river", max_tokens=20))'


FORMATS.add(Format(tuple(BYTES), _plan, _write, _check, _snippet, casts_weights=False), "gguf")


def write_gguf(model: CausalLM, tokenizer: Any, file: Path, kind: str = DEFAULT) -> None:
    """Write weights, shapes and tokenizer of a model, dense or pruned.

    Rows that `q8_0` cannot take (their length is no multiple of 32) are written as f16, as llama.cpp's
    converters do; norms and biases as f32.

    Raises:
        ExportError: the tokenizer is none that llama.cpp knows.
    """
    import gguf

    family, config, views = family_of(model), model.config, layer_views(model)
    layout = family.gguf
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else {}
    if reason := unsupported_reason(content):  # the checkpoint may have no tokenizer.json to plan by
        raise ExportError(f"{reason}: use --format hf.")
    assert layout is not None  # or the plan has a reason against it
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
    for name, array in _arrays(model):
        if array.ndim == 1:
            writer.add_tensor(name, array)
            continue
        fitting = "f16" if kind == "q8_0" and array.shape[-1] % 32 else kind
        quantisation = gguf.GGMLQuantizationType[fitting.upper()]
        writer.add_tensor(name, gguf.quants.quantize(array, quantisation), raw_dtype=quantisation)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def check_gguf(model: CausalLM, file: Path) -> None:
    """Check that a file holds every tensor of a model and no other, with its values to within its type.

    Raises:
        ExportError: it does not, since a weight is beyond the range of f16, say.
    """
    import gguf

    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    for name, array in _arrays(model):
        if (tensor := stored.pop(name, None)) is None:
            raise ExportError(f"{name!r} is not in the GGUF file that was written: use --format hf.")
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.tensor_type.name.lower()
        if values.shape != array.shape or not (abs(values - array) <= _rounding(array, kind)).all():
            raise ExportError(
                f"{name!r} does not come back from the GGUF file as it was: {kind} cannot hold its values: "
                "give another --weights, such as f32."
            )
    if stored:
        raise ExportError(f"the GGUF file that was written holds {min(stored)!r} as well: use --format hf.")


def _rounding(array: np.ndarray, kind: str) -> np.ndarray | float:
    """The largest error of a stored value: half a step of the type."""
    if kind == "q8_0":  # 127 steps on each side to the largest of 32 values; the step itself is an f16
        largest = np.abs(array.reshape(-1, 32)).max(axis=1).repeat(32).reshape(array.shape)
        return largest * (0.5 / 127 + 2**-11) * 1.01 + 127 * 2**-25
    bits, least = {"f16": (11, 2**-25), "bf16": (8, 0.0), "f32": (24, 0.0)}[kind]
    return np.abs(array) * 2.0**-bits + least


def _arrays(model: CausalLM) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of a file, in float32, by its name there."""
    family, views = family_of(model), layer_views(model)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    config = model.config.to_dict() | {"tie_word_embeddings": tied}  # whatever the config says
    layers = [[view.shape(spec) for spec in family.sites] for view in views]
    biased = {str(site): view.projection(site.name).bias is not None for view in views for site in view.sites}
    state, head_dim = model.state_dict(), family.head_dim(config)
    if (factors := _rope_factors(model)) is not None:
        yield "rope_freqs.weight", factors
    assert family.gguf is not None
    for parameter in parameters(family, family.gguf, config, layers, biased):
        rows = [shape[0] for shape in parameter.shapes]
        pieces = zip(parameter.tensors, state[parameter.name].split(rows), parameter.interleaved, strict=True)
        for name, piece, pairs in pieces:
            array = (interleave(piece, head_dim) if pairs else piece).float().cpu().numpy()
            yield name, array + np.float32(parameter.gain) if parameter.gain else array


def interleave(tensor: Tensor, head_dim: int) -> Tensor:
    """Rows (heads * head_dim, ...) of rotary halves, as rows of rotary pairs."""
    heads = tensor.reshape(-1, 2, head_dim // 2, *tensor.shape[1:])
    return heads.transpose(1, 2).reshape(tensor.shape)


def _theta(config: Any) -> float:
    """The base of the rotary embedding, of full attention where there are several."""
    rotary = config.rope_parameters
    return float(rotary.get("full_attention", rotary)["rope_theta"])


def _rope_factors(model: CausalLM) -> np.ndarray | None:
    """The divisors (head_dim / 2,) of the plain rotary frequencies; None where all are 1."""
    frequencies = getattr(model.base_model.rotary_emb, "inv_freq", None)
    if frequencies is None:  # one for each type of layer, and what scales them is refused
        return None
    frequencies = frequencies.double().cpu().numpy()
    plain = 1.0 / _theta(model.config) ** (np.arange(len(frequencies)) / len(frequencies))
    factors = plain / frequencies
    return None if np.allclose(factors, 1.0, rtol=1e-5) else factors.astype(np.float32)
