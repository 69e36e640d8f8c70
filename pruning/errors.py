"""Mistakes that a person can put right: one sentence with what is wrong, the value, and the way out."""

from __future__ import annotations


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


class DamagedError(RunError):
    """A file of ours that is not what was written, or is gone."""


def too_long(seq_len: int, context: int) -> ConfigError:
    """The error for blocks longer than a model's context."""
    return ConfigError(
        f"blocks of {seq_len} tokens are longer than the model's context of {context}: "
        "give a shorter --seq-len."
    )
