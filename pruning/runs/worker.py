"""Carrying out a run: drive the engine, write down what it yields, stop when asked.

`python -m pruning.runs.worker RUN_FOLDER` is the process of a run, the only way from the app to the engine.
`prune` does the same in the calling process, for notebooks and the command line.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pruning.config import RunConfig
from pruning.errors import PruningError, RunError
from pruning.measure.tasks import check_tasks
from pruning.models.delta import Delta
from pruning.models.tensors import stored_type
from pruning.progress import Progress, announced, drain, log_on_stderr
from pruning.runs import trust
from pruning.runs.create import create, mixture_notices
from pruning.runs.dense import load_dense
from pruning.runs.inputs import begin, begin_tasks, computation
from pruning.runs.inputs import check_tasks as same_tasks
from pruning.runs.lines import Lines
from pruning.runs.log import log
from pruning.runs.meter import Meter
from pruning.runs.outcome import Results
from pruning.runs.processes import give_way
from pruning.runs.records import metrics, stored_state, summarise, write_iteration, write_layer
from pruning.runs.repair import repair
from pruning.runs.result import Result
from pruning.runs.run import HANDOVER_SECONDS, Run
from pruning.runs.sizes import write_model
from pruning.runs.status import Reporter
from pruning.runs.store import RunStore
from pruning.sealed import write_json

if TYPE_CHECKING:
    from pruning.engine.events import Event
    from pruning.measure.zeroshot import TaskResult
    from pruning.models.folder import LoadedModel


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
        from pruning.engine.calibration import Calibration
        from pruning.engine.events import Finished, Iteration, Started
        from pruning.engine.loop import prune_loaded
        from pruning.measure.zeroshot import compare, task_digests
        from pruning.models.source import InMemory

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
        if (
            isinstance(event, Progress)
            and isinstance(event.result, Calibration)
            and len(run.iterations()) < 2
        ):
            write_layer(run, event.result)
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
                    dense = _answers(loaded, Delta.of(InMemory(loaded.model)), config, show)
                    begin_tasks(run, {name: answer.digest for name, answer in dense.items()})
                continue
            if isinstance(event, Iteration):
                write_iteration(run, event, loaded.fingerprint, computed)
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
    give_way()
    run = Run(Path(sys.argv[1]))
    try:
        trust.check(run)
        with log_on_stderr():
            execute(run, Lines(run.config.iterations, len(run.iterations()) - 1), exits=True)
    except Cancelled:
        return 0
    except PruningError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log is this process's standard error
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
