"""Inputs that nobody would write, by the thousand: each gets an answer or one sentence, within ten seconds.

    python benchmarks/fuzz.py --examples 1500            # of each kind; of addresses, which draw a page, fewer

Anything but a `PruningError` (or the command line's exit with code 2) counts as a traceback. Hypothesis makes the
inputs: odd values in the place of right ones, right files with bytes changed, and noise.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import copy
import gzip
import io
import json
import lzma
import os
import random
import shutil
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from pruning import RunConfig
from pruning.checksums import digests, write_json
from pruning.cli.main import parser
from pruning.engine.blocks import calibration_blocks
from pruning.engine.budget import check_reachable
from pruning.errors import PruningError
from pruning.experiments.grid import Experiment
from pruning.files import EXPORT_FILE
from pruning.formatting import plain
from pruning.limits import parse_mixture
from pruning.measure.perplexity import perplexity
from pruning.measure.writing import continue_prompt
from pruning.method.allocation import ALLOCATIONS
from pruning.method.compensation import COMPENSATIONS
from pruning.method.normalise import NORMALISERS
from pruning.method.presets import METHODS
from pruning.method.schedules import SCHEDULES
from pruning.method.scores import SCORES
from pruning.models.checkpoint import save
from pruning.models.folder import DEMO, describe
from pruning.models.loading import load
from pruning.outputs import output_file, output_folder
from pruning.progress import drain
from pruning.text.sources import describe_source, load_text
from tests.conftest import TINY, byte_tokenizer, llama_geometry, tiny_model
from tests.models.gguf_files import dense, metadata, tensors, write_file

SECONDS = 10.0  # an input that takes longer counts as a hang
PAGES = ("overview", "calibration", "importance", "masks", "prune", "results", "experiments")
PARAMETERS = (
    "run",
    "ratio",
    "method",
    "iteration",
    "layer",
    "channel",
    "site",
    "keep",
    "w_wiki",
    "follow",
    "side",
)
ROOT = Path(__file__).resolve().parent.parent

# --- what inputs are made of -------------------------------------------------------------------------------

ODD_TEXT = st.sampled_from(
    ["", " ", "\0", "\ud800", "a\nb", "../../x", "/etc/passwd", "-1", "nan", "1e308", "9" * 5000, "x" * 5000]
    + [
        "mean",
        "![p](http://x)",
        "${HOME}",
        "wiki=1",
        "hub:",
        "hub:a/b:c:d",
        "~nobody",
        "0.attn",
        "\ufeff",
        "🦙",
    ]
)
TEXT = st.text(max_size=40) | ODD_TEXT
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
SCALARS |= st.sampled_from([2**63, 2**64, 10**400, -1, 1e308, float("nan"), float("inf")])
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4), max_leaves=8
)
SENTENCES = st.text("abc défg .,\n", min_size=20, max_size=200)
TEXTS = st.lists(st.fixed_dictionaries({"text": SENTENCES}, optional={"id": SCALARS}), min_size=1, max_size=6)
ROWS = st.lists(
    st.fixed_dictionaries({"text": SENTENCES})
    | st.dictionaries(
        st.sampled_from(["text", "content", "messages", "id", "question", "answer"]) | TEXT,
        VALUES,
        max_size=4,
    )
    | VALUES,
    max_size=6,
)
MESSAGES = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "from", "value"]), VALUES), max_size=3
)


ENDINGS = [
    ".txt",
    ".jsonl",
    ".json",
    ".csv",
    ".tsv",
    ".ndjson",
    ".md",
    ".parquet",
    ".arrow",
    ".ipynb",
    ".GZ",
    ".zst",
    "",
]
SCRIPTS = st.text(max_size=60) | st.sampled_from(
    ["河水东流", "नदी", "النهر", "👩‍👩‍👧", "e\u0301", "\u2028", "\x85"]
)
COMPRESS: list[Callable[[bytes], bytes]] = [
    gzip.compress,
    bz2.compress,
    lzma.compress,
    lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
    lambda content: pyarrow.compress(content, codec="lz4", asbytes=True),
]
# How other programs begin a file.
MAGIC = [
    b"%PDF-1.4\n",
    b"PK\x03\x04",
    b"{\\rtf1",
    b"\x80\x04\x95",
    b"PAR1",
    b"ARROW1\0\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
]
MAGIC += [b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\xff\xff\xff\xff"]


def _shapes(rows: list[Any]) -> Any:
    """The same rows in the shapes that programs give JSON."""
    tables = [row for row in rows if isinstance(row, dict)]
    names = list(dict.fromkeys(name for row in tables for name in row))
    by_column = {name: [row.get(name) for row in tables] for name in names}
    return st.sampled_from(
        [
            rows,
            {"data": rows},
            {"train": tables, "test": tables[:1]},
            by_column,
            {name: {str(i): value for i, value in enumerate(column)} for name, column in by_column.items()},
            {str(i): row for i, row in enumerate(tables)},
            {"columns": names, "index": [], "data": [[row.get(name) for name in names] for row in tables]},
            {"cells": rows, "nbformat": 4},
            {"doc": {"text": rows}},
            [{"doc": row} for row in rows],
            [{"messages": json.dumps(row)} for row in rows],
        ]
    )


def _table(rows: list[Any], ending: str) -> bytes:
    """Rows as Parquet or Arrow; of what these do not hold, the text."""
    sink = pyarrow.BufferOutputStream()
    try:
        table = pyarrow.Table.from_pylist([row for row in rows if isinstance(row, dict)] or [{"text": "a"}])
        if ending == ".parquet":
            pyarrow.parquet.write_table(table, sink)
        else:
            with pyarrow.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return json.dumps(rows).encode()
    return sink.getvalue().to_pybytes()


@st.composite
def files(draw: Any) -> tuple[str, bytes, str]:
    """A name, bytes and a column: rows in some form, changed, cut off, compressed or begun like another file."""
    ending = draw(st.sampled_from(ENDINGS))
    rows = draw(TEXTS | ROWS | st.lists(MESSAGES.map(lambda turns: {"messages": turns}), max_size=4))
    indent, ascii_only = draw(st.sampled_from([None, None, 1, 4])), draw(st.booleans())
    content = draw(
        st.just("\n".join(json.dumps(row, indent=indent) for row in rows).encode())
        | st.just(_table(rows, ending))
        | _shapes(rows).map(
            lambda shape: json.dumps(shape, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
        )
        | st.lists(SCRIPTS, max_size=6).map(
            lambda cells: ("text,id\n" + ",".join(cells)).encode("utf-8", "replace")
        )
        | st.binary(max_size=300)
        | SENTENCES.map(str.encode)
        | (TEXT | SCRIPTS).map(lambda text: text.encode("utf-16", "surrogatepass"))
    )
    content = _damaged(draw, content)
    content = draw(st.sampled_from([b""] * 8 + MAGIC)) + content
    if draw(st.booleans()):
        content = _damaged(draw, draw(st.sampled_from(COMPRESS))(content))
    name = draw(st.sampled_from(["a", "[v1] a", "a*?", "ä", "a:b", "UPPER"]))
    columns = ["", "text", "id+text", "doc.text", "train.text", "data", ":", "+", ".", "doc."]
    return name + ending, content, draw(st.just("") | st.sampled_from(columns) | TEXT)


def _damaged(draw: Any, content: bytes) -> bytes:
    """Half of the time as it is."""
    if draw(st.booleans()):
        return content
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        if changed:
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed[: draw(st.integers(0, len(changed)))] if draw(st.booleans()) else changed)


def _options(names: tuple[str, ...]) -> Any:
    return st.dictionaries(st.sampled_from(names) | TEXT, VALUES, max_size=5)


WORDS = st.sampled_from(["wiki", "code", "mine", "a b", "ä", "x" * 60])
SOME_PINS = st.lists(
    st.sampled_from(["0", "1.attn", "2.mlp", "2.mlp.0-7", "0.attn.1", "1.mlp.40-47"]), max_size=3
)
# Right values of a config's fields.
RIGHT: dict[str, Any] = {
    "method": st.sampled_from([*METHODS]),
    "score": st.sampled_from([*SCORES]),
    "normalise": st.sampled_from([*NORMALISERS]),
    "allocation": st.sampled_from([*ALLOCATIONS]),
    "schedule": st.sampled_from([*SCHEDULES]),
    "compensation": st.sampled_from([*COMPENSATIONS]),
    **{name: st.booleans() for name in ("adapt_mixture", "square_attention", "sequential", "save_model")},
    "token_weights": st.sampled_from(["equal", "residual"]),
    "fusion": st.sampled_from(["within", "total"]),
    "unit_score": st.sampled_from(["per_parameter", "mean"]),
    "attention_unit": st.sampled_from(["kv_group", "query_head"]),
    "mixture": st.dictionaries(st.sampled_from(["wiki", "web", "code", "math", "mine"]), st.floats(1e-3, 10))
    | st.just("auto"),
    "domains": st.just({"mine": "notes.txt"}),
    "ratio": st.floats(0, 0.95),
    "worst_domain": st.floats(0, 1),
    "samples": st.integers(1, 64),
    "seq_len": st.integers(2, 512),
    "round_to": st.integers(1, 64),
    "min_attention_units": st.integers(1, 9),
    "min_mlp_share": st.floats(0.01, 1),
    "iterations": st.integers(1, 9),
    "eval_blocks": st.none() | st.integers(0, 64),
    "keep": SOME_PINS,
    "remove": SOME_PINS,
    "name": WORDS,
    "tags": st.lists(WORDS, max_size=3),
    "seed": st.integers(0, 2**63 - 1),
}


def _nearly(right: dict[str, Any], names: Iterable[str], needed: dict[str, Any] | None = None) -> Any:
    """Right options, and in the place of up to two of them, or beside them, odd ones."""
    odd = st.dictionaries(st.sampled_from([*names]) | TEXT, VALUES, max_size=2)
    some = st.fixed_dictionaries(needed or {}, optional=right)
    return st.tuples(some, st.just({}) | odd).map(lambda both: both[0] | both[1])


CONFIGS = _nearly(RIGHT, RunConfig.model_fields)
GRIDS = st.fixed_dictionaries(
    {}, optional={name: value | st.lists(value, min_size=1, max_size=3) for name, value in RIGHT.items()}
)
EXPERIMENTS = _nearly(
    {
        "about": WORDS,
        "options": st.fixed_dictionaries({}, optional=RIGHT),
        "x": st.sampled_from(["ratio", "iterations", "samples"]),
        "series": st.lists(st.sampled_from(["method", "mixture", "seed"]), min_size=1, max_size=2),
        "of": st.sampled_from(["mean", "each", "wiki"]),
        "paper": st.sampled_from(["main", "domains", "iterations", "samples"]),
    },
    Experiment.model_fields,
    {"title": WORDS, "grid": st.lists(GRIDS, min_size=1, max_size=2)},
)


@st.composite
def arguments(draw: Any) -> list[str]:
    """Words of a command line."""
    command = draw(
        st.sampled_from(["prune", "calibrate", "evaluate", "generate", "bench", "export", "app"]) | TEXT
    )
    flags = [
        "--seed",
        "--tokens",
        "--ratio",
        "--mixture",
        "--domain",
        "--calibration-blocks",
        "--port",
        "--keep",
        "--temperature",
    ]
    words = draw(st.lists(st.sampled_from(flags) | TEXT, max_size=6))
    right = st.sampled_from(
        ["--ratio=0.3", "--seed=7", "--mixture=wiki=1,code=2", "--calibration-blocks=8", "--keep=0.attn"]
    )
    return [command, *draw(st.lists(right, max_size=3)), *words]


SMALL = llama_geometry(32, 8, ((2, 2, 48),) * 3)

# --- what is done with them --------------------------------------------------------------------------------


def _config(options: dict[str, Any], folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(options))
    config = RunConfig.read(folder / "config.json")
    check_reachable(SMALL, config)


def _mixture(text: str, folder: Path) -> None:
    RunConfig.create(mixture=parse_mixture(text), domains={"mine": "notes.txt"})


def _selectors(pins: tuple[list[str], list[str], float], folder: Path) -> None:
    check_reachable(SMALL, RunConfig.create(keep=pins[0], remove=pins[1], ratio=pins[2]))


def _text(file: tuple[str, bytes, str], folder: Path) -> None:
    name, content, column = file
    (folder / name).write_bytes(content)
    for split in ("calibration", "heldout"):
        describe_source(
            load_text("x", f"{folder / name}:{column}" if column else str(folder / name), split).source
        )


def _source(source: str, folder: Path) -> None:
    if not source.startswith("hub:"):  # which asks the network
        load_text("x", source, "calibration")


def _experiment(content: dict[str, Any], folder: Path) -> None:
    (folder / "experiment.yaml").write_text(json.dumps(content))
    Experiment.read(folder / "experiment.yaml").configs()


def _model(change: tuple[str, dict[str, Any], bytes], folder: Path) -> None:
    what, values, raw = change
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).symlink_to(DEMO / name)
    if what == "config":
        content = json.loads((DEMO / "config.json").read_text()) | values
        (folder / "config.json").unlink()
        (folder / "config.json").write_text(json.dumps(content))
    elif what == "index":
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps(values))
    elif what == "adapter":
        (folder / "adapter_config.json").write_text(json.dumps(values))
    else:
        (folder / "model.safetensors").unlink()
        header = json.dumps(values).encode() if what == "header" else raw
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + raw)
    describe(str(folder))


@cache
def _family(name: str) -> Path:
    """A tiny random model of an architecture with its tokenizer, made once."""
    from transformers import GenerationConfig

    folder = Path(tempfile.mkdtemp(prefix="prunescope-fuzz-"))
    tiny_model(name).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    GenerationConfig(eos_token_id=256, temperature=0.7, do_sample=True).save_pretrained(folder)
    return folder


@st.composite
def changes(draw: Any) -> tuple[str, str, list[Any]]:
    """An architecture, a file of its folder, and that file's content with up to two values changed."""
    family = draw(st.sampled_from(TINY))
    files = (
        "config.json",
        "config.json",
        "tokenizer_config.json",
        "tokenizer.json",
        "generation_config.json",
    )
    name = draw(st.sampled_from(files))
    content = json.loads((_family(family) / name).read_text())
    for _ in range(draw(st.integers(1, 2))):
        _change(draw, content)
    return family, name, content


