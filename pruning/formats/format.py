"""The export formats: one entry each, which judges whether a model can take it, writes it, and checks it.

To add one, write a module with its judge and its writer, and register a `Format` there with `FORMATS.add`;
name the module in this package's `__init__`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import ExportError
from pruning.formats.traits import Traits
from pruning.models.folder import LoadedModel
from pruning.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Form:
    """What one format makes of a model.

    Attributes:
        format: as `export` takes it.
        architecture: what it is written as.
        loads_in: programs that load it, in words.
        drawback: what it gives up, in words; empty if nothing.
        bytes: about how large it is.
        refusal: why the model cannot be written so, with the format that would do; empty if it can.
    """

    format: str
    architecture: str
    loads_in: str
    drawback: str = ""
    bytes: int = 0
    refusal: str = ""

    @property
    def custom(self) -> bool:
        """Whether a modelling file goes with the weights."""
        return self.architecture.startswith("Pruned")


@dataclass(frozen=True)
class Source:
    """What a writer works from.

    Attributes:
        folder: of the checkpoint.
        loaded: the model.
        traits: of the checkpoint.
        form: that is written.
        kind: type of the weights; None for as stored.
        record: where the checkpoint comes from.
        name: for a file that other programs list by its name.
        verify: whether what was written is compared.
    """

    folder: Path
    loaded: LoadedModel | Any
    traits: Traits
    form: Form
    kind: str | None
    record: dict
    name: str
    verify: bool = True


@dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
        kinds: types of weights that it can be written with; none where it has no weights.
        judge: what a model becomes in it, or why it cannot.
        write: into a folder; gives the file or folder that is loaded.
        check: what was written, against logits (64, vocabulary) of the checkpoint: the largest difference, or
            None where the program that computes the format is not installed.
        snippet: Python that loads what was written.
        smaller: whether weights may be rounded to their type before they are written.
    """

    kinds: tuple[str, ...]
    judge: Callable[[Traits, str | None], Form]
    write: Callable[[Source, Path], Path]
    check: Callable[[Source, Path, Tensor], float | None]
    snippet: Callable[[Form, Path], str]
    smaller: bool = True


FORMATS: Registry[Format] = Registry("export format")


def forms(traits: Traits, kind: str | None = None) -> list[Form]:
    """What every format makes of a model.

    Args:
        traits: of the model.
        kind: of the weights; None for as stored, or the format's own default.
    """
    return [format.judge(traits, kind) for format in FORMATS.values()]


def chosen(name: str, kind: str | None) -> Format:
    """A format by its name.

    Raises:
        ExportError: there is none, or it has no weights of this type.
    """
    if name not in FORMATS:
        raise ExportError(f"there is no format {name!r}: choose one of {', '.join(FORMATS)}.")
    format = FORMATS[name]
    if kind is not None and kind not in format.kinds:
        known = f"choose one of {', '.join(format.kinds)}" if format.kinds else "leave the type out"
        raise ExportError(f"weights of type {kind!r} cannot be written as {name}: {known}.")
    return format
