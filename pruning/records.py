"""What a run writes down of its iterations, and where an interrupted one goes on from."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pruning.masks import dense_scales
from pruning.moments import write_moments
from pruning.runs import Run, StoredIteration, write_json, writing

if TYPE_CHECKING:
    from pruning.engine import Iteration, State


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
