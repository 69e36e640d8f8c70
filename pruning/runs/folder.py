"""Files of a run's folder: logs, iterations, and which files belong to a run. Reading needs no torch."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from pruning.checksums import checksum_of, corrupt, digests, finite, read_bytes, read_json, verify, write_json
from pruning.config import RunConfig
from pruning.errors import CorruptFileError, RunError
from pruning.files import EXPORT_FILE, PRUNING_FILE, atomic_write, ignore_write_errors, writing
from pruning.formatting import quoted
from pruning.method.damage import Curve
from pruning.method.moments import Moments, Statistics
from pruning.method.scores import score_sites
from pruning.method.statistics import double, read_statistic, write_statistic
from pruning.models.delta import BIASES_FILE, MASK_FILE, WEIGHTS_FILE, Delta, read_mask
from pruning.models.geometry import Geometry, Site
from pruning.models.mask import Mask
from pruning.runs.schema import Computation, Metrics, Repaired, TextMeasure

if TYPE_CHECKING:
    from pruning.engine.calibration import LayerFound
    from pruning.engine.events import Iteration

RUN_LOG, STORE_LOG = "events.jsonl", "log.jsonl"
STORE_LOG_BYTES = 5_000_000  # then it begins anew; the one before is kept


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
    """Whether a store's log is none or begins as ours does."""
    events = read_log(file)
    return not file.exists() or bool(events and {"event", "time", "pid"} <= events[0].keys())


