"""Commands and their options: flags of `RunConfig`'s fields, readers of values, old spellings."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pruning.config import METHODS, RunConfig, choices
from pruning.errors import ConfigError
from pruning.formatting import clipped, quoted
from pruning.limits import parse_mixture
from pruning.measure.tasks import check_folders
from pruning.runs import permissions
from pruning.runs.checkpoints import named_model
from pruning.runs.run import RunStore

Run = Callable[[argparse.Namespace], "int | None"]
Option = Callable[[argparse.ArgumentParser], object]  # adds its arguments to the parser of a command


@dataclass(frozen=True)
class Command:
    """A command; the docstring of `run` is its text in --help.

    Attributes:
        run: carries the command out and returns the exit code, None for 0.
        name: one word, or the name of a group and one word, such as `runs list`.
        options: add what the command takes to its parser.
        stopped: a sentence for a person who interrupts the command.
        memory_hint: the way out where the memory is too small; empty for that of a run.
    """

    run: Run
    name: str
    options: tuple[Option, ...]
    stopped: str = "Stopped."
    memory_hint: str = ""


def command(name: str, *options: Option, **texts: str) -> Callable[[Run], Command]:
    """Makes a function a command; see `Command`."""
    return lambda run: Command(run, name, options, **texts)


class Parser(argparse.ArgumentParser):
    """argparse without abbreviated options, and with errors of one sentence that end with exit code 2."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **settings})

    def error(self, message: str) -> Any:
        if "PROMPT" in message:
            message += " (write a prompt that begins with '-' after '--')"
        raise ConfigError(f"{clipped(message)}. '{self.prog} --help' lists the options.")


# Names of the version before, which work in this one.
RENAMED = {
    "--samples": "--calibration-blocks",
    "--limit": "--task-limit",
    "--type": "--weights",
    "--runs": "--runs-dir",
    "--so-far": "--stream-file",
    "damage": "sensitivity",
}


def note_renamed(old: str, new: str) -> None:
    """Says on standard error that a name is one of the version before."""
    print(f"{old} is now {new}: the old name goes in the next version.", file=sys.stderr)


def renew(words: Sequence[str]) -> Iterator[str]:
    """The words of a command line with today's names, and a note for each that has changed."""
    end = words.index("--") if "--" in words else len(words)
    for index, word in enumerate(words):
        old, equals, value = word.partition("=")
        if old in RENAMED and index < end and (old.startswith("--") or index == 0):
            note_renamed(old, RENAMED[old])
            word = f"{RENAMED[old]}{equals}{value}"
        yield word


def option(flag: str, text: str, **settings: Any) -> Option:
    """An option, or without dashes a positional argument, with its help, which gets the default added."""
    default = settings.get("default")
    shown = f" (default: {default})" if default not in (None, "", argparse.SUPPRESS) else ""
    return lambda parser: parser.add_argument(flag, help=text + shown, **settings)


def switch(flag: str, text: str) -> Option:
    """An option without a value, off by default."""
    return lambda parser: parser.add_argument(flag, action="store_true", help=text)


# Every command has these.
COMMON = (
    switch("--json", "print one JSON object"),
    option(
        "--runs-dir",
        "runs directory (default: runs)",
        dest="store",
        type=lambda path: RunStore(path or None),
        default="",
        metavar="FOLDER",
    ),
)


# --- flags of RunConfig's fields -------------------------------------------------------------------------
def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _blocks(text: str) -> int | None:
    try:
        return None if text == "all" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is neither a whole number nor all") from None


# What the type of a field does not say about its flag.
_SETTINGS: dict[str, dict[str, Any]] = {
    "adapt_mixture": {"help": argparse.SUPPRESS},
    "mixture": {"type": parse_mixture, "metavar": "NAME=WEIGHT,..."},
    "eval_blocks": {"type": _blocks},
    "tasks": {"type": _names, "metavar": "TASK,..."},
    "tags": {"type": _names, "metavar": "TAG,..."},
    "keep": {"nargs": "+", "metavar": "WHERE"},
    "remove": {"nargs": "+", "metavar": "WHERE"},
    "task_data": {"metavar": "FOLDER"},
    "task_folder": {"metavar": "FOLDER"},
}
_FLAGS = {"samples": "--calibration-blocks"}  # where a flag is not called like its field


