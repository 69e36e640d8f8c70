"""`hf` and `padded`: folders that transformers loads.

Stock Qwen2, Qwen3 and Mistral have no bias on `down_proj`, where bias compensation puts one, and loaders that
do not know a bias skip it in silence: such a model is never written under those names. What each loader
accepts was read in its source: transformers 5.23.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.checksums import write_json
from pruning.errors import ExportError, library_errors
from pruning.files import PRUNING_FILE
from pruning.formats.format import DTYPES, FORMATS, Form, Format, Source
from pruning.formats.traits import Traits, rotary_keys
from pruning.formats.verify import compare
from pruning.models.families import FAMILIES
from pruning.models.family import LLAMA_PATHS, Family, Heads
from pruning.models.folder import LoadedModel
from pruning.models.geometry import Geometry
from pruning.models.layer_view import layer_views

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
    family = traits.family
    heads = next((shape.entries for shape in geometry.layers[0].values() if shape.has_heads), 1)
    divides = geometry.hidden_size % heads == 0
    if not traits.output_bias and (divides or not family.heads_divide):
        return family.model_type, ""
    if not family.as_llama:
        why = f"takes no {heads} heads, which do not divide {geometry.hidden_size}: prune otherwise"
        if traits.output_bias:
            why = "has no biases on its output projections: prune with --compensation none"
        return "", f"stock {family.name} {why}, or use --format hf."
    what = traits.beyond(LLAMA_COMPUTES)
    if what and not traits.output_bias:
        return "", (
            f"no stock architecture has both {what} and {heads} heads, which do not "
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
        return Form("hf", FAMILIES[stock].class_names[2], _STOCK, bytes=size)
    name = f"Pruned{traits.family.class_names[2]}"
    return Form("hf", name, *_CUSTOM, bytes=size)


def _judge_padded(traits: Traits, kind: str | None) -> Form:
    stock, why = stock_architecture(traits, traits.widest)
    if traits.equal_widths:
        why = "all layers have the same widths already: use --format hf."
    if why:
        return Form("padded", "", _STOCK, refusal=why)
    size = int(traits.parameters(traits.widest) * bytes_of(traits, kind))
    return Form("padded", FAMILIES[stock].class_names[2], _STOCK, _PADDED, size)


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

    family = traits.family
    shapes = traits.widest if padded else traits.geometry
    target, _ = stock_architecture(traits, shapes)
    content = _config(loaded) | family.layer_config(shapes.layers[0])
    if "attn" in shapes.names:
        content["head_dim"] = shapes.layers[0]["attn"].width
    state = padded_state(loaded.model, shapes) if padded else dict(loaded.model.state_dict())
    if target != family.model_type or traits.output_bias:
        content |= {"attention_bias": True, "mlp_bias": True, "attention_dropout": 0.0}
        content |= {"attention_out_bias": True, "residual_dropout": 0.0} if target == "seed_oss" else {}
        for key in ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types"):
            content.pop(key, None)
        state = as_llama(state, family, shapes)
    config = CONFIG_MAPPING[target].from_dict(content)
    dtype = next(loaded.model.parameters()).dtype
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
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

    from pruning.models.source import write_generation_config

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


def padded_state(model: Any, geometry: Geometry) -> dict[str, Tensor]:
    """The state of a model with every layer filled up with zeros to the shapes of a geometry.

    Exact: a channel with a zero column in the output projection adds nothing.
    """
    import torch

    state = dict(model.state_dict())
    for view in layer_views(model):
        for site, spec in view.sites.items():
            own, wide = (
                {
                    "entries": (shape.groups, shape.group, shape.width),
                    "groups": (shape.groups, shape.width),
                }
                for shape in (view.shape(spec), geometry.shape(site))
            )
            prefix = f"{view.family.layers}.{view.number}"
            for producer in spec.producers:
                rows = [part.rows(view.shape(spec)) for part in producer.parts]
                for kind in ("weight", "bias"):
                    if (name := f"{prefix}.{producer.path}.{kind}") in state:
                        pieces = zip(state[name].split(rows), producer.parts, strict=True)
                        filled = [_fill(piece, own[part.per], wide[part.per]) for piece, part in pieces]
                        state[name] = torch.cat(filled)
            name = f"{prefix}.{spec.consumer.path}.weight"
            state[name] = _fill(state[name].T, own["entries"], wide["entries"]).T.contiguous()
    return state


def as_llama(state: dict[str, Tensor], family: Family, geometry: Geometry) -> dict[str, Tensor]:
    """A state by the names that Llama has for projections; a fused one in its parts.

    Args:
        state: of a model whose layers are Llama's.
        family: of it.
        geometry: of the state.
    """
    renamed = dict(state)
    for site in geometry.sites:
        shape, spec, prefix = geometry.shape(site), family.spec(site.name), f"{family.layers}.{site.layer}"
        for producer in spec.producers:
            rows = [part.rows(shape) for part in producer.parts]
            for kind in ("weight", "bias"):
                if (tensor := renamed.pop(f"{prefix}.{producer.path}.{kind}", None)) is not None:
                    for part, piece in zip(producer.parts, tensor.split(rows), strict=True):
                        renamed[f"{prefix}.{LLAMA_PATHS[part.role]}.{kind}"] = piece
    return renamed


def _fill(tensor: Tensor, have: tuple[int, ...], want: tuple[int, ...]) -> Tensor:
    """Rows (prod(have), ...) with zero rows put in until they are (prod(want), ...)."""
    filled = tensor.new_zeros(*want, *tensor.shape[1:])
    filled[tuple(slice(n) for n in have)] = tensor.reshape(*have, *tensor.shape[1:])
    return filled.reshape(-1, *tensor.shape[1:])


def _write_custom(loaded: LoadedModel, traits: Traits, folder: Path, record: dict[str, Any]) -> None:
    import torch

    from pruning.models.surgery import add_bias, output_biases

    family, model = traits.family, loaded.model
    with torch.no_grad():
        for view in layer_views(model) if traits.output_bias else []:
            for site in view.sites:  # all have one or none
                linear = view.projection(site.name)
                if linear.bias is None:
                    add_bias(linear, torch.zeros_like(linear.weight[:, 0]))
    save_stock(model, loaded.tokenizer, folder)
    module, (config, decoder, causal) = Path(CODE_FILE).stem, family.class_names
    keys = {
        **rotary_keys(model.config),
        "architectures": [f"Pruned{causal}"],
        "model_type": f"pruned_{family.model_type}",
        "auto_map": {
            "AutoConfig": f"{module}.Pruned{config}",
            "AutoModel": f"{module}.Pruned{decoder}",  # vLLM builds from this one
            "AutoModelForCausalLM": f"{module}.Pruned{causal}",
        },
        "head_dim": family.head_dim(model.config.to_dict()),
        "output_bias": traits.output_bias,
        "per_layer_config": {
            str(index): family.layer_config(shapes) for index, shapes in enumerate(traits.geometry.layers)
        },
        # transformers' own constructors read the dense widths before the layers get theirs
        "allow_global_per_layer_attribute_access": True,
    }
    _add_keys(folder, keys)
    (folder / CODE_FILE).write_text(_modelling_code(family), encoding="utf-8")
    biased = output_biases(model)
    sites = map(str, traits.geometry.sites)
    write_json(folder / PRUNING_FILE, record | {"biased": {site: site in biased for site in sites}})


def _modelling_code(family: Family) -> str:
    """`modeling_pruned.py` for a family: its classes, and its sites as a literal."""
    code = Path(__file__).with_name(CODE_FILE).read_text(encoding="utf-8")
    for name, own in zip(("Qwen2Config", "Qwen2Model", "Qwen2ForCausalLM"), family.class_names, strict=True):
        code = code.replace(name, own)
    sites = [
        {
            "entries": spec.unit.keys[0],
            "groups": spec.unit.keys[1],
            "heads": isinstance(spec.unit, Heads),
            "producers": {p.path: [part.per for part in p.parts] for p in spec.producers},
            "consumer": spec.consumer.path,
            "attributes": dict(spec.attributes),
        }
        for spec in family.sites
        if spec.prunable
    ]
    literal = json.dumps(sites, indent=4).replace("true", "True").replace("false", "False")
    return (
        code.replace("SITES: list = []", f"SITES = {literal}")
        .replace("Qwen2", family.name)
        .replace("pruned_qwen2", f"pruned_{family.model_type}")
    )


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