def _change(draw: Any, content: Any) -> None:
    """Change one value somewhere in a JSON object, take it out, or add one."""
    node = content
    while True:
        keys = sorted(node) if isinstance(node, dict) else list(range(min(len(node), 8)))
        key = draw(st.sampled_from(keys)) if keys else None
        if key is None or not (isinstance(node[key], dict | list) and node[key] and draw(st.booleans())):
            break
        node = node[key]
    odd = (
        SCALARS | VALUES | st.sampled_from([0, 1, -1, 1.5, 512.0, "512", "gelu", [], {}, "flash_attention_2"])
    )
    odd |= st.sampled_from([OWN, "Own", ["own.Own", None]]).map(copy.deepcopy)
    if key is None or (isinstance(node, dict) and draw(st.integers(0, 9)) == 0):
        if isinstance(node, dict):
            node[draw(st.sampled_from(MORE_KEYS))] = draw(odd)
    elif isinstance(node, dict) and draw(st.integers(0, 5)) == 0:
        del node[key]
    else:
        node[key] = draw(odd)


# Keys that configs of other models and other versions have.
MORE_KEYS = (
    *(
        "_attn_implementation",
        "attn_implementation",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "layer_types",
    ),
    *("auto_map", "quantization_config", "torch_dtype", "num_beams", "num_return_sequences", "penalty_alpha"),
    *(
        "per_layer_config",
        "block_configs",
        "output_bias",
        "tokenizer_class",
        "added_tokens_decoder",
        "head_dim",
    ),
    *(
        "cache_implementation",
        "is_decoder",
        "output_attentions",
        "pruned_heads",
        "model_input_names",
        "chat_template",
    ),
)


