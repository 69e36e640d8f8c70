"""Finding and loading a model: the demo, a folder, a hub id, or a pruned checkpoint of this project.

torch and transformers are imported by the functions that need them, so that a page can describe a model
without them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning.config import Dtype, ModelError
from pruning.domains import ASSETS
from pruning.sites import ARCHITECTURES, CausalLM, Geometry, LayerShape

DEMO = ASSETS / "demo-model"
PRUNING_FILE = "pruning.json"  # marks a checkpoint of this project and holds its geometry
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready for calibration.

    Attributes:
        model: in evaluation mode, on its device.
        tokenizer: the model's own.
        name: as the person named it.
        path: the folder it was read from.
        fingerprint: names its weights.
    """

    model: CausalLM
    tokenizer: Any
    name: str
    path: Path
    fingerprint: str


@dataclass(frozen=True)
class Summary:
    """What a model is, read from its config alone.

    Attributes:
        model_type: as transformers names it.
        geometry: shapes of the decoder layers.
        vocabulary: size.
        context: longest sequence in tokens.
        tied: whether the embedding is the output projection as well.
        parameters: of the whole model.
        dtype: of the stored weights.
    """

    model_type: str
    geometry: Geometry
    vocabulary: int
    context: int
    tied: bool
    parameters: int
    dtype: str


def locate(name: str, download: bool = True) -> Path:
    """The folder of a model; a hub id is downloaded, or found in the hub's cache.

    Raises:
        ModelError: there is no such model, or it has no safetensors weights.
    """
    path = DEMO if name == "demo" else Path(name).expanduser()
    if not path.is_dir():
        if path.exists() or not _HUB_ID.fullmatch(name):
            raise ModelError(
                f"there is no model {name!r}: give demo, a folder with a model, or a hub id like owner/name."
            )
        path = _from_hub(name, download)
    if not (path / "config.json").exists():
        raise ModelError(f"the folder {str(path)!r} holds no model: it has no config.json.")
    if not list(path.glob("*.safetensors")):
        others = [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern)]
        if others:
            raise ModelError(
                f"the weights of {name!r} are in {others[0]!r}, which can run code when read: "
                "convert them to safetensors."
            )
        raise ModelError(f"the folder {str(path)!r} holds no weights: it needs *.safetensors files.")
    return path


def _from_hub(name: str, download: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=not download))
    except Exception as error:  # the hub's client raises a dozen types for "not reachable" and "not there"
        raise ModelError(
            f"model {name!r} cannot be read from the hub ({type(error).__name__}): check the name and the "
            "network, or give a folder."
        ) from None


def fingerprint(path: Path) -> str:
    """A name for the weights in a folder: changes when the config or a weight file does.

    Weight files enter with their header, size and time of change, not with their gigabytes.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted([path / "config.json", *path.glob("*.safetensors")]):
        stat = file.stat()
        with file.open("rb") as stream:
            head = stream.read(1 << 20)
        stamp = stat.st_mtime_ns if file.suffix == ".safetensors" else 0
        digest.update(f"{file.name} {stat.st_size} {stamp}".encode() + head)
    return digest.hexdigest()


def read_config(path: Path) -> dict[str, Any]:
    """The `config.json` of a model folder.

    Raises:
        ModelError: it is no JSON object.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(
            f"{str(path / 'config.json')!r} cannot be read: it is not a model's config."
        ) from None
    if not isinstance(config, dict):
        raise ModelError(f"{str(path / 'config.json')!r} holds no model config.")
    return config