def field_option(name: str, **settings: Any) -> Option:
    """The flag of a field of `RunConfig`: type, choices, help and default are the field's own."""

    def add(parser: argparse.ArgumentParser) -> None:
        field = RunConfig.model_fields[name]
        flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        has_default = field.default not in ((), None, "") and name != "mixture"
        text = f"{field.description}{f' (default: {field.default})' if has_default else ''}"
        shared: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text}
        if field.annotation is bool:
            shared["action"] = argparse.BooleanOptionalAction
        else:
            types = (field.annotation, *get_args(field.annotation))
            kind = next((kind for kind in (int, float) if kind in types), str)
            named = choices(name)
            metavar = None if named else {int: "N", float: "X"}.get(kind, name.upper())
            shared |= {"type": kind, "metavar": metavar, "choices": named}
        parser.add_argument(flag, **{**shared, **_SETTINGS.get(name, {}), **settings})

    return add


def run_options(*names: str, **texts: str) -> tuple[Option, ...]:
    """What a command takes that reads a `RunConfig`: flags of the fields that it uses, and a config file.

    A flag that is not given is not in the namespace: the config file or the method's preset decides.

    Args:
        names: of fields.
        texts: help by field, where a command means less by it than a run does.
    """
    domains = RunConfig.model_fields["domains"].description
    return (
        *(field_option(name, **({"help": texts[name]} if name in texts else {})) for name in names),
        option("--domain", f"{domains}; may be repeated", action="append", metavar="NAME=SOURCE"),
        option("--config", "JSON or YAML with options, such as a run's config.json", metavar="FILE"),
        switch("--yes", "run the code in the task and model folders that --config names"),
    )


# What a command takes that loads models and reads no config.
LOAD_OPTIONS = tuple(
    field_option(name, default=RunConfig.model_fields[name].default)
    for name in ("device", "dtype", "trust_remote_code")
)
TRUST = LOAD_OPTIONS[-1]


def run_config(args: argparse.Namespace) -> RunConfig:
    """The config that the arguments mean; options override the config file.

    Raises:
        ConfigError: an option cannot be carried out.
        RunError: no run has the id that names the model.
    """
    flags = {field: getattr(args, field) for field in RunConfig.model_fields if hasattr(args, field)}
    if "adapt_mixture" in flags:
        note_renamed("--adapt-mixture", "--mixture auto")
    domains = {}
    for item in args.domain or []:
        name, separator, source = item.partition("=")
        if not (separator and name and source):
            raise ConfigError(f"cannot read --domain {quoted(item)}: write NAME=PATH or NAME=hub:ID.")
        domains[name] = source
    base: dict[str, Any] = {}
    if args.config:
        base = RunConfig.read(args.config).model_dump(exclude_unset=True)
        if "method" in flags and flags["method"] != base.get("method"):
            preset = METHODS[base.get("method", "iterative")]
            base = {key: value for key, value in base.items() if key not in preset}
    if domains:
        flags["domains"] = {**base.get("domains", {}), **domains}
    config = RunConfig.create(**{**base, **flags})
    config = config.replace(model=named_model(config.model, args.store))
    own = {name: RunConfig.model_fields[name].default for name in permissions.CODE_OPTIONS if name in flags}
    check_code([config.replace(**own)], f"the config {quoted(args.config)}", args.yes)
    return config


def check_code(configs: Iterable[RunConfig], source: str, confirmed: bool) -> None:
    """Refuse to run the code of folders that a file names, unless the person has confirmed it with --yes.

    Raises:
        ConfigError: the configs of the file, `source` in the message, name such code or a missing folder.
    """
    configs = list(configs)
    for config in configs:
        check_folders(config.task_data, config.task_folder)
    code = [ask for config in configs for ask in permissions.pending(config) if ask.action == "run"]
    if code and not confirmed:
        raise ConfigError(
            f"{source} would run the code in {quoted(code[0].target)} ({permissions.code_files(code[0])}): "
            "look at it, then add --yes."
        )


# --- readers of values -----------------------------------------------------------------------------------
def within(low: int, high: int, kind: type[int] | type[float] = int) -> Callable[[str], Any]:
    """A reader of numbers from `low` to `high`, both included."""

    def read(text: str) -> int | float:
        with contextlib.suppress(ValueError):
            if text.isascii() and "_" not in text and low <= (value := kind(text)) <= high:
                return value
        noun = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no {noun} from {low} to {high:,}")

    return read


count, port, seed = within(1, 1_000_000), within(1, 65_535), within(0, 2**63 - 1)


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, separated by commas."""
    return tuple(map(count, text.split(",")))


def amount(text: str) -> float:
    """A number above 0 that may end in K, M, B or G."""
    factor = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}.get(text[-1:].upper(), 1.0)
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text[:-1] if factor > 1 else text) * factor) < math.inf:
            return value
    raise argparse.ArgumentTypeError(
        f"{text!r} is no number above 0: write a number such as 500, 100M or 1.2B"
    )
