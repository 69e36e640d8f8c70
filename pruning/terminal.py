"""What the command line shows: progress, tables, JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pruning.runs import finite

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from pruning.engine import Event


def console() -> Console:
    """Where tables go."""
    from rich.console import Console

    return Console()


def print_json(content: Any) -> None:
    """One JSON object on standard output; infinities become null."""
    print(json.dumps(finite(content), indent=1))


def number(value: float | None, digits: int = 2) -> str:
    """A perplexity for people."""
    if value is None or value != value:
        return "-"
    return f"{value:,.{digits}f}" if value < 1e6 else f"{value:.1e}"


def size_text(size: float) -> str:
    """Bytes for people, in powers of 1000 as file managers count."""
    for unit in ("bytes", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


class ProgressBar:
    """Shows the engine's events on a terminal; call it with each. Elsewhere it says nothing."""

    def __init__(self, iterations: int, quiet: bool) -> None:
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
        self.iterations, self.complete = iterations, -1
        self.task: TaskID = self.bar.add_task("loading the model", total=None)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        from pruning.engine import Iteration, Progress

        if isinstance(event, Iteration):
            self.complete = event.number
        elif isinstance(event, Progress):
            where = (
                "dense model" if self.complete < 0 else f"iteration {self.complete + 1} of {self.iterations}"
            )
            self.bar.update(
                self.task,
                total=event.total,
                completed=event.done,
                description=f"{where}: {event.stage} {event.detail}",
            )


def results_table(summary: dict[str, Any]) -> Any:
    """Dense against pruned, as a rich table."""
    from rich.table import Table

    table = Table(title=f"run {summary['run_id']}", title_justify="left")
    for column in ("", "dense", "pruned", "change"):
        table.add_column(column, justify="left" if not column else "right")
    dense, pruned = summary["parameters"]["dense"], summary["parameters"]["pruned"]
    table.add_row(
        "parameters", f"{dense:,}", f"{pruned:,}", f"{100 * (pruned / dense - 1):+.1f}%", end_section=True
    )
    for name, values in summary["perplexity"].items():
        before, after = values["dense"], values["pruned"]
        change = f"x {after / before:.2f}" if before and after else "-"
        table.add_row(f"perplexity {name}", number(before), number(after), change)
    if accuracies := summary.get("zero_shot"):
        table.rows[-1].end_section = True
        for name, row in accuracies["tasks"].items():
            limit = f", first {row['limit']}" if row["limit"] else ""
            table.add_row(f"{name} ({row['items']} items{limit})", *_accuracy(row["acc"]))
        table.add_row("average of tasks", *_accuracy(accuracies["average"]["acc"]))
    return table


def _accuracy(row: dict[str, Any]) -> tuple[str, str, str]:
    """Dense, pruned and the paired difference in points; a tilde where it may be noise."""
    noise = "" if row["significant"] else " ~"
    delta = f"{100 * row['delta']:+.1f} ± {196 * row['standard_error']:.1f}{noise}"
    return f"{100 * row['dense']:.1f}%", f"{100 * row['pruned']:.1f}%", delta


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
