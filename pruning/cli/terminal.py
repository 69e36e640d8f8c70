"""What the command line shows: progress, tables, JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from pruning.checksums import finite
from pruning.errors import RunError
from pruning.progress import announced
from pruning.runs.worker import TextProgress
from pruning.text.sources import describe_source

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from pruning.engine.events import Event
    from pruning.runs.schema import Results


def console() -> Console:
    """Where tables go."""
    from rich.console import Console

    return Console()


class _JsonOutput:
    """Where the one JSON object of a command goes, and whether it has been printed."""

    stream: TextIO | None = None
    is_printed = False


@contextlib.contextmanager
def json_output() -> Iterator[None]:
    """Keeps standard output for `print_json`: all else, of libraries too, goes to standard error."""
    _JsonOutput.is_printed = False
    with contextlib.ExitStack() as stack:
        _JsonOutput.stream = sys.stdout
        stack.callback(setattr, _JsonOutput, "stream", None)
        if (
            sys.stdout is not None and sys.stdout is sys.__stdout__
        ):  # and what libraries in other languages print, or programs we become
            print(end="", flush=True)
            _JsonOutput.stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
            stack.enter_context(contextlib.suppress(OSError))  # of a reader who has gone, when it is closed
            stack.callback(_JsonOutput.stream.close)
            stack.callback(os.dup2, os.dup(1), 1)
            os.dup2(2, 1)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def import_torch() -> None:
    """Imports what takes the first seconds of a command that computes, and says so."""
    with announced("loading torch and transformers"):
        import torch  # noqa: F401
        import transformers  # noqa: F401


def print_json(content: Any) -> None:
    """The one JSON object of a command on standard output; infinities become null."""
    _JsonOutput.is_printed = True
    try:
        print(json.dumps(finite(content), indent=1), file=_JsonOutput.stream or sys.stdout, flush=True)
    except OSError as error:
        raise RunError(f"standard output cannot be written: {error.strerror}.") from None


def print_error(message: str, as_json: bool) -> None:
    """A sentence on standard error; with --json, where no object was printed, one with `error` as well."""
    print(message, file=sys.stderr)
    if as_json and not _JsonOutput.is_printed:
        print_json({"error": message})


def tell_sources(sources: Mapping[str, Mapping[str, Any]]) -> None:
    """Say on standard error what was read of every domain's text, with the beginning of a document."""
    for domain, source in sources.items():
        if line := describe_source(source):
            print(f"domain {domain}: {line}\n  such as {source['sample'][:80]!r}", file=sys.stderr)


class ProgressBar:
    """Shows the engine's events; call it with each. A bar on a terminal, lines elsewhere."""

    def __init__(self, iterations: int, quiet: bool, complete: int = -1) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        target = Console(stderr=True)
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=target,
            disable=quiet or not target.is_terminal,
            transient=True,
        )
        self.quiet, self.lines = quiet, TextProgress(iterations, complete)
        self.task: TaskID = self.bar.add_task("loading the model", total=None)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        from pruning.engine.events import Iteration, Started
        from pruning.progress import Progress

        if isinstance(event, Started) and not self.quiet:
            tell_sources(event.sources)
        if self.bar.disable:
            self.lines(event)
        elif isinstance(event, Iteration):
            self.lines.complete = event.number
        elif isinstance(event, Progress):
            self.bar.update(
                self.task,
                total=event.total,
                completed=event.done,
                description=f"{self.lines.where}: {event.stage} {event.detail}",
            )


def results_table(results: Results) -> Any:
    """Dense against pruned, as a rich table."""
    from rich.table import Table

    table = Table(title=f"run {results.run_id}", title_justify="left")
    for column in ("", "dense", "pruned", "change"):
        table.add_column(column, justify="left" if not column else "right")
    for row in results.rows():
        table.add_row(*row, end_section=row[0] in ("parameters", "perplexity mean"))
    return table


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Any:
    """A rich table: words to the left, numbers to the right, and the first column never broken."""
    from rich.table import Table

    found = Table(title=title, title_justify="left", padding=(0, 0))
    for number_of_column, column in enumerate(columns):
        words = not number_of_column or column in ("state", "model")
        found.add_column(column, justify="left" if words else "right", no_wrap=not number_of_column)
    for row in rows:
        found.add_row(*row)
    return found
