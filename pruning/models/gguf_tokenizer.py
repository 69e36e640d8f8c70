"""The tokenizer in a GGUF file, built as llama.cpp computes it: a byte-level BPE, or one of SentencePiece."""

from __future__ import annotations

from typing import Any

from pruning.formatting import quoted
from pruning.models.gguf_file import AGAIN, GGUFFile
from pruning.models.gguf_model import token_id

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"  # the file's names
# Names of the rule with which llama.cpp takes a token of the vocabulary as it is, whatever its merges, and
# begins a text with BOS.
LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
DIGITS = "digits"  # every digit apart, then as by the rule without a pattern
# By the name of a rule the pattern that it splits text by; several names are one rule in llama.cpp.
RULES = {
    "gpt-2": "",
    "smollm": DIGITS,
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), QWEN2_SPLIT),
    **dict.fromkeys(LLAMA3, LLAMA3_SPLIT),
}
SPACE = "\u2581"  # how SentencePiece writes a space
CONTROL, USER_DEFINED = 3, 4  # types of tokens that are found in text before it is split
# The tokens that transformers has a name for, by the file's name; and their ids in a SentencePiece vocabulary
# that does not say, as llama.cpp has them.
SPECIAL = {
    "bos": ("bos_token", 1),
    "eos": ("eos_token", 2),
    "unknown": ("unk_token", 0),
    "padding": ("pad_token", None),
}


def read_tokenizer(file: GGUFFile, rows: int) -> Any:
    """The tokenizer of a GGUF file, as transformers has it.

    Args:
        file: a GGUF file.
        rows: of the embedding.

    Raises:
        ModelError: it splits text in a way that is not supported, or is broken.
    """
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    kind, rule = (file.metadata.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    if kind not in (BYTE_LEVEL, SENTENCEPIECE):
        raise file.error(f"has a tokenizer of the kind {quoted(kind, 60)}, which is not supported")
    if kind == BYTE_LEVEL and not (isinstance(rule, str) and rule in RULES):
        raise file.error(
            f"has a tokenizer that splits text by the rule {quoted(rule, 60)}, which is not supported "
            f"(supported are {', '.join(RULES)})"
        )
    tokens = _list(file, "tokens", str)
    types = (
        _list(file, "token_type", int) if "tokenizer.ggml.token_type" in file.metadata else [1] * len(tokens)
    )
    if len(types) != len(tokens) or len(tokens) > rows:
        raise file.error(
            f"has {len(tokens):,} tokens, {len(types):,} types and an embedding of {rows:,} rows",
            AGAIN,
        )
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        twice = next(token for index, token in enumerate(tokens) if vocabulary[token] != index)
        raise file.error(f"has the token {quoted(twice, 60)} twice", AGAIN)
    backend = (_byte_level_bpe if kind == BYTE_LEVEL else _sentencepiece_bpe)(file, vocabulary)
    for wanted, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [token for token, type_ in zip(tokens, types, strict=True) if type_ == wanted]
        backend.add_tokens([AddedToken(token, normalized=False, special=special) for token in added])
    options: dict[str, Any] = {}
    for name, (theirs, default) in SPECIAL.items():
        index = token_id(file, name, len(tokens))
        if index is None and kind == SENTENCEPIECE and default is not None and default < len(tokens):
            index = default
        if index is not None:
            options[theirs] = tokens[index]
    for name, default in (
        ("add_bos_token", kind == SENTENCEPIECE or rule in LLAMA3),
        ("add_eos_token", False),
    ):
        options[name] = file.metadata.get(f"tokenizer.ggml.{name}", default)
        if type(options[name]) is not bool:
            raise file.value_error(f"tokenizer.ggml.{name}", "which is neither yes nor no")
    for name in ("bos", "eos"):
        if options[f"add_{name}_token"] and f"{name}_token" not in options:
            raise file.error(
                f"says tokenizer.ggml.add_{name}_token, and lacks tokenizer.ggml.{name}_token_id"
            )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **options
    )
    tokenizer.chat_template = _chat_template(file)
    return tokenizer


def _list(file: GGUFFile, name: str, kind: type) -> list[Any]:
    values = file.metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise file.error(f"lacks tokenizer.ggml.{name}", AGAIN)
    return values


def _chat_template(file: GGUFFile) -> str | dict[str, str] | None:
    key = "tokenizer.chat_template"
    default = file.metadata.get(key)
    named = {k.removeprefix(f"{key}."): v for k, v in file.metadata.items() if k.startswith(f"{key}.")}
    for value in (default, *named.values()):
        if value is not None and not isinstance(value, str):
            raise file.error(f"says {key} = {quoted(value)}, which is no text")
    if not named:
        return default
    return named if default is None else {"default": str(default), **named}


def _merges(file: GGUFFile, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs of tokens in the order in which they are joined; llama.cpp splits again what makes no token."""
    pairs = [tuple(merge.split(" ")) for merge in _list(file, "merges", str)]
    for pair in pairs:
        if len(pair) != 2 or not vocabulary.keys() >= set(pair):
            raise file.error(f"has the merge {quoted(' '.join(pair), 60)}, which is not of two tokens", AGAIN)
    return [pair for pair in pairs if "".join(pair) in vocabulary]


def _byte_level_bpe(file: GGUFFile, vocabulary: dict[str, int]) -> Any:
    from tokenizers import Tokenizer, decoders, models

    rule = file.metadata["tokenizer.ggml.pre"]
    bpe = models.BPE(vocab=vocabulary, merges=_merges(file, vocabulary), ignore_merges=rule in LLAMA3)
    backend = Tokenizer(bpe)
    backend.pre_tokenizer = _pre_tokenizer(rule)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece_bpe(file: GGUFFile, vocabulary: dict[str, int]) -> Any:
    """Pieces are joined by scores, highest first; a space begins a text and what follows a special token."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers.tokenization_utils_base import generate_merges

    tokens, scores = list(vocabulary), _list(file, "scores", float)
    if len(scores) != len(tokens):
        raise file.error(f"has {len(scores):,} scores of {len(tokens):,} tokens", AGAIN)
    types = file.metadata.get("tokenizer.ggml.token_type", [])
    # these are found in a text before its pieces are joined
    never_made = {
        token for token, kind in zip(tokens, types, strict=False) if kind in (CONTROL, USER_DEFINED)
    }
    merges = generate_merges(vocabulary, dict(zip(tokens, scores, strict=True)), never_made)
    unknown = token_id(file, "unknown", len(tokens)) or 0
    bpe = models.BPE(
        vocab=vocabulary, merges=merges, unk_token=tokens[unknown], fuse_unk=True, byte_fallback=True
    )
    backend = Tokenizer(bpe)
    prefixed = file.metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaces = [normalizers.Prepend(SPACE)] if prefixed else []
    backend.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", SPACE)])
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefixed else [])])
    return backend


def _pre_tokenizer(rule: str) -> Any:
    """How a byte-level BPE splits text, by the rule's name in the file."""
    from tokenizers import Regex, pre_tokenizers

    pattern = RULES[rule]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern in ("", DIGITS))
    if not pattern:
        return byte_level
    first: Any = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    if pattern == DIGITS:
        first = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([first, byte_level])
