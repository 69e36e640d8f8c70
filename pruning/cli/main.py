"""The command line: `prunescope`, or `python -m pruning`.

Tables are for people; `--json` prints one JSON object for machines. A person's mistake is answered by one
sentence on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from pruning import __version__
from pruning.cli import models, runs, work
from pruning.cli.arguments import COMMON, Command, Parser, command, option, port, renew, switch
from pruning.cli.doctor import doctor
from pruning.cli.terminal import json_output, print_error
from pruning.errors import ConfigError, PruningError
from pruning.formatting import clipped, quoted, sentence
from pruning.paths import PROJECT
from pruning.progress import log_on_stderr
from pruning.runs.worker import Cancelled, out_of_memory

DESCRIPTION = "Prune a language model and measure what that costs. 'prune' alone prunes the demo model."
GROUPS = {"runs": "List, show, cancel, resume, repair and delete runs."}


@command(
    "app",
    option("--port", "port on localhost (default: 8501, or the next free one)", type=port, metavar="N"),
    switch("--headless", "do not open a browser"),
)
def app(args: argparse.Namespace) -> int:
    """Open the app in a browser; it listens on this machine only."""
    # its settings lie beside app.py, where Streamlit finds them whatever the working directory
    arguments = [sys.executable, "-m", "streamlit", "run", str(PROJECT / "app.py")]
    arguments += ["--server.port", str(args.port)] if args.port else []
    arguments += ["--server.headless", "true"] if args.headless else []
    return subprocess.call(arguments, env={**os.environ, "PRUNESCOPE_RUNS": str(args.store.root)})


COMMANDS = (
    *(work.prune, work.calibrate, work.score, work.evaluate, work.experiment),
    *(models.export_model, models.serve, models.generate, models.bench),
    *(runs.list_runs, runs.show, runs.cancel, runs.resume, runs.repair, runs.delete),
    *(runs.report, runs.compare, runs.sensitivity, doctor, app),
)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `command` of its namespace is the `Command` that was given."""
    installed = Path(sys.argv[0]).name == "prunescope"
    top = Parser(prog="prunescope" if installed else "python -m pruning", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"prunescope {__version__}")
    groups = {"": top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)}
    for group, text in GROUPS.items():
        commands = groups[""].add_parser(group, help=text, description=text)
        groups[group] = commands.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for each in COMMANDS:
        group, _, name = each.name.rpartition(" ")
        text = str(each.run.__doc__)
        sub = groups[group].add_parser(name, help=text, description=text)
        sub.set_defaults(command=each, prog=sub.prog)
        for add in (*each.options, *COMMON):
            add(sub)
    return top


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command.

    Raises:
        ConfigError: they cannot be understood, or name an option that the command does not use.
    """
    args, unknown = parser().parse_known_args([*renew(argv)])
    if unknown:
        raise ConfigError(
            f"'{args.command.name}' takes no {quoted(unknown[0])}: '{args.prog} --help' lists its options."
        )
    return args


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    # before the libraries that read it are imported: their bars would break ours
    os.environ.setdefault("TQDM_DISABLE", "1")
    words = [*(sys.argv[1:] if argv is None else argv)]
    options = words[: words.index("--")] if "--" in words else words
    as_json = any(option.startswith("--json") for option in options)
    as_json = as_json and not {"-h", "--help", "--version"} & {*options}
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    current = Command(lambda _: 0, "", ())
    with json_output() if as_json else contextlib.nullcontext(), log_on_stderr():
        try:
            args = parse(words)
            current = args.command
            return current.run(args) or 0
        except PruningError as error:
            print_error(sentence(clipped(str(error))), as_json)
            return 2
        except (KeyboardInterrupt, Cancelled):
            print_error(current.stopped, as_json)
            return 130
        except BrokenPipeError:  # the reader of standard output has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python fails to flush it once more at its end
            print("Standard output was closed before all was written.", file=sys.stderr)
            return 1
        except Exception as error:
            if problem := out_of_memory(error, current.memory_hint):
                print_error(sentence(problem), as_json)
                return 2
            if as_json:
                print_error(f"{type(error).__name__}: {error}", as_json)
            raise
