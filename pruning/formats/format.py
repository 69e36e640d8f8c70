"""The export formats: one entry each, which plans what a model becomes, writes it, and checks it.

To add one, write a module with these functions, and register a `Format` there with `FORMATS.add`; name the
module in this package's `__init__`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import ExportError
from pruning.formats.checkpoint_info import CheckpointInfo
from pruning.models.folder import LoadedModel
from pruning.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class ExportPlan:
    """What a model becomes in one format, or why it cannot be written so.

    Attributes:
        format: the format's name, as `export` takes it.
        architecture: the name under which loaders find the model.
        loads_in: the programs that load it, in words.
        drawback: what the model loses, in words; empty if nothing.
        bytes: the approximate size of the export; 0 if it has none.
        unsupported_reason: why the model cannot be written so, with a format that works; empty if it can.
    """

    format: str
    architecture: str
    loads_in: str
    drawback: str = ""
    bytes: int = 0
    unsupported_reason: str = ""

    @property
    def custom(self) -> bool:
        """Whether a modelling file goes with the weights."""
        return self.architecture.startswith("Pruned")


@dataclass(frozen=True)
class ExportJob:
    """What a format writes and checks.

    Attributes:
        folder: the checkpoint's folder.
        loaded: the checkpoint in memory; None while the export is checked.
        info: what is known of the checkpoint without loading it.
        plan: what the model becomes.
        kind: the type of the weights; None for as stored.
        record: where the checkpoint comes from.
        name: the model's name, for a file that other programs list by its name.
        verify: whether the export will be checked.
    """

    folder: Path
    loaded: LoadedModel | Any
    info: CheckpointInfo
    plan: ExportPlan
    kind: str | None
    record: dict
    name: str
    verify: bool = True


@dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
        kinds: the types of weights that it can be written with; empty where it has no weights.
        plan: what a model becomes with a type of weights, without loading it.
        write: writes a model into a folder, and returns the file or folder that a program loads.
        check: compares an export with logits (64, vocabulary) of the checkpoint, and returns the largest
            difference, or None where the program that computes the format is not installed.
        snippet: Python code that loads an export.
        casts_weights: whether the weights are cast to their type before they are written.
    """

    kinds: tuple[str, ...]
    plan: Callable[[CheckpointInfo, str | None], ExportPlan]
    write: Callable[[ExportJob, Path], Path]
    check: Callable[[ExportJob, Path, Tensor], float | None]
    snippet: Callable[[ExportPlan, Path], str]
    casts_weights: bool = True


FORMATS: Registry[Format] = Registry("export format")


def export_plans(info: CheckpointInfo, kind: str | None = None) -> list[ExportPlan]:
    """What a model becomes in every format.

    Args:
        info: of the model.
        kind: the type of the weights; None for as stored, or the format's own default.
    """
    return [format.plan(info, kind) for format in FORMATS.values()]


def find_format(name: str, kind: str | None) -> Format:
    """The format of a name.

    Raises:
        ExportError: there is none, or it has no weights of this type.
    """
    if name not in FORMATS:
        raise ExportError(f"there is no format {name!r}: choose one of {', '.join(FORMATS)}.")
    format = FORMATS[name]
    if kind is not None and kind not in format.kinds:
        way_out = f"choose one of {', '.join(format.kinds)}" if format.kinds else "leave the type out"
        raise ExportError(f"weights of type {kind!r} cannot be written as {name}: {way_out}.")
    return format
