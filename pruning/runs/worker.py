"""Carrying out a run: the engine is driven, its events are recorded, and it stops on request.

`python -m pruning.runs.worker RUN_FOLDER` is the process of a run, the only way from the app to the engine.
`prune` does the same in the calling process, for notebooks and the command line.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from pruning.checksums import key_of, read_cached, write_cached, write_json
from pruning.config import RunConfig
from pruning.engine.budget import dense_scales
from pruning.errors import PruningError, RunError
from pruning.formatting import number, seconds_text
from pruning.measure.comparison import KnownPair, Pair, Rise, ZeroShot, mean_perplexity
from pruning.measure.tasks import check_tasks
from pruning.method.mixture import adapt
from pruning.method.sensitivity import Curve
from pruning.models.delta import Delta
from pruning.models.geometry import Site
from pruning.models.mask import Mask
from pruning.models.tensors import stored_type
from pruning.paths import cache_folder
from pruning.progress import Progress, announced, drain, log_on_stderr
from pruning.runs import permissions
from pruning.runs.checkpoints import load_dense, write_model
from pruning.runs.folder import log, write_curves, write_iteration, write_layer
from pruning.runs.inputs import begin, begin_tasks, changes, check_inputs, computation, text_digests
from pruning.runs.preflight import create, mixture_notices
from pruning.runs.process import lower_priority
from pruning.runs.repair import repair
from pruning.runs.report import Result
from pruning.runs.run import HANDOVER_SECONDS, Run, RunStore, dense_iteration
from pruning.runs.schema import Results, Sizes

if TYPE_CHECKING:
    from pruning.engine.events import Event, State
    from pruning.measure.tasks import TaskResult
    from pruning.models.folder import LoadedModel

CANCEL_GRACE_SECONDS = 8.0
BEAT_SECONDS = 0.5


class Cancelled(Exception):
    """The run was asked to stop."""


# --- what follows the events of the engine -----------------------------------------------------------------


class Reporter:
    """Writer of `status.json`; a thread keeps the heartbeat going while torch is busy."""

    def __init__(self, run: Run, exits: bool) -> None:
        self.run, self.exits = run, exits
        process = psutil.Process()
        self.fields: dict[str, Any] = run.status().model_dump(exclude_defaults=True) | {
            "state": "queued",
            "message": "",
            "pid": process.pid,
            "pid_created": process.create_time(),
        }
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Reporter:
        self.write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def note(self, **fields: Any) -> None:
        """Change fields together; the next beat writes them."""
        with self._lock:
            self.fields |= fields

    def write(self, durable: bool = True, **fields: Any) -> None:
        """Change fields and write them at once; a beat need not outlive a power cut."""
        with self._lock:
            self.fields |= fields
            now = {**self.fields, "heartbeat": time.time()}
            write_json(self.run.path / "status.json", now, durable)

    @property
    def is_cancelled(self) -> bool:
        """Whether the run was asked to stop."""
        return (self.run.path / "cancel").exists()

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the run was asked to stop."""
        if self.is_cancelled:
            raise Cancelled

    def _beat(self) -> None:
        cancelled_at = None
        while not self._stop.wait(BEAT_SECONDS):
            if self.is_cancelled:
                cancelled_at = cancelled_at or time.monotonic()
                with self._lock:
                    if self.fields["state"] in ("queued", "starting", "running"):
                        self.fields["state"] = "cancelling"
            try:
                self.write(durable=False)
            except PruningError:
                continue  # a full disk stops the run where it matters
            if self.exits and cancelled_at and time.monotonic() - cancelled_at > CANCEL_GRACE_SECONDS:
                self.write(state="cancelled", finished=time.time())
                os._exit(0)  # complete iterations are on disk, and the computation cannot be interrupted


class Recorder:
    """Writes inputs, layers and iterations of a run into its folder, as the engine yields them."""

    def __init__(self, run: Run, status: Reporter, loaded: LoadedModel) -> None:
        self.run, self.status, self.loaded = run, status, loaded
        self.computed, self.complete = computation(loaded), run.last_iteration

    def __call__(self, event: Event) -> None:
        """Write what an event brings."""
        from pruning.engine.calibration import Calibration
        from pruning.engine.events import Iteration, Started

        folder = self.run.path
        if isinstance(event, Started):
            for remark in begin(self.run, self.loaded, event.sources, self.computed):
                _note(self.run, remark)
            write_json(folder / "geometry.json", event.geometry.to_dict())
            write_json(folder / "sources.json", event.sources)
        elif isinstance(event, Iteration):
            metrics = write_iteration(folder, event, self.loaded.fingerprint, self.computed)
            log(folder, "iteration", **metrics.model_dump(exclude={"layers", "files", "weights", "computed"}))
            self.complete = event.number
            self.status.write(iteration=event.number)
        elif isinstance(event, Progress) and isinstance(event.result, Calibration) and self.complete < 1:
            write_layer(folder, self.run.config, event.result)


