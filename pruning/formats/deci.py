"""`deci`: a folder that mlx-lm's nemotron-nas and vLLM's own DeciLM load, for layers of different width.

Both take the number of key-value heads and of channels by layer, within limits: all layers have the same
number of query heads, hidden size over head size; key-value heads divide them; and the channels are given as
a multiplier that both round up to a multiple of 256. What a layer has less is filled up with zeros, which
adds nothing to its output. As read in vLLM 0.32.0 and mlx-lm 0.32.2, which skip no bias.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pruning.formats.checkpoint_info import CheckpointInfo, rotary_keys
from pruning.formats.format import DTYPES, FORMATS, ExportJob, ExportPlan, Format
from pruning.formats.huggingface import add_keys, bytes_of, stock_model
from pruning.formats.verify import compare
from pruning.models.folder import BLOCKS, DECI
from pruning.models.geometry import Geometry, LayerShape
from pruning.models.loading import load

if TYPE_CHECKING:
    from torch import Tensor

CODE_FILE = "configuration_decilm.py"
ARCHITECTURE = "DeciLMForCausalLM"
MULTIPLE = 256  # of the channels
COMPUTES = ("rope:linear", "rope:llama3")
_LOADS_IN = "mlx-lm, and vLLM with --trust-remote-code (one small file, which you can read)"


def padded(geometry: Geometry) -> Geometry | None:
    """The narrowest geometry that the architecture has room for; None where there is none."""
    heads, remainder = divmod(geometry.hidden_size, geometry.layers[0]["attn"].width)
    layers: list[LayerShape] = []
    for own in geometry.layers:
        attn, mlp = own["attn"], own["mlp"]
        fitting = (n for n in range(attn.groups, heads + 1) if heads % n == 0 and heads // n >= attn.group)
        kv_heads = next(fitting, 0)
        if remainder or not kv_heads:
            return None
        channels = -(-mlp.entries // MULTIPLE) * MULTIPLE
        layers.append(
            {
                "attn": replace(attn, groups=kv_heads, group=heads // kv_heads),
                "mlp": replace(mlp, groups=channels),
            }
        )
    return replace(geometry, layers=tuple(layers))


def _unsupported_reason(info: CheckpointInfo, shapes: Geometry | None) -> str:
    if feature := info.unsupported_feature(COMPUTES):
        return f"DeciLM does not compute {feature}: use --format hf."
    if not info.family.as_llama:
        return f"DeciLM has Llama's layers, and {info.family.name} has others: use --format hf."
    if shapes is None:
        hidden, width = info.geometry.hidden_size, info.geometry.layers[0]["attn"].width
        return (
            f"the heads of a DeciLM fill its hidden size, and heads of {width} channels do not fill "
            f"{hidden}: use --format hf."
        )
    return ""


def _plan(info: CheckpointInfo, kind: str | None) -> ExportPlan:
    own = info.geometry
    shapes = padded(own) if "attn" in own.names else None
    plan = ExportPlan("deci", ARCHITECTURE, _LOADS_IN)
    if (reason := _unsupported_reason(info, shapes)) or shapes is None:
        return replace(plan, unsupported_reason=reason)
    drawbacks = []
    before, after = (sum(layer["mlp"].entries for layer in each.layers) for each in (own, shapes))
    if after > before:
        drawbacks.append(
            f"{(after - before) / before:.0%} more MLP channels, as widths are rounded up to {MULTIPLE} with "
            f"zeros (prune with --round-to {MULTIPLE})"
        )
    if zeros := sum(shapes.layers[0]["attn"].entries - layer["attn"].entries for layer in own.layers):
        drawbacks.append(f"{zeros} removed query heads come back as zeros")
    size = int(info.parameters(shapes) * bytes_of(info, kind))
    return replace(plan, drawback="; ".join(drawbacks), bytes=size)


def _write(job: ExportJob, folder: Path) -> Path:
    from pruning.models.checkpoint import write_dense
    from pruning.models.source import InMemory

    shapes, names = padded(job.info.geometry), [name for name, _ in job.loaded.model.named_parameters()]
    assert shapes is not None  # or the plan has a reason against it
    biases = {
        f"{key}_bias": any(f".{part}." in name and name.endswith("_proj.bias") for name in names)
        for key, part in (("attention", "self_attn"), ("mlp", "mlp"))
    }
    widths = {
        "num_attention_heads": shapes.layers[0]["attn"].entries,
        "num_key_value_heads": max(layer["attn"].groups for layer in shapes.layers),
        "intermediate_size": max(layer["mlp"].entries for layer in shapes.layers),
    }
    model = stock_model(job.loaded.model, shapes, "llama", widths, biases)
    write_dense(InMemory(model), job.loaded.tokenizer, folder)
    blocks = [
        {
            "attention": {"n_heads_in_group": layer["attn"].group, "no_op": False},
            "ffn": {"ffn_mult": 3 * layer["mlp"].entries / (2 * shapes.hidden_size), "no_op": False},
        }
        for layer in shapes.layers
    ]
    keys = {
        "architectures": [ARCHITECTURE],
        "model_type": DECI,
        "auto_map": {"AutoConfig": f"{Path(CODE_FILE).stem}.DeciLMConfig"},
        BLOCKS: blocks,
    }
    add_keys(folder, keys | rotary_keys(model.config))
    (folder / CODE_FILE).write_text(Path(__file__).with_name(CODE_FILE).read_text(encoding="utf-8"), "utf-8")
    return folder


def _check(job: ExportJob, written: Path, reference: Tensor) -> float:
    return compare(reference, load(str(written), "cpu", "stored").model)


def _snippet(plan: ExportPlan, path: Path) -> str:
    return (
        "from mlx_lm import generate, load\n"
        f'model, tokenizer = load("{path}")\n'
        'print(generate(model, tokenizer, "The river", max_tokens=20))'
    )


FORMATS.add(Format(tuple(DTYPES), _plan, _write, _check, _snippet), "deci")
