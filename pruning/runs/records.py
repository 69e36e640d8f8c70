"""What a run writes down of its iterations, and where an interrupted one goes on from."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from safetensors.numpy import save_file

from pruning.engine.budget import dense_scales, scores
from pruning.engine.statistics_files import write_statistics
from pruning.files import atomic_write, writing
from pruning.measure.comparison import KnownPair, Pair, Rise, mean_perplexity
from pruning.method.mixture import adapt
from pruning.method.moments import DomainStatistics
from pruning.runs.damage import write_curves
from pruning.runs.inputs import changes
from pruning.runs.iterations import LAYERS, NORMS_FILE, SCORES_FILE, StoredIteration
from pruning.runs.outcome import Computation, Metrics, Repaired, Results, Sizes, TextMeasure
from pruning.runs.run import Run
from pruning.sealed import digests, write_json

if TYPE_CHECKING:
    from pruning.engine.calibration import Calibration
    from pruning.engine.events import Iteration, State

METRICS_FILE = "metrics.json"


def write_iteration(
    run: Run, iteration: Iteration, weights: str = "", computed: Computation | None = None
) -> None:
    """An iteration as a folder, moved into place when it is complete.

    Args:
        run: that it belongs to.
        iteration: what it found and did.
        weights: names the dense model's weights.
        computed: by what.

    Raises:
        RunError: it cannot be written.
    """
    folder = run.path / f"iteration-{iteration.number:02d}"
    with writing(run.path), atomic_write(folder) as temporary:
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
        content = metrics(iteration).model_dump() | {"files": digests(temporary), "weights": weights}
        content["computed"] = computed.model_dump() if computed else None
        write_json(temporary / METRICS_FILE, content)
    if iteration.number:
        with contextlib.suppress(OSError):
            for file in (run.path / LAYERS).glob("*.safetensors"):
                file.unlink()
            (run.path / LAYERS).rmdir()


def write_layer(run: Run, calibration: Calibration) -> None:
    """Scores of a layer of the dense model, there to be drawn until the first iteration is whole.

    Where the cache has some of the domains, no layer is written: the others' statistics alone decide nothing.
    """
    config = run.config
    if set(calibration.statistics) != set(config.mixture):
        return
    layer_scores = scores(DomainStatistics(calibration.statistics), calibration.norms, config)
    layer = next(iter(layer_scores)).layer
    with writing(run.path):
        (run.path / LAYERS).mkdir(exist_ok=True)
    with writing(run.path), atomic_write(run.path / LAYERS / f"{layer:04d}.safetensors") as temporary:
        save_file({str(site): array for site, array in layer_scores.items()}, temporary)


def metrics(iteration: Iteration) -> Metrics:
    """The numbers of an iteration."""
    return Metrics(
        number=iteration.number,
        target_ratio=iteration.target,
        ratio=iteration.mask.ratio,
        parameters=iteration.parameters,
        perplexity={name: TextMeasure(**p.to_dict()) for name, p in iteration.perplexity.items()},
        layers=iteration.mask.pruned.layers,
        seconds=iteration.seconds,
        repairs={
            str(site): Repaired(ridge=repair.ridge, error=dict(repair.error))
            for site, repair in iteration.repairs.items()
            if repair.error is not None
        },
        mixture=dict(iteration.mixture) if iteration.rises else {},
        rises=dict(iteration.rises),
    )


def stored_state(run: Run) -> State | None:
    """Where an interrupted run goes on: after its last complete iteration.

    Raises:
        DamagedError: what it goes on from is not what was written; see `repair`.
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
        mixture = adapt(last.metrics.mixture, last.metrics.rises)
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
