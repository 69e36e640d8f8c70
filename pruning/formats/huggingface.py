"""`hf` and `padded`: folders that transformers loads.

Stock Qwen2, Qwen3 and Mistral have no bias on `down_proj`, where bias compensation puts one, and loaders that
do not know a bias skip it in silence: such a model is never written under those names. What each loader
accepts was read in its source: transformers 5.23.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.checksums import write_json
from pruning.files import PRUNING_FILE
from pruning.formats.checkpoint_info import CheckpointInfo, rotary_keys
from pruning.formats.format import DTYPES, FORMATS, ExportJob, ExportPlan, Format
from pruning.formats.verify import compare
from pruning.models.families import FAMILIES
from pruning.models.family import LLAMA_PATHS, WINDOW_KEYS, CausalLM, Family, Heads, Part
from pruning.models.folder import LoadedModel
from pruning.models.geometry import Geometry, SiteShape
from pruning.models.layer_view import layer_views

if TYPE_CHECKING:
    from torch import Tensor

CODE_FILE = "modeling_pruned.py"
# What stock Llama and SeedOss compute as well, in transformers.
LLAMA_COMPUTES = ("activation", "rope")
_STOCK = "transformers, lm-eval and whatever builds on them, without extra code"
_CUSTOM = (
    "transformers with trust_remote_code=True (one small file, which you can read)",
    "does not load where foreign code is not allowed",
)
_PADDED = "no gain in memory or speed: narrower layers are filled up with zeros"
_BYTES = {"f32": 4, "f16": 2, "bf16": 2}


# --- planning -------------------------------------------------------------------------------------------


def bytes_of(info: CheckpointInfo, kind: str | None) -> int:
    """Bytes of a weight of a type; None for as stored."""
    return _BYTES[kind] if kind else info.itemsize


def stock_architecture(info: CheckpointInfo, geometry: Geometry) -> tuple[str, str]:
    """The architecture of stock transformers that computes a model of equal widths.

    Returns:
        Its model type and an empty string, or an empty string and why there is none, with a way out.
    """
    family = info.family
    heads = next((shape.entries for shape in geometry.layers[0].values() if shape.has_heads), 1)
    divides = geometry.hidden_size % heads == 0
    if not info.output_bias and (divides or not family.heads_divide):
        return family.model_type, ""
    feature = info.unsupported_feature(LLAMA_COMPUTES)
    if family.as_llama and not feature:
        return "llama" if divides else "seed_oss", ""
    if info.output_bias:
        lack = "has no biases on its output projections"
        both = "the biases that compensation wrote"
        way_out = "prune with --compensation none, or use --format hf."
    else:
        lack = f"takes no {heads} heads, which do not divide {geometry.hidden_size}"
        both = f"{heads} heads, which do not divide the hidden size of {geometry.hidden_size}"
        way_out = "use --format hf."
    if not family.as_llama:
        return "", f"stock {family.name} {lack}: {way_out}"
    return "", f"no stock architecture has both {feature} and {both}: {way_out}"


def _plan_hf(info: CheckpointInfo, kind: str | None) -> ExportPlan:
    size = int(info.parameters() * bytes_of(info, kind))
    stock = stock_architecture(info, info.geometry)[0] if info.equal_widths else ""
    if stock:
        return ExportPlan("hf", FAMILIES[stock].class_names[2], _STOCK, bytes=size)
    return ExportPlan("hf", f"Pruned{info.family.class_names[2]}", *_CUSTOM, bytes=size)


def _plan_padded(info: CheckpointInfo, kind: str | None) -> ExportPlan:
    stock, reason = stock_architecture(info, info.widest)
    if info.equal_widths:
        reason = "all layers have the same widths already: use --format hf."
    if reason:
        return ExportPlan("padded", "", _STOCK, unsupported_reason=reason)
    size = int(info.parameters(info.widest) * bytes_of(info, kind))
    return ExportPlan("padded", FAMILIES[stock].class_names[2], _STOCK, _PADDED, size)


# --- writing --------------------------------------------------------------------------------------------


def _write_hf(job: ExportJob, folder: Path) -> Path:
    if job.plan.custom:
        _write_custom(job.loaded, job.info, folder, job.record)
    else:
        _write_stock(job.loaded, job.info, job.info.geometry, folder)
    return folder


def _write_padded(job: ExportJob, folder: Path) -> Path:
    _write_stock(job.loaded, job.info, job.info.widest, folder)
    return folder


def _write_stock(loaded: LoadedModel, info: CheckpointInfo, geometry: Geometry, folder: Path) -> None:
    from pruning.models.checkpoint import write_dense
    from pruning.models.source import InMemory

    target, _ = stock_architecture(info, geometry)
    biases: dict[str, Any] = {}
    if target != info.family.model_type or info.output_bias:
        biases = {"attention_bias": True, "mlp_bias": True, "attention_dropout": 0.0}
        biases |= {"attention_out_bias": True, "residual_dropout": 0.0} if target == "seed_oss" else {}
    model = stock_model(loaded.model, geometry, target, info.family.layer_config(geometry.layers[0]), biases)
    write_dense(InMemory(model), loaded.tokenizer, folder)
    add_keys(folder, rotary_keys(model.config))


def stock_model(
    model: CausalLM, geometry: Geometry, target: str, widths: Mapping[str, int], biases: Mapping[str, Any]
) -> CausalLM:
    """A model in a stock architecture, with zeros for the channels and biases that it does not have.

    Args:
        model: dense or pruned.
        geometry: the widths to have, each at least the model's own.
        target: the model type of the architecture.
        widths: the keys of its config for these widths.
        biases: the keys of its config for biases, where it has Llama's layers; empty where it is the model's
            own architecture.
    """
    import torch
    from transformers import CONFIG_MAPPING

    from pruning.models.surgery import empty_model

    foreign = ["architectures", "model_type", "transformers_version", "auto_map"]
    if biases:
        foreign += WINDOW_KEYS
    content = {key: value for key, value in model.config.to_dict().items() if key not in foreign}
    if "attn" in geometry.names:
        content["head_dim"] = geometry.layers[0]["attn"].width
    stock = empty_model(CONFIG_MAPPING[target].from_dict({**content, **widths, **biases}), geometry, {})
    state = padded_state(model, geometry, bool(biases))
    for name, parameter in stock.named_parameters():
        if name not in state and name.endswith(".bias"):
            state[name] = torch.zeros(parameter.shape, dtype=model.dtype)
    stock.load_state_dict(state, assign=True)
    stock.tie_weights()
    stock.generation_config = model.generation_config
    return stock


def add_keys(folder: Path, keys: dict[str, Any]) -> None:
    """Add keys to a `config.json`."""
    file = folder / "config.json"
    content = json.loads(file.read_text(encoding="utf-8")) | keys
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def padded_state(model: CausalLM, geometry: Geometry, as_llama: bool) -> dict[str, Tensor]:
    """The state of a model with every layer filled up with zeros to the shapes of a geometry.

    Exact: a channel with a zero column in the output projection adds nothing.

    Args:
        model: dense or pruned.
        geometry: the widths to have, each at least the model's own.
        as_llama: whether projections get Llama's names, a fused one in its parts.
    """
    import torch

    state = dict(model.state_dict())
    for view in layer_views(model):
        prefix = f"{view.family.layers}.{view.number}"
        for site, spec in view.sites.items():
            own, wide = view.shape(spec), geometry.shape(site)
            for producer in spec.producers:
                rows = [part.rows(own) for part in producer.parts]
                for kind in ("weight", "bias"):
                    if (tensor := state.pop(f"{prefix}.{producer.path}.{kind}", None)) is None:
                        continue
                    pieces = {
                        LLAMA_PATHS[part.role]: _fill(piece, _axes(own, part), _axes(wide, part))
                        for part, piece in zip(producer.parts, tensor.split(rows), strict=True)
                    }
                    if not as_llama:
                        pieces = {producer.path: torch.cat(list(pieces.values()))}
                    state |= {f"{prefix}.{path}.{kind}": piece for path, piece in pieces.items()}
            name = f"{prefix}.{spec.consumer.path}.weight"
            state[name] = _fill(state[name].T, _axes(own), _axes(wide)).T.contiguous()
    return state


def _axes(shape: SiteShape, part: Part = Part("")) -> tuple[int, ...]:  # noqa: B008 - frozen
    """The axes into which the rows of a part fall: groups, the entries of each, and their channels."""
    return (shape.groups, shape.group, shape.width) if part.per == "entries" else (shape.groups, shape.width)


def _fill(tensor: Tensor, axes: tuple[int, ...], wider: tuple[int, ...]) -> Tensor:
    """Rows (prod(axes), ...) with rows of zeros inserted until they are (prod(wider), ...)."""
    if axes == wider:
        return tensor
    filled = tensor.new_zeros(*wider, *tensor.shape[1:])
    filled[tuple(slice(n) for n in axes)] = tensor.reshape(*axes, *tensor.shape[1:])
    return filled.reshape(-1, *tensor.shape[1:])


def _write_custom(loaded: LoadedModel, info: CheckpointInfo, folder: Path, record: dict[str, Any]) -> None:
    import torch

    from pruning.models.checkpoint import write_dense
    from pruning.models.surgery import add_bias

    family, model = info.family, loaded.model
    with torch.no_grad():
        for view in layer_views(model) if info.output_bias else []:
            for site in view.sites:  # all have one or none
                linear = view.projection(site.name)
                if linear.bias is None:
                    add_bias(linear, torch.zeros_like(linear.weight[:, 0]))
    names = write_dense(loaded.source, loaded.tokenizer, folder)
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
        "output_bias": info.output_bias,
        "per_layer_config": {
            str(index): family.layer_config(shapes) for index, shapes in enumerate(info.geometry.layers)
        },
        # transformers' own constructors read the dense widths before the layers get theirs
        "allow_global_per_layer_attribute_access": True,
    }
    add_keys(folder, keys)
    (folder / CODE_FILE).write_text(_modelling_code(family), encoding="utf-8")
    biased = {str(site): family.bias_name(site) in names for site in info.geometry.sites}
    write_json(folder / PRUNING_FILE, record | {"biased": biased})


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


# --- loading --------------------------------------------------------------------------------------------


def _check(job: ExportJob, written: Path, reference: Tensor) -> float:
    from transformers import AutoModelForCausalLM

    # the code that it may run is the file that was written beside it just now
    model = AutoModelForCausalLM.from_pretrained(written, dtype="auto", trust_remote_code=True).eval()
    return compare(reference, model)


def _snippet(plan: ExportPlan, path: Path) -> str:
    code = ", trust_remote_code=True" if plan.custom else ""
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'model = AutoModelForCausalLM.from_pretrained("{path}"{code})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{path}"{code})'
    )


FORMATS.add(Format(tuple(DTYPES), _plan_hf, _write_hf, _check, _snippet), "hf")
FORMATS.add(Format(tuple(DTYPES), _plan_padded, _write_padded, _check, _snippet), "padded")
