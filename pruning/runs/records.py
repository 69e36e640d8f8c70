"""What a run writes down of its iterations, and where an interrupted one goes on from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.numpy import save_file

from pruning.engine.budget import dense_scales
from pruning.files import whole, write_json, writing
from pruning.measure.comparison import KnownPair, Pair, mean_perplexity
from pruning.method.statistics import write_statistic
from pruning.runs.iterations import CURVES_FILE, StoredIteration
from pruning.runs.outcome import Metrics, Repaired, Results, Sizes, TextMeasure
from pruning.runs.run import Run

if TYPE_CHECKING:
    from pruning.engine.events import Iteration, State


def write_iteration(run: Run, iteration: Iteration) -> None:
    """An iteration as a folder, moved into place when it is complete.

    Raises:
        RunError: it cannot be written.
    """
    folder = run.path / f"iteration-{iteration.number:02d}"
    with writing(run.path), whole(folder) as temporary:
        temporary.mkdir()
        iteration.delta.write(temporary)
        if iteration.statistics is not None:
            save_file({str(s): a for s, a in iteration.scores.items()}, temporary / "scores.safetensors")
            norms = {f"{s}.norm": n for s, (n, _) in iteration.norms.items()}
            norms |= {f"{s}.mean_abs": m for s, (_, m) in iteration.norms.items()}
            save_file(norms, temporary / "norms.safetensors")
            for domain, moments in iteration.statistics.moments.items():
                write_statistic(temporary / f"moments-{domain}.safetensors", moments)
            if iteration.curves:
                curves = {str(site): curve.to_dict() for site, curve in iteration.curves.items()}
                write_json(temporary / CURVES_FILE, curves)
        write_json(temporary / "metrics.json", metrics(iteration).model_dump())


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
    )


def stored_state(run: Run) -> State | None:
    """Where an interrupted run goes on: after its last complete iteration."""
    from pruning.engine.events import State

    iterations = run.iterations()
    if not iterations:
        return None
    last = iterations[-1]
    scales, curves = None, {}
    if last.number:
        first = next(iteration for iteration in iterations if iteration.number == 1)
        scales, curves = dense_scales(first.scores, run.config.square_attention), first.curves
    return State(last.number, last.delta(), scales, curves)


def summarise(run: Run, iterations: list[StoredIteration], seconds: float) -> Results:
    """Dense against pruned."""
    dense, last = iterations[0].metrics, iterations[-1].metrics
    texts = {name: (p, last.perplexity[name]) for name, p in dense.perplexity.items()}
    values = {name: Pair(dense=p.value, pruned=q.value) for name, (p, q) in texts.items()}
    if values:
        values["mean"] = Pair(
            dense=mean_perplexity({name: pair.dense for name, pair in values.items()}),
            pruned=mean_perplexity({name: pair.pruned for name, pair in values.items()}),
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
        iterations=tuple(iteration.metrics for iteration in iterations[1:]),
        seconds=seconds,
    )
