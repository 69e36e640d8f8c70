"""Make `assets/demo-run`: a finished run of the demo model by the paper's method, small enough to ship.

    python tools/make_demo_run.py

An ordinary run, its checkpoint as masks, statistics in float32. It is what the app opens on.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from pruning import RunConfig, prune
from pruning.formats.write import export

OUT = Path(__file__).resolve().parent.parent / "assets" / "demo-run"
KEPT = ("config.json", "geometry.json", "sources.json", "results.json", "events.jsonl", "status.json")


def shrink(source: Path, target: Path) -> None:
    """A safetensors file with its floats in single precision."""
    with safe_open(source, framework="numpy") as file:
        metadata = file.metadata()
    arrays = {
        name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in load_file(source).items()
    }
    save_file(arrays, target, metadata=metadata)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = prune(RunConfig.create(tasks=("demo",), eval_blocks=None), folder).run
        shutil.rmtree(OUT, ignore_errors=True)
        OUT.mkdir(parents=True)
        for name in KEPT:
            shutil.copy(run.path / name, OUT / name)
        for iteration in sorted(run.path.glob("iteration-*")):
            target = OUT / iteration.name
            target.mkdir()
            shutil.copy(iteration / "metrics.json", target)
            for file in iteration.glob("*.safetensors"):
                if not file.name.startswith("biases"):
                    shrink(file, target / file.name)
        export(
            run.checkpoint, "masks", OUT / "model"
        )  # kilobytes that make the pruned model from the dense one
    status = json.loads((OUT / "status.json").read_text())
    for key in ("pid", "pid_created"):
        status.pop(key, None)
    (OUT / "status.json").write_text(json.dumps(status, indent=1))
    size = sum(file.stat().st_size for file in OUT.rglob("*") if file.is_file())
    print(f"{OUT}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
