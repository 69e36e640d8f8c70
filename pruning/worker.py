"""Carrying out a run: drive the engine, write down what it yields, stop when asked.

`python -m pruning.worker RUN_FOLDER` is the process of a run, the only way from the app to the engine.
`prune` does the same in the calling process, for notebooks and the command line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from pruning.config import PruningError, RunConfig, RunError, too_long
from pruning.masks import Mask, check_reachable, dense_scales
from pruning.moments import write_moments
from pruning.runs import Run, RunStore, StoredIteration, read_json, write_json, writing

if TYPE_CHECKING:
    from pruning.calibration import Progress
    from pruning.engine import Event, Finished, Iteration, State
    from pruning.models import LoadedModel

CANCEL_GRACE_SECONDS = 8.0


class Cancelled(Exception):
    """The run was asked to stop."""


@dataclass(frozen=True)
class Result:
    """A finished run, with the pruned model in memory.

    Attributes:
        run: its folder.
        loaded: the pruned model and its tokenizer.
        mask: over the dense model.
        summary: the content of `results.json`.
    """

    run: Run
    loaded: LoadedModel
    mask: Mask
    summary: dict[str, Any]

    @property
    def perplexity(self) -> dict[str, dict[str, float]]:
        """By domain and `mean`, each with `dense` and `pruned`."""
        return self.summary["perplexity"]


class Status:
    """`status.json`, kept current by a thread, so that its heartbeat goes on while torch is busy."""

    def __init__(self, run: Run, exits: bool) -> None:
        self.run, self.exits = run, exits
        process = psutil.Process()
        self.fields: dict[str, Any] = read_json(run.path / "status.json") | {
            "state": "queued",
            "pid": process.pid,
            "pid_created": process.create_time(),
        }
        self.cancelled = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Status:
        self.write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def write(self, **fields: Any) -> None:
        """Change fields and write them at once."""
        with self._lock:
            self.fields |= fields
            write_json(self.run.path / "status.json", {**self.fields, "heartbeat": time.time()})

    def _beat(self) -> None:
        asked_at = None
        while not self._stop.wait(0.5):
            if (self.run.path / "cancel").exists():
                asked_at = asked_at or time.monotonic()
                self.cancelled.set()
                self.fields["state"] = "cancelling"
            try:
                self.write()
            except PruningError:
                continue  # a full disk stops the run where it matters
            if self.exits and asked_at and time.monotonic() - asked_at > CANCEL_GRACE_SECONDS:
                self.write(state="cancelled", finished=time.time())
                os._exit(0)  # complete iterations are on disk; whatever is computing cannot be asked to stop


# --- writing and reading iterations ----------------------------------------------------------------------


def write_iteration(run: Run, iteration: Iteration) -> None:
    """An iteration as a folder, moved into place when it is complete.

    Raises:
        RunError: it cannot be written.
    """
    from safetensors.numpy import save_file
    from safetensors.torch import save_file as save_tensors

    folder = run.path / f"iteration-{iteration.number:02d}"
    temporary = folder.with_name(f".{folder.name}.tmp")
    with writing(run.path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            if iteration.statistics is not None:
                save_file(
                    {str(s): a for s, a in iteration.mask.retained.items()}, temporary / "mask.safetensors"
                )
                save_file({str(s): a for s, a in iteration.scores.items()}, temporary / "scores.safetensors")
                norms = {f"{s}.norm": n for s, (n, _) in iteration.norms.items()}
                norms |= {f"{s}.mean_abs": m for s, (_, m) in iteration.norms.items()}
                save_file(norms, temporary / "norms.safetensors")
                for domain, moments in iteration.statistics.moments.items():
                    write_moments(temporary / f"moments-{domain}.safetensors", moments)
            biases = {name: bias.cpu().contiguous() for name, bias in iteration.biases.items()}
            save_tensors(biases, temporary / "biases.safetensors")
            write_json(temporary / "metrics.json", metrics(iteration))
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def metrics(iteration: Iteration) -> dict[str, Any]:
    """The numbers of an iteration as JSON."""
    return {
        "number": iteration.number,
        "target_ratio": iteration.target,
        "ratio": iteration.mask.ratio,
        "parameters": iteration.parameters,
        "perplexity": {name: p.to_dict() for name, p in iteration.perplexity.items()},
        "layers": [asdict(shape) for shape in iteration.mask.pruned.layers],
        "seconds": iteration.seconds,
    }


def stored_state(run: Run) -> State | None:
    """Where an interrupted run goes on: after its last complete iteration."""
    from safetensors.torch import load_file

    from pruning.engine import State

    iterations = run.iterations()
    if not iterations:
        return None
    last = iterations[-1]
    scales = None
    if last.number:
        first = next(iteration for iteration in iterations if iteration.number == 1)
        scales = dense_scales(first.scores, run.config.square_attention)
    return State(last.number, last.mask, load_file(last.path / "biases.safetensors"), scales)


def summarise(run: Run, iterations: list[StoredIteration], seconds: float) -> dict[str, Any]:
    """The content of `results.json`: dense against pruned."""
    from pruning.evaluation import mean_perplexity

    dense, last = iterations[0].metrics, iterations[-1].metrics
    values = {
        name: {"dense": p["value"], "pruned": last["perplexity"][name]["value"]}
        for name, p in dense["perplexity"].items()
    }
    bits = {
        name: {"dense": p["bits_per_byte"], "pruned": last["perplexity"][name]["bits_per_byte"]}
        for name, p in dense["perplexity"].items()
    }
    if values:
        sides = {
            side: {name: v[side] or float("inf") for name, v in values.items()}
            for side in ("dense", "pruned")
        }
        values["mean"] = {side: mean_perplexity(side_values) for side, side_values in sides.items()}
    return {
        "run_id": run.id,
        "config": run.config.model_dump(mode="json"),
        "achieved_ratio": last["ratio"],
        "parameters": {"dense": dense["parameters"], "pruned": last["parameters"]},
        "perplexity": values,
        "bits_per_byte": bits,
        "tokens": {name: p["tokens"] for name, p in dense["perplexity"].items()},
        "iterations": [iteration.metrics for iteration in iterations[1:]],
        "seconds": seconds,
    }


# --- driving the engine ----------------------------------------------------------------------------------


def execute(run: Run, on_event: Callable[[Event], None] | None = None, exits: bool = False) -> Result:
    """Carry out a run, or what is left of it, in this process.

    Args:
        run: created, or interrupted.
        on_event: sees every event of the engine.
        exits: whether the process may end itself when a cancelled computation does not return.

    Raises:
        Cancelled: it was asked to stop; it can be resumed.
        PruningError: what a person can put right; the run is marked as failed with the same sentence.
    """
    with Status(run, exits) as status:
        try:
            with _device(run, status):
                return _drive(run, status, on_event)
        except (Cancelled, KeyboardInterrupt):
            status.write(state="cancelled", finished=time.time(), message="")
            raise
        except PruningError as error:
            status.write(state="failed", finished=time.time(), message=str(error))
            raise
        except BaseException as error:
            words = f"{type(error).__name__}: {error}"
            status.write(state="failed", finished=time.time(), message=words)
            raise


@contextlib.contextmanager
def _device(run: Run, status: Status) -> Iterator[None]:
    """One run at a time on a device: wait for those ahead, then hold the device's lock."""
    store = RunStore(run.path.parent)
    lock = FileLock(store.root / f".{run.config.device.replace(':', '-')}.lock")
    while not lock.is_locked:
        if status.cancelled.is_set():
            raise Cancelled
        ahead = store.ahead_of(run)
        status.fields["ahead"] = len(ahead)
        with contextlib.suppress(Timeout):
            if not ahead:
                lock.acquire(timeout=0)
                continue
        time.sleep(0.3)
    try:
        status.write(state="starting", started=time.time(), ahead=0)
        yield
    finally:
        lock.release()


