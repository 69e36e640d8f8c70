"""Processes that outlive the server: started in one way, and known again by number and start time."""

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
NICE = 10  # of 19: where both want a core, a run gets a tenth of the app's share, and all of an idle machine
_children: list[subprocess.Popen] = []


def start(arguments: Sequence[str], output: IO[bytes], log: IO[bytes]) -> subprocess.Popen:
    """Start `python -m ARGUMENTS` in a session of its own.

    Args:
        arguments: the module and its arguments.
        output, log: where its standard output and standard error go.
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
    # kept hold of, so that it is buried when it ends, with those that have ended: no zombies
    _children.append(process)
    _children[:] = [child for child in _children if child.poll() is None]
    return process


def lower_priority() -> None:
    """Let the app and the browser have the processor before this process, which takes what they leave.

    To be called before threads are started, as those inherit it.
    """
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICE)
    with contextlib.suppress(OSError):  # Linux may weigh whole sessions; this process has one of its own
        Path("/proc/self/autogroup").write_text(str(NICE))


def started_at(pid: int) -> float | None:
    """When a process was started; None where it has ended."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def process_lives(pid: int | None, created: float | None) -> bool:
    """Whether a process is the one that was started then, and not a zombie or another with its number."""
    if not pid:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - (created or 0)) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return False


def wake_or_kill(pid: int | None, created: float | None, silent: bool) -> None:
    """Let a process hear that it is to stop: wake it if it was suspended; if it hangs and is ours, end it.

    Args:
        pid, created: of the process.
        silent: whether it has given no sign of life.
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
