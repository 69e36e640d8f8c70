"""Output of the command line: progress, tables, JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

from pruning.checksums import finite
from pruning.errors import RunError
from pruning.progress import Progress, announced, drain
from pruning.runs.report import HEADER, INTERVALS, results_sections
from pruning.runs.worker import TextProgress
from pruning.text.sources import describe_source

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.table import Table

    from pruning.engine.events import Event
    from pruning.runs.schema import Results

T = TypeVar("T")


class _JsonOutput:
    """The stream for the one JSON object of a command, and whether the object has been printed."""

    stream: TextIO | None = None
    is_printed = False


@contextlib.contextmanager
def json_output() -> Iterator[None]:
    """Reserves standard output for `print_json`: other output, of libraries too, goes to standard error."""
    _JsonOutput.is_printed = False
    with contextlib.ExitStack() as stack:
        _JsonOutput.stream = sys.stdout
        stack.callback(setattr, _JsonOutput, "stream", None)
        # the descriptor as well, for libraries in other languages and for programs that take our place
        if sys.stdout is not None and sys.stdout is sys.__stdout__:
            print(end="", flush=True)
            _JsonOutput.stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
            stack.enter_context(contextlib.suppress(OSError))  # closing it fails if the reader has closed it
            stack.callback(_JsonOutput.stream.close)
            stack.callback(os.dup2, os.dup(1), 1)
            os.dup2(2, 1)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def import_torch() -> None:
    """Imports torch and transformers, which takes seconds, and says so."""
    with announced("loading torch and transformers"):
        import torch  # noqa: F401
        import transformers  # noqa: F401


def print_json(content: Any) -> None:
    """Prints the one JSON object of a command on standard output; infinities become null."""
    _JsonOutput.is_printed = True
    try:
        print(json.dumps(finite(content), indent=1), file=_JsonOutput.stream or sys.stdout, flush=True)
    except OSError as error:
        raise RunError(f"standard output cannot be written: {error.strerror}.") from None


def print_error(message: str, as_json: bool) -> None:
    """Prints a sentence on standard error, and with --json an object with `error` if none was printed yet."""
    print(message, file=sys.stderr)
    if as_json and not _JsonOutput.is_printed:
        print_json({"error": message})


def print_sources(sources: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints on standard error what was read of every domain's text, and how a document begins."""
    for domain, source in sources.items():
        if line := describe_source(source):
            print(f"domain {domain}: {line}\n  such as {source['sample'][:80]!r}", file=sys.stderr)


class ProgressBar:
    """Shows the events of the engine that it is called with: as a bar on a terminal, as lines elsewhere."""

    def __init__(self, iterations: int, quiet: bool, complete: int = -1) -> None:
        from rich import progress
        from rich.console import Console

        target = Console(stderr=True)
        self.bar = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TimeElapsedColumn(),
            console=target,
            disable=quiet or not target.is_terminal,
            transient=True,
        )
        self.quiet, self.lines = quiet, TextProgress(iterations, complete)
        self.task: TaskID = self.bar.add_task("loading the model", total=None)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        from pruning.engine.events import Iteration, Started

        if isinstance(event, Started) and not self.quiet:
            print_sources(event.sources)
        if self.bar.disable:
            self.lines(event)
        elif isinstance(event, Iteration):
            self.lines.complete = event.number
        elif isinstance(event, Progress):
            stage = f"{self.lines.subject}{event.stage} {event.detail}"
            self.bar.update(self.task, total=event.total, completed=event.done, description=stage)


def show_progress(stage: Generator[Progress, None, T], quiet: bool) -> T:
    """Carries out one stage of the engine, and shows its progress."""
    bar = ProgressBar(0, quiet)
    with bar.bar:
        return drain(stage, bar)


def results_table(results: Results) -> Table:
    """Dense against pruned."""
    from rich.table import Table

    table = Table(
        title=f"run {results.run_id}", title_justify="left", caption=INTERVALS, caption_justify="left"
    )
    for column in HEADER:
        table.add_column(column, justify="right" if column else "left")
    for section in results_sections(results).values():
        for row in section:
            table.add_row(*row)
        table.add_section()
    return table


def print_results(results: Results) -> None:
    """Prints dense against pruned."""
    from rich.console import Console

    Console().print(results_table(results))


def print_table(rows: Sequence[Mapping[str, Any]], title: str = "", **formats: str) -> None:
    """Prints a table: words to the left, numbers to the right, the first column on one line.

    Args:
        rows: by column name the cells of each line.
        title: a line above the table.
        formats: format specifications by column, such as `.2f`.
    """
    from rich.console import Console
    from rich.table import Table

    if title:
        print(title)  # rich would break it to the width of the table
    table = Table(padding=(0, 0))
    for index, column in enumerate(rows[0]):
        is_text = not index or column in ("state", "model")
        justify: Literal["left", "right"] = "left" if is_text else "right"
        table.add_column(column.replace("_", " "), justify=justify, no_wrap=not index)
    for row in rows:
        table.add_row(*(format(cell, formats.get(column, "")) for column, cell in row.items()))
    Console().print(table)
