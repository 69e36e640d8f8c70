"""Processes that outlive the server: how they start, and how number and start time identify them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from pruning.paths import PROJECT

WORKER = "pruning.runs.worker"
NICE = 10  # of 19: beside the app a run gets a tenth of a core, and all of an idle machine
_children: list[subprocess.Popen] = []


def start(arguments: Sequence[str], output: IO[bytes], log: IO[bytes]) -> subprocess.Popen:
    """Start `python -m ARGUMENTS` in a session of its own.

    Args:
        arguments: the module and its arguments.
        output, log: files for its standard output and standard error.
    """
    paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=log,
        start_new_session=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "TQDM_DISABLE": "1",  # bars of libraries would fill the log
            "TRANSFORMERS_VERBOSITY": "error",
        },
    )
    # a reference until the process is reaped, so that none stays as a zombie
    _children.append(process)
    _children[:] = [child for child in _children if child.poll() is None]
    return process


def lower_priority() -> None:
    """Give the app and the browser precedence over this process; threads started later inherit that."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICE)
    with contextlib.suppress(OSError):  # Linux may weigh whole sessions; this process has one of its own
        Path("/proc/self/autogroup").write_text(str(NICE))


def started_at(pid: int) -> float | None:
    """Start time of a process; None where it has ended."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def process_lives(pid: int | None, created: float | None) -> bool:
    """Whether a process with this number and start time lives, and is no zombie."""
    if not pid:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - (created or 0)) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return False


def wake_or_kill(pid: int | None, created: float | None, silent: bool) -> None:
    """Wake a suspended process, so that it reads the request to stop; kill a worker that hangs.

    Args:
        pid, created: number and start time of the process.
        silent: whether its heartbeat has stopped.
    """
    if not process_lives(pid, created):
        return
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_STOPPED:
            process.resume()
        elif silent and WORKER in process.cmdline():  # a notebook or a shell is not ours to end
            process.kill()
    except psutil.Error:
        return