class TextProgress:
    """A line on standard error for each stage and iteration: where there is no bar, and in a worker's log.

    Args:
        iterations: number of iterations of the run; 0 for a stage outside a run.
        complete: number of the last complete one, 0 for the dense model, -1 for none.
    """

    def __init__(self, iterations: int, complete: int = -1) -> None:
        self.iterations, self.complete, self._last_line = iterations, complete, ""

    @property
    def subject(self) -> str:
        """The model or iteration that a stage of a run works on, before the name of the stage."""
        if not self.iterations:
            return ""
        if self.complete < 0:
            return "dense model: "
        if self.complete < self.iterations:
            return f"iteration {self.complete + 1} of {self.iterations}: "
        return "pruned model: "

    def __call__(self, event: Event) -> None:
        """Print where a stage begins, and the numbers of an iteration."""
        from pruning.engine.events import Iteration

        if isinstance(event, Iteration):
            done = f"iteration {event.number} of {self.iterations}" if event.number else "dense model"
            parts = [f"{event.mask.ratio:.1%} removed"] if event.number else []
            if rise := Rise.over([text.divergence for text in event.perplexity.values()]):
                parts.append(f"divergence {number(rise.value, 3)}")
            if values := {name: text.value for name, text in event.perplexity.items()}:
                parts.append(f"perplexity {number(mean_perplexity(values))}")
            self.complete = event.number
            self._print(f"{done} done: {', '.join([*parts, seconds_text(event.seconds)])}")
        elif isinstance(event, Progress):
            self._print(f"{self.subject}{event.stage}")

    def _print(self, line: str) -> None:
        if line != self._last_line:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - the purpose of this class
        self._last_line = line


UNITS = {"calibrate": "tokens", "evaluate": "tokens", "zero-shot": "tasks"}  # what stages count
SHORTEST = 0.3  # seconds: a rate over less is noise
SETTLED_SECONDS = 2.0  # a stage's own speed counts from here on; before, that of earlier ones


@dataclass(frozen=True)
class Speed:
    """Tokens a second through a whole model on this machine; 0 where it is not known."""

    calibrate: float = 0.0
    evaluate: float = 0.0


def speed_file(run: Run, device: str) -> Path:
    """Cache file for the speed of a run's model on a device."""
    return cache_folder() / "speed" / f"{key_of(f'{run.config.model} {run.config.dtype} {device}')}.json"


