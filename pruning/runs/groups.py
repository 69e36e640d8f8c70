"""Runs by what can be compared: the same dense model, measured on the same blocks of text. Needs no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pruning.measure.comparison import Pair, Rise
from pruning.runs.outcome import Results
from pruning.runs.run import ACTIVE, Run
from pruning.words import quoted

SAME = 1e-4  # relative difference of dense perplexities that are of the same model and text, about


@dataclass(frozen=True)
class MeasuredRun:
    """A run with what it was measured by."""

    run: Run
    results: Results

    @property
    def perplexity(self) -> dict[str, Pair]:
        """By domain, without their mean."""
        return {name: pair for name, pair in self.results.perplexity.items() if name != "mean"}

    @property
    def weights(self) -> str:
        """Names the dense model's weights; empty where that was not recorded."""
        return self.results.weights or next((it.weights for it in self.results.iterations if it.weights), "")

    @property
    def dtype(self) -> str:
        """Of the weights while measuring; of an earlier version's run what its config says."""
        return self.results.dtype or self.run.config.dtype

    @property
    def mean(self) -> float:
        """Perplexity after pruning, over the domains."""
        return self.results.mean.pruned if self.results.mean else math.inf

    def rise(self, other: MeasuredRun) -> Rise | None:
        """How much more it loses than another run of its group; None where the blocks were not kept."""
        last = [results.iterations[-1].perplexity for results in (other.results, self.results)]
        before, after = last
        return Rise.between([(before[name].losses, after[name].losses) for name in self.perplexity])

    def comparable(self, other: MeasuredRun) -> bool:
        """Whether both measure the same dense model on the same blocks.

        Of an earlier version's run neither weights nor text are recorded: it is recognised by its model's
        name, and by the dense perplexities.
        """
        mine, theirs = self.results, other.results
        if self.run.config.seq_len != other.run.config.seq_len or mine.tokens != theirs.tokens:
            return False
        if self.weights and other.weights:
            if self.weights != other.weights:
                return False
        elif self.run.config.model != other.run.config.model:
            return False
        if mine.heldout and theirs.heldout:
            return mine.heldout == theirs.heldout and self.dtype == other.dtype
        pairs = [(pair.dense, other.perplexity[name].dense) for name, pair in self.perplexity.items()]
        return all(a == b or math.isclose(a, b, rel_tol=SAME) for a, b in pairs)


@dataclass(frozen=True)
class Group:
    """Runs that can be compared, the best first.

    Attributes:
        members: sorted by their perplexity after pruning.
        suffix: what tells it from another group whose heading would be the same.
    """

    members: tuple[MeasuredRun, ...]
    suffix: str = ""

    @cached_property
    def newest(self) -> MeasuredRun:
        """The run that was made last: its config gives the names."""
        return max(self.members, key=lambda member: (bool(member.results.heldout), member.run.id))

    @property
    def model(self) -> str:
        """Short name of the dense model."""
        return Path(self.newest.run.config.model).name

    @property
    def blocks(self) -> dict[str, int]:
        """Held-out blocks by domain."""
        predicted = self.newest.run.config.seq_len - 1  # of each block; its first token has no context
        return {name: tokens // predicted for name, tokens in self.newest.results.tokens.items()}

    @property
    def heading(self) -> str:
        """Model and protocol in words."""
        config, counts = self.newest.run.config, sorted({*self.blocks.values()})
        names = [f"{name}{_file(config.domains.get(name, 'embedded'))}" for name in self.blocks]
        blocks = f"{counts[0]} to {counts[-1]} blocks" if len(counts) > 1 else f"{counts[0]} blocks"
        blocks = "1 block" if counts == [1] else blocks
        domains = f"{len(names)} domains: {', '.join(names)}" if len(names) > 1 else f"domain {names[0]}"
        each = " each" if len(names) > 1 else ""
        return (
            f"{self.model}, {domains}; {blocks} of {config.seq_len} tokens{each}, {self.newest.dtype}"
            f"{self.suffix}"
        )


def _file(source: str) -> str:
    """What tells a domain's text from the embedded one of that name."""
    if source == "embedded":
        return ""
    return f" ({quoted(source if source.startswith('hub:') else Path(source).name)})"


def groups(runs: Iterable[Run]) -> tuple[list[Group], dict[str, str]]:
    """Runs by what can be compared, and why others cannot be compared with any, by id.

    Args:
        runs: in the order in which their groups are to come.
    """
    grouped: list[list[MeasuredRun]] = []
    left_out: dict[str, str] = {}
    members = []
    for run in runs:
        if why := _reason(run):
            left_out[run.id] = why
        elif results := run.results():
            members.append(MeasuredRun(run, results))
    # those that recorded what they measured first: the others are recognised by their numbers
    for each in sorted(members, key=lambda each: not each.results.heldout):
        mine = next((group for group in grouped if group[0].comparable(each)), None)
        if mine is None:
            grouped.append([each])
        else:
            mine.append(each)
    order = {each.run.id: position for position, each in enumerate(members)}
    grouped.sort(key=lambda group: min(order[each.run.id] for each in group))
    return _distinct([Group(tuple(sorted(group, key=lambda each: each.mean))) for group in grouped]), left_out


def _reason(run: Run) -> str:
    """Why a run cannot be compared, in a few words; empty where it can."""
    status, results = run.status(), run.results()
    if status.state == "damaged":
        return "damaged"
    if results is None:
        return "unfinished" if status.state not in (*ACTIVE, "stalled") else "still at work"
    return "" if results.perplexity else "without evaluation (--eval-blocks 0)"


def _distinct(grouped: Sequence[Group]) -> list[Group]:
    """The groups, with headings that differ: by what names their weights and text where words do not."""
    headings = Counter(group.heading for group in grouped)
    return [
        Group(group.members, f"; {_names(group.newest)}") if headings[group.heading] > 1 else group
        for group in grouped
    ]


def _names(member: MeasuredRun) -> str:
    text = ", ".join(f"{name} {digest[:6]}" for name, digest in member.results.heldout.items())
    return f"weights {member.weights[:6] or 'not recorded'}, text {text or 'not recorded'}"


def count_reasons(left_out: dict[str, str]) -> str:
    """How many runs are left out and why, in a few words."""
    return ", ".join(f"{count} {why}" for why, count in Counter(left_out.values()).items())
