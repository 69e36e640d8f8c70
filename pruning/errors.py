"""Mistakes that a person can put right: one sentence with what is wrong, the value, and the way out."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator


class PruningError(Exception):
    """What all of them are."""


class ConfigError(PruningError):
    """An option, or a combination of options, that cannot be carried out."""


class ModelError(PruningError):
    """A model that cannot be found, read or pruned."""


class DomainError(PruningError):
    """Text that cannot be found or is too short."""


class CalibrationError(PruningError):
    """Activations from which no statistics can be taken."""


class ExportError(PruningError):
    """A form that a model cannot be exported to."""


class RunError(PruningError):
    """A run that cannot be created, found or continued."""


class CorruptFileError(RunError):
    """A file of ours that is not what was written, or is gone."""


FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk, by the number of its error
REASON = 300  # characters of a library's message


@contextlib.contextmanager
def library_errors(kind: type[PruningError], what: str, way_out: str = "") -> Iterator[None]:
    """Turns whatever a library raises while it opens or uses a person's file into one sentence.

    transformers, tokenizers, datasets and the harness raise dozens of types for files that they do not
    expect, some of them not even below `Exception`.

    Args:
        kind: the error that is raised.
        what: what cannot be done, such as `the model in 'x' cannot be loaded`; the library's reason follows.
        way_out: what the person can do, where that is known.

    Raises:
        PruningError: of that kind.
    """
    try:
        yield
    except (PruningError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        out_of_memory = type(error).__name__ == "OutOfMemoryError"  # torch's
        if out_of_memory or getattr(error, "errno", None) in FULL or "No space left" in str(error):
            raise  # the file is all right
        raise kind(f"{what}: {reason_of(error)}{f': {way_out}' if way_out else '.'}") from error


def reason_of(error: BaseException) -> str:
    """What a library's error says, on one line without its full stop, with its type where it says little."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    if isinstance(error, LookupError) or len(text) < 12:
        text = f"{type(error).__name__}: {text}"
    return text[:REASON].rstrip(".")


def too_long(seq_len: int, context: int) -> ConfigError:
    """The error for blocks longer than a model's context."""
    return ConfigError(
        f"blocks of {seq_len} tokens are longer than the model's context of {context}: "
        "give a shorter --seq-len."
    )
