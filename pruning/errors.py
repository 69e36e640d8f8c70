"""Errors that a user can fix: one sentence with what is wrong, the value, and the way out."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator


class PruningError(Exception):
    """Base class of user errors."""


class ConfigError(PruningError):
    """An option, or a combination of options, that cannot be carried out."""


class ModelError(PruningError):
    """A model that cannot be found, read or pruned."""


class DomainError(PruningError):
    """Text that cannot be found or is too short."""


class CalibrationError(PruningError):
    """Activations from which no statistics can be taken."""


class ExportError(PruningError):
    """A format that a model cannot be exported to."""


class RunError(PruningError):
    """A run that cannot be created, found or continued."""


class CorruptFileError(RunError):
    """A file of this program's that is missing, or not what was written."""


FULL = (errno.ENOSPC, errno.EDQUOT)  # error numbers of a full disk
REASON = 300  # characters of a library's message that are shown


@contextlib.contextmanager
def library_errors(kind: type[PruningError], what: str, way_out: str = "") -> Iterator[None]:
    """Turn any error that a library raises on a user's file into a user error of one sentence.

    transformers, tokenizers, datasets and the harness raise dozens of types for files that they do not
    expect, some of which do not derive from `Exception`.

    Args:
        kind: class of the error to raise.
        what: what cannot be done, such as `the model in 'x' cannot be loaded`; the library's reason follows.
        way_out: what the user can do, if that is known.

    Raises:
        PruningError: the library raised an error; this one is of class `kind`.
    """
    try:
        yield
    except (PruningError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        out_of_memory = type(error).__name__ == "OutOfMemoryError"  # torch's
        if out_of_memory or getattr(error, "errno", None) in FULL or "No space left" in str(error):
            raise  # the cause is the machine, not the file
        raise kind(f"{what}: {reason_of(error)}{f': {way_out}' if way_out else '.'}") from error


def reason_of(error: BaseException) -> str:
    """A library's message on one line without its full stop, behind the error's type if it is short."""
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