def _append(file: Path, line: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        if stream.tell() and not _ends_whole(file):  # a killed process left half a line
            stream.write("\n")
        stream.write(json.dumps(finite(line)) + "\n")


def _ends_whole(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def read_log(file: Path) -> list[dict[str, Any]]:
    """The events of a log; lines that are none are left out."""
    try:
        text = read_bytes(file, end=True) or b""
    except RunError:
        return []
    found = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            found.append(event)
    return found


CHECKPOINT = re.compile(r"model(-\d{2,3})?")
# Paths within a run's folder. What a tokenizer adds to a checkpoint or an export stands in their records.
_RUN_FILES = re.compile(
    r"(config|status|geometry|sources|inputs|results)\.json|events\.jsonl|log\.txt|cancel|\.lock"
    r"|layers/\d+\.safetensors"
    r"|iteration-\d{2,3}/((mask|biases|weights|scores|norms|moments-.+)\.safetensors|(metrics|damage)\.json)"
    r"|model(-\d{2,3})?/("  # a checkpoint whose record is damaged; else the record says what is a part of it
    r"(mask|biases|weights|model(-\d+-of-\d+)?)\.safetensors|model\.safetensors\.index\.json"
    r"|(config|generation_config|pruning|prunescope|vocab|added_tokens|special_tokens_map)\.json"
    r"|tokenizer[^/]*\.(json|model)|merges\.txt|chat_template\.jinja)"
    r"|(.*/)?\.[^/]*\.prunescope-(new|old)(/.*)?"  # half written
    r"|(.*/)?(\.DS_Store|Thumbs\.db|desktop\.ini)"  # which file managers leave
)


def checkpoint_folders(run: Path) -> list[Path]:
    """The checkpoints in a run's folder: of its end, and of its iterations."""
    return sorted(path for path in run.glob("model*") if CHECKPOINT.fullmatch(path.name) and path.is_dir())


def check_only_run_files(run: Path, folder: Path) -> None:
    """Whether a folder may be deleted.

    Args:
        run: the run's folder.
        folder: the same, or one within it.

    Raises:
        RunError: it holds a file that is no part of a run.
    """
    listed, recorded = _listed_files(run)
    for base, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        for name in sorted([*files, *links]):
            path = (Path(base) / name).relative_to(run).as_posix()
            file = Path(base) / name
            if path in listed:
                if checksum_of(file) != listed[path]:
                    why = "was changed since it was written"
                    raise RunError(f"nothing is deleted: {quoted(file)} {why}: move it away first.")
            elif not _RUN_FILES.fullmatch(path) or any(path.startswith(f"{folder}/") for folder in recorded):
                raise RunError(f"nothing is deleted: {quoted(file)} is no part of a run: move it away first.")


def _listed_files(run: Path) -> tuple[dict[str, str], set[str]]:
    """The files of a run's checkpoints and exports with their checksums, and folders with a record.

    Both as paths within the run. A record itself is listed with the checksum that it has.
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
LAYERS = "layers"  # folder of the layers that are through before the first iteration is whole


@dataclass(frozen=True)
class StoredIteration:
    """One finished iteration as it lies on disk; arrays are read when asked for, and verified then.

    Attributes:
        number: 0 for the dense model.
        path: its folder.
        metrics: its numbers.
        geometry: of the dense model.
    """

    number: int
    path: Path
    metrics: Metrics
    geometry: Geometry

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """One of its files, verified; what cannot be read of it in the block is one sentence.

        Raises:
            CorruptFileError: it is gone, or not what was written.
        """
        file = self.path / name
        try:
            # of an earlier version's runs no checksums are known; damage curves have their own
            if self.metrics.files and name != CURVES_FILE:
                verify(file, self.metrics.files.get(name))
            yield file
        except FileNotFoundError:
            raise CorruptFileError(f"{str(file)!r} is gone: {self._way_out}") from None
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
        """Whether there is an array (size,) for every site."""
        for site in self.geometry.sites:
            if arrays[site].shape != (sizes(self.geometry, site),):
                raise ValueError(f"{site} has another width")

    @cached_property
    def mask(self) -> Mask:
        """What is retained after this iteration."""
        if not self.number:
            return Mask.full(self.geometry)
        with self._reading(MASK_FILE) as file:
            mask = read_mask(file.parent, self.geometry)
            self._expect(mask.retained, lambda geometry, site: geometry.shape(site).entries)
            if any(array.dtype != bool for array in mask.retained.values()):
                raise TypeError("a mask holds bools")
            return mask

    def delta(self) -> Delta:
        """What separates the model after this iteration from the dense one; reading it takes torch."""
        for name in (BIASES_FILE, *({WEIGHTS_FILE} & self.metrics.files.keys())):
            with self._reading(name):
                pass
        with self._reading(MASK_FILE) as file:
            return Delta.read(file.parent, self.geometry)

    @cached_property
    def curves(self) -> dict[Site, Curve]:
        """What cuts of the dense model cost, by site; of the first iteration, where they were measured."""
        # measured with the run, or added later: the record has its own checksum
        with self._reading(CURVES_FILE) as file:
            if (found := read_json(file)) is None:
                if CURVES_FILE in self.metrics.files:
                    raise FileNotFoundError
                return {}
            return {Site.parse(name): Curve.from_dict(data) for name, data in found.items()}

    @cached_property
    def scores(self) -> dict[Site, np.ndarray]:
        """(C,) by site, of the channels that were there before this iteration's cut, NaN elsewhere."""
        with self._reading(SCORES_FILE) as file:
            found = {Site.parse(name): double(array) for name, array in load_file(file).items()}
            self._expect(found, Geometry.channels)
            return found

    @cached_property
    def norms(self) -> dict[Site, tuple[np.ndarray, np.ndarray]]:
        """Norm and mean absolute value of the weight columns, (C,) each, by site."""
        with self._reading(NORMS_FILE) as file:
            arrays = load_file(file)
            found = {
                site: (double(arrays[f"{site}.norm"]), double(arrays[f"{site}.mean_abs"]))
                for site in self.geometry.sites
            }
            for column in (0, 1):
                self._expect({site: pair[column] for site, pair in found.items()}, Geometry.channels)
            return found

    def norms_of(self, site: Site) -> tuple[np.ndarray, np.ndarray]:
        """`norms` of one site, read without the others and not kept."""
        with self._reading(NORMS_FILE) as file, safe_open(file, framework="numpy") as content:
            names = f"{site}.norm", f"{site}.mean_abs"
            return double(content.get_tensor(names[0])), double(content.get_tensor(names[1]))

    @cached_property
    def statistics(self) -> Statistics:
        """Moments by domain, before this iteration's cut."""
        return self.statistics_of(None)

    def statistics_of(self, site: Site | None) -> Statistics:
        """`statistics` of one site, read without the others and not kept; None for all."""
        moments: dict[str, dict[Site, Moments]] = {}
        for name in self._names("moments-*.safetensors"):
            with self._reading(name) as file:
                if (found := read_statistic(file, Moments, site)) is None:
                    raise ValueError("no statistics")
                for each in self.geometry.sites if site is None else [site]:
                    if found[each].mean.shape != (self.geometry.channels(each),):
                        raise ValueError(f"{each} has another width")
                moments[file.stem.removeprefix("moments-")] = found
        return Statistics(moments)

    def _names(self, pattern: str) -> list[str]:
        """Its files of a kind, as its record names them, or of an earlier version's run as they are there."""
        if self.metrics.files:
            return sorted(name for name in self.metrics.files if fnmatchcase(name, pattern))
        return sorted(file.name for file in self.path.glob(pattern))

    def check(self) -> None:
        """Read all of it.

        Raises:
            CorruptFileError: one of its files is gone, or not what was written.
        """
        for name in self.metrics.files:
            with self._reading(name):
                pass
        _ = self.curves
        if not self.metrics.files:
            _ = self.mask, self.delta()
            if self.number:
                _ = self.scores, self.norms, self.statistics


def layers_so_far(folder: Path) -> dict[Site, np.ndarray]:
    """Scores (C,) of the dense model's layers that are through, by site, of a run in its first iteration."""
    found: dict[Site, np.ndarray] = {}
    for file in sorted((folder / LAYERS).glob("*.safetensors")):
        try:
            found |= {Site.parse(name): double(array) for name, array in load_file(file).items()}
        except (OSError, SafetensorError, ValueError):
            continue  # deleted meanwhile: the iteration is whole
    return found


METRICS_FILE = "metrics.json"


def write_iteration(
    run: Path, iteration: Iteration, weights: str = "", computed: Computation | None = None
) -> None:
    """An iteration as a folder, moved into place when it is complete.

    Args:
        run: folder of the run that it belongs to.
        iteration: what it found and did.
        weights: names the dense model's weights.
        computed: by what.

    Raises:
        RunError: it cannot be written.
    """
    folder = run / f"iteration-{iteration.number:02d}"
    with writing(run), atomic_write(folder) as temporary:
        temporary.mkdir()
        iteration.delta.write(temporary)
        if iteration.statistics is not None:
            save_file({str(s): a for s, a in iteration.scores.items()}, temporary / SCORES_FILE)
            norms = {f"{s}.norm": n for s, (n, _) in iteration.norms.items()}
            norms |= {f"{s}.mean_abs": m for s, (_, m) in iteration.norms.items()}
            save_file(norms, temporary / NORMS_FILE)
            for domain, moments in iteration.statistics.moments.items():
                write_statistic(temporary / f"moments-{domain}.safetensors", moments)
            if iteration.curves:
                write_curves(temporary, iteration.curves)
        content = metrics(iteration).model_dump() | {"files": digests(temporary), "weights": weights}
        content["computed"] = computed.model_dump() if computed else None
        write_json(temporary / METRICS_FILE, content)
    if iteration.number:
        with contextlib.suppress(OSError):
            for file in (run / LAYERS).glob("*.safetensors"):
                file.unlink()
            (run / LAYERS).rmdir()


def write_layer(folder: Path, config: RunConfig, found: LayerFound) -> None:
    """Scores of a layer of the dense model, there to be drawn until the first iteration is whole.

    Where the cache has some of the domains, no layer is written: the others' statistics alone decide nothing.
    """
    moments = next(iter(found.statistics.values()))
    if set(moments) != set(config.mixture):
        return
    known = {
        domain: {site: m for site, m in sites.items() if isinstance(m, Moments)}
        for domain, sites in moments.items()
    }
    fused = Statistics(known).fuse(config.mixture, config.fusion, worst_domain=config.worst_domain)
    scores = score_sites(config.score, fused, found.norms, config.seed)
    layer = next(iter(scores)).layer
    with writing(folder):
        (folder / LAYERS).mkdir(exist_ok=True)
    with writing(folder), atomic_write(folder / LAYERS / f"{layer:04d}.safetensors") as temporary:
        save_file({str(site): array for site, array in scores.items()}, temporary)


def metrics(iteration: Iteration) -> Metrics:
    """The numbers of an iteration."""
    return Metrics(
        number=iteration.number,
        target_ratio=iteration.target,
        ratio=iteration.mask.ratio,
        parameters=iteration.parameters,
        perplexity={name: TextMeasure(**p.to_dict()) for name, p in iteration.perplexity.items()},
        seconds=iteration.seconds,
        repairs={
            str(site): Repaired(ridge=repair.ridge, error=dict(repair.error))
            for site, repair in iteration.repairs.items()
            if repair.error is not None
        },
        mixture=dict(iteration.mixture) if iteration.rises else {},
        rises=dict(iteration.rises),
    )


def write_curves(folder: Path, curves: Mapping[Site, Curve]) -> None:
    """Write curves into the folder of an iteration."""
    write_json(folder / CURVES_FILE, {str(site): curve.to_dict() for site, curve in curves.items()})
