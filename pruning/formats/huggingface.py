"""`hf` and `padded`: folders that transformers loads.

Stock Qwen2, Qwen3 and Mistral have no bias on `down_proj`, where bias compensation puts one, and loaders that
do not know a bias skip it in silence: such a model is never written under those names. What each loader
accepts was read in its source: transformers 5.23.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.checksums import write_json
from pruning.errors import ExportError, library_errors
from pruning.files import PRUNING_FILE
from pruning.formats.format import DTYPES, FORMATS, Form, Format, Source
from pruning.formats.traits import Traits, rotary_keys
from pruning.formats.verify import compare
from pruning.models.architectures import ARCHITECTURES, layer_views
from pruning.models.folder import LoadedModel
from pruning.models.geometry import Geometry, LayerShape

if TYPE_CHECKING:
    from torch import Tensor

CODE_FILE = "modeling_pruned.py"
SHARD = "5GB"
# What stock Llama and SeedOss compute as well, in transformers.
LLAMA_COMPUTES = ("activation", "rope")
_STOCK = "transformers, lm-eval and whatever builds on them, without extra code"
_CUSTOM = (
    "transformers with trust_remote_code=True (one small file, which you can read)",
    "loaders that run no foreign code",
)
_PADDED = "no gain in memory or speed: narrower layers are filled up with zeros"
_BYTES = {"f32": 4, "f16": 2, "bf16": 2}


# --- what they make of a model -----------------------------------------------------------------------------


def bytes_of(traits: Traits, kind: str | None) -> int:
    """Bytes of a weight of a type; None for as stored."""
    return _BYTES[kind] if kind else traits.itemsize


def stock_architecture(traits: Traits, geometry: Geometry) -> tuple[str, str]:
    """The architecture of stock transformers that computes a model of equal widths.

    Returns:
        Its model type and an empty string, or an empty string and why there is none, with a way out.
    """
    divides = geometry.hidden_size % geometry.layers[0].heads == 0  # or Llama's config refuses it
    if not traits.output_bias and (traits.model_type != "llama" or divides):
        return traits.model_type, ""
    what = traits.beyond(LLAMA_COMPUTES)
    if what and not traits.output_bias:
        return "", (
            f"no stock architecture has both {what} and {geometry.layers[0].heads} heads, which do not "
            f"divide the hidden size of {geometry.hidden_size}: use --format hf."
        )
    if what:
        return "", (
            f"no stock architecture has both {what} and the biases that compensation wrote: prune with "
            "--compensation none, or use --format hf."
        )
    return "llama" if divides else "seed_oss", ""


def _judge_hf(traits: Traits, kind: str | None) -> Form:
    size = int(traits.parameters() * bytes_of(traits, kind))
    stock = stock_architecture(traits, traits.geometry)[0] if traits.equal_widths else ""
    if stock:
        return Form("hf", f"{ARCHITECTURES[stock].name}ForCausalLM", _STOCK, bytes=size)
    name = f"Pruned{ARCHITECTURES[traits.model_type].name}ForCausalLM"
    return Form("hf", name, *_CUSTOM, bytes=size)


def _judge_padded(traits: Traits, kind: str | None) -> Form:
    stock, why = stock_architecture(traits, traits.widest)
    if traits.equal_widths:
        why = "all layers have the same widths already: use --format hf."
    if why:
        return Form("padded", "", _STOCK, refusal=why)
    size = int(traits.parameters(traits.widest) * bytes_of(traits, kind))
    return Form("padded", f"{ARCHITECTURES[stock].name}ForCausalLM", _STOCK, _PADDED, size)


# --- writing ------------------------------------------------------------------------------------------------


def _write_hf(source: Source, folder: Path) -> Path:
    if source.form.custom:
        _write_custom(source.loaded, source.traits, folder, source.record)
    else:
        _write_stock(source.loaded, source.traits, folder, padded=False)
    return folder


def _write_padded(source: Source, folder: Path) -> Path:
    _write_stock(source.loaded, source.traits, folder, padded=True)
    return folder


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
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    state = (
        padded_state(loaded.model, traits.geometry, shapes.layers) if padded else loaded.model.state_dict()
    )
    for name, parameter in model.named_parameters():
        if name not in state and name.endswith(".bias"):  # which the target has and this model does not
            state[name] = torch.zeros(parameter.shape, dtype=dtype)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = loaded.model.generation_config
    save_stock(model, loaded.tokenizer, folder)
    _add_keys(folder, rotary_keys(config))


def save_stock(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights, config, generation settings and tokenizer as transformers saves them."""
    from transformers import GenerationConfig

    from pruning.models.checkpoint import write_generation_config

    settings = model.generation_config
    model.generation_config = GenerationConfig()  # transformers saves only settings that it finds consistent
    with library_errors(ExportError, "the model cannot be saved"):
        model.save_pretrained(folder, max_shard_size=SHARD)
        model.generation_config = settings
        write_generation_config(model, folder)
        tokenizer.save_pretrained(folder)