def _load(change: tuple[str, str, Any], folder: Path) -> None:
    """Everything that is done with a model's folder: described, loaded, given text, let write, saved."""
    family, name, content = change
    for file in _family(family).iterdir():
        if file.name != name:
            (folder / file.name).symlink_to(file)
    (folder / name).write_text(json.dumps(content))
    (folder / "own.py").write_text(CODE)
    os.environ["PRUNESCOPE_FUZZ"] = str(folder / "RAN")
    try:
        _use_model(folder)
    finally:
        assert not (folder / "RAN").exists(), "code of the folder ran"


# Python that comes with a model's folder; configs name it under `auto_map` and `tokenizer_class`.
CODE = """
import os
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Path(os.environ["PRUNESCOPE_FUZZ"]).touch()


class Own(PreTrainedTokenizerFast):
    pass
"""
OWN = {"AutoTokenizer": ["own.Own", "own.Own"], "AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}


def _use_model(folder: Path) -> None:
    describe(str(folder))
    loaded = load(str(folder), "cpu")
    config = RunConfig.create(samples=1, seq_len=8, eval_blocks=1, mixture={"wiki": 1.0})
    blocks = calibration_blocks(config, loaded.tokenizer, loaded.model)
    drain(perplexity(loaded.source, blocks), lambda _: None)
    continue_prompt(loaded, torch.from_numpy(blocks[0].ids[:, :4]), 2)
    save(loaded.source, loaded.tokenizer, folder / "saved")


@st.composite
def gguf_files(draw: Any) -> tuple[dict[str, Any], bytes]:
    """Keys of a GGUF file with up to two of them changed, and bytes to write over its header."""
    changed = draw(st.dictionaries(st.sampled_from(sorted(GGUF_KEYS)), SCALARS | VALUES, max_size=2))
    return changed, draw(st.just(b"") | st.sampled_from([b"\0", b"\xff", b"\xff" * 8, b"\0\0\0\x7f"]))


GGUF_MODEL = dense(
    LlamaConfig, num_hidden_layers=2, hidden_size=16, num_attention_heads=4, num_key_value_heads=2
)
GGUF_KEYS = {
    **metadata(GGUF_MODEL, "llama"),
    "llama.rope.scaling.type": "linear",
    "llama.rope.scaling.factor": 2.0,
}


def _gguf(case: tuple[dict[str, Any], bytes], folder: Path) -> None:
    changed, raw = case
    file = folder / "model.gguf"
    try:
        write_file(file, "llama", GGUF_KEYS | changed, tensors(GGUF_MODEL, "llama"))
    except Exception:  # the writer takes no such value, so no file has it
        write_file(file, "llama", GGUF_KEYS, tensors(GGUF_MODEL, "llama"))
    content = bytearray(file.read_bytes())
    if raw:
        at = random.randrange(len(content) // 2)
        content[at : at + len(raw)] = raw
        file.write_bytes(content)
    with patched_cache(folder):
        loaded = load(str(file), "cpu")
    with torch.no_grad():
        loaded.model(torch.arange(6)[None])


@contextlib.contextmanager
def patched_cache(folder: Path) -> Any:
    """A cache of its own, which goes with the folder."""
    before = os.environ.get("PRUNESCOPE_CACHE")
    os.environ["PRUNESCOPE_CACHE"] = str(folder / "cache")
    try:
        yield
    finally:
        os.environ.pop("PRUNESCOPE_CACHE")
        if before is not None:
            os.environ["PRUNESCOPE_CACHE"] = before


# Where a person may want an output, beside files of theirs.
OUTPUT_PATHS = st.sampled_from(
    [
        "",
        ".",
        "..",
        "/",
        "./",
        "mine",
        "mine/",
        "mine/thesis.txt",
        "link",
        "folder link",
        "pipe",
        "/dev/null",
        "new",
    ]
    + [
        "new/",
        "mine/new",
        "missing/new",
        "~nobody/x",
        "new.json",
        "mine/../new",
        "x" * 300,
        "\0",
        "mine/thesis.txt/x",
    ]
)


def _output(case: tuple[str, str], folder: Path) -> None:
    """Whatever is named for output, a person's files are afterwards as they were."""
    kind, path = case
    folder = folder / "a" / "b" / "c"  # so that ../../x stays within
    mine = folder / "mine"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("years of work")
    (folder / "link").symlink_to(mine / "thesis.txt")
    (folder / "folder link").symlink_to(mine)
    os.mkfifo(folder / "pipe")
    before = Path.cwd()
    os.chdir(folder)
    try:
        if kind == "file":
            with output_file(path) as temporary:
                temporary.write_text("ours")
        else:
            with output_folder(path, EXPORT_FILE) as temporary:
                (temporary / "thesis.txt").write_text("ours")
                write_json(temporary / EXPORT_FILE, {"files": digests(temporary)})
    finally:
        os.chdir(before)
        assert (mine / "thesis.txt").read_text() == "years of work"
        assert (folder / "link").is_symlink() and stat.S_ISFIFO((folder / "pipe").stat().st_mode)
        assert Path("/dev/null").is_char_device()


def _arguments(words: list[str], folder: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser().parse_args(words)
        except SystemExit as stop:  # --help
            assert stop.code == 0
        except PruningError:
            pass


def _plain(text: str, folder: Path) -> None:
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark", {"html": True}).render(plain(text))
    assert html.count("<") == (2 if plain(text) else 0), html


def _address(address: tuple[str, dict[str, str]], folder: Path) -> None:
    from streamlit.testing.v1 import AppTest

    page, parameters = address
    with contextlib.chdir(ROOT):
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        for key, value in parameters.items():
            at.query_params[key] = value
        at.run()
        at.switch_page(f"pages/{page}.py").run()
        assert not at.exception, at.exception[0].message


MODEL_KEYS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size"),
    *("vocab_size", "head_dim", "model_type", "architectures", "quantization_config", "tie_word_embeddings"),
    *("max_position_embeddings", "torch_dtype"),
)
HEADERS = st.dictionaries(TEXT, _options(("dtype", "shape", "data_offsets")) | VALUES, max_size=3)
MODELS = (
    st.tuples(st.just("config"), _options(MODEL_KEYS), st.just(b""))
    | st.tuples(st.just("index"), _options(("weight_map", "metadata")), st.just(b""))
    | st.tuples(st.just("adapter"), _options(("base_model_name_or_path",)), st.just(b""))
    | st.tuples(st.just("header"), HEADERS, st.binary(max_size=20))
    | st.tuples(st.just("bytes"), st.just({}), st.binary(max_size=300))
)
PINS = st.lists(
    st.from_regex(r"[0-9-]{1,3}(\.(attn|mlp)(\.[0-9]{1,3}(-[0-9]{1,3})?)?)?", fullmatch=True) | TEXT,
    max_size=4,
)
SHARES = st.lists(
    st.tuples(
        st.sampled_from(["wiki", "code", "mine"]) | WORDS, st.floats(0, 100) | st.integers(0, 9) | st.floats()
    ),
    max_size=4,
    unique_by=lambda share: share[0],
)

# By kind of input: what makes one, what is done with it, and the share of the examples.
KINDS: dict[str, tuple[Any, Callable[[Any, Path], None], float]] = {
    "configs": (CONFIGS, _config, 1),
    "mixtures": (TEXT | SHARES.map(lambda m: ",".join(f"{n}={w}" for n, w in m)), _mixture, 1),
    "selectors": (st.tuples(SOME_PINS, SOME_PINS | PINS, st.floats(0, 0.9)), _selectors, 1),
    "text files": (files(), _text, 1),
    "sources": (TEXT, _source, 1),
    "experiments": (EXPERIMENTS, _experiment, 1),
    "model folders": (MODELS, _model, 1),
    "loaded models": (changes(), _load, 1),
    "GGUF files": (gguf_files(), _gguf, 1),
    "outputs": (st.tuples(st.sampled_from(["file", "folder"]), OUTPUT_PATHS | TEXT), _output, 1),
    "command lines": (arguments(), _arguments, 1),
    "names in Markdown": (TEXT, _plain, 1),
    "addresses": (
        st.tuples(st.sampled_from(PAGES), st.dictionaries(st.sampled_from(PARAMETERS), TEXT, max_size=4)),
        _address,
        0.05,
    ),
}


@dataclass
class Outcome:
    """What came of one kind of input.

    Attributes:
        inputs, refused: how many, and how many of them got a sentence.
        slowest: seconds of the slowest.
        hangs: inputs that took more than `SECONDS`.
        tracebacks: by the place in the code, one example each.
    """

    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    hangs: int = 0
    tracebacks: dict[str, str] = field(default_factory=dict)


def fuzz(kind: str, examples: int, number: int = 0) -> Outcome:
    """Try inputs of one kind.

    Args:
        kind: of `KINDS`.
        examples: how many.
        number: seed.
    """
    strategy, use, _ = KINDS[kind]
    outcome = Outcome()

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def attempt(value: Any) -> None:
        folder = Path(tempfile.mkdtemp(prefix="prunescope-fuzz-"))
        began = time.monotonic()
        try:
            use(value, folder)
        except PruningError as error:
            outcome.refused += 1
            words = str(error)
            if len(words) > 2_000 or "\n" in words:
                outcome.tracebacks.setdefault("a message of many lines or characters", words[:300])
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
            outcome.tracebacks.setdefault(where, f"{str(error)[:200]!r} for {value!r:.300}")
        finally:
            seconds = time.monotonic() - began
            outcome.inputs += 1
            outcome.slowest = max(outcome.slowest, seconds)
            outcome.hangs += seconds > SECONDS
            shutil.rmtree(folder, ignore_errors=True)

    random.seed(number)
    attempt()
    return outcome


def main() -> int:
    """Try all kinds and print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--examples", type=int, default=1500, help="of each kind")
    options.add_argument("--kind", choices=tuple(KINDS), action="append", help="only these (default: all)")
    options.add_argument("--seed", type=int, default=0)
    given_options = options.parse_args()
    print(
        "| input | tried | refused in a sentence | tracebacks | over 10 s | slowest |\n|---|--:|--:|--:|--:|--:|"
    )
    bad = 0
    for kind in given_options.kind or KINDS:
        outcome = fuzz(kind, max(1, round(given_options.examples * KINDS[kind][2])), given_options.seed)
        cells = (
            f"{outcome.inputs:,}",
            f"{outcome.refused:,}",
            str(len(outcome.tracebacks)),
            str(outcome.hangs),
        )
        print(f"| {kind} | {' | '.join(cells)} | {outcome.slowest:.1f} s |", flush=True)
        for where, example in outcome.tracebacks.items():
            print(f"  {where}: {example}", file=sys.stderr, flush=True)
        bad += len(outcome.tracebacks) + outcome.hangs
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
