"""Files of a run's folder: logs, iterations, and the check that all files belong to a run.

Reading needs no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from pruning.checksums import checksum_of, corrupt, digests, finite, read_bytes, read_json, verify, write_json
from pruning.config import RunConfig
from pruning.engine.budget import scores
from pruning.engine.statistics_files import double, read_statistics, write_statistics
from pruning.errors import CorruptFileError, RunError
from pruning.files import EXPORT_FILE, PRUNING_FILE, atomic_write, ignore_write_errors, writing
from pruning.formatting import quoted
from pruning.method.moments import DomainStatistics, Moments
from pruning.method.sensitivity import Curve
from pruning.method.statistics import WeightNorms
from pruning.models.delta import BIASES_FILE, MASK_FILE, WEIGHTS_FILE, Delta, read_mask
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Mask
from pruning.runs.schema import Computation, Metrics, Repaired, StoredChoice, TextMeasure

if TYPE_CHECKING:
    from pruning.engine.calibration import Calibration
    from pruning.engine.events import Iteration

RUN_LOG, STORE_LOG = "events.jsonl", "log.jsonl"
STORE_LOG_BYTES = 5_000_000  # a longer log is set aside, and a new one begins


def log(folder: Path, event: str, **fields: Any) -> None:
    """Append an event to a run's log.

    Raises:
        RunError: it cannot be written.
    """
    with writing(folder):
        _append(folder / RUN_LOG, {"event": event, "time": time.time(), **fields})


def log_store(root: Path, event: str, **fields: Any) -> None:
    """Append an event to a store's log; a log that cannot be written stops nothing.

    The store may be a folder in which a person has a `log.jsonl` of another program: that is left alone.
    """
    file = root / STORE_LOG
    with ignore_write_errors():
        if not all(_is_ours(each) for each in (file, file.with_suffix(".old.jsonl"))):
            return
        if file.exists() and file.stat().st_size > STORE_LOG_BYTES:
            file.replace(file.with_suffix(".old.jsonl"))
        _append(file, {"event": event, "time": time.time(), "pid": os.getpid(), **fields})


def _is_ours(file: Path) -> bool:
    """Whether a store's log does not exist or begins like one of this program."""
    events = read_log(file)
    return not file.exists() or bool(events and {"event", "time", "pid"} <= events[0].keys())


def _append(file: Path, line: dict[str, Any]) -> None:
    with file.open("a+b") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":  # a killed process left half a line
                stream.write(b"\n")
        stream.write(f"{json.dumps(finite(line))}\n".encode())


def read_log(file: Path) -> list[dict[str, Any]]:
    """The events of a log; other lines are left out."""
    events = []
    with contextlib.suppress(RunError):
        for line in (read_bytes(file, end=True) or b"").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    events.append(event)
    return events


CHECKPOINT = re.compile(r"model(-\d{2,3})?")
# Paths within a run's folder. Records of checkpoints and exports list the files that tokenizers add.
_RUN_FILES = re.compile(
    r"(config|status|geometry|sources|inputs|results)\.json|events\.jsonl|log\.txt|cancel|\.lock"
    r"|layers/\d+\.safetensors"
    r"|iteration-\d{2,3}/((mask|biases|weights|scores|norms|moments-.+)\.safetensors|(metrics|damage)\.json)"
    r"|model(-\d{2,3})?/("  # for a checkpoint with a corrupt record; else its record lists its files
    r"(mask|biases|weights|model(-\d+-of-\d+)?)\.safetensors|model\.safetensors\.index\.json"
    r"|(config|generation_config|pruning|prunescope|vocab|added_tokens|special_tokens_map)\.json"
    r"|tokenizer[^/]*\.(json|model)|merges\.txt|chat_template\.jinja)"
    r"|(.*/)?\.[^/]*\.prunescope-(new|old)(/.*)?"  # half written
    r"|(.*/)?(\.DS_Store|Thumbs\.db|desktop\.ini)"  # which file managers leave
)


def checkpoint_folders(run: Path) -> list[Path]:
    """The checkpoints in a run's folder: the final one, and those of iterations."""
    return sorted(path for path in run.glob("model*") if CHECKPOINT.fullmatch(path.name) and path.is_dir())


def check_only_run_files(run: Path, folder: Path) -> None:
    """Refuse to delete a folder with files of other origin.

    Args:
        run: folder of the run.
        folder: the same folder, or one within it.

    Raises:
        RunError: it holds a file that is not part of a run, or that was changed.
    """
    listed, recorded = _listed_files(run)
    for base, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        for file in sorted(Path(base) / name for name in (*files, *links)):
            path, why = file.relative_to(run).as_posix(), ""
            if path in listed:
                why = "was changed since it was written" if checksum_of(file) != listed[path] else ""
            elif not _RUN_FILES.fullmatch(path) or any(path.startswith(f"{inner}/") for inner in recorded):
                why = "is no part of a run"
            if why:
                raise RunError(f"nothing is deleted: {quoted(file)} {why}: move it away first.")


