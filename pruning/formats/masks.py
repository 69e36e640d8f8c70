"""`masks`: what is cut from a dense model and how it was compensated; kilobytes, read by this project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pruning.checksums import digests, write_json
from pruning.files import PRUNING_FILE
from pruning.formats.format import FORMATS, Form, Format, Source
from pruning.formats.traits import Traits
from pruning.formats.verify import judged, logits
from pruning.models.delta import Delta, read_mask
from pruning.models.folder import describe, locate, read_record
from pruning.models.tensors import weights_digest

if TYPE_CHECKING:
    from torch import Tensor


def _judge(traits: Traits, kind: str | None) -> Form:
    if traits.base is None or not traits.mask:
        why = "only the checkpoint of a run has masks to export: use --format hf."
        return Form("masks", "", "", refusal=why)
    shape = traits.geometry
    biases = 2 * len(shape.layers) * shape.hidden_size * traits.itemsize
    flags = sum(shape.channels(site) for site in shape.sites) * 2
    return Form("masks", traits.base, "Prunescope, beside the dense model", bytes=biases + flags)


def _write(source: Source, folder: Path) -> Path:

    record = read_record(source.folder)
    name = record.get("base") or record["config"]["model"]
    dense = locate(name)
    mask = read_mask(source.folder, describe(name).geometry)
    Delta.of(source.loaded.source, mask, record.get("changed", ())).write(folder)
    if name != "demo" and Path(name).expanduser().is_dir():
        name = str(dense.resolve())  # it is to be found from any other folder as well
    record |= {"base": name, "base_digest": weights_digest(dense), "files": digests(folder)}
    write_json(folder / PRUNING_FILE, record)
    return folder


def _check(source: Source, written: Path, reference: Tensor) -> float:
    from pruning.models.loading import load

    # in float32: a dense model in bfloat16 would round the biases
    return judged(reference, logits(load(str(written), "cpu", "float32").model))


def _snippet(form: Form, path: Path) -> str:
    return f'from pruning import load\nmodel = load("{path}").model'


FORMATS.add(Format((), _judge, _write, _check, _snippet, smaller=False), "masks")
