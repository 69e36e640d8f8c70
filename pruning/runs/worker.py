"""Carrying out a run: drive the engine, write down what it yields, stop when asked.

`python -m pruning.runs.worker RUN_FOLDER` is the process of a run, the only way from the app to the engine.
`prune` does the same in the calling process, for notebooks and the command line.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from pruning.checksums import read_cached, write_cached, write_json
from pruning.config import RunConfig
from pruning.engine.budget import dense_scales
from pruning.errors import PruningError, RunError
from pruning.formatting import number, seconds_text
from pruning.measure.comparison import KnownPair, Pair, Rise, mean_perplexity
from pruning.measure.tasks import check_tasks
from pruning.method.damage import Curve
from pruning.method.mixture import adapted
from pruning.models.delta import Delta
from pruning.models.geometry import Site
from pruning.models.mask import Mask
from pruning.models.tensors import stored_type
from pruning.paths import cache_folder
from pruning.progress import Progress, announced, drain, log_on_stderr
from pruning.runs import permissions
from pruning.runs.checkpoints import load_dense, write_model
from pruning.runs.folder import StoredIteration, log, metrics, write_curves, write_iteration, write_layer
from pruning.runs.inputs import begin, begin_tasks, changes, check_text, computation, text_digests
from pruning.runs.inputs import check_tasks as same_tasks
from pruning.runs.preflight import create, mixture_notices
from pruning.runs.process import lower_priority
from pruning.runs.repair import repair
from pruning.runs.report import Result
from pruning.runs.run import HANDOVER_SECONDS, Run, RunStore, dense_iteration
from pruning.runs.schema import Results, Sizes

if TYPE_CHECKING:
    from pruning.engine.events import Event, Iteration, State
    from pruning.measure.zeroshot import TaskResult
    from pruning.models.folder import LoadedModel

CANCEL_GRACE_SECONDS = 8.0


class Reporter:
    """`status.json`, kept current by a thread, so that its heartbeat goes on while torch is busy."""

    def __init__(self, run: Run, exits: bool) -> None:
        self.run, self.exits = run, exits
        process = psutil.Process()
        self.fields: dict[str, Any] = run.status().model_dump(exclude_defaults=True) | {
            "state": "queued",
            "message": "",
            "pid": process.pid,
            "pid_created": process.create_time(),
        }
        self.cancelled = threading.Event()
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
        """Whether the run was asked to stop, by now and not only at the last beat."""
        return self.cancelled.is_set() or (self.run.path / "cancel").exists()

    def _beat(self) -> None:
        asked_at = None
        while not self._stop.wait(0.5):
            if (self.run.path / "cancel").exists():
                asked_at = asked_at or time.monotonic()
                self.cancelled.set()
                with self._lock:
                    if self.fields["state"] in ("queued", "starting", "running"):
                        self.fields["state"] = "cancelling"
            try:
                self.write(durable=False)
            except PruningError:
                continue  # a full disk stops the run where it matters
            if self.exits and asked_at and time.monotonic() - asked_at > CANCEL_GRACE_SECONDS:
                self.write(state="cancelled", finished=time.time())
                os._exit(0)  # complete iterations are on disk; whatever is computing cannot be asked to stop


UNITS = {"calibrate": "tokens", "evaluate": "tokens", "zero-shot": "tasks"}  # what stages count
SHORTEST = 0.3  # seconds: a rate over less is noise
SETTLED_SECONDS = 2.0  # a stage's own speed counts from here on; before, that of earlier ones


@dataclass(frozen=True)
class Speed:
    """Tokens a second through a whole model on this machine; 0 where it is not known."""

    calibrate: float = 0.0
    evaluate: float = 0.0


def speed_file(run: Run, device: str) -> Path:
    """Where the speed of a run's model on a device is kept."""
    named = hashlib.blake2b(f"{run.config.model} {run.config.dtype} {device}".encode(), digest_size=16)
    return cache_folder() / "speed" / f"{named.hexdigest()}.json"