def _listed_files(run: Path) -> tuple[dict[str, str], set[str]]:
    """Checksums of the files of checkpoints and exports, and the folders with a record.

    Both are paths within the run. A record itself is listed with its present checksum.
    """
    files: dict[str, str] = {}
    folders: set[str] = set()
    for folder in (*checkpoint_folders(run), *run.glob("exports/*")):
        inner = folder.relative_to(run).as_posix()
        for record in (PRUNING_FILE, EXPORT_FILE):
            with contextlib.suppress(RunError):
                if content := read_json(folder / record, trusting=False):
                    folders.add(inner)
                    names = content.get("files")
                    files |= {f"{inner}/{name}": checksum for name, checksum in (names or {}).items()}
                    files[f"{inner}/{record}"] = checksum_of(folder / record)
    return files, folders


SCORES_FILE, NORMS_FILE, CURVES_FILE = "scores.safetensors", "norms.safetensors", "damage.json"
LAYERS = "layers"  # folder of the scores of finished layers until the first iteration is complete


@dataclass(frozen=True)
class StoredIteration:
    """One finished iteration on disk; its arrays are read and verified on first use.

    Attributes:
        number: number of the iteration, 0 for the dense model.
        path: folder of the iteration.
        metrics: numbers of the iteration.
        geometry: shapes of the dense model.
    """

    number: int
    path: Path
    metrics: Metrics
    geometry: Geometry

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """One of its files, verified; errors while the block reads it become one sentence.

        Raises:
            CorruptFileError: it is missing, or not what was written.
        """
        file = self.path / name
        try:
            # runs of earlier versions have no checksums, and the record of curves has its own
            if self.metrics.files and name != CURVES_FILE:
                verify(file, self.metrics.files.get(name))
            yield file
        except FileNotFoundError:
            raise CorruptFileError(f"{str(file)!r} is missing: {self._way_out}") from None
        except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise CorruptFileError(
                f"{str(corrupt(file, type(error).__name__))[:-1]}: {self._way_out}"
            ) from None
        except CorruptFileError as error:
            raise CorruptFileError(f"{str(error)[:-1]}: {self._way_out}") from None

    @property
    def _way_out(self) -> str:
        return f"resume run {self.path.parent.name!r}, and iteration {self.number} is computed again."

    def _expect(self, arrays: Mapping[Site, np.ndarray], sizes: Callable[[Geometry, Site], int]) -> None:
        """Check that there is an array (size,) for every site."""
        for site in self.geometry.sites:
            if arrays[site].shape != (sizes(self.geometry, site),):
                raise ValueError(f"{site} has another width")

    @cached_property
    def mask(self) -> Mask:
        """Channels kept after this iteration."""
        if not self.number:
            return Mask.full(self.geometry)
        with self._reading(MASK_FILE) as file:
            mask = read_mask(file.parent, self.geometry)
            self._expect(mask.kept, lambda geometry, site: geometry.shape(site).entries)
            if any(array.dtype != bool for array in mask.kept.values()):
                raise TypeError("a mask holds bools")
            return mask

    def delta(self) -> Delta:
        """Difference between the model after this iteration and the dense model; reading it takes torch."""
        for name in (BIASES_FILE, *({WEIGHTS_FILE} & self.metrics.files.keys())):
            with self._reading(name):
                pass
        with self._reading(MASK_FILE) as file:
            return Delta.read(file.parent, self.geometry)

    @cached_property
    def curves(self) -> dict[Site, Curve]:
        """Sensitivity curves of the dense model by site; empty where they were not measured.

        They belong to the first iteration, measured with the run or added later.
        """
        with self._reading(CURVES_FILE) as file:
            if (curves := read_json(file)) is None:
                if CURVES_FILE in self.metrics.files:
                    raise FileNotFoundError
                return {}
            return {Site.parse(name): Curve.from_dict(data) for name, data in curves.items()}

    @cached_property
    def scores(self) -> dict[Site, np.ndarray]:
        """Scores (C,) by site before this iteration's cut, NaN for removed channels."""
        with self._reading(SCORES_FILE) as file:
            arrays = _site_arrays(file)
            self._expect(arrays, Geometry.channels)
            return arrays

    @cached_property
    def norms(self) -> dict[Site, WeightNorms]:
        """Norm and mean absolute value of the weight columns, (C,) each, by site."""
        with self._reading(NORMS_FILE) as file:
            arrays = load_file(file)
            norms = {
                site: WeightNorms(double(arrays[f"{site}.norm"]), double(arrays[f"{site}.mean_abs"]))
                for site in self.geometry.sites
            }
            for column in (0, 1):
                self._expect({site: pair[column] for site, pair in norms.items()}, Geometry.channels)
            return norms

    def norms_of(self, site: Site) -> WeightNorms:
        """`norms` of one site, read without the others and not cached."""
        with self._reading(NORMS_FILE) as file, safe_open(file, framework="numpy") as content:
            names = f"{site}.norm", f"{site}.mean_abs"
            return WeightNorms(*(double(content.get_tensor(name)) for name in names))

    @cached_property
    def statistics(self) -> DomainStatistics:
        """Moments by domain, before this iteration's cut."""
        return self.statistics_of(None)

    def statistics_of(self, site: Site | None) -> DomainStatistics:
        """`statistics` of one site, read without the others and not cached; None for all."""
        moments: dict[str, dict[Site, Moments]] = {}
        for name in self._names("moments-*.safetensors"):
            with self._reading(name) as file:
                if (by_site := read_statistics(file, Moments, site)) is None:
                    raise ValueError("no statistics")
                for each in self.geometry.sites if site is None else [site]:
                    if by_site[each].mean.shape != (self.geometry.channels(each),):
                        raise ValueError(f"{each} has another width")
                moments[file.stem.removeprefix("moments-")] = by_site
        return DomainStatistics(moments)

    def _names(self, pattern: str) -> list[str]:
        """Names of files by pattern, from the record; in a run of an earlier version from the folder."""
        if self.metrics.files:
            return sorted(name for name in self.metrics.files if fnmatchcase(name, pattern))
        return sorted(file.name for file in self.path.glob(pattern))

    def check(self) -> None:
        """Read all of its files.

        Raises:
            CorruptFileError: a file is missing, or not what was written.
        """
        for name in self.metrics.files:
            with self._reading(name):
                pass
        _ = self.curves
        if not self.metrics.files:
            _ = self.mask, self.delta()
            if self.number:
                _ = self.scores, self.norms, self.statistics


