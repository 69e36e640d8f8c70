"""What the numbers of a run are of, in lines for people."""

from __future__ import annotations

from pruning.runs.outcome import DomainSource
from pruning.runs.run import Run
from pruning.words import quoted


def domain_use(source: DomainSource) -> str:
    """What the text of a domain serves in a run; earlier versions recorded calibration text only."""
    if source.heldout is None:
        return "calibrated on"
    return "measured, not calibrated on" if source.calibration is None else "calibrated on and measured"


def provenance(run: Run) -> list[str]:
    """What text a run is calibrated and measured on, what computed it, and what to know of its numbers."""
    lines = []
    for domain, source in run.sources.items():
        text = run.config.domains.get(domain, "embedded")
        blocks = " and ".join(f"{part.blocks:,}" for part in source.parts.values())
        words = f"domain {domain}: {quoted(text)}, {domain_use(source)}"
        lines.append(f"{words} ({blocks} blocks)" if blocks else words)
    if (results := run.results()) and results.dtype:
        lines.append(f"computed in {results.dtype} on {results.device}")
    return [*lines, *(results.notes if results else ())]
