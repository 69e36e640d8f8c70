"""Writing a pruned model in a form that other programs load; `homes` says which forms a model can take.

Every form computes the same function: an export is loaded again, or for llama.cpp read, and compared before
it takes its place.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.config import FORMATS, ExportError, Format, RunError
from pruning.folders import EXPORT_FILE, PRUNING_FILE, replacing
from pruning.gguf_file import GGUF_TYPES, check_gguf, write_gguf
from pruning.homes import Home, Traits, homes, stock_architecture
from pruning.model_files import BIASES_FILE, MASK_FILE, LoadedModel, locate, read_record, weights_digest
from pruning.models import load
from pruning.runs import read_json, versions
from pruning.sites import ARCHITECTURES, Geometry, LayerShape, layer_views

if TYPE_CHECKING:
    from torch import Tensor

DTYPES: dict[str, Any] = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
CODE_FILE = "modeling_pruned.py"
SHARD = "5GB"
TOLERANCE = 1e-3  # of the largest logit: float32 arithmetic in another order stays far below


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the folder, or the GGUF file.
        home: its form.
        bytes: on disk.
        difference: largest difference of a logit from the checkpoint's, over 64 tokens; None for GGUF, whose
            tensors are compared instead, and where it was not asked for.
        snippet: code that loads it.
    """

    path: Path
    home: Home
    bytes: int
    difference: float | None
    snippet: str


def export(
    source: str | Path,
    format: Format,
    out: str | Path,
    kind: str | None = None,
    verify: bool = True,
) -> Exported:
    """Write a checkpoint in another form.

    Args:
        source: folder of a dense or pruned model.
        format: `hf` is a stock architecture where the widths are equal and one fits, otherwise weights with a
            small modelling file; `padded` fills narrower layers with zeros, for a stock architecture; `gguf`
            is for llama.cpp; `masks` names the dense model and says what to cut from it.
        out: folder; an earlier export in it is replaced as a whole.
        kind: of the weights: f32, f16, bf16, and q8_0 for GGUF. As stored when left out, f16 for GGUF.
        verify: load what was written and compare.

    Raises:
        ExportError: the model cannot be written so; the sentence names the form that would do.
        ModelError: there is no such checkpoint.
        RunError: the folder holds something else or cannot be written, or what was written does not compute
            what the checkpoint does.
    """
    source, out = Path(source), Path(out).expanduser().resolve()
    if format not in FORMATS:
        raise ExportError(f"there is no format {format!r}: choose one of {', '.join(FORMATS)}.")
    if kind is not None and kind not in (GGUF_TYPES if format == "gguf" else DTYPES):
        known = ", ".join(GGUF_TYPES if format == "gguf" else DTYPES)
        raise ExportError(f"weights of type {kind!r} cannot be written as {format}: choose one of {known}.")
    traits = Traits.read(source)
    home = next(home for home in homes(traits, kind) if home.format == format)
    if home.refusal:
        raise ExportError(home.refusal)
    if source.resolve().is_relative_to(out):
        raise ExportError(f"{str(out)!r} holds the checkpoint itself: give another folder with --out.")
    name = f"{Path(traits.base or source).name}-pruned-{kind or 'f16'}.gguf"
    difference = None
    with replacing(out) as folder:
        # GGUF keeps norms and biases in float32, so they must not pass through a smaller type
        dtype: Any = "stored" if kind is None or format in ("gguf", "masks") else DTYPES[kind]
        loaded = load(str(source), "cpu", dtype)
        reference = _logits(loaded.model) if verify and format != "gguf" else None
        if format == "masks":
            _write_masks(loaded, source, folder)
        elif format == "gguf":
            write_gguf(loaded.model, loaded.tokenizer, folder / name, kind or "f16")
            if verify:
                check_gguf(loaded.model, folder / name)
        elif home.custom:
            _write_custom(loaded, traits, folder, _provenance(source, traits, home))
        else:
            _write_stock(loaded, traits, folder, padded=format == "padded")
        if not (folder / PRUNING_FILE).exists():
            _write_json(folder / EXPORT_FILE, _provenance(source, traits, home))
        del loaded  # one model in memory at a time
        if reference is not None:
            difference = _difference(reference, folder)
    path = out / name if format == "gguf" else out
    total = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Exported(path, home, total, difference, snippet(home, path))


