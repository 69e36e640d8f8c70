"""What the numbers of a run are of, in lines for people."""

from __future__ import annotations

from pruning.runs.outcome import DomainSource
from pruning.runs.run import Run
from pruning.words import quoted


def domain_use(source: DomainSource) -> str:
    """What the text of a domain serves in a run; earlier versions recorded calibration text only."""
    if not source.parts:
        return "calibrated on"
    verbs = {"calibration": "calibrated on", "heldout": "measured on"}
    uses = [
        f"{verb} {part.blocks:,} block{'s' * (part.blocks != 1)}"
        for name, verb in verbs.items()
        if (part := source.parts.get(name))
    ]
    return ", ".join([*uses, *([] if source.calibration else ["not calibrated on"])])


def provenance(run: Run) -> list[str]:
    """What text a run is calibrated and measured on, what computed it, and what to know of its numbers."""
    lines = [
        f"domain {domain}: {quoted(run.config.domains.get(domain, 'embedded'))}, {domain_use(source)}"
        for domain, source in run.sources.items()
    ]
    if (results := run.results()) and results.dtype:
        lines.append(f"computed in {results.dtype} on {results.device}")
    return [*lines, *(results.notes if results else ())]