def describe(name: str) -> Summary:
    """What a model is, without reading weights and without torch.

    Raises:
        ModelError: there is no such model, or its architecture is not supported.
    """
    path = locate(name)
    config = read_config(path)
    model_type = config.get("model_type")
    if model_type not in ARCHITECTURES:
        raise ModelError(
            f"models of type {model_type!r} are not supported: supported are {', '.join(ARCHITECTURES)}."
        )
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    qkv_bias = model_type == "qwen2" or bool(config.get("attention_bias"))
    shape = LayerShape(kv_heads, heads // kv_heads, config["intermediate_size"])
    geometry = Geometry(
        hidden_size=config["hidden_size"],
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        layers=(shape,) * config["num_hidden_layers"],
        query_bias=qkv_bias,
        key_value_bias=qkv_bias,
        gate_up_bias=bool(config.get("mlp_bias")),
    )
    pruned = path / PRUNING_FILE
    if pruned.exists():
        geometry = Geometry.from_dict(json.loads(pruned.read_text(encoding="utf-8"))["geometry"])
    return Summary(
        model_type=model_type,
        geometry=geometry,
        vocabulary=config["vocab_size"],
        context=config.get("max_position_embeddings", 0),
        tied=bool(config.get("tie_word_embeddings")),
        parameters=_stored_parameters(path),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
    )


def _stored_parameters(path: Path) -> int:
    """Parameters in the weight files, from their headers."""
    total = 0
    for file in path.glob("*.safetensors"):
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 0 < size < file.stat().st_size:
                raise ModelError(f"{str(file)!r} is no safetensors file, or only the beginning of one.")
            header = json.loads(stream.read(size))
        for key, tensor in header.items():
            if key != "__metadata__":
                count = 1
                for length in tensor["shape"]:
                    count *= length
                total += count
    return total


def pick_device(device: str) -> str:
    """`auto` as cuda, mps or cpu; anything else as it is.

    Raises:
        ModelError: the device is not there.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ModelError(f"the device {device!r} is not there: use auto, cpu, cuda or mps.") from None
    return device


def load(name: str, device: str = "auto", dtype: Dtype = "auto") -> LoadedModel:
    """Load a dense model or a pruned checkpoint.

    Args:
        name: `demo`, a folder, or a hub id.
        device: `auto`, or as torch names it.
        dtype: `auto` is float32 on a CPU and the checkpoint's own elsewhere.

    Raises:
        ModelError: no such model, weights that are missing or broken, an unsupported architecture.
    """
    import torch
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # the library's own bars would break ours
    path = locate(name)
    model_type = read_config(path).get("model_type")
    if model_type not in ARCHITECTURES:
        raise ModelError(
            f"models of type {model_type!r} are not supported: supported are {', '.join(ARCHITECTURES)}."
        )
    device = pick_device(device)
    torch_dtype = (torch.float32 if device == "cpu" else None) if dtype == "auto" else getattr(torch, dtype)
    try:
        model = (_read_pruned if (path / PRUNING_FILE).exists() else _read_dense)(path, torch_dtype)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ModelError(f"the model in {str(path)!r} cannot be loaded: {reason}") from None
    return LoadedModel(model.to(device).eval(), tokenizer, name, path, fingerprint(path))


def _read_dense(path: Path, dtype: Any) -> CausalLM:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype or "auto", use_safetensors=True)
    except SafetensorError as error:
        raise ModelError(
            f"the weights in {str(path)!r} are broken ({error}): copy or download them again."
        ) from None


def _read_pruned(path: Path, dtype: Any) -> CausalLM:
    import torch
    from accelerate import init_empty_weights
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from pruning.surgery import resize

    record = json.loads((path / PRUNING_FILE).read_text(encoding="utf-8"))
    state: dict[str, torch.Tensor] = {}
    try:
        for file in sorted(path.glob("*.safetensors")):
            state |= load_file(file)
    except SafetensorError as error:
        raise ModelError(
            f"the weights in {str(path)!r} are broken ({error}): copy or download them again."
        ) from None
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    resize(model, Geometry.from_dict(record["geometry"]), record["biased"])
    stored = next(iter(state.values())).dtype
    report = model.load_state_dict(
        {k: v.to(dtype or stored) for k, v in state.items()}, strict=False, assign=True
    )
    model.tie_weights()
    missing = [key for key in report.missing_keys if model.get_parameter(key).is_meta]
    if missing or report.unexpected_keys:
        odd = (missing or report.unexpected_keys)[0]
        raise ModelError(f"the checkpoint in {str(path)!r} does not fit its {PRUNING_FILE}: see {odd!r}.")
    return model