def snippet(home: Home, path: Path) -> str:
    """Python that loads an export and writes a few words with it."""
    if home.format == "gguf":
        return f'from llama_cpp import Llama\nprint(Llama("{path}")("The river", max_tokens=20))'
    if home.format == "masks":
        return f'from pruning.models import load\nmodel = load("{path}").model'
    code = ", trust_remote_code=True" if home.custom else ""
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'model = AutoModelForCausalLM.from_pretrained("{path}"{code})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{path}"{code})'
    )


def _config(loaded: LoadedModel) -> dict[str, Any]:
    """The dense architecture's config without what names it."""
    config = loaded.model.config.to_dict()
    for key in ("architectures", "model_type", "transformers_version", "auto_map"):
        config.pop(key, None)
    return config


def _write_stock(loaded: LoadedModel, traits: Traits, folder: Path, padded: bool) -> None:
    import torch
    from accelerate import init_empty_weights
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shapes = traits.widest if padded else traits.geometry
    shape = shapes.layers[0]
    target, _ = stock_architecture(traits, shapes)
    content = _config(loaded) | {
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shapes.head_dim,
        "intermediate_size": shape.channels,
    }
    if target != traits.model_type or traits.output_bias:
        content |= {"attention_bias": True, "mlp_bias": True, "attention_dropout": 0.0}
        content |= {"attention_out_bias": True, "residual_dropout": 0.0} if target == "seed_oss" else {}
        for key in ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types"):
            content.pop(key, None)
    config = CONFIG_MAPPING[target].from_dict(content)
    dtype = next(loaded.model.parameters()).dtype
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    state = padded_state(loaded.model, traits.geometry, shape) if padded else loaded.model.state_dict()
    for name, parameter in model.named_parameters():
        if name not in state and name.endswith(".bias"):  # which the target has and this model does not
            state[name] = torch.zeros(parameter.shape, dtype=dtype)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = loaded.model.generation_config
    model.save_pretrained(folder, max_shard_size=SHARD)
    loaded.tokenizer.save_pretrained(folder)


def padded_state(model: Any, geometry: Geometry, shape: LayerShape) -> dict[str, Tensor]:
    """The state of a model with every layer filled up with zeros to one shape.

    Exact: a channel with a zero column in `down_proj`, or a head with zero values and a zero column in
    `o_proj`, adds nothing.
    """
    state = dict(model.state_dict())
    size = geometry.head_dim
    for index, own in enumerate(geometry.layers):
        query = (own.kv_heads, own.group, size), (shape.kv_heads, shape.group, size)
        key = (own.kv_heads, size), (shape.kv_heads, size)
        channels = (own.channels,), (shape.channels,)
        rows = {"self_attn.q_proj": query, "self_attn.k_proj": key, "self_attn.v_proj": key}
        for part, (have, want) in {**rows, "mlp.gate_proj": channels, "mlp.up_proj": channels}.items():
            for kind in ("weight", "bias"):
                if (name := f"model.layers.{index}.{part}.{kind}") in state:
                    state[name] = _fill(state[name], have, want)
        for part, (have, want) in {"self_attn.o_proj": query, "mlp.down_proj": channels}.items():
            name = f"model.layers.{index}.{part}.weight"
            state[name] = _fill(state[name].T, have, want).T.contiguous()
    return state


def _fill(tensor: Tensor, have: tuple[int, ...], want: tuple[int, ...]) -> Tensor:
    """Rows (prod(have), ...) with zero rows put in until they are (prod(want), ...)."""
    filled = tensor.new_zeros(*want, *tensor.shape[1:])
    filled[tuple(slice(n) for n in have)] = tensor.reshape(*have, *tensor.shape[1:])
    return filled.reshape(-1, *tensor.shape[1:])


