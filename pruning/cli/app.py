"""Starting the Streamlit app."""

from __future__ import annotations

import argparse
import subprocess
import sys

from pruning.paths import PROJECT


def app(args: argparse.Namespace) -> int:
    """Open the app in a browser; it listens on this machine only."""
    # its settings lie beside app.py, where Streamlit finds them whatever the working directory
    command = [sys.executable, "-m", "streamlit", "run", str(PROJECT / "app.py")]
    command += ["--server.port", str(args.port)] if args.port else []
    command += ["--server.headless", "true"] if args.headless else []
    return subprocess.call(command)
