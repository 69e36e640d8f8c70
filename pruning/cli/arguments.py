"""Arguments that commands share: the options of a run, counts, and models named by a run's id."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, get_args

from pruning.config import METHODS, RunConfig, choices
from pruning.errors import ConfigError
from pruning.formatting import clipped, quoted
from pruning.limits import parse_mixture
from pruning.measure.tasks import check_folders
from pruning.runs import permissions
from pruning.runs.checkpoints import named_model
from pruning.runs.run import RunStore


class Parser(argparse.ArgumentParser):
    """argparse with the house's errors, one sentence and exit code 2, and without abbreviated options."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> Any:
        if "PROMPT" in message:
            message += " (write a prompt that begins with '-' after '--')"
        raise ConfigError(f"{clipped(message)}. '{self.prog} --help' lists the options.")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """A flag for every field of `RunConfig`; what is not given comes from the config file or the preset."""
    for name, field in RunConfig.model_fields.items():
        if name == "domains":
            continue  # by name and source, below
        default = "" if field.default in ((), None) or name == "mixture" else f" (default: {field.default})"
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": f"{field.description}{default}"}
        flags = [f"--{name.replace('_', '-')}", *ALIASES.get(name, ())]
        if field.annotation is bool:
            parser.add_argument(*flags, dest=name, action=argparse.BooleanOptionalAction, **options)
        elif name in ("keep", "remove"):
            parser.add_argument(*flags, dest=name, nargs="+", metavar="WHERE", **options)
        else:
            named = choices(name)
            metavar = None if named else name.upper()
            reader = _READERS.get(name) or _reader(field.annotation)
            parser.add_argument(*flags, dest=name, type=reader, choices=named, metavar=metavar, **options)
    parser.add_argument(
        "--domain",
        action="append",
        metavar="NAME=SOURCE",
        help=f"{RunConfig.model_fields['domains'].description}; may be repeated",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="JSON or YAML with these options, such as a run's config.json"
    )
    parser.add_argument(
        "--yes", action="store_true", help="run the code in the task and model folders that --config names"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _blocks(text: str) -> int | None:
    try:
        return None if text == "all" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is neither a whole number nor all") from None


ALIASES = {"task_limit": ("--limit",)}
_READERS: dict[str, Callable[[str], Any]] = {
    "mixture": parse_mixture,
    "tasks": _names,
    "tags": _names,
    "eval_blocks": _blocks,
}


def _reader(annotation: Any) -> Callable[[str], Any]:
    """How text becomes a value of a field's type."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in (int, float) if kind in kinds), str)


def run_config(args: argparse.Namespace, **changes: Any) -> RunConfig:
    """The config that the arguments mean: file first, then options, then `changes`.

    Raises:
        ConfigError: an option cannot be carried out.
        RunError: the model is named by the id of a run that there is not.
    """
    given = {field: getattr(args, field) for field in RunConfig.model_fields if hasattr(args, field)}
    domains = {}
    for item in getattr(args, "domain", None) or []:
        name, separator, source = item.partition("=")
        if not (separator and name and source):
            raise ConfigError(f"cannot read --domain {quoted(item)}: write NAME=PATH or NAME=hub:ID.")
        domains[name] = source
    base: dict[str, Any] = {}
    if args.config:
        base = RunConfig.read(args.config).model_dump(exclude_unset=True)
        if "method" in given and given["method"] != base.get("method"):
            preset = METHODS[base.get("method", "iterative")]
            base = {key: value for key, value in base.items() if key not in preset}
    if domains:
        given["domains"] = {**base.get("domains", {}), **domains}
    config = RunConfig.create(**{**base, **given, **changes})
    config = config.replace(model=named_model(config.model, RunStore(args.runs)))
    own = {name: RunConfig.model_fields[name].default for name in permissions.CODE_OPTIONS if name in given}
    check_code([config.replace(**own)], f"the config {quoted(args.config)}", args.yes)
    return config


def check_code(configs: Iterable[RunConfig], source: str, yes: bool) -> None:
    """Refuse to run the code of folders that a file names, until the person has looked at it.

    Args:
        configs: from the file.
        source: what it is called, for the message.
        yes: whether the person says so.

    Raises:
        ConfigError: there is such code, or a folder is not there.
    """
    configs = list(configs)
    for config in configs:
        check_folders(config.task_data, config.task_folder)
    code = [ask for config in configs for ask in permissions.pending(config) if ask.does == "run"]
    if code and not yes:
        raise ConfigError(
            f"{source} would run the code in {quoted(code[0].what)} ({permissions.code_files(code[0])}): "
            "look at it, then add --yes."
        )


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers between two, both included."""

    def read(text: str) -> int:
        plain = re.fullmatch(r"[+-]?\d{1,20}", text.strip(), re.ASCII)
        if plain is None or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{quoted(text)} is no whole number from {low} to {high:,}")
        return int(text)

    return read


def temperature(text: str) -> float:
    """A number from 0 to 100."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no number from 0 to 100")
    return value


count = whole_number(1, 1_000_000)
port = whole_number(1, 65_535)
seed = whole_number(0, 2**63 - 1)


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, with commas."""
    return tuple(map(count, text.split(",")))


def amount(text: str) -> float:
    """A number that may end in K, M or B (or G).

    Raises:
        argparse.ArgumentTypeError: it is none, or not above 0.
    """
    factor = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}.get(text[-1:].upper(), 1.0)
    try:
        value = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number above 0: write a number such as 500, 100M or 1.2B"
        )
    return value