def _site_arrays(file: Path) -> dict[Site, np.ndarray]:
    return {Site.parse(name): double(array) for name, array in load_file(file).items()}


def layers_so_far(folder: Path) -> dict[Site, np.ndarray]:
    """Scores (C,) by site of the dense model's finished layers, for a run in its first iteration."""
    scores: dict[Site, np.ndarray] = {}
    for file in sorted((folder / LAYERS).glob("*.safetensors")):
        with contextlib.suppress(OSError, SafetensorError, ValueError):  # deleted meanwhile: all are finished
            scores |= _site_arrays(file)
    return scores


METRICS_FILE = "metrics.json"


def write_iteration(
    run: Path, iteration: Iteration, weights: str = "", computed: Computation | None = None
) -> Metrics:
    """Write an iteration as a folder, moved into place when it is complete; returns its numbers.

    Args:
        run: folder of the run.
        iteration: event of the engine.
        weights: fingerprint of the dense model.
        computed: device, dtype and versions.

    Raises:
        RunError: it cannot be written.
    """
    folder = run / f"iteration-{iteration.number:02d}"
    with writing(run), atomic_write(folder) as temporary:
        temporary.mkdir()
        iteration.delta.write(temporary)
        if iteration.statistics is not None:
            save_file({str(s): a for s, a in iteration.scores.items()}, temporary / SCORES_FILE)
            norms = iteration.norms.items()
            arrays = {f"{s}.{name}": array for s, each in norms for name, array in each._asdict().items()}
            save_file(arrays, temporary / NORMS_FILE)
            for domain, moments in iteration.statistics.moments.items():
                write_statistics(temporary / f"moments-{domain}.safetensors", moments)
            if iteration.curves:
                write_curves(temporary, iteration.curves)
        metrics = _metrics(iteration, digests(temporary), weights, computed)
        write_json(temporary / METRICS_FILE, metrics.model_dump())
    if iteration.number:
        with contextlib.suppress(OSError):
            for file in (run / LAYERS).glob("*.safetensors"):
                file.unlink()
            (run / LAYERS).rmdir()
    return metrics


def write_layer(folder: Path, config: RunConfig, layer: Calibration) -> None:
    """Write the scores of a layer of the dense model, which are drawn until the first iteration is complete.

    Where the cache has some of the domains, no layer is written: scores need the statistics of all domains.
    """
    if set(layer.statistics) != set(config.mixture):
        return
    layer_scores = scores(DomainStatistics(layer.statistics), layer.norms, config)
    index = next(iter(layer_scores)).layer
    with writing(folder):
        (folder / LAYERS).mkdir(exist_ok=True)
    with writing(folder), atomic_write(folder / LAYERS / f"{index:04d}.safetensors") as temporary:
        save_file({str(site): array for site, array in layer_scores.items()}, temporary)


def _metrics(
    iteration: Iteration, files: dict[str, str], weights: str, computed: Computation | None
) -> Metrics:
    return Metrics(
        number=iteration.number,
        target_ratio=iteration.target,
        ratio=iteration.mask.ratio,
        parameters=iteration.parameters,
        perplexity={name: TextMeasure(**p.to_dict()) for name, p in iteration.perplexity.items()},
        seconds=iteration.seconds,
        files=files,
        weights=weights,
        computed=computed,
        repairs={
            str(site): Repaired(ridge=repair.ridge, error=dict(repair.error))
            for site, repair in iteration.repairs.items()
            if repair.error is not None
        },
        mixture=dict(iteration.mixture) if iteration.rises else {},
        rises=dict(iteration.rises),
        choice=StoredChoice(**asdict(iteration.choice)) if iteration.choice else None,
    )


def write_curves(folder: Path, curves: Mapping[Site, Curve]) -> None:
    """Write curves into the folder of an iteration."""
    write_json(folder / CURVES_FILE, {str(site): curve.to_dict() for site, curve in curves.items()})
