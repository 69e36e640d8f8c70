"""A finished run with the pruned model in memory: what notebooks get."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from pruning.measure.comparison import Pair
from pruning.models.delta import Delta
from pruning.models.mask import Mask
from pruning.runs.outcome import Results
from pruning.runs.run import Run

if TYPE_CHECKING:
    from pruning.models.folder import LoadedModel


@dataclass(frozen=True, repr=False)
class Result:
    """A finished run, with the pruned model in memory.

    Attributes:
        run: its folder.
        loaded: the pruned model and its tokenizer.
        delta: what separates it from the dense model.
        summary: what came of it.
    """

    run: Run
    loaded: LoadedModel
    delta: Delta
    summary: Results

    def __repr__(self) -> str:
        """What it cost, in about ten lines."""
        config, results = self.run.config, self.summary
        lines = [
            f"{config.method}, {results.achieved_ratio:.1%} of {config.model} removed in "
            f"{config.iterations} iteration{'s' * (config.iterations > 1)}, {results.seconds:.0f} s"
        ]
        rows = [("", "dense", "pruned", "change"), *results.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for name, *cells in rows:
            values = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
            lines.append("  ".join((name.ljust(widths[0]), *values)))
        return "\n".join([*lines, f"run {self.run.path}"])

    def _repr_html_(self) -> str:
        """The same as a table, for Jupyter."""
        rows = [("", "dense", "pruned", "change"), *self.summary.rows()]
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
        title = escape(repr(self).splitlines()[0])
        return f"<p>{title}</p><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"

    @property
    def mask(self) -> Mask:
        """What is retained of the dense model."""
        return self.delta.mask

    @property
    def perplexity(self) -> dict[str, Pair]:
        """By domain and `mean`, each with `dense` and `pruned`."""
        return self.summary.perplexity