class Meter:
    """Turns the engine's progress into fields of the status."""

    def __init__(self, run: Run, status: Reporter, iteration: int) -> None:
        self.run, self.status, self.iteration = run, status, iteration
        self.layers, self.stage, self.began = 1, "", time.monotonic()
        self.file = speed_file(run, str(status.fields.get("device")))
        learned = read_cached(self.file, Speed) or Speed()
        self.rates = {"calibrate": learned.calibrate, "evaluate": learned.evaluate}
        config, done = run.config, run.iterations()
        # of one iteration; what the caches know is measured as soon as it is skipped
        self.tokens = {
            "calibrate": config.samples * config.seq_len * len(config.mixture),
            "evaluate": sum(text.tokens for text in done[0].metrics.perplexity.values()) if done else 0,
        }
        self.asking = 0.0  # seconds of all tasks

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        from pruning.engine.events import Iteration, Started
        from pruning.progress import Progress

        if isinstance(event, Started):
            self.layers = len(event.geometry.layers)
        elif isinstance(event, Iteration):
            self.iteration, self.stage = event.number, ""
        elif isinstance(event, Progress):
            if event.stage != self.stage:
                self.stage, self.began = event.stage, time.monotonic()
                log(self.run.path, "stage", stage=event.stage, after=self.iteration, total=event.total)
            elapsed = max(time.monotonic() - self.began, 1e-6)
            # calibration counts every token once a layer
            counted = self.layers if event.stage == "calibrate" else 1
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
        whole = event.done >= event.total
        if done and (whole or elapsed > SETTLED_SECONDS or not self.rates[event.stage]):
            self.rates[event.stage] = done / elapsed
        if whole:
            write_cached(self.file, Speed(**self.rates))

    def _eta(self, stage: str, done: float, left: float, elapsed: float) -> float | None:
        """Seconds left in the run; None where no speed is known yet."""
        config, here = self.run.config, elapsed * left / done if done else None
        if stage == "zero-shot" and here is not None:
            self.asking = elapsed + here
            if self.iteration >= config.iterations:
                return here
        known = {name: rate for name, rate in self.rates.items() if rate}
        if not known or (here is None and stage not in self.rates):
            return None
        # both are passes through the same layers: the one stands for the other until it has run
        rates = {name: known.get(name) or next(iter(known.values())) for name in self.rates}
        seconds = {name: self.tokens[name] / rates[name] for name in rates}
        found = left / rates[stage] if stage in rates else here or 0.0
        found += seconds["evaluate"] * (stage != "evaluate") + self.asking
        rounds = config.iterations - max(self.iteration, 0) - (self.iteration >= 0)
        return found + max(rounds, 0) * sum(seconds.values())


class TextProgress:
    """Call it with every event of the engine; it writes to standard error.

    Args:
        iterations: of the run.
        complete: the last one that is complete, 0 for the dense model; -1 for none.
    """

    def __init__(self, iterations: int, complete: int = -1) -> None:
        self.iterations, self.complete, self._said = iterations, complete, ""

    @property
    def where(self) -> str:
        """Which part of the run is at work."""
        if self.complete < 0:
            return "dense model"
        if self.complete < self.iterations:
            return f"iteration {self.complete + 1} of {self.iterations}"
        return "pruned model"

    def __call__(self, event: Event) -> None:
        """Say where a stage begins, and what an iteration came to."""
        from pruning.engine.events import Iteration
        from pruning.progress import Progress

        if isinstance(event, Iteration):
            self.complete = event.number
            self._say(_outcome(event, self.iterations))
        elif isinstance(event, Progress):
            self._say(f"{self.where}: {event.stage}")

    def _say(self, line: str) -> None:
        if line != self._said:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - what it is for
        self._said = line


def _outcome(iteration: Iteration, iterations: int) -> str:
    from pruning.measure.comparison import mean_perplexity

    done = f"iteration {iteration.number} of {iterations}" if iteration.number else "dense model"
    parts = [f"{iteration.mask.ratio:.1%} removed"] if iteration.number else []
    if values := {name: found.value for name, found in iteration.perplexity.items()}:
        parts.append(f"perplexity {number(mean_perplexity(values))}")
    return f"{done} done: {', '.join([*parts, seconds_text(iteration.seconds)])}"


def stored_state(run: Run) -> State | None:
    """Where an interrupted run goes on: after its last complete iteration.

    Raises:
        CorruptFileError: what it goes on from is not what was written; see `repair`.
    """
    from pruning.engine.events import State

    iterations = run.iterations()
    if not iterations:
        return None
    last = iterations[-1]
    scales, curves, mixture = None, {}, None
    if last.number:
        first = next(iteration for iteration in iterations if iteration.number == 1)
        scales, curves = dense_scales(first.scores, run.config.square_attention), first.curves
    if run.config.adapt_mixture and last.metrics.rises:
        mixture = adapted(last.metrics.mixture, last.metrics.rises)
    return State(last.number, last.delta(), scales, curves, mixture)


