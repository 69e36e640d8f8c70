"""Make `assets/smollm2-run` and `assets/demo-run`: finished runs by the paper's method, small enough to ship.

    python tools/make_shipped_runs.py [demo] [smollm2]

Ordinary runs, statistics in fewer bits, and instead of a checkpoint what is cut from the dense model. The app
opens on the run of SmolLM2. What the fewer bits change is measured and printed.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from pruning import RunConfig, prune
from pruning.engine.budget import first_mask
from pruning.formats.write import export
from pruning.method.scores import score_sites
from pruning.models.mask import jaccard
from pruning.progress import drain
from pruning.runs.run import Run
from pruning.runs.worker import measure_sensitivity

ASSETS = Path(__file__).resolve().parent.parent / "assets"
KEPT = ("config.json", "geometry.json", "sources.json", "inputs.json")
KEPT += ("results.json", "events.jsonl", "status.json")
RUNS = {
    "demo": RunConfig.create(tasks=("demo",), eval_blocks=None),
    "smollm2": RunConfig.create(model="smollm2", iterations=3, samples=16, eval_blocks=16),
}


def smaller(name: str, array: np.ndarray, half: bool) -> np.ndarray:
    """Single precision; means and norms, which have no outliers beyond its range, in half where it must be small."""
    if array.dtype != np.float64:
        return array
    return array.astype(np.float16 if half and name.endswith((".mean", ".norm", ".mean_abs")) else np.float32)


def shrink(source: Path, target: Path, half: bool) -> None:
    """A safetensors file with its floats in fewer bits."""
    with safe_open(source, framework="numpy") as file:
        metadata = file.metadata()
    arrays = {name: smaller(name, array, half) for name, array in load_file(source).items()}
    for name, array in arrays.items():
        if np.isinf(array).any():
            raise SystemExit(f"{source}: {name} does not fit into {array.dtype}")
    save_file(arrays, target, metadata=metadata)


def make(name: str, config: RunConfig) -> None:
    out = ASSETS / f"{name}-run"
    with tempfile.TemporaryDirectory() as folder:
        run = prune(config, folder).run
        drain(measure_sensitivity(run), lambda _: None)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        for file in KEPT:
            shutil.copy(run.path / file, out / file)
        for iteration in sorted(run.path.glob("iteration-*")):
            target = out / iteration.name
            target.mkdir()
            for file in iteration.glob("*.json"):  # metrics, damage
                shutil.copy(file, target)
            for file in iteration.glob("*.safetensors"):
                if not file.name.startswith("biases"):
                    shrink(file, target / file.name, half=name != "demo")
        export(run.checkpoint, "masks", out / "model")
        lost(run, Run(out))
    status = json.loads((out / "status.json").read_text())
    for key in ("pid", "pid_created"):
        status.pop(key, None)
    (out / "status.json").write_text(json.dumps(status, indent=1))
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")


def lost(run: Run, shipped: Run) -> None:
    """What the fewer bits change: scores, and the mask of one cut."""
    masks = []
    for each in (run, shipped):
        first = each.iterations()[1]
        fused = first.statistics.fuse(
            each.config.mixture, each.config.fusion, worst_domain=each.config.worst_domain
        )
        scores = score_sites(each.config.score, fused, first.norms, each.config.seed)
        masks.append((scores, first_mask(scores, first.geometry, each.config)))
    (exact, mask), (rounded, other) = masks
    error = max(float(np.nanmax(np.abs(rounded[s] / exact[s] - 1))) for s in exact)
    overlap = min(jaccard(mask, other, site) for site in exact)
    print(
        f"scores differ by at most {error:.1e}; masks of one cut overlap by {overlap:.4f} or more in every site"
    )


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RUNS:
        make(chosen, RUNS[chosen])