def _drive(run: Run, status: Status, on_event: Callable[[Event], None] | None) -> Result:
    from pruning.checkpoint import save
    from pruning.engine import Finished, Iteration, Started, prune_events

    began = time.monotonic()
    config = run.config
    state = stored_state(run)
    iteration = state.number if state else -1
    stage_began, stage = began, ""
    finished: Finished | None = None
    _log(run, "started", resumed_after=state.number if state else None)
    events = prune_events(config, state)
    try:
        for event in events:
            if status.cancelled.is_set():
                raise Cancelled
            if isinstance(event, Started):
                write_json(run.path / "geometry.json", event.geometry.to_dict())
                write_json(run.path / "sources.json", event.sources)
                status.write(state="running", iterations=config.iterations)
            elif isinstance(event, Iteration):
                write_iteration(run, event)
                _log(run, "iteration", **{k: v for k, v in metrics(event).items() if k != "layers"})
                iteration, stage = event.number, ""
                status.write(iteration=iteration)
            elif isinstance(event, Finished):
                finished = event
            else:
                if event.stage != stage:
                    stage, stage_began = event.stage, time.monotonic()
                elapsed = max(time.monotonic() - stage_began, 1e-6)
                status.fields |= {
                    "stage": event.stage,
                    "detail": event.detail,
                    "done": event.done,
                    "total": event.total,
                    "current": iteration + 1,
                    "per_second": event.done / elapsed,
                    "eta": _eta(run, config, iteration, event.done / event.total, event.stage),
                }
            if on_event:
                on_event(event)
    finally:
        events.close()  # type: ignore[attr-defined]
    assert finished is not None
    if config.save_model:
        status.write(stage="save")
        record = {"run": run.id, "config": config.model_dump(mode="json"), "ratio": finished.mask.ratio}
        save(finished.loaded.model, finished.loaded.tokenizer, run.path / "model", record, finished.mask)
    accuracies = _zero_shot(finished, config, status) if config.tasks else None
    spent = read_json(run.path / "status.json").get("seconds", 0.0) + time.monotonic() - began
    summary = summarise(run, run.iterations(), spent)
    if accuracies:
        summary["zero_shot"] = accuracies
    write_json(run.path / "results.json", summary)
    status.write(state="finished", finished=time.time(), seconds=spent, eta=0)
    _log(run, "finished", seconds=spent)
    return Result(run, finished.loaded, finished.mask, summary)


