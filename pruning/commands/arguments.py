"""Arguments that commands share: the options of a run, counts, and models named by a run's id."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from pruning import config as options
from pruning.config import METHODS, ConfigError, RunConfig, parse_mixture, sentence
from pruning.runs import RunStore

# option, field of RunConfig, how to read it, choices
_OPTIONS: list[tuple[str, str, Callable[[str], Any], tuple[str, ...] | None]] = [
    ("--model", "model", str, None),
    ("--method", "method", str, tuple(METHODS)),
    ("--ratio", "ratio", float, None),
    ("--iterations", "iterations", int, None),
    ("--mixture", "mixture", parse_mixture, None),
    ("--samples", "samples", int, None),
    ("--seq-len", "seq_len", int, None),
    ("--seed", "seed", int, None),
    ("--fusion", "fusion", str, get_args(options.Fusion)),
    ("--score", "score", str, get_args(options.Score)),
    ("--normalise", "normalise", str, get_args(options.Normalise)),
    ("--unit-score", "unit_score", str, get_args(options.UnitScore)),
    ("--allocation", "allocation", str, get_args(options.Allocation)),
    ("--attention-unit", "attention_unit", str, get_args(options.AttentionUnit)),
    ("--round-to", "round_to", int, None),
    ("--schedule", "schedule", str, get_args(options.Schedule)),
    ("--compensation", "compensation", str, get_args(options.Compensation)),
    ("--tasks", "tasks", lambda text: tuple(filter(None, text.split(","))), None),
    ("--task-data", "task_data", str, None),
    ("--task-folder", "task_folder", str, None),
    ("--limit", "task_limit", int, None),
    ("--device", "device", str, None),
    ("--dtype", "dtype", str, get_args(options.Dtype)),
    ("--eval-blocks", "eval_blocks", int, None),
]


class Parser(argparse.ArgumentParser):
    """argparse with the house's errors: one sentence, exit code 2."""

    def error(self, message: str) -> Any:
        print(f"{sentence(message)}. '{self.prog} --help' lists the options.", file=sys.stderr)
        raise SystemExit(2)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that make a `RunConfig`; what is not given comes from the config file or the preset."""
    for flag, field, kind, choices in _OPTIONS:
        parser.add_argument(
            flag,
            dest=field,
            type=kind,
            choices=choices,
            metavar=None if choices else field.upper(),
            help=RunConfig.model_fields[field].description,
        )
    parser.add_argument(
        "--square-attention",
        action=argparse.BooleanOptionalAction,
        help=RunConfig.model_fields["square_attention"].description,
    )
    parser.add_argument(
        "--domain",
        action="append",
        metavar="NAME=SOURCE",
        help="a domain's text: a text, JSON Lines or Parquet file, or hub:NAME; may be repeated",
    )
    parser.add_argument("--keep", nargs="+", metavar="WHERE", help=RunConfig.model_fields["keep"].description)
    parser.add_argument("--remove", nargs="+", metavar="WHERE", help="cut first, in the notation of --keep")
    parser.add_argument(
        "--config", metavar="FILE", help="JSON or YAML with these options, such as a run's config.json"
    )


def run_config(args: argparse.Namespace, **changes: Any) -> RunConfig:
    """The config that the arguments mean: file first, then options, then `changes`.

    Raises:
        ConfigError: an option cannot be carried out.
    """
    given = {field: getattr(args, field, None) for field in RunConfig.model_fields}
    given = {field: value for field, value in given.items() if value is not None}
    domains = {}
    for item in getattr(args, "domain", None) or []:
        name, separator, source = item.partition("=")
        if not (separator and name and source):
            raise ConfigError(f"cannot read --domain {item!r}: write NAME=PATH or NAME=hub:ID.")
        domains[name] = source
    base: dict[str, Any] = {}
    if args.config:
        base = RunConfig.read(args.config).model_dump(exclude_unset=True)
        if "method" in given and given["method"] != base.get("method"):
            base = {
                key: value
                for key, value in base.items()
                if key not in METHODS[base.get("method", "iterative")]
            }
    if domains:
        given["domains"] = {**base.get("domains", {}), **domains}
    changes = {field: value for field, value in changes.items() if value is not None}
    return RunConfig.create(**{**base, **given, **changes})


def count(text: str) -> int:
    """A whole number from 1 up."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, with commas."""
    return tuple(map(count, text.split(",")))


def named_model(name: str, store: str | None) -> str:
    """A model by its name, or the checkpoint of a run by its id."""
    if name[:8].isdigit() and "/" not in name and not Path(name).exists():
        return str(RunStore(store).get(name).checkpoint)
    return name