def _add_keys(folder: Path, keys: dict[str, Any]) -> None:
    """Add to what transformers wrote as `config.json`."""
    file = folder / "config.json"
    content = json.loads(file.read_text(encoding="utf-8")) | keys
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def padded_state(model: Any, geometry: Geometry, shapes: Sequence[LayerShape]) -> dict[str, Tensor]:
    """The state of a model with every layer filled up with zeros to a shape of its own.

    Exact: a channel with a zero column in `down_proj`, or a head with zero values and a zero column in
    `o_proj`, adds nothing.
    """
    state = dict(model.state_dict())
    size = geometry.head_dim
    for index, (own, shape) in enumerate(zip(geometry.layers, shapes, strict=True)):
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

    from pruning.models.surgery import add_bias, output_biases

    name, model = ARCHITECTURES[traits.model_type].name, loaded.model
    with torch.no_grad():
        for view in layer_views(model) if traits.output_bias else []:
            for linear in (view.output, view.down):  # all have one or none
                if linear.bias is None:
                    add_bias(linear, torch.zeros_like(linear.weight[:, 0]))
    save_stock(model, loaded.tokenizer, folder)
    module = Path(CODE_FILE).stem
    keys = {
        **rotary_keys(model.config),
        "architectures": [f"Pruned{name}ForCausalLM"],
        "model_type": f"pruned_{traits.model_type}",
        "auto_map": {
            "AutoConfig": f"{module}.Pruned{name}Config",
            "AutoModel": f"{module}.Pruned{name}Model",  # vLLM builds from this one
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
    _add_keys(folder, keys)
    code = Path(__file__).with_name(CODE_FILE).read_text(encoding="utf-8")
    code = code.replace("Qwen2", name).replace("qwen2", traits.model_type)
    (folder / CODE_FILE).write_text(code, encoding="utf-8")
    biased = output_biases(model)
    sites = map(str, traits.geometry.sites)
    write_json(folder / PRUNING_FILE, record | {"biased": {site: site in biased for site in sites}})


# --- loading ------------------------------------------------------------------------------------------------


def _check(source: Source, written: Path, reference: Tensor) -> float:
    from transformers import AutoModelForCausalLM

    # the code that it may run is the file that was written beside it just now
    model = AutoModelForCausalLM.from_pretrained(written, dtype="auto", trust_remote_code=True).eval()
    return compare(reference, model)


def _snippet(form: Form, path: Path) -> str:
    code = ", trust_remote_code=True" if form.custom else ""
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'model = AutoModelForCausalLM.from_pretrained("{path}"{code})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{path}"{code})'
    )


FORMATS.add(Format(tuple(DTYPES), _judge_hf, _write_hf, _check, _snippet), "hf")
FORMATS.add(Format(tuple(DTYPES), _judge_padded, _write_padded, _check, _snippet), "padded")