def _zero_shot(finished: Finished, config: RunConfig, status: Status) -> dict[str, Any]:
    """Accuracies of the pruned model against the dense one, which is asked once and remembered."""
    from pruning.engine import drain, state_digest
    from pruning.models import load
    from pruning.surgery import output_biases
    from pruning.zeroshot import compare, zero_shot

    def show(progress: Progress) -> None:
        if status.cancelled.is_set():
            raise Cancelled
        status.fields |= {"stage": "zero-shot", "detail": progress.detail, "done": progress.done}
        status.fields |= {"total": progress.total, "eta": None}

    where: dict[str, Any] = {
        "data": config.task_data,
        "include": config.task_folder,
        "limit": config.task_limit,
    }
    loaded, mask = finished.loaded, finished.mask
    name = state_digest(loaded.fingerprint, mask, output_biases(loaded.model))
    pruned = drain(zero_shot(loaded, config.tasks, name, **where), show)
    dense_model = load(config.model, config.device, config.dtype)
    name = state_digest(loaded.fingerprint, Mask.full(mask.geometry), output_biases(dense_model.model))
    return compare(drain(zero_shot(dense_model, config.tasks, name, **where), show), pruned)


def _eta(run: Run, config: RunConfig, complete: int, share: float, stage: str) -> float | None:
    """Seconds left, from the mean of the iterations that are done; None before the first."""
    seconds = [it.metrics["seconds"] for it in run.iterations() if it.number > 0]
    if not seconds:
        return None
    mean = sum(seconds) / len(seconds)
    within = share / 2 if stage == "calibrate" else 0.5 + share / 2
    return max(0.0, mean * (config.iterations - complete - within))


