"""Where a pruned model can live: what its shapes, biases and tokenizer allow, found out without loading it.

What each loader accepts was read in its source: transformers 5.23, llama.cpp of llama-cpp-python 0.3.36.
Stock Qwen2, Qwen3 and Mistral have no bias on `down_proj`, where bias compensation puts one, and loaders that
do not know a bias skip it in silence: such a model is never written under those names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pruning.config import Format
from pruning.gguf_file import BYTES, TESTED, refusal
from pruning.model_files import MASK_FILE, describe, locate, read_config, read_record
from pruning.sites import ARCHITECTURES, Geometry, LayerShape


@dataclass(frozen=True)
class Traits:
    """What decides where a model can live, read from its config, its tokenizer and its `pruning.json`.

    Attributes:
        model_type: as transformers names the dense model.
        geometry: widths of the pruned model.
        output_bias: whether an output projection has a bias that the dense architecture does not have.
        window: whether attention looks back over a window shorter than the context.
        vocabulary, tied: of the embeddings.
        itemsize: bytes of a stored weight.
        base: name of the dense model, where it was recorded.
        mask: whether what was cut from the dense model is on record as well.
        gguf_refusal: why llama.cpp cannot compute it, in words; empty if it can.
    """

    model_type: str
    geometry: Geometry
    output_bias: bool
    window: bool
    vocabulary: int
    tied: bool
    itemsize: int
    base: str | None
    mask: bool
    gguf_refusal: str

    @classmethod
    def read(cls, folder: Path) -> Traits:
        """The traits of a checkpoint folder, dense or pruned.

        Raises:
            ModelError: it is none.
        """
        record, summary = read_record(folder), describe(str(folder))
        dense = locate(record["base"]) if "base" in record else folder
        config = read_config(dense)
        native = {"attn": "attention_bias", "mlp": "mlp_bias"}
        if summary.model_type == "seed_oss":
            native["attn"] = "attention_out_bias"
        window = (config.get("sliding_window") or 0) if config.get("use_sliding_window", True) else 0
        windowed = 0 < window < summary.context
        sizes = {"float32": 4, "float64": 8}
        return cls(
            model_type=summary.model_type,
            geometry=summary.geometry,
            output_bias=any(
                biased and not config.get(native[site.split(".")[1]])
                for site, biased in record.get("biased", {}).items()
            ),
            window=windowed,
            vocabulary=summary.vocabulary,
            tied=summary.tied,
            itemsize=sizes.get(summary.dtype, 2),
            base=record.get("config", {}).get("model"),
            mask=(folder / MASK_FILE).is_file(),
            gguf_refusal=refusal(summary.model_type, windowed, config, _tokenizer_file(dense)),
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
        return replace(self.geometry, layers=(shape,) * len(layers))

    def parameters(self, geometry: Geometry | None = None) -> int:
        """Of the whole model, to within the norms and the biases of the output projections."""
        embeddings = self.vocabulary * self.geometry.hidden_size * (1 if self.tied else 2)
        return (geometry or self.geometry).linear_parameters + embeddings


def _tokenizer_file(folder: Path) -> dict[str, Any] | None:
    """What `tokenizer.json` holds; None where there is none and the library makes it from other files."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return {} if (folder / "tokenizer.model").is_file() else None
    return _read_tokenizer(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=4)  # of megabytes, and a page asks at every click
def _read_tokenizer(file: Path, changed: int) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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

    @property
    def custom(self) -> bool:
        """Whether a modelling file goes with the weights."""
        return self.architecture.startswith("Pruned")


_STOCK = "transformers, lm-eval and whatever builds on them, without extra code"
_CUSTOM = (
    "transformers with trust_remote_code=True (one small file, which you can read)",
    "loaders that run no foreign code",
)
_PADDED = "no gain in memory or speed: narrower layers are filled up with zeros"
_LLAMA_CPP = f"llama.cpp, Ollama, LM Studio (checked with {TESTED})"


def homes(traits: Traits, kind: str | None = None) -> list[Home]:
    """Every form, with what it is good for or why it is refused; `kind` as `export` takes it."""
    weight = BYTES.get(kind or "", traits.itemsize)
    return [_hf(traits, weight), _padded(traits, weight), _gguf(traits, kind), _masks(traits)]


def stock_architecture(traits: Traits, geometry: Geometry) -> tuple[str, str]:
    """The architecture of stock transformers that computes a model of equal widths.

    Returns:
        Its model type and an empty string, or an empty string and why there is none, with a way out.
    """
    divides = geometry.hidden_size % geometry.layers[0].heads == 0  # or Llama's config refuses it
    if not traits.output_bias and (traits.model_type != "llama" or divides):
        return traits.model_type, ""
    if traits.model_type == "qwen3" or traits.window:
        what = "the norms of Qwen3's queries and keys" if traits.model_type == "qwen3" else "a sliding window"
        return "", (
            f"no stock architecture has both {what} and the biases that compensation wrote: prune with "
            "--compensation none, or use --format hf."
        )
    return "llama" if divides else "seed_oss", ""


def _hf(traits: Traits, weight: float) -> Home:
    size = int(traits.parameters() * weight)
    stock = stock_architecture(traits, traits.geometry)[0] if traits.equal_widths else ""
    if stock:
        return Home("hf", f"{ARCHITECTURES[stock].name}ForCausalLM", _STOCK, bytes=size)
    name = f"Pruned{ARCHITECTURES[traits.model_type].name}ForCausalLM"
    return Home("hf", name, *_CUSTOM, bytes=size)


def _padded(traits: Traits, weight: float) -> Home:
    stock, why = stock_architecture(traits, traits.widest)
    if traits.equal_widths:
        why = "all layers have the same widths already: use --format hf."
    if why:
        return Home("padded", "", _STOCK, refusal=why)
    size = int(traits.parameters(traits.widest) * weight)
    return Home("padded", f"{ARCHITECTURES[stock].name}ForCausalLM", _STOCK, _PADDED, size)


def _gguf(traits: Traits, kind: str | None) -> Home:
    if traits.gguf_refusal:
        return Home("gguf", "deci", _LLAMA_CPP, refusal=traits.gguf_refusal)
    return Home("gguf", "deci", _LLAMA_CPP, bytes=int(traits.parameters() * BYTES[kind or "f16"]))


def _masks(traits: Traits) -> Home:
    if traits.base is None or not traits.mask:
        return Home("masks", "", "", refusal="this is no checkpoint of a run with its mask: use --format hf.")
    shape = traits.geometry
    biases = 2 * len(shape.layers) * shape.hidden_size * traits.itemsize
    flags = sum(shape.channels(site) for site in shape.sites) * 2
    return Home("masks", traits.base, "Prunescope, beside the dense model", bytes=biases + flags)
