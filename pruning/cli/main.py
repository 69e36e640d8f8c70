"""The command line: `prunescope`, or `python -m pruning`.

Tables are for people; `--json` prints one JSON object for machines. A person's mistake is answered by one
sentence on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pruning import __version__
from pruning.cli import models, work
from pruning.cli import runs as stored_runs
from pruning.cli.app import app as start_app
from pruning.cli.arguments import (
    Parser,
    add_run_options,
    amount,
    count,
    counts,
    port,
    seed,
    temperature,
)
from pruning.cli.doctor import doctor
from pruning.cli.terminal import json_output, print_error
from pruning.config import RunConfig, choices
from pruning.errors import PruningError
from pruning.formats.format import FORMATS
from pruning.formatting import clipped, sentence
from pruning.progress import log_on_stderr
from pruning.runs.worker import Cancelled, out_of_memory
from pruning.serving.engines import TIMED
from pruning.serving.server import SERVERS

DESCRIPTION = "Prune a language model, and read what it cost. 'prune' alone prunes the demo model."

OF_RUN = "a run's id (ID:3 for its model after iteration 3)"
OF_MODEL = f"demo, smollm2, a folder or GGUF file, a hub id, or {OF_RUN}"
TRUST = RunConfig.model_fields["trust_remote_code"].description
# By command: what is said where a person stops it, and what helps where the memory is full.
_RUN_STOPPED = "Stopped: a run that has begun is in 'runs list', and 'runs resume ID' continues it."
STOPPED = {
    "prune": _RUN_STOPPED,
    "runs": _RUN_STOPPED,
    "experiment": "Stopped: the same command continues the experiment where it stopped.",
}
OUT_OF_MEMORY = {
    "bench": "lower --batch or --lengths, use --dtype bfloat16, or time fewer or smaller models",
    "generate": "use --dtype bfloat16, a shorter prompt, or a smaller model",
    "export": "free some memory, or use a smaller model",
    "serve": "free some memory, or use a smaller model",
}


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    installed = Path(sys.argv[0]).name == "prunescope"
    top = Parser(prog="prunescope" if installed else "python -m pruning", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"prunescope {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(run: Callable[[argparse.Namespace], int], name: str = "", within: Any = commands) -> Parser:
        text = run.__doc__
        sub = within.add_parser(name or run.__name__, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.set_defaults(run=run)
        return sub

    store: dict[str, Any] = {"metavar": "FOLDER", "help": "folder that holds the runs (default: runs)"}
    sub = command(work.prune)
    add_run_options(sub)
    sub.add_argument(
        "--max-parameters",
        type=amount,
        metavar="N",
        help="instead of --ratio: prune the whole model to at most N parameters, such as 100M",
    )
    sub.add_argument(
        "--min-speed",
        type=amount,
        metavar="N",
        help="instead of --ratio: prune until the model writes N tokens per second, timed on this machine",
    )
    sub.add_argument("--runs", **store)
    sub = command(work.calibrate)
    add_run_options(sub)
    sub.add_argument("--runs", **store)
    sub = command(work.score)
    add_run_options(sub)
    sub.add_argument("--runs", **store)
    sub.add_argument("--out", metavar="FILE", help="write the scores of every channel as safetensors")
    sub = command(work.evaluate)
    add_run_options(sub)
    sub.add_argument("--runs", **store)
    sub = command(work.experiment)
    sub.add_argument("file", metavar="FILE", help="YAML, such as experiments/demo_iterations.yaml")
    sub.add_argument("--yes", action="store_true", help="run the code in the task and model folders it names")
    sub.add_argument("--runs", **store)
    sub = command(models.export_model, "export")
    sub.add_argument("source", metavar="RUN|FOLDER", help=f"{OF_RUN}, or a model's folder")
    sub.add_argument("--format", choices=tuple(FORMATS), default="hf", help="default: hf")
    sub.add_argument(
        "--type",
        metavar="TYPE",
        help="type of the weights: f32, f16, bf16, q8_0, q4_k_m ... (default: the dense model's, f16 for "
        "gguf)",
    )
    sub.add_argument("--out", metavar="FOLDER", help="folder to write (default: within the run)")
    sub.add_argument("--trust-remote-code", action="store_true", help=TRUST)
    sub.add_argument("--runs", **store)
    sub.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="load the export and compare it with the model",
    )
    sub = command(models.serve)
    sub.add_argument("source", metavar="RUN", help=OF_RUN)
    sub.add_argument("--engine", choices=SERVERS, help="default: the first that is installed")
    sub.add_argument("--type", metavar="TYPE", help="type of the weights, as for export")
    sub.add_argument("--trust-remote-code", action="store_true", help=TRUST)
    sub.add_argument("--port", type=port, default=8000, metavar="N", help="on localhost (default: 8000)")
    sub.add_argument("--runs", **store)
    sub = command(models.generate)
    sub.add_argument("prompt", metavar="PROMPT")
    sub.add_argument("--models", nargs="+", default=["demo"], metavar="MODEL", help=OF_MODEL)
    sub.add_argument(
        "--tokens", type=count, default=60, metavar="N", help="tokens to write at most (default: 60)"
    )
    sub.add_argument(
        "--temperature",
        type=temperature,
        default=0.7,
        metavar="T",
        help="sampling temperature; 0 takes the likeliest token (default: 0.7)",
    )
    sub.add_argument("--seed", type=seed, default=0, metavar="N")
    sub.add_argument("--trust-remote-code", action="store_true", help=TRUST)
    sub.add_argument(
        "--so-far", metavar="FILE", help="write the text so far to this JSON file while the models generate"
    )
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    sub.add_argument("--dtype", default="auto", choices=choices("dtype"))
    sub.add_argument("--runs", **store)
    sub = command(models.measure, "bench")
    sub.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=OF_MODEL,
    )
    sub.add_argument(
        "--batch", type=counts, default=(1, 8), metavar="N,N", help="sequences in a batch (default: 1,8)"
    )
    sub.add_argument(
        "--lengths",
        type=counts,
        metavar="N,N",
        help="prompt lengths in tokens (default: 128,512 as far as the context goes)",
    )
    sub.add_argument(
        "--new-tokens",
        type=count,
        default=16,
        metavar="N",
        help="tokens to write after each prompt (default: 16)",
    )
    sub.add_argument(
        "--engine",
        choices=TIMED,
        default=TIMED[0],
        help="engine to time; all but transformers run exports of the models (default: transformers)",
    )
    sub.add_argument(
        "--depth",
        action="store_true",
        help="also time the first model cut to the parameter count of the last by dropping whole layers",
    )
    sub.add_argument(
        "--ratios",
        action="store_true",
        help="instead, time one model at three pruning ratios, in tokens per second",
    )
    sub.add_argument("--trust-remote-code", action="store_true", help=TRUST)
    sub.add_argument(
        "--repeats", type=count, default=5, metavar="N", help="timed rounds after the warm-up (default: 5)"
    )
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    sub.add_argument("--dtype", default="auto", choices=choices("dtype"))
    sub.add_argument("--runs", **store)
    runs = commands.add_parser(
        "runs", help="List, show, cancel, resume, repair and delete runs."
    ).add_subparsers(dest="runs_command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, run in (
        ("list", stored_runs.runs_list),
        ("show", stored_runs.runs_show),
        ("cancel", stored_runs.runs_cancel),
        ("resume", stored_runs.runs_resume),
        ("repair", stored_runs.runs_repair),
        ("delete", stored_runs.runs_delete),
    ):
        sub = command(run, name, runs)
        if name != "list":
            sub.add_argument("run_id", metavar="ID", help="a run's id, or the beginning of one")
        if name in ("delete", "resume"):
            sub.add_argument("--yes", action="store_true", help="confirm without a question")
        if name == "resume":
            sub.add_argument("--model", metavar="PATH", help="new path of its dense model, if it was moved")
        sub.add_argument("--runs", **store)
    sub = command(doctor)
    sub.add_argument("--runs", **store)
    sub = command(stored_runs.damage)
    sub.add_argument("run_id", metavar="ID", help="a run's id, or the beginning of one")
    sub.add_argument("--runs", **store)
    sub = command(start_app, "app")
    sub.add_argument("--port", type=port, metavar="N", help="default: 8501, or the next that is free")
    sub.add_argument("--headless", action="store_true", help="do not open a browser")
    sub = command(stored_runs.report)
    sub.add_argument("run_id", metavar="RUN", help="a run's id, the beginning of one, or its folder")
    sub.add_argument("--html", metavar="FILE", required=True, help="HTML file to write")
    sub.add_argument("--runs", **store)
    sub = command(stored_runs.compare)
    sub.add_argument("run_ids", nargs="*", metavar="ID", help="runs to compare (default: all)")
    sub.add_argument("--runs", **store)
    return top


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    os.environ.setdefault(
        "TQDM_DISABLE", "1"
    )  # before the libraries that read it: their bars would break ours
    given = [*(sys.argv[1:] if argv is None else argv)]
    options = given[: given.index("--")] if "--" in given else given
    as_json = any(option.startswith("--json") for option in options)
    as_json = as_json and not {"-h", "--help", "--version"} & {*options}
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    args: argparse.Namespace | None = None
    with json_output() if as_json else contextlib.nullcontext(), log_on_stderr():
        try:
            args = parser().parse_args(given)
            return args.run(args)
        except PruningError as error:
            print_error(sentence(clipped(str(error))), as_json)
            return 2
        except (KeyboardInterrupt, Cancelled):
            print_error(STOPPED.get(args.command if args else "", "Stopped."), as_json)
            return 130
        except BrokenPipeError:  # whoever read standard output has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python stumbles over it once more at its end
            print("Standard output was closed before all was written.", file=sys.stderr)
            return 1
        except Exception as error:
            if problem := out_of_memory(error, OUT_OF_MEMORY.get(args.command if args else "", "")):
                print_error(sentence(problem), as_json)
                return 2
            if as_json:
                print_error(f"{type(error).__name__}: {error}", as_json)
            raise