def _log(run: Run, event: str, **fields: Any) -> None:
    with writing(run.path), (run.path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": event, "time": time.time(), **fields}) + "\n")


def prune(
    config: RunConfig | None = None,
    store: str | Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Result:
    """Prune a model in this process and keep the run.

    Args:
        config: what to do; the demo model by the paper's method when left out.
        store: folder that holds the runs, `runs` when left out.
        on_event: called with every event of the engine.

    Returns:
        The pruned model in memory, its mask, and perplexities before and after.

    Raises:
        PruningError: what a person can put right, in one sentence.
    """
    config = config or RunConfig.create()
    check(config)
    if problem := needs(config, RunStore(store)).problem:
        raise RunError(problem)
    run = RunStore(store).create(config)
    try:
        return execute(run, on_event)
    except PruningError:
        if not run.iterations():  # it never began: leave nothing behind
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def check(config: RunConfig) -> None:
    """What can be known to be wrong before a run exists: model, ratio, selectors, context, domains.

    Raises:
        PruningError: see its subclasses.
    """
    from pruning.domains import check_source
    from pruning.models import describe

    summary = describe(config.model)
    check_reachable(summary.geometry, config)
    if summary.context and config.seq_len > summary.context:
        raise too_long(config.seq_len, summary.context)
    for name in config.mixture:
        check_source(name, config.domains.get(name, "embedded"))


@dataclass(frozen=True)
class Needs:
    """What a run takes, about.

    Attributes:
        disk, memory: bytes.
        disk_free, memory_free: bytes that there are.
        seconds: how long it runs; None where no run of this model has finished.
        basis: what the seconds were reckoned from.
    """

    disk: int
    memory: int
    disk_free: int
    memory_free: int
    seconds: float | None
    basis: str

    @property
    def problem(self) -> str:
        """What the run cannot do without, in one sentence; empty where there is enough."""
        return self._short("disk space", self.disk, self.disk_free)

    @property
    def warning(self) -> str:
        """What may make it slow or end it, in one sentence; empty where there is enough."""
        return self._short("memory", self.memory, self.memory_free)

    @staticmethod
    def _short(what: str, need: int, free: int) -> str:
        if need <= free:
            return ""
        return (
            f"this run needs about {need / 1e9:.1f} GB of {what} and {free / 1e9:.1f} GB are free: "
            "free some, or take a smaller model."
        )


def needs(config: RunConfig, store: RunStore, known: list[Run] | None = None) -> Needs:
    """What a run takes, from the model's shape and from finished runs of it.

    Args:
        config: of the run.
        store: where it will lie.
        known: runs to reckon the time from; those of the store when left out.

    Raises:
        ModelError: there is no such model.
    """
    from pruning.models import describe

    summary = describe(config.model)
    channels = sum(summary.geometry.channels(site) for site in summary.geometry.sites)
    itemsize = 4 if config.dtype in ("auto", "float32") else 2
    # a mean and a sum of squares in float64 by domain, scores and norms in float64, by iteration
    statistics = config.iterations * channels * (16 * len(config.mixture) + 24)
    weights = summary.parameters * itemsize
    root = next(folder for folder in (store.root.resolve(), *store.root.resolve().parents) if folder.is_dir())
    usage = shutil.disk_usage(root)
    seconds, basis = None, ""
    for run in known if known is not None else store.all():
        results = run.results()
        tokens = run.config.samples * run.config.seq_len * len(run.config.mixture)
        if run.config.model == config.model and results.get("iterations"):
            mean = sum(it["seconds"] for it in results["iterations"]) / len(results["iterations"])
            mine = config.samples * config.seq_len * len(config.mixture)
            seconds = config.iterations * mean * mine / tokens
            basis = f"{mean:.1f} s an iteration over {tokens:,} tokens in {run.id}"
            break
    return Needs(
        disk=statistics + (weights if config.save_model else 0),
        memory=int(1.3 * weights) + 500_000_000,
        disk_free=usage.free if usage.total else sys.maxsize,  # /proc and its like have no size to run out of
        memory_free=psutil.virtual_memory().available,
        seconds=seconds,
        basis=basis,
    )


def main() -> int:
    """The process of a run."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    run = Run(Path(sys.argv[1]))
    try:
        execute(run, exits=True)
    except Cancelled:
        return 0
    except PruningError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log is this process's standard error
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
