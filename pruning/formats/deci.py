"""`deci`: a folder that mlx-lm's nemotron-nas and vLLM's own DeciLM load, for layers of different width.

Both take the number of key-value heads and of channels by layer, within limits: all layers have the same
number of query heads, hidden size over head size; key-value heads divide them; and the channels are given as
a multiplier that both round up to a multiple of 256. What a layer has less is filled up with zeros, which
adds nothing to its output. As read in vLLM 0.32.0 and mlx-lm 0.32.2, which skip no bias.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.formats.format import DTYPES, FORMATS, Form, Format, Source
from pruning.formats.huggingface import SHARD, as_llama, bytes_of, padded_state
from pruning.formats.traits import Traits, rotary_keys
from pruning.formats.verify import compare
from pruning.models.geometry import Geometry, LayerShape

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


def _judge(traits: Traits, kind: str | None) -> Form:
    form = Form("deci", ARCHITECTURE, _LOADS_IN)
    if what := traits.beyond(COMPUTES):
        return replace(form, refusal=f"DeciLM does not compute {what}: use --format hf.")
    if not traits.family.as_llama:
        return replace(
            form, refusal=f"DeciLM has Llama's layers, and {traits.family.name} has others: use --format hf."
        )
    own = traits.geometry
    width = own.layers[0]["attn"].width
    if (shapes := padded(own)) is None:
        return replace(
            form,
            refusal=f"the heads of a DeciLM fill its hidden size, and heads of {width} channels do "
            f"not fill {own.hidden_size}: use --format hf.",
        )
    drawbacks = []
    before, after = (sum(layer["mlp"].entries for layer in each.layers) for each in (own, shapes))
    if after > before:
        drawbacks.append(
            f"{(after - before) / before:.0%} more MLP channels, as widths are rounded up to {MULTIPLE} with "
            f"zeros (prune with --round-to {MULTIPLE})"
        )
    if zeros := sum(own.hidden_size // width - layer["attn"].entries for layer in own.layers):
        drawbacks.append(f"{zeros} removed query heads come back as zeros")
    size = int(traits.parameters(shapes) * bytes_of(traits, kind))
    return replace(form, drawback="; ".join(drawbacks), bytes=size)


def _write(source: Source, folder: Path) -> Path:
    import torch
    from huggingface_hub import save_torch_state_dict

    from pruning.models.source import write_generation_config

    model, traits, tokenizer = source.loaded.model, source.traits, source.loaded.tokenizer
    shapes = padded(traits.geometry)
    assert shapes is not None  # or it was refused
    state = as_llama(padded_state(model, shapes), traits.family, shapes)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    if tied:
        state.pop("lm_head.weight", None)
    biased = {
        part: any(f".{part}." in n and n.endswith(".bias") for n in state) for part in ("self_attn", "mlp")
    }
    for name in [name for name in state if name.endswith("_proj.weight")]:
        bias = name.removesuffix("weight") + "bias"
        if bias not in state and biased["mlp" if ".mlp." in name else "self_attn"]:
            state[bias] = torch.zeros_like(state[name][:, 0])
    state = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    save_torch_state_dict(state, folder, max_shard_size=SHARD)
    tokenizer.save_pretrained(folder)
    write_generation_config(model, folder)
    config = json.dumps(_config(model, traits, shapes, tied, biased), indent=2)
    (folder / "config.json").write_text(config, encoding="utf-8")
    (folder / CODE_FILE).write_text(Path(__file__).with_name(CODE_FILE).read_text(encoding="utf-8"), "utf-8")
    return folder


def _config(
    model: Any, traits: Traits, shapes: Geometry, tied: bool, biased: dict[str, bool]
) -> dict[str, Any]:
    dense, hidden = model.config, shapes.hidden_size
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "nemotron-nas",
        "auto_map": {"AutoConfig": f"{Path(CODE_FILE).stem}.DeciLMConfig"},
        "hidden_size": hidden,
        "num_hidden_layers": len(shapes.layers),
        "num_attention_heads": shapes.layers[0]["attn"].entries,
        "num_key_value_heads": max(layer["attn"].groups for layer in shapes.layers),
        "intermediate_size": max(layer["mlp"].entries for layer in shapes.layers),
        "head_dim": shapes.layers[0]["attn"].width,
        "hidden_act": "silu",
        "attention_bias": biased["self_attn"],
        "mlp_bias": biased["mlp"],
        "block_configs": [
            {
                "attention": {"n_heads_in_group": layer["attn"].group, "no_op": False},
                "ffn": {"ffn_mult": 3 * layer["mlp"].entries / (2 * hidden), "no_op": False},
            }
            for layer in shapes.layers
        ],
        "rope_parameters": dict(dense.rope_parameters),
        **rotary_keys(dense),
        "rms_norm_eps": dense.rms_norm_eps,
        "max_position_embeddings": dense.max_position_embeddings,
        "vocab_size": dense.vocab_size,
        "tie_word_embeddings": tied,
        "initializer_range": dense.initializer_range,
        **{f"{name}_token_id": getattr(dense, f"{name}_token_id", None) for name in ("bos", "eos", "pad")},
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
    }


def _check(source: Source, written: Path, reference: Tensor) -> float:
    """Logits of a stock Llama with the projections that were written and the groups of the config."""
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaConfig, LlamaForCausalLM

    from pruning.models.layer_view import layer_views

    content = json.loads((written / "config.json").read_text(encoding="utf-8"))
    blocks = content.pop("block_configs")
    for key in ("model_type", "architectures", "auto_map", "rope_theta", "rope_scaling"):
        content.pop(key)
    state = {name: t for file in written.glob("*.safetensors") for name, t in load_file(file).items()}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig.from_dict(content)).eval()
    for view, block in zip(layer_views(model), blocks, strict=True):
        view.module("self_attn").num_key_value_groups = block["attention"]["n_heads_in_group"]
    for name in [name for name, _ in model.named_parameters()]:
        module, _, leaf = name.rpartition(".")
        if name in state:
            setattr(model.get_submodule(module), leaf, torch.nn.Parameter(state[name], requires_grad=False))
    if content["tie_word_embeddings"]:
        model.lm_head.weight = model.model.embed_tokens.weight
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return compare(reference, model)


def _snippet(form: Form, path: Path) -> str:
    return (
        "from mlx_lm import generate, load\n"
        f'model, tokenizer = load("{path}")\n'
        'print(generate(model, tokenizer, "The river", max_tokens=20))'
    )


FORMATS.add(Format(tuple(DTYPES), _judge, _write, _check, _snippet), "deci")