class Meter:
    """Turns the engine's progress into fields of the status."""

    def __init__(self, run: Run, status: Reporter, iteration: int) -> None:
        self.run, self.status, self.iteration = run, status, iteration
        self.layers, self.stage, self.began = 1, "", time.monotonic()
        self.file = speed_file(run, str(status.fields.get("device")))
        self.rates = asdict(read_cached(self.file, Speed) or Speed())
        config, done = run.config, run.iterations()
        # tokens of one iteration; those of cached results are corrected when they are skipped
        self.tokens = {
            "calibrate": config.samples * config.seq_len * len(config.mixture),
            "evaluate": sum(text.tokens for text in done[0].metrics.perplexity.values()) if done else 0,
        }
        self.task_seconds = 0.0  # of all tasks of one model

    def __call__(self, event: Event) -> None:
        """Update the status from an event."""
        from pruning.engine.events import Iteration, Started

        if isinstance(event, Started):
            self.layers = len(event.geometry.layers)
        elif isinstance(event, Iteration):
            self.iteration, self.stage = event.number, ""
        elif isinstance(event, Progress):
            if event.stage != self.stage:
                self.stage, self.began = event.stage, time.monotonic()
                log(self.run.path, "stage", stage=event.stage, after=self.iteration, total=event.total)
            elapsed = max(time.monotonic() - self.began, 1e-6)
            # both count every token once a layer
            counted = self.layers if event.stage in self.rates else 1
            done, total = event.done / counted, event.total / counted
            if event.stage in self.rates:
                self._learn(event, done, total, elapsed)
            self.status.note(
                stage=event.stage,
                detail=event.detail,
                done=event.done,
                total=event.total,
                current=min(self.iteration + 1, self.run.config.iterations),
                per_second=done / elapsed if event.stage in UNITS and elapsed > SHORTEST else None,
                unit=UNITS.get(event.stage, ""),
                eta=self._eta(event.stage, done, total - done, elapsed),
            )

    def _learn(self, event: Progress, done: float, total: float, elapsed: float) -> None:
        if event.stage == "evaluate":
            self.tokens["evaluate"] = max(self.tokens["evaluate"], round(total))
        is_complete = event.done >= event.total
        if done and (is_complete or elapsed > SETTLED_SECONDS or not self.rates[event.stage]):
            self.rates[event.stage] = done / elapsed
        if is_complete:
            write_cached(self.file, Speed(**self.rates))

    def _eta(self, stage: str, done: float, remaining: float, elapsed: float) -> float | None:
        """Seconds to the end of the run; None where no speed is known yet."""
        config, of_stage = self.run.config, elapsed * remaining / done if done else None
        if stage == "zero-shot" and of_stage is not None:
            self.task_seconds = elapsed + of_stage
            if self.iteration >= config.iterations:
                return of_stage
        measured = [rate for rate in self.rates.values() if rate]
        if not measured or (of_stage is None and stage not in self.rates):
            return None
        # both are passes through the same layers: the rate of one stands for the other until it has run
        rates = {name: rate or measured[0] for name, rate in self.rates.items()}
        seconds = {name: self.tokens[name] / rates[name] for name in rates}
        eta = remaining / rates[stage] if stage in rates else of_stage or 0.0
        eta += seconds["evaluate"] * (stage != "evaluate") + self.task_seconds
        rounds = config.iterations - max(self.iteration, 0) - (self.iteration >= 0)
        return eta + max(rounds, 0) * sum(seconds.values())


# --- carrying out ------------------------------------------------------------------------------------------


def stored_state(run: Run) -> State | None:
    """State from which an interrupted run continues: after its last complete iteration.

    Raises:
        CorruptFileError: a file of the state is not what was written; see `repair`.
    """
    from pruning.engine.events import State

    if not (iterations := run.iterations()):
        return None
    last = iterations[-1]
    scales, curves, mixture = None, {}, None
    if last.number:
        first = iterations[1]
        scales, curves = dense_scales(first.scores, run.config.square_attention), first.curves
    if run.config.adapt_mixture and last.metrics.rises:
        mixture = adapt(last.metrics.mixture, last.metrics.rises)
    return State(last.number, last.delta(), scales, curves, mixture)


def summarise(run: Run, seconds: float) -> Results:
    """Results of a run with all of its iterations, which took so many seconds; without tasks."""
    iterations = run.iterations()
    dense, last = iterations[0].metrics, iterations[-1].metrics
    computed = [each.metrics.computed for each in iterations if each.metrics.computed]
    text = run.inputs.text if run.inputs else {}
    texts = {name: (p, last.perplexity[name]) for name, p in dense.perplexity.items()}
    losses = {name: (p.losses, q.losses) for name, (p, q) in texts.items()}
    values = {
        name: Pair(dense=p.value, pruned=q.value, rise=Rise.between([losses[name]]))
        for name, (p, q) in texts.items()
    }
    if values:
        values["mean"] = Pair(
            dense=mean_perplexity({name: pair.dense for name, pair in values.items()}),
            pruned=mean_perplexity({name: pair.pruned for name, pair in values.items()}),
            rise=Rise.between([*losses.values()]),
        )
    return Results(
        run_id=run.id,
        config=run.config.model_dump(mode="json"),
        achieved_ratio=last.ratio,
        parameters=Sizes(dense=dense.parameters, pruned=last.parameters),
        divergence=last.divergence,
        perplexity=values,
        bits_per_byte={
            name: KnownPair(dense=p.bits_per_byte, pruned=q.bits_per_byte) for name, (p, q) in texts.items()
        },
        tokens={name: p.tokens for name, p in dense.perplexity.items()},
        iterations=tuple(
            it.metrics.model_copy(update={"files": {}, "computed": None}) for it in iterations[1:]
        ),
        seconds=seconds,
        weights=dense.weights,
        heldout={name: parts["heldout"].digest for name, parts in text.items() if "heldout" in parts},
        device=", ".join(dict.fromkeys(each.device for each in computed)),
        dtype=", ".join(dict.fromkeys(each.dtype for each in computed)),
        notes=tuple(changes(iterations)),
    )


