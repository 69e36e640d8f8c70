"""`masks`: the cuts and biases that make a pruned model of a dense one; kilobytes, read by this project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pruning.checksums import digests, write_json
from pruning.files import PRUNING_FILE
from pruning.formats.checkpoint_info import CheckpointInfo
from pruning.formats.format import FORMATS, ExportJob, ExportPlan, Format
from pruning.formats.verify import check_difference, logits
from pruning.models.delta import Delta, read_mask
from pruning.models.folder import describe, locate, read_record
from pruning.models.tensors import weights_digest

if TYPE_CHECKING:
    from torch import Tensor


def _plan(info: CheckpointInfo, kind: str | None) -> ExportPlan:
    if info.base is None or not info.mask:
        reason = "only the checkpoint of a run has masks to export: use --format hf."
        return ExportPlan("masks", "", "", unsupported_reason=reason)
    shape = info.geometry
    biases = 2 * len(shape.layers) * shape.hidden_size * info.itemsize
    flags = sum(shape.channels(site) for site in shape.sites) * 2
    return ExportPlan("masks", info.base, "Prunescope, beside the dense model", bytes=biases + flags)


def _write(job: ExportJob, folder: Path) -> Path:
    record = read_record(job.folder)
    name = record.get("base") or record["config"]["model"]
    dense = locate(name)
    mask = read_mask(job.folder, describe(name).geometry)
    Delta.of(job.loaded.source, mask, record.get("changed", ())).write(folder)
    if name != "demo" and Path(name).expanduser().is_dir():
        name = str(dense.resolve())  # which can be read from any other folder as well
    record |= {"base": name, "base_digest": weights_digest(dense), "files": digests(folder)}
    write_json(folder / PRUNING_FILE, record)
    return folder


def _check(job: ExportJob, written: Path, reference: Tensor) -> float:
    from pruning.models.loading import load

    # in float32: a dense model in bfloat16 would round the biases
    return check_difference(reference, logits(load(str(written), "cpu", "float32").model))


def _snippet(plan: ExportPlan, path: Path) -> str:
    return f'from pruning import load\nmodel = load("{path}").model'


FORMATS.add(Format((), _plan, _write, _check, _snippet, casts_weights=False), "masks")
