"""Where a pruned model can live: the forms it can be exported to, and writing them.

`homes` says what a model's shapes allow without loading it; `export` writes one. Every form computes the same
function: `export` loads what it wrote and records the difference of the logits.

What each loader accepts was read in its source: transformers 5.23, llama.cpp of llama-cpp-python 0.3.36.
Stock Qwen2, Qwen3 and Mistral have no bias on `down_proj`, where bias compensation puts one, and loaders that
do not know a bias skip it in silence: such a model is never written under those names.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.config import FORMATS, ExportError, Format, RunError
from pruning.gguf_file import BYTES, GGUF_TYPES, TESTED, write_gguf
from pruning.models import (
    MASK_FILE,
    PRUNING_FILE,
    LoadedModel,
    describe,
    load,
    locate,
    read_config,
    read_record,
)
from pruning.sites import Geometry, LayerShape, layer_views

if TYPE_CHECKING:
    from torch import Tensor

DTYPES: dict[str, Any] = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
CODE_FILE = "modeling_pruned.py"
SHARD = "5GB"
_CLASS = {"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama", "mistral": "Mistral", "seed_oss": "SeedOss"}


@dataclass(frozen=True)
class Traits:
    """What decides where a model can live, read from its config and its `pruning.json`.

    Attributes:
        model_type: as transformers names the dense model.
        geometry: widths of the pruned model.
        output_bias: whether an output projection has a bias that the dense architecture does not have.
        window: whether attention looks back over a window shorter than the context.
        vocabulary, tied: of the embeddings.
        itemsize: bytes of a stored weight.
        base: name of the dense model, where it was recorded.
    """

    model_type: str
    geometry: Geometry
    output_bias: bool
    window: bool
    vocabulary: int
    tied: bool
    itemsize: int
    base: str | None

    @classmethod
    def read(cls, folder: Path) -> Traits:
        """The traits of a checkpoint folder, dense or pruned.

        Raises:
            ModelError: it is none.
        """
        record, summary = read_record(folder), describe(str(folder))
        config = read_config(locate(record["base"]) if "base" in record else folder)
        native = {"attn": "attention_bias", "mlp": "mlp_bias"}
        if summary.model_type == "seed_oss":
            native["attn"] = "attention_out_bias"
        window = (config.get("sliding_window") or 0) if config.get("use_sliding_window", True) else 0
        sizes = {"float32": 4, "float64": 8}
        return cls(
            model_type=summary.model_type,
            geometry=summary.geometry,
            output_bias=any(
                biased and not config.get(native[site.split(".")[1]])
                for site, biased in record.get("biased", {}).items()
            ),
            window=0 < window < summary.context,
            vocabulary=summary.vocabulary,
            tied=summary.tied,
            itemsize=sizes.get(summary.dtype, 2),
            base=record.get("config", {}).get("model"),
        )

    @property
    def equal_widths(self) -> bool:
        """Whether all layers have the same heads and channels."""
        return len(set(self.geometry.layers)) == 1

    @property
    def widest(self) -> Geometry:
        """The geometry with every layer as wide as the widest."""
        layers = self.geometry.layers
        shape = LayerShape(*(max(getattr(s, n) for s in layers) for n in ("kv_heads", "group", "channels")))
        return Geometry(**{**self.geometry.__dict__, "layers": (shape,) * len(layers)})

    def parameters(self, geometry: Geometry | None = None) -> int:
        """Of the whole model, to within the norms and the biases of the output projections."""
        embeddings = self.vocabulary * self.geometry.hidden_size * (1 if self.tied else 2)
        return (geometry or self.geometry).linear_parameters + embeddings


@dataclass(frozen=True)
class Home:
    """One form a model can be exported to.

    Attributes:
        format: as `export` takes it.
        architecture: what it is written as.
        loads_in: programs that load it, in words.
        loses: what it gives up, in words; empty if nothing.
        bytes: about how large it is.
        refusal: why it is not to be had, with the form that would do; empty if it is.
    """

    format: Format
    architecture: str
    loads_in: str
    loses: str = ""
    bytes: int = 0
    refusal: str = ""


def stock_architecture(traits: Traits, geometry: Geometry) -> str:
    """The architecture of stock transformers that computes a model of equal widths.

    Raises:
        ExportError: there is none, with the form that would do.
    """
    shape = geometry.layers[0]
    if not traits.output_bias:
        divides = geometry.hidden_size % shape.heads == 0
        if traits.model_type != "llama" or divides:
            return traits.model_type
    if traits.model_type == "qwen3":
        raise ExportError(
            "no stock architecture has both the norms of Qwen3's queries and keys and the biases that "
            "compensation wrote: prune with --compensation none, or use --format hf."
        )
    if traits.window:
        raise ExportError(
            "no stock architecture has both sliding-window attention and the biases that compensation wrote: "
            "prune with --compensation none, or use --format hf."
        )
    return "llama" if geometry.hidden_size % shape.heads == 0 else "seed_oss"


def homes(traits: Traits, kind: str | None = None) -> list[Home]:
    """Every form, with what it is good for or why it is refused; `kind` as `export` takes it."""
    weight = BYTES.get(kind or "", traits.itemsize)
    size = int(traits.parameters() * weight)
    custom = Home("hf", f"Pruned{_CLASS[traits.model_type]}ForCausalLM", *_CUSTOM, bytes=size)
    hf, padded = custom, Home("padded", "", _STOCK, _PADDED)
    if traits.equal_widths:
        try:
            stock = stock_architecture(traits, traits.geometry)
            hf = Home("hf", f"{_CLASS[stock]}ForCausalLM", _STOCK, bytes=size)
        except ExportError:
            pass  # the modelling file does
        padded = Home(
            "padded", "", _STOCK, refusal="all layers have the same widths already: use --format hf."
        )
    else:
        try:
            stock = stock_architecture(traits, traits.widest)
            wide = int(traits.parameters(traits.widest) * weight)
            padded = Home("padded", f"{_CLASS[stock]}ForCausalLM", _STOCK, _PADDED, wide)
        except ExportError as error:
            padded = Home("padded", "", _STOCK, refusal=str(error))
    gguf = Home("gguf", "deci", f"llama.cpp, Ollama, LM Studio (checked with {TESTED})")
    if refusal := _gguf_refusal(traits):
        gguf = Home("gguf", "deci", gguf.loads_in, refusal=refusal)
    else:
        gguf = Home("gguf", "deci", gguf.loads_in, "", int(traits.parameters() * BYTES[kind or "f16"]))
    return [hf, padded, gguf, _masks(traits)]


_STOCK = "transformers, lm-eval and whatever builds on them, without extra code"
_CUSTOM = (
    "transformers with trust_remote_code=True (one small file, which you can read)",
    "loaders that run no foreign code",
)
_PADDED = "no gain in memory or speed: narrower layers are filled up with zeros"


def _gguf_refusal(traits: Traits) -> str:
    if traits.model_type == "qwen3":
        return "llama.cpp's deci has no norms of queries and keys, which Qwen3 has: use --format hf."
    if traits.window:
        return "llama.cpp's deci has no sliding-window attention: use --format hf."
    return ""


def _masks(traits: Traits) -> Home:
    if traits.base is None:
        return Home("masks", "", "", refusal="this is no checkpoint of a run: use --format hf.")
    shape = traits.geometry
    biases = 2 * len(shape.layers) * shape.hidden_size * traits.itemsize
    flags = sum(shape.channels(site) for site in shape.sites) * 2
    return Home("masks", traits.base, "Prunescope, beside the dense model", "", biases + flags)


# --- writing ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the folder, or the GGUF file.
        home: its form.
        bytes: on disk.
        difference: largest difference of a logit from the checkpoint's, over 64 tokens; None where it was not
            asked for, or where another program would have to be run.
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
        out: folder, replaced as a whole if it is there.
        kind: of the weights: f32, f16, bf16, and q8_0 for GGUF. As stored when left out, f16 for GGUF.
        verify: load what was written and compare.

    Raises:
        ExportError: the model cannot be written so; the sentence names the form that would do.
        ModelError: there is no such checkpoint.
        RunError: it cannot be written.
    """
    source, out = Path(source), Path(out)
    if format not in FORMATS:
        raise ExportError(f"there is no format {format!r}: choose one of {', '.join(FORMATS)}.")
    if kind is not None and kind not in (GGUF_TYPES if format == "gguf" else DTYPES):
        known = ", ".join(GGUF_TYPES if format == "gguf" else DTYPES)
        raise ExportError(f"weights of type {kind!r} cannot be written as {format}: choose one of {known}.")
    traits = Traits.read(source)
    home = next(home for home in homes(traits, kind) if home.format == format)
    if home.refusal:
        raise ExportError(home.refusal)
    if out.exists() and (out.resolve() == source.resolve() or source.resolve().is_relative_to(out.resolve())):
        raise ExportError(f"{str(out)!r} holds the checkpoint itself: give another folder with --out.")
    name = f"{Path(traits.base or source).name}-pruned-{kind or 'f16'}.gguf"
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        if format == "masks":
            _write_masks(source, temporary)
        else:
            loaded = load(str(source), "cpu", "stored" if kind is None else DTYPES.get(kind, "float32"))
            if format == "gguf":
                write_gguf(loaded.model, loaded.tokenizer, temporary / name, kind or "f16")
            elif home.architecture.startswith("Pruned"):
                _write_custom(loaded, traits, temporary)
            else:
                _write_stock(loaded, traits, temporary, padded=format == "padded")
        difference = _difference(source, temporary, kind) if verify and format != "gguf" else None
        shutil.rmtree(out, ignore_errors=True)
        temporary.rename(out)
    except OSError as error:
        raise RunError(f"cannot write to {str(out)!r}: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    path = out / name if format == "gguf" else out
    total = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Exported(path, home, total, difference, snippet(home, path))


def snippet(home: Home, path: Path) -> str:
    """Python that loads an export and writes a few words with it."""
    if home.format == "gguf":
        return f'from llama_cpp import Llama\nprint(Llama("{path}")("The river", max_tokens=20))'
    if home.format == "masks":
        return f'from pruning.models import load\nmodel = load("{path}").model'
    code = ", trust_remote_code=True" if home.architecture.startswith("Pruned") else ""
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'model = AutoModelForCausalLM.from_pretrained("{path}"{code})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{path}")'
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
    target = stock_architecture(traits, shapes)
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
    for name, parameter in model.named_parameters():  # biases the target has and this model does not
        if name not in state:
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


def _write_custom(loaded: LoadedModel, traits: Traits, folder: Path) -> None:
    import torch

    from pruning.surgery import add_bias, output_biases

    name, model = _CLASS[traits.model_type], loaded.model
    extra: dict[str, Any] = {"head_dim": traits.geometry.head_dim, "output_bias": traits.output_bias}
    with torch.no_grad():
        for view in layer_views(model) if traits.output_bias else []:
            for linear in (view.output, view.down):  # all have one or none
                if linear.bias is None:
                    add_bias(linear, torch.zeros_like(linear.weight[:, 0]))
    model.save_pretrained(folder, max_shard_size=SHARD)
    loaded.tokenizer.save_pretrained(folder)
    widths = {
        str(index): {
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "intermediate_size": shape.channels,
        }
        for index, shape in enumerate(traits.geometry.layers)
    }
    module = Path(CODE_FILE).stem
    content = json.loads((folder / "config.json").read_text(encoding="utf-8")) | extra
    content |= {
        "architectures": [f"Pruned{name}ForCausalLM"],
        "model_type": f"pruned_{traits.model_type}",
        "auto_map": {
            "AutoConfig": f"{module}.Pruned{name}Config",
            "AutoModelForCausalLM": f"{module}.Pruned{name}ForCausalLM",
        },
        "per_layer_config": widths,
        # transformers' own constructors read the dense widths before the layers get theirs
        "allow_global_per_layer_attribute_access": True,
    }
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    code = Path(__file__).with_name(CODE_FILE).read_text(encoding="utf-8")
    code = code.replace("Qwen2", name).replace("qwen2", traits.model_type)
    (folder / CODE_FILE).write_text(code, encoding="utf-8")
    record = {"geometry": traits.geometry.to_dict()}
    sites = traits.geometry.sites
    biased = output_biases(model)
    record |= {"biased": {str(site): str(site) in biased for site in sites}}
    (folder / PRUNING_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _write_masks(source: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    from pruning.surgery import output_biases

    record = read_record(source)
    if not (source / MASK_FILE).exists():
        raise ExportError("this checkpoint has no mask beside it: use --format hf.")
    model = load(str(source), "cpu", "stored").model
    shutil.copy(source / MASK_FILE, folder / MASK_FILE)
    save_file({k: v.contiguous() for k, v in output_biases(model).items()}, folder / "biases.safetensors")
    (folder / PRUNING_FILE).write_text(
        json.dumps({**record, "base": record["config"]["model"]}, indent=1), encoding="utf-8"
    )


def _difference(source: Path, written: Path, kind: str | None) -> float:
    """Largest difference of a logit over 64 tokens, computed in float32 from weights of the same type."""
    import torch
    from transformers import AutoModelForCausalLM

    before = load(str(source), "cpu", "stored" if kind is None else DTYPES[kind]).model.float()
    ids = torch.arange(64)[None] % before.config.vocab_size
    if not (written / "config.json").exists():
        after = load(str(written), "cpu", "float32").model
    else:  # the code that it may run is the file that was written beside it just now
        after = AutoModelForCausalLM.from_pretrained(written, dtype=torch.float32, trust_remote_code=True)
        after.eval()
    with torch.no_grad():
        return float((before(ids).logits - after(ids).logits).abs().max())
