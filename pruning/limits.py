"""Limits of what a user may enter: numbers, strings, names of domains, mixtures.

The checks raise ValueError, which `RunConfig` turns into one sentence.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping

from pruning.errors import ConfigError
from pruning.formatting import quoted

# Larger numbers would fill the memory or never end: a billion tokens of text are 8 GB.
SAMPLES, TOKENS = 1_000_000, 1_000_000_000
LARGEST_WEIGHT = 1e9
NAME_BYTES = 64  # of a domain's name, which becomes part of file names
WORD_CHARACTERS = 4096  # of a path or any other string: the longest that systems take
RESERVED = ("mean", "average", "embedded")  # rows beside those of domains in tables of measures
_NAME = re.compile(r"\w[\w.+-]*")


def check_words(field: str, words: Iterable[object]) -> None:
    """Refuse strings that no file system, terminal or JSON file takes.

    Raises:
        ValueError: a string is too long, or has a control character or a lone surrogate.
    """
    for word in words:
        if not isinstance(word, str):
            continue
        if len(word) > WORD_CHARACTERS:
            raise ValueError(f"{field} has {len(word):,} characters: give at most {WORD_CHARACTERS:,}")
        if odd := next((c for c in word if c < " " or "\ud800" <= c <= "\udfff"), None):
            raise ValueError(
                f"{field} is {quoted(word)}, with the character {odd!r}: leave out the character, or rename "
                "the file that has it"
            )


def check_names(domains: Iterable[str]) -> None:
    """Refuse names of domains that cannot be part of a file's name, or have another meaning.

    Raises:
        ValueError: a name is invalid or reserved, or differs from another only by case or form.
    """
    folded: dict[str, str] = {}
    for name in domains:
        if not _NAME.fullmatch(name) or len(name.encode()) > NAME_BYTES or name.casefold() in RESERVED:
            raise ValueError(
                f"{quoted(name)} cannot name a domain: use up to {NAME_BYTES} letters, digits, '_', '-', '.' "
                f"and '+', beginning with a letter or digit, and none of the words {', '.join(RESERVED)}"
            )
        first = folded.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if first != name:
            raise ValueError(
                f"some file systems do not tell the domains {quoted(first)} and {quoted(name)} apart: rename "
                "one of them"
            )


def normalise_mixture(mixture: Mapping[str, float]) -> dict[str, float]:
    """Weights of domains divided by their sum, without those that are 0.

    Raises:
        ValueError: a weight is out of range, or all are zero.
    """
    for name, weight in mixture.items():
        if not 0 <= weight <= LARGEST_WEIGHT:
            raise ValueError(
                f"the weight of domain {quoted(name)} is {weight}: weights are numbers from 0 to 1e9"
            )
    total = math.fsum(mixture.values())
    if not total > 0:
        raise ValueError("all domain weights are zero: give at least one domain a weight above 0")
    if abs(total - 1) < 1e-12:  # normalised already: dividing again would change the last digit
        total = 1.0
    return {name: weight / total for name, weight in mixture.items() if weight > 0}


def parse_mixture(text: str) -> dict[str, float]:
    """Parse a mixture such as `wiki=0.4,code=0.6`; a name alone has weight 1.

    Raises:
        ConfigError: a weight is no number, a domain is named twice, or there is none.
    """
    mixture: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = part.partition("=")
        name = name.strip()
        if name in mixture:
            raise ConfigError(f"the mixture names domain {quoted(name)} twice: give each domain once.")
        try:
            mixture[name] = float(weight) if weight else 1.0
        except ValueError:
            raise ConfigError(
                f"the weight {quoted(weight)} of domain {quoted(name)} is no number: write it as in wiki=0.5."
            ) from None
    if not mixture:
        raise ConfigError("the mixture is empty: write it as wiki=0.5,code=0.5.")
    return mixture
