"""Tiny random models of every architecture, a cache and runs of their own, and the option `--fast`."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of the hub's client

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from pruning import RunConfig
from pruning.engine.events import Finished
from pruning.engine.loop import prune_loaded
from pruning.models.families import FAMILIES
from pruning.models.folder import DEMO, LoadedModel
from pruning.models.geometry import Geometry
from pruning.models.loading import load

torch.set_num_threads(1)  # matrices this small only wait for a second thread

# What `--fast` leaves out: pages, real models, and tests that say so themselves.
SLOW_FOLDERS, SLOW_FIXTURES = {"app"}, {"smollm2"}
SLOW_MARKERS = ("browser", "engines", "processes", "long")
SIZES = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": 256,
}
CONFIGS: dict[str, Any] = {
    name: partial(CONFIG_MAPPING[family.model_type], **{**SIZES, **own})
    for family in FAMILIES.values()
    for name, own in family.tiny.items()
}
TINY = tuple(CONFIGS)


def llama_geometry(
    hidden_size: int,
    head_dim: int,
    layers: Sequence[tuple[int, int, int]],
    query_bias: bool = False,
    key_value_bias: bool = False,
) -> Geometry:
    """The geometry of layers with these key-value heads, query heads on each, and MLP channels."""
    names = ("kv_heads", "group", "channels")
    return Geometry.from_dict(
        {
            "hidden_size": hidden_size,
            "head_dim": head_dim,
            "layers": [dict(zip(names, layer, strict=True)) for layer in layers],
            "query_bias": query_bias,
            "key_value_bias": key_value_bias,
        }
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast",
        action="store_true",
        help="only tests without pages, browsers, engines, real models, processes of their own or long runs",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("fast"):
        items[:] = [item for item in items if not is_slow(item)]


def is_slow(item: pytest.Item) -> bool:
    """Whether `--fast` leaves a test out for its folder, a fixture that it uses, or a marker."""
    return (
        item.path.parent.name in SLOW_FOLDERS
        or not SLOW_FIXTURES.isdisjoint(item.fixturenames)
        or any(item.get_closest_marker(name) for name in SLOW_MARKERS)
    )


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own cache and runs."""
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PRUNESCOPE_RUNS", str(tmp_path / "runs"))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and an end of text: every string is known."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)} | {"<|end|>": 256}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|end|>")


def tiny_model(name: str, seed: int = 0) -> Any:
    """A random model whose every parameter matters, biases and norms included."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def tiny_loaded(name: str, seed: int = 0) -> LoadedModel:
    """The same as `models.load` would give it."""
    return LoadedModel(tiny_model(name, seed), byte_tokenizer(), name, Path(), f"{name}-{seed}")


def tiny_pruned(name: str, text_file: Path, **options: Any) -> Finished:
    """A tiny model cut by 45% on a text, with its mask."""
    settings: dict[str, Any] = {"ratio": 0.45, "iterations": 2, "samples": 4, "seq_len": 24, "eval_blocks": 0}
    settings |= {"mixture": {"text": 1}, "domains": {"text": str(text_file)}}
    *_, finished = prune_loaded(tiny_loaded(name), RunConfig.create(**settings | options))
    return finished


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """A tiny Qwen2 with its tokenizer on disk."""
    folder = tmp_path / "tiny"
    tiny_model("qwen2").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Some text of no meaning, different on every line."""
    path = tmp_path / "words.txt"
    path.write_text("\n".join(f"line {i}: {i * i} {chr(97 + i % 26) * (i % 7)}" for i in range(600)))
    return path


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A real language model, unpacked once a session; tests that change it copy it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNESCOPE_CACHE", str(tmp_path_factory.getbasetemp().parent / "smollm2"))
        return load("smollm2", "cpu")


def needs_llama_cpp(test: Any) -> Any:
    """Marks a test that asks llama.cpp, which is an engine in this process."""
    reason = "llama-cpp-python is not installed: see requirements-gguf.txt"
    return pytest.mark.engines(pytest.mark.skipif(not find_spec("llama_cpp"), reason=reason)(test))


needs_demo = pytest.mark.skipif(
    not (DEMO / "config.json").exists(), reason="the demo model is not in assets/"
)