def execute(run: Run, on_event: Callable[[Event], None] | None = None, exits: bool = False) -> Result:
    """Carry out a run, or the remaining part of it, in this process.

    Args:
        run: a new or an interrupted run.
        on_event: called with every event of the engine.
        exits: whether the process may end itself when a cancelled computation does not return.

    Raises:
        Cancelled: the run was asked to stop; it can be resumed.
        PruningError: a mistake of the user; the run is marked as failed with the same sentence.
    """
    with run.held(HANDOVER_SECONDS), Reporter(run, exits) as status:

        def end(state: str, message: str) -> None:
            with contextlib.suppress(PruningError):  # a full disk must not hide the error
                status.write(state=state, finished=time.time(), message=message)
                log(run.path, state, message=message)

        try:
            for action in repair(run):
                _print(run, action)
            with _device(run, status):
                return _drive(run, status, on_event)
        except (Cancelled, KeyboardInterrupt):
            end("cancelled", "")
            raise
        except PruningError as error:
            end("failed", str(error))
            raise
        except BaseException as error:
            problem = out_of_memory(error)
            end("failed", problem or f"{type(error).__name__}: {error}")
            if problem:
                raise RunError(problem) from error
            raise


def out_of_memory(error: BaseException, way_out: str = "") -> str:
    """Message for an error that means too little memory; empty for any other error.

    Args:
        error: any exception.
        way_out: advice; by default the advice for a run.
    """
    ran_out = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's
    if not ran_out and not (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return ""
    way_out = way_out or "lower --calibration-blocks or --seq-len, use --dtype bfloat16, or a smaller model"
    return f"the device has too little memory for this: {way_out}."


def _device_name(config: RunConfig) -> str:
    """Device of a config, with `auto` and `cuda` resolved so that two names share a lock."""
    from pruning.models.loading import pick_device

    with announced("loading torch"):
        name = pick_device(config.device)
    return "cuda:0" if name == "cuda" else name


@contextlib.contextmanager
def _device(run: Run, status: Reporter) -> Iterator[None]:
    """Lock of the run's device: one run at a time computes on it, the others wait in order."""
    announced_queue: list[str] | None = None
    lock = None
    while lock is None or not lock.is_locked:
        status.check_cancelled()
        ahead = [other.id for other in run.ahead()]
        if ahead != announced_queue:
            status.write(ahead=len(ahead), waiting_for=ahead)
            if ahead:
                _print(run, f"waits for {', '.join(ahead)} on the same device")
                log(run.path, "waiting", waiting_for=ahead)
            announced_queue = ahead
        if lock is None:  # after the first announcement, since the name of the device takes torch and seconds
            device = _device_name(run.config)
            status.write(device=device)
            lock = FileLock(run.path.parent / f".{device.replace(':', '-')}.lock")
            continue
        with contextlib.suppress(Timeout):
            if not ahead:
                lock.acquire(timeout=0)
                continue
        time.sleep(0.3)
    try:
        status.write(state="starting", started=time.time(), ahead=0, waiting_for=[])
        yield
    finally:
        lock.release()


def _drive(run: Run, status: Reporter, on_event: Callable[[Event], None] | None) -> Result:
    """Drive the engine; every event goes to the recorder, the meter and the caller."""
    with announced("loading transformers"):
        from pruning.engine.events import Finished, Started
        from pruning.engine.loop import prune_loaded
        from pruning.measure.tasks import compare, task_digests, zero_shot

    began, config = time.monotonic(), run.config
    state = stored_state(run)
    earlier = sum(iteration.metrics.seconds for iteration in run.iterations())
    log(run.path, "started", resumed_after=state.number if state else None)
    for notice in mixture_notices(config):
        _note(run, notice)
    check_tasks(config.tasks, config.task_data, config.task_folder)
    loaded = load_dense(run)
    if loaded.code:
        log(run.path, "code", files=dict(loaded.code))
    status.write(state="running", iterations=config.iterations)
    sinks: list[Callable[[Event], None]] = [
        Recorder(run, status, loaded),
        Meter(run, status, run.last_iteration),
    ]
    sinks += [on_event] if on_event else []

    def emit(event: Event) -> None:
        status.check_cancelled()
        for sink in sinks:
            sink(event)

    def answers(model: LoadedModel, delta: Delta) -> dict[str, TaskResult]:
        folders: dict[str, Any] = {"data": config.task_data, "include": config.task_folder}
        digest = delta.digest(model.fingerprint)  # names the model in the cache
        return drain(zero_shot(model, config.tasks, digest, limit=config.task_limit, **folders), emit)

    def write_results(accuracies: ZeroShot | None = None) -> Results:
        results = summarise(run, earlier + time.monotonic() - began)
        results = results.model_copy(update={"zero_shot": accuracies})
        write_json(run.path / "results.json", results.model_dump())
        return results

    with contextlib.closing(prune_loaded(loaded, config, state)) as events:
        for event in events:
            emit(event)
            if isinstance(event, Started) and config.tasks:
                if (stored := run.inputs) and stored.tasks:  # before the dense model answers again
                    options = config.task_data, config.task_folder, config.task_limit
                    check_inputs(run, tasks=task_digests(config.tasks, *options))
                # the dense model answers before it is cut: it is not read again, and a mistake in the tasks
                # shows at once
                dense = answers(loaded, Delta.of(loaded.source))
                begin_tasks(run, {name: result.digest for name, result in dense.items()})
    assert isinstance(event, Finished)
    if config.save_model:
        status.write(stage="save")
        if remark := _other_type(event.loaded):
            _note(run, remark)
        write_model(run, event.loaded, event.delta, run.path / "model")
    results = write_results()  # should the tasks fail, the perplexities are there
    if config.tasks:
        results = write_results(compare(dense, answers(event.loaded, event.delta)))
    status.write(state="finished", finished=time.time(), seconds=results.seconds, eta=0)
    log(run.path, "finished", seconds=results.seconds)
    return Result(run, event.loaded, event.delta, results)


def _other_type(loaded: LoadedModel) -> str:
    """Remark on a checkpoint of another type than the dense model's; empty for the same type."""
    stored, computed = stored_type(loaded.path), str(loaded.model.dtype).removeprefix("torch.")
    names = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    if stored is None or names[stored] == computed:
        return ""
    return (
        f"The checkpoint is stored in {computed}, as it was computed; the dense model is stored in "
        f"{names[stored]}, and so are exports unless --weights names another."
    )


def _print(run: Run, message: str) -> None:
    print(f"{run.id}: {message}", file=sys.stderr)  # noqa: T201 - the terminal, or the log of the worker


def _note(run: Run, remark: str) -> None:
    """Print a remark on a run, and log it."""
    _print(run, remark)
    log(run.path, "note", what=remark)


def prune(
    config: RunConfig | None = None,
    store: str | Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Result:
    """Prune a model in this process and keep the run.

    Args:
        config: options; by default the demo model is pruned by the paper's method.
        store: runs directory, by default `runs`.
        on_event: called with every event of the engine.

    Returns:
        The pruned model in memory, its mask, and perplexities before and after.

    Raises:
        PruningError: a mistake of the user, in one sentence.
    """
    run = create(config or RunConfig.create(), RunStore(store))
    try:
        return execute(run, on_event)
    except PruningError:
        if run.last_iteration < 0:  # it never began: no trace remains
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def measure_sensitivity(run: Run, **changes: object) -> Generator[Progress, None, dict[Site, Curve]]:
    """Measure the sensitivity curves of a run's dense model, and keep them with the run.

    Args:
        run: a run with statistics of the dense model.
        changes: options that replace the run's, such as another compensation.

    Raises:
        PruningError: the run has no statistics yet, or its model or text is not available or was changed.
    """
    from pruning.engine.blocks import calibration_blocks, describe_blocks
    from pruning.engine.budget import dense_scales
    from pruning.engine.loop import state_of
    from pruning.engine.sensitivity import sensitivity_curves

    first, config = dense_iteration(run), run.config.replace(**changes)
    loaded = load_dense(run)
    blocks = calibration_blocks(config, loaded.tokenizer, loaded.model)
    check_inputs(run, text=text_digests(describe_blocks(blocks, [])))
    scales = dense_scales(first.scores, config.square_attention)
    source, mask = loaded.source, Mask.full(first.geometry)
    curves = yield from sensitivity_curves(
        source, mask, first.scores, scales, config, blocks, state_of(loaded)
    )
    write_curves(first.path, curves)
    return curves


def main() -> int:
    """The process of a run."""
    lower_priority()
    run = Run(Path(sys.argv[1]))
    try:
        permissions.check(run.id, run.config)
        with log_on_stderr():
            execute(run, TextProgress(run.config.iterations, run.last_iteration), exits=True)
    except Cancelled:
        return 0
    except PruningError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log is this process's standard error
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
