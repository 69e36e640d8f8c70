"""GGUF files as models: described from their header, and read once into a plain folder in the cache.

The weights are dequantised by transformers' own reader; what it makes of the tokenizer is corrected where it
splits text by another rule than the one that the file names.
"""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pruning.errors import ModelError, RunError
from pruning.files import whole
from pruning.models.architectures import supported
from pruning.paths import cache_folder
from pruning.sealed import digests, kept_for, read_cached, read_json, verify, write_cached, write_json

# The file's name of an architecture, and transformers' model type.
TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
CHECKSUMS = "checksums.json"  # of the files of an unpacked model
EXACT_PARAMETERS = 2_000_000_000  # dequantised to float32 up to here, to float16 beyond: memory and disk
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)


def find(path: Path) -> Path | None:
    """The GGUF file that a path means: the file itself, or the only one of a folder without a config.

    Raises:
        ModelError: the folder holds several.
    """
    if path.is_file() and path.suffix.lower() == ".gguf":
        return path
    if not path.is_dir() or (path / "config.json").exists() or (path / "pruning.json").exists():
        return None
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf")
    if len(files) > 1:
        raise ModelError(
            f"the folder {str(path)!r} holds {len(files)} GGUF files: name one, such as {files[0].name!r}."
        )
    return files[0] if files else None


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of its model.

    Attributes:
        config: as `config.json` has it.
        parameters: of the whole model.
        quantised: whether weights have fewer than 16 bits.
        digest: names the bytes of the file.
    """

    config: dict[str, Any]
    parameters: int
    quantised: bool
    digest: str


def header(file: Path) -> Header:
    """What a file says of its model, without torch; kept, since a vocabulary takes seconds to read.

    Raises:
        ModelError: it is no GGUF file, or of an architecture that is not supported.
    """
    kept = kept_for("gguf", [file, Path(__file__)])  # another reader reads another header
    found = read_cached(kept, Header)
    if found is None:
        found = _read_header(file)
        write_cached(kept, found)
    return found


def _read_header(file: Path) -> Header:
    reader = _open(file)
    kind = _field(reader, "general.architecture")
    if kind not in TYPES:
        supported(kind)  # says what is
        raise ModelError(f"GGUF files of architecture {kind!r} are not read: known are {', '.join(TYPES)}.")
    names = {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "max_position_embeddings": "context_length",
        "head_dim": "attention.key_length",
    }
    found = {ours: _field(reader, f"{kind}.{theirs}") for ours, theirs in names.items()}
    if several := next((n for n, value in found.items() if isinstance(value, list)), None):
        raise ModelError(f"{str(file)!r} has another {several} in every layer: give its dense model.")
    config = {name: value for name, value in found.items() if value is not None}
    shapes = {tensor.name: [int(n) for n in tensor.shape] for tensor in reader.tensors}
    config |= {
        "model_type": TYPES[kind],
        "vocab_size": shapes.get("token_embd.weight", [0, 0])[1],
        "tie_word_embeddings": "output.weight" not in shapes,
    }
    quantised = any(tensor.tensor_type.name not in ("F32", "F16", "BF16") for tensor in reader.tensors)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return Header(config, sum(math.prod(shape) for shape in shapes.values()), quantised, digest)


def place(file: Path) -> Path:
    """Where a file is, or will be, unpacked."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem)[:60]
    return cache_folder() / "models" / f"{stem}-{header(file).digest[:12]}-{_converter()}"


@cache
def _converter() -> str:
    """Names what unpacks: a model that an earlier version unpacked otherwise is unpacked again."""
    code = Path(__file__).read_bytes() + version("transformers").encode()
    return hashlib.blake2b(code, digest_size=4).hexdigest()


def plain_folder(file: Path) -> Path:
    """The model of a GGUF file as transformers lays it out, made in the cache the first time.

    Raises:
        ModelError: the file is broken, or holds what is not known here; one sentence says what.
    """
    folder = place(file)
    if folder in _elsewhere:
        return Path(_elsewhere[folder].name) / folder.name
    if _intact(folder):
        return folder
    try:
        return _unpack(file, folder)
    except (OSError, SafetensorError) as error:  # a cache that is full or closed costs time, not the run
        apart = tempfile.TemporaryDirectory(prefix="prunescope-")
        try:
            found = _unpack(file, Path(apart.name) / folder.name)
        except (OSError, SafetensorError):
            reason = str(getattr(error, "strerror", None) or error)
            raise ModelError(
                f"{str(file)!r} cannot be unpacked into {str(folder.parent)!r} ({reason}): free some space "
                "there, or set PRUNESCOPE_CACHE."
            ) from None
        _elsewhere[folder] = apart
        return found


# Models of a cache that cannot be written, unpacked for as long as this process lives.
_elsewhere: dict[Path, tempfile.TemporaryDirectory] = {}


def _unpack(file: Path, folder: Path) -> Path:
    said = header(file)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole(folder, durable=False) as temporary:
        _convert(file, said.config["model_type"], said.parameters, temporary)
        write_json(temporary / CHECKSUMS, {"files": digests(temporary)})
    return folder


def _intact(folder: Path) -> bool:
    """Whether an unpacked model is there, every byte of it as it was written."""
    try:
        record = read_json(folder / CHECKSUMS, trusting=False)
        for name, checksum in (record or {"files": {"config.json": ""}})["files"].items():
            verify(folder / name, checksum)
    except RunError:
        return False
    return True


def _convert(file: Path, model_type: str, parameters: int, folder: Path) -> None:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from pruning.models.checkpoint import write_dense

    rule = _field(_open(file), "tokenizer.ggml.pre")
    bpe = _field(_open(file), "tokenizer.ggml.model") == "gpt2"
    if bpe and rule not in SPLITS:
        raise ModelError(
            f"the tokenizer of {str(file)!r} splits text by the rule {rule!r}, which is not known here "
            f"(known are {', '.join(SPLITS)}): give the model's folder with safetensors instead."
        )
    logging.disable_progress_bar()
    dtype = torch.float32 if parameters <= EXACT_PARAMETERS else torch.float16
    place: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(**place, dtype=dtype, output_loading_info=True)
        read, report = found
        tokenizer = AutoTokenizer.from_pretrained(**place)
    except Exception as error:  # the reader and its tokenizers raise a dozen types, some of them bare
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ModelError(f"the GGUF file {str(file)!r} cannot be read: {reason.rstrip('.')}.") from None
    if missing := sorted(report["missing_keys"]):  # which the library fills with random numbers
        raise ModelError(f"the GGUF file {str(file)!r} lacks {missing[0]!r}: copy or download it again.")
    if bpe:
        tokenizer.backend_tokenizer.pre_tokenizer = SPLITS[rule]()
    content = read.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "model_type"):
        content.pop(key, None)
    config = CONFIG_MAPPING[model_type].from_dict(content)
    plain: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = read.generation_config
    folder.mkdir()
    write_dense(plain, tokenizer, folder)


# --- how text is split, by the file's name of the rule -----------------------------------------------------


def _byte_level() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level()])


def _pattern(pattern: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


SPLITS: dict[str, Any] = {
    "gpt-2": _byte_level,
    "smollm": _digits,
    "qwen2": lambda: _pattern(QWEN2_SPLIT),
    "llama-bpe": lambda: _pattern(LLAMA3_SPLIT),
}


# --- the file ----------------------------------------------------------------------------------------------


def _open(file: Path) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelError(
            f"{str(file)!r} is no GGUF file, or only a part of one ({error}): copy or download it again."
        ) from None


def _field(reader: Any, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()
