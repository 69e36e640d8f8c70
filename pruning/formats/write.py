"""Writing a pruned model in a format that other programs load.

Every format computes the same function: an export is loaded again and compared before it takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pruning.checksums import digests, read_json, write_json
from pruning.errors import ExportError
from pruning.files import EXPORT_FILE
from pruning.formats.checkpoint_info import CheckpointInfo
from pruning.formats.format import DTYPES, ExportJob, ExportPlan, find_format
from pruning.formats.verify import logits
from pruning.models.folder import read_record
from pruning.models.loading import load
from pruning.outputs import output_folder
from pruning.progress import announced
from pruning.versions import versions


@dataclass(frozen=True)
class ExportResult:
    """An export on disk.

    Attributes:
        path: the folder or file that a program loads.
        plan: what the model became.
        kind: the type of the weights; None where they are as the checkpoint stores them, or there are none.
        bytes: the size on disk.
        difference: the largest difference of a logit from the checkpoint's, over 64 tokens; None where it was
            not verified, or the program that computes this format is not installed.
        snippet: code that loads it.
    """

    path: Path
    plan: ExportPlan
    kind: str | None
    bytes: int
    difference: float | None
    snippet: str


def export(
    source: str | Path,
    format: str,
    out: str | Path,
    kind: str | None = None,
    verify: bool = True,
    trust_remote_code: bool = False,
) -> ExportResult:
    """Write a checkpoint in another format.

    Args:
        source: folder of a dense or pruned model.
        format: a name in `FORMATS`. `hf` is a stock architecture where the widths are equal and one fits,
            otherwise weights with a small modelling file; `padded` fills narrower layers with zeros, for a
            stock architecture; `gguf` is for llama.cpp; `masks` names the dense model and says what to cut.
        out: folder; the files of an earlier export in it are replaced, and anything else in it stays.
        kind: type of the weights: f32, f16, bf16, and q8_0 for GGUF. When left out, the type of the dense
            model as far as it is known, and f16 for GGUF.
        verify: whether the export is loaded again and compared.
        trust_remote_code: whether the source's own Python code may run; see `load`.

    Raises:
        ExportError: the model cannot be written so; the sentence names a format that works.
        ModelError: there is no such checkpoint.
        RunError: the folder holds something else or cannot be written, or the export does not compute what
            the checkpoint does.
    """
    source, out = Path(source), Path(out).expanduser().resolve()
    writer = find_format(format, kind)
    info = CheckpointInfo.read(source)
    if kind is None and writer.casts_weights:
        kind = info.dense_type
    plan = writer.plan(info, kind)
    if plan.unsupported_reason:
        raise ExportError(plan.unsupported_reason)
    if source.resolve().is_relative_to(out):
        raise ExportError(f"{str(out)!r} holds the checkpoint itself: name another folder with --out.")
    record = _provenance(source, info, plan)
    difference = None
    with output_folder(out, EXPORT_FILE) as folder:
        dtype: Any = DTYPES[kind] if kind and writer.casts_weights else "stored"
        loaded = load(str(source), "cpu", dtype, trust_remote_code)
        if kind and writer.casts_weights:
            _check_range(loaded.model, kind)
        name = f"{Path(info.base or source).name}-pruned"
        job = ExportJob(source, loaded, info, plan, kind, record, name, verify)
        reference = logits(loaded.model) if verify else None
        with announced(f"writing {format}"):
            written = writer.write(job, folder)
        job = replace(job, loaded=None)
        del loaded  # one model in memory at a time
        if reference is not None:
            with announced("loading what was written, to compare it"):
                difference = writer.check(job, written, reference)
        with announced("taking the checksums of what was written"):
            write_json(folder / EXPORT_FILE, {**record, "files": digests(folder)})
        path = out / written.relative_to(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return ExportResult(path, plan, kind, size, difference, writer.snippet(plan, path))


def _check_range(model: Any, kind: str) -> None:
    """Check that weights that were finite are so in a smaller type.

    Raises:
        ExportError: a weight is beyond its range.
    """
    for name, parameter in model.named_parameters():
        if parameter.isinf().any():
            raise ExportError(
                f"the weight {name!r} has a number beyond the range of {kind}: use --weights bf16 or f32."
            )


def _provenance(source: Path, info: CheckpointInfo, plan: ExportPlan) -> dict[str, Any]:
    """Where an export comes from: the run's method, mixture and versions, as far as its source knows them."""
    record = read_record(source) or read_json(source / EXPORT_FILE) or {}
    for key in ("biased", "mask", "base", "base_digest", "files"):
        record.pop(key, None)
    geometry = info.geometry.to_dict()
    return {**record, "geometry": geometry, "architecture": plan.architecture, "exported_with": versions()}