def summarise(run: Run, iterations: list[StoredIteration], seconds: float) -> Results:
    """Dense against pruned."""
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


class Cancelled(Exception):
    """The run was asked to stop."""


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
    with run.held(HANDOVER_SECONDS), Reporter(run, exits) as status:

        def ended(state: str, message: str) -> None:
            with contextlib.suppress(PruningError):  # a full disk must not hide why
                status.write(state=state, finished=time.time(), message=message)
                log(run.path, state, message=message)

        try:
            for words in repair(run):
                print(f"{run.id}: {words}", file=sys.stderr)  # noqa: T201 - said, not only logged
            with _device(run, status):
                return _drive(run, status, on_event)
        except (Cancelled, KeyboardInterrupt):
            ended("cancelled", "")
            raise
        except PruningError as error:
            ended("failed", str(error))
            raise
        except BaseException as error:
            problem = out_of_memory(error)
            ended("failed", problem or f"{type(error).__name__}: {error}")
            if problem:
                raise RunError(problem) from error
            raise


def out_of_memory(error: BaseException, way_out: str = "") -> str:
    """One sentence where an error means too little memory; empty where it means something else.

    Args:
        error: whatever was raised.
        way_out: what helps; empty for what helps a run.
    """
    ran_out = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's
    if not ran_out and not (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return ""
    way_out = way_out or "lower --samples or --seq-len, use --dtype bfloat16, or a smaller model"
    return f"the device has too little memory for this: {way_out}."


def _device_name(config: RunConfig) -> str:
    """The device that a config means; `auto` and `cuda` spelled out, so that two names share a lock."""
    from pruning.models.loading import pick_device

    with announced("loading torch"):
        name = pick_device(config.device)
    return "cuda:0" if name == "cuda" else name


@contextlib.contextmanager
def _device(run: Run, status: Reporter) -> Iterator[None]:
    """One run at a time on a device: wait for those ahead, then hold the device's lock."""
    said: list[str] | None = None
    device = ""
    lock = None
    while lock is None or not lock.is_locked:
        if status.is_cancelled:
            raise Cancelled
        ahead = [other.id for other in run.ahead()]
        if ahead != said:
            status.write(ahead=len(ahead), waiting_for=ahead)
            if ahead:
                words = f"{run.id} waits for {', '.join(ahead)} on the same device"
                print(words, file=sys.stderr)  # noqa: T201 - the terminal, or the log of the worker
                log(run.path, "waiting", waiting_for=ahead)
            said = ahead
        if lock is None:  # after the first word, since finding the device takes torch and seconds
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
    with announced("loading transformers"):
        from pruning.engine.calibration import LayerFound
        from pruning.engine.events import Finished, Iteration, Started
        from pruning.engine.loop import prune_loaded
        from pruning.measure.zeroshot import compare, task_digests

    began = time.monotonic()
    config = run.config
    state = stored_state(run)
    earlier = sum(iteration.metrics.seconds for iteration in run.iterations())
    log(run.path, "started", resumed_after=state.number if state else None)
    meter = Meter(run, status, state.number if state else -1)

    def show(event: Event) -> None:
        if status.is_cancelled:
            raise Cancelled
        meter(event)
        if isinstance(event, Progress) and isinstance(event.found, LayerFound) and len(run.iterations()) < 2:
            write_layer(run.path, config, event.found)
        if on_event:
            on_event(event)

    for words in mixture_notices(set(config.domains) - set(config.mixture), config.eval_blocks != 0):
        _note(run, words)
    check_tasks(config.tasks, config.task_data, config.task_folder)
    loaded = load_dense(run)
    if loaded.code:
        log(run.path, "code", files=dict(loaded.code))
    status.write(state="running", iterations=config.iterations)
    finished: Finished | None = None
    dense: dict[str, TaskResult] = {}
    computed = computation(loaded)
    events = prune_loaded(loaded, config, state)
    try:
        for event in events:
            if status.is_cancelled:
                raise Cancelled
            if isinstance(event, Started):
                for words in begin(run, loaded, event.sources, computed):
                    _note(run, words)
                write_json(run.path / "geometry.json", event.geometry.to_dict())
                write_json(run.path / "sources.json", event.sources)
                show(event)
                if config.tasks:
                    if (stored := run.inputs) and stored.tasks:  # before all of them are asked again
                        folders = config.task_data, config.task_folder
                        same_tasks(run, stored, task_digests(config.tasks, *folders, config.task_limit))
                    # the dense model answers before it is cut: it is not read again, and a mistake in the
                    # tasks shows at once
                    dense = _answers(loaded, Delta.of(loaded.model), config, show)
                    begin_tasks(run, {name: answer.digest for name, answer in dense.items()})
                continue
            if isinstance(event, Iteration):
                write_iteration(run.path, event, loaded.fingerprint, computed)
                numbers = metrics(event).model_dump(exclude={"layers", "files", "weights", "computed"})
                log(run.path, "iteration", **numbers)
                status.write(iteration=event.number)
            elif isinstance(event, Finished):
                finished = event
            show(event)
    finally:
        events.close()
    assert finished is not None
    if config.save_model:
        status.write(stage="save")
        if words := _other_type(finished.loaded):
            _note(run, words)
        write_model(run, finished.loaded, finished.delta, run.path / "model")

    def summary() -> Results:
        return summarise(run, run.iterations(), earlier + time.monotonic() - began)

    found = summary()
    write_json(
        run.path / "results.json", found.model_dump()
    )  # should the tasks fail, the perplexities are there
    if config.tasks:
        answers = compare(dense, _answers(finished.loaded, finished.delta, config, show))
        found = summary().model_copy(update={"zero_shot": answers})
        write_json(run.path / "results.json", found.model_dump())
    status.write(state="finished", finished=time.time(), seconds=found.seconds, eta=0)
    log(run.path, "finished", seconds=found.seconds)
    return Result(run, finished.loaded, finished.delta, found)


def _answers(
    loaded: LoadedModel, delta: Delta, config: RunConfig, show: Callable[[Progress], None]
) -> dict[str, TaskResult]:
    """Answers of a model to the tasks of a config, kept by what separates it from the dense one."""
    from pruning.measure.zeroshot import zero_shot

    where: dict[str, Any] = {"data": config.task_data, "include": config.task_folder}
    asking = zero_shot(
        loaded, config.tasks, delta.digest(loaded.fingerprint), limit=config.task_limit, **where
    )
    return drain(asking, show)


def _other_type(loaded: LoadedModel) -> str:
    """That a checkpoint has another type than the dense model, in a sentence; empty where it has the same."""
    stored, computed = stored_type(loaded.path), loaded.model.dtype
    names = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    if stored is None or names[stored] == str(computed).removeprefix("torch."):
        return ""
    return (
        f"The checkpoint is stored in {str(computed).removeprefix('torch.')}, as it was computed; the dense "
        f"model is stored in {names[stored]}, and so are exports unless --type names another."
    )


def _note(run: Run, words: str) -> None:
    """Say what to know of a run on standard error, and keep it in its log."""
    print(f"{run.id}: {words}", file=sys.stderr)  # noqa: T201 - the terminal, or the log of the worker
    log(run.path, "note", what=words)


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
    run = create(config or RunConfig.create(), RunStore(store))
    try:
        return execute(run, on_event)
    except PruningError:
        if not run.iterations():  # it never began: leave nothing behind
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def main() -> int:
    """The process of a run."""
    lower_priority()
    run = Run(Path(sys.argv[1]))
    try:
        permissions.check(run.id, run.config)
        with log_on_stderr():
            execute(run, TextProgress(run.config.iterations, len(run.iterations()) - 1), exits=True)
    except Cancelled:
        return 0
    except PruningError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log is this process's standard error
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())


def measure_damage(run: Run, **changes: object) -> Generator[Progress, None, dict[Site, Curve]]:
    """Measure the damage curves of a run's dense model, and keep them with the run.

    Args:
        run: with statistics of the dense model.
        changes: options to measure with instead of the run's, such as another compensation.

    Raises:
        PruningError: the run has no statistics yet, or its model or text cannot be had or are others now.
    """
    from pruning.engine.blocks import calibration_blocks, describe_blocks
    from pruning.engine.budget import dense_scales
    from pruning.engine.curves import damage_curves
    from pruning.engine.loop import state_of

    first, config = dense_iteration(run), run.config.replace(**changes)
    loaded = load_dense(run)
    blocks = calibration_blocks(config, loaded.tokenizer, loaded.model)
    if stored := run.inputs:
        check_text(run, stored, text_digests(describe_blocks(blocks, [])), blocks=False)
    scales = dense_scales(first.scores, config.square_attention)
    curves = yield from damage_curves(
        loaded.model,
        Mask.full(first.geometry),
        first.scores,
        scales,
        config,
        blocks,
        state_of(loaded),
    )
    write_curves(first.path, curves)
    return curves
