"""Reports of a run, as the Results page offers them; see `pruning.visualization.report`."""

from pruning.visualization.report import command, html, markdown

__all__ = ["command", "html", "markdown"]
