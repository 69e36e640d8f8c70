"""Ten configs on the demo model, to show that a change of the code changed no result.

    python benchmarks/ten_configs.py OUT.json [CHECKOUT]     # masks and perplexities of this code, or of another checkout
    python benchmarks/ten_configs.py table BEFORE.json AFTER.json

Each runs through the command line in a process of its own; a mask's name is the hash of its files' arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file

MIXED = "wiki=1,web=1,code=1,math=1"
CONFIGS: dict[str, list[str]] = {
    "share, 50%, K = 5": ["--ratio", "0.5", "--iterations", "5", "--normalise", "share"],
    "share, 25%, K = 2, cubic": [
        "--ratio",
        "0.25",
        "--iterations",
        "2",
        "--normalise",
        "share",
        "--schedule",
        "cubic",
    ],
    "flap": ["--method", "flap"],
    "flap, mixed, 25%": ["--method", "flap", "--mixture", MIXED, "--ratio", "0.25"],
    "wanda_sp": ["--method", "wanda_sp"],
    "magnitude": ["--method", "magnitude"],
    "random, seed 7": ["--method", "random", "--seed", "7"],
    "zscore_first, query heads, total": [
        "--iterations",
        "3",
        "--normalise",
        "zscore_first",
        "--attention-unit",
        "query_head",
        "--fusion",
        "total",
    ],
    "equal, multiples of 16": [
        "--iterations",
        "2",
        "--normalise",
        "share",
        "--allocation",
        "equal",
        "--round-to",
        "16",
    ],
    "own mixture, pins": [
        "--iterations",
        "2",
        "--normalise",
        "share",
        "--mixture",
        "code=3,math=1",
        "--keep",
        "0",
        "2.attn",
        "--remove",
        "3.mlp.0-99",
    ],
}


def common(checkout: Path) -> list[str]:
    """What later versions have to be told, to do what earlier ones did."""
    command = [sys.executable, "-m", "pruning", "prune", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    said = subprocess.run(command, capture_output=True, text=True, env=environment)
    return ["--token-weights", "equal"] if "--token-weights" in said.stdout else []


def measure(checkout: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    more = common(checkout)
    for name, options in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "PYTHONPATH": str(checkout), "PRUNESCOPE_CACHE": f"{folder}/cache"}
            command = [
                sys.executable,
                "-m",
                "pruning",
                "prune",
                "--json",
                "--runs",
                f"{folder}/runs",
                *options,
                *more,
            ]
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr}")
            summary = json.loads(done.stdout)
            digest = hashlib.blake2b(digest_size=6)
            for file in sorted(Path(summary["path"]).glob("iteration-*[1-9]/mask.safetensors")):
                for site, array in sorted(load_file(file).items()):
                    digest.update(site.encode() + array.tobytes())
        perplexity = {domain: value["pruned"] for domain, value in summary["perplexity"].items()}
        found[name] = {
            "masks": digest.hexdigest(),
            "ratio": summary["achieved_ratio"],
            "perplexity": perplexity,
        }
        print(name, found[name], file=sys.stderr, flush=True)
    return found


def table(before: dict, after: dict) -> str:
    domains = list(next(iter(before.values()))["perplexity"])
    lines = ["| config | masks before | after | ratio | " + " | ".join(domains) + " | largest change |"]
    lines.append("|---|---|---|---:|" + "---:|" * (len(domains) + 1))
    for name, old in before.items():
        new = after[name]
        change = max(abs(new["perplexity"][d] / old["perplexity"][d] - 1) for d in domains)
        cells = [f"{new['perplexity'][d]:.4f}" for d in domains]
        lines.append(
            f"| {name} | `{old['masks']}` | {'the same' if old['masks'] == new['masks'] else new['masks']} | "
            f"{new['ratio']:.4f} | {' | '.join(cells)} | {change:.1e} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1] == "table":
        print(table(*(json.loads(Path(name).read_text()) for name in sys.argv[2:4])))
    else:
        root = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).resolve().parent.parent
        Path(sys.argv[1]).write_text(json.dumps(measure(root.resolve()), indent=1), encoding="utf-8")