def _write_custom(loaded: LoadedModel, traits: Traits, folder: Path, record: dict[str, Any]) -> None:
    import torch

    from pruning.surgery import add_bias, output_biases

    name, model = ARCHITECTURES[traits.model_type].name, loaded.model
    with torch.no_grad():
        for view in layer_views(model) if traits.output_bias else []:
            for linear in (view.output, view.down):  # all have one or none
                if linear.bias is None:
                    add_bias(linear, torch.zeros_like(linear.weight[:, 0]))
    model.save_pretrained(folder, max_shard_size=SHARD)
    loaded.tokenizer.save_pretrained(folder)
    module = Path(CODE_FILE).stem
    content = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {
        "architectures": [f"Pruned{name}ForCausalLM"],
        "model_type": f"pruned_{traits.model_type}",
        "auto_map": {
            "AutoConfig": f"{module}.Pruned{name}Config",
            "AutoModelForCausalLM": f"{module}.Pruned{name}ForCausalLM",
        },
        "head_dim": traits.geometry.head_dim,
        "output_bias": traits.output_bias,
        "per_layer_config": {
            str(index): {
                "num_attention_heads": shape.heads,
                "num_key_value_heads": shape.kv_heads,
                "intermediate_size": shape.channels,
            }
            for index, shape in enumerate(traits.geometry.layers)
        },
        # transformers' own constructors read the dense widths before the layers get theirs
        "allow_global_per_layer_attribute_access": True,
    }
    _write_json(folder / "config.json", content)
    code = Path(__file__).with_name(CODE_FILE).read_text(encoding="utf-8")
    code = code.replace("Qwen2", name).replace("qwen2", traits.model_type)
    (folder / CODE_FILE).write_text(code, encoding="utf-8")
    biased = output_biases(model)
    sites = map(str, traits.geometry.sites)
    _write_json(folder / PRUNING_FILE, record | {"biased": {site: site in biased for site in sites}})


def _write_masks(loaded: LoadedModel, source: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    from pruning.surgery import output_biases

    biases = {site: bias.contiguous() for site, bias in output_biases(loaded.model).items()}
    shutil.copy(source / MASK_FILE, folder / MASK_FILE)
    save_file(biases, folder / BIASES_FILE)
    record = read_record(source)
    name = record.get("base") or record["config"]["model"]
    dense = locate(name)
    if name != "demo" and Path(name).expanduser().is_dir():
        name = str(dense.resolve())  # it is to be found from any other folder as well
    record |= {"base": name, "base_digest": weights_digest(dense)}
    _write_json(folder / PRUNING_FILE, record)


def _provenance(source: Path, traits: Traits, home: Home) -> dict[str, Any]:
    """Where an export comes from: the run's method, mixture and versions, as far as its source knows them."""
    record = read_record(source) or read_json(source / EXPORT_FILE)
    for key in ("biased", "mask", "base", "base_digest"):
        record.pop(key, None)
    geometry = traits.geometry.to_dict()
    return {**record, "geometry": geometry, "architecture": home.architecture, "exported_with": versions()}


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --- comparing -------------------------------------------------------------------------------------------


def _logits(model: Any) -> Tensor:
    """(64, vocabulary) of 64 tokens, in float32 from the weights as stored; the model stays as it was."""
    import torch

    ids = torch.arange(min(64, model.config.max_position_embeddings))[None] % model.config.vocab_size
    stored = [(parameter, parameter.dtype) for parameter in model.parameters()]
    for parameter, _ in stored:  # not model.float(): that would round the rotary frequencies on the way back
        parameter.data = parameter.data.float()
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[0]
    for parameter, dtype in stored:
        parameter.data = parameter.data.to(dtype)
    return logits


def _difference(reference: Tensor, written: Path) -> float:
    """Largest difference of a logit of what was written.

    Raises:
        ExportError: the checkpoint's own logits are no numbers.
        RunError: the difference is more than rounding.
    """
    from transformers import AutoModelForCausalLM

    if not (written / "config.json").exists():
        model = load(str(written), "cpu", "float32").model  # a dense model in bfloat16 would round the biases
    else:  # the code that it may run is the file that was written beside it just now
        model = AutoModelForCausalLM.from_pretrained(written, dtype="auto", trust_remote_code=True).eval()
    largest, difference = float(reference.abs().max()), float((reference - _logits(model)).abs().max())
    if not math.isfinite(largest):
        raise ExportError(f"the model's own logits reach {largest}: its weights are broken, prune it again.")
    if not difference <= TOLERANCE * largest:
        raise RunError(
            f"nothing was kept, as what was written computes something else: a logit differs by "
            f"{difference:.3g} where the largest is {largest:.3g}: give another --format."
        )
    return difference
