"""What the paper says, held against a grid of runs: each claim agrees, differs, or is within noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pruning.experiments.grid import Experiment
from pruning.experiments.paper import paper
from pruning.measure.significance import interval
from pruning.runs.report import rise

if TYPE_CHECKING:
    import pandas as pd


AGREES, DIFFERS, NOISE = "agrees", "**differs**", "within noise"


class Claim(NamedTuple):
    """A sentence of the paper, what these runs say to it, and the verdict."""

    said: str
    ours: str
    verdict: str


def claims(experiment: Experiment, frame: pd.DataFrame) -> Iterator[Claim]:
    """The paper's claims that these runs can speak to, at the largest ratio.

    Where there are several models, only the one that the paper's figures are of is looked at.

    Args:
        experiment: says which of the paper's figures.
        frame: the tidy table of its runs.
    """
    judges = {"main": _main, "domains": _domains, "iterations": _iterations, "samples": _samples}
    if experiment.paper is None or frame.empty:
        return
    frame = frame[frame["ratio"] == frame["ratio"].max()]
    if "model" in frame and frame["model"].nunique() > 1:
        frame = frame[frame["model"] == paper()[experiment.paper].get("model")]
    yield from judges[experiment.paper](frame)


def higher(low: pd.DataFrame, high: pd.DataFrame, sign: int = 1) -> str:
    """The verdict on a claim that the runs of `high` have the larger `value`; the smaller with a sign of -1.

    Noise is the spread of the seeds, and for accuracies that of the items too. The sides count as
    independent, though they were asked the same items: the verdict is the cautious one.
    """
    margin = sign * (high["value"].mean() - low["value"].mean())
    seeds = math.hypot(*(_seed_error(rows) for rows in (low, high)))
    items = math.hypot(*(_item_error(rows) for rows in (low, high)))
    if not abs(margin) > math.hypot(seeds and interval(seeds, len(low) + len(high) - 2), interval(items)):
        return NOISE
    return AGREES if margin > 0 else DIFFERS


def _seed_error(rows: pd.DataFrame) -> float:
    return rows["value"].std() / math.sqrt(len(rows)) if len(rows) > 1 else 0.0


def _item_error(rows: pd.DataFrame) -> float:
    """Of an accuracy in percent; every seed asks the same items, so seeds do not narrow it."""
    error = rows["standard_error"].mean() if "standard_error" in rows else math.nan
    return 0.0 if math.isnan(error) else 100 * error


def _worst(verdicts: list[str]) -> str:
    return next(verdict for verdict in (DIFFERS, NOISE, AGREES) if verdict in verdicts)


def _rises(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame[frame["metric"] == "perplexity"]
    return rise(rows) if len(rows) else rows.assign(value=[])


def _averages(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the average accuracy, in percent."""
    rows = frame[(frame["metric"] == "acc") & (frame["name"] == "average")]
    return rows.assign(value=100 * rows["pruned"])


def _by(rows: pd.DataFrame, option: str) -> dict[str, pd.DataFrame]:
    """Groups from the lowest mean to the highest."""
    groups = {str(name): group for name, group in rows.groupby(option)}
    return dict(sorted(groups.items(), key=lambda group: group[1]["value"].mean()))


def _words(groups: dict[str, pd.DataFrame], form: str) -> str:
    return ", ".join(f"{name} {form.format(group['value'].mean())}" for name, group in groups.items())


def _main(frame: pd.DataFrame) -> Iterator[Claim]:
    groups = _by(_averages(frame), "method")
    if not {"wanda_sp", "flap", "iterative"} <= set(groups):
        return
    ours, iterative = _words(groups, "{:.1f}%"), groups["iterative"]
    above = [higher(groups[name], iterative) for name in ("wanda_sp", "flap")]
    yield Claim("The iterative method keeps the highest average accuracy.", ours, _worst(above))
    yield Claim("FLAP keeps more than Wanda-sp.", ours, higher(groups["wanda_sp"], groups["flap"]))


def _domains(frame: pd.DataFrame) -> Iterator[Claim]:
    rows = _by(_rises(frame), "mixture")
    answers = _by(_averages(frame), "mixture")
    for groups, form, better in ((rows, "{:.2f}", -1), (answers, "{:.1f}%", 1)):
        single = [name for name in groups if name != "mixed" and " " not in name]
        if "mixed" not in groups or not single:
            continue
        best = (max if better > 0 else min)(single, key=lambda name: groups[name]["value"].mean())
        verdict = higher(groups[best], groups["mixed"], better)
        if better < 0:
            said, ours = "All domains together beat every single one.", f"rise {_words(groups, form)}"
        else:
            gap = groups["mixed"]["value"].mean() - groups[best]["value"].mean()
            said = "So it is in average accuracy, by about 1.5 points."
            ours = f"{_words(groups, form)}: {gap:+.1f} points over {best}"
        yield Claim(said, ours, verdict)


def _iterations(frame: pd.DataFrame) -> Iterator[Claim]:
    rows = _rises(frame)
    rows = rows[rows["method"] == "iterative"]
    first = rows[rows["iterations"] == rows["iterations"].min()]
    settled, early = rows[rows["iterations"] >= 4], rows[rows["iterations"].isin([2, 3])]
    if first.empty or settled.empty or early.empty:
        return
    means = rows.groupby("iterations")["value"].mean()
    yield Claim(
        "Perplexity falls with the iterations.",
        "rise " + ", ".join(f"K = {k}: {value:.3f}" for k, value in means.items()),
        higher(settled, first),
    )
    late, soon = means[means.index >= 4], means[means.index.isin([2, 3])]
    best = early[early["iterations"] == soon.idxmin()]
    yield Claim(
        "It goes on falling up to 4 to 6 iterations, then settles.",
        f"from K = 4 on the rise stays within {late.max() - late.min():.3f}; before, at "
        + " and ".join(f"K = {k}, it is {value:.3f}" for k, value in soon.items()),
        higher(settled, best),
    )


def _samples(frame: pd.DataFrame) -> Iterator[Claim]:
    rows = frame[frame["metric"] == "perplexity"]
    counts, wanted = set(rows["samples"]), paper()["samples"]["samples"]
    if not counts:
        return
    count = wanted if wanted in counts else min(counts)
    few = dict(list(rows[rows["samples"] == count].groupby("method")))
    if not {"iterative", "flap"} <= set(few):
        return

    def sides(name: str) -> tuple[float, float]:
        values = [
            few[method].loc[few[method]["name"] == name, "pruned"].mean() for method in ("flap", "iterative")
        ]
        return values[0], values[1]

    flap, iterative = sides("mean")
    ours = f"at {count}: {flap:.1f} against {iterative:.1f}, {flap / iterative:.1f} times, over all domains"
    own = next(iter(few["flap"]["mixture"]))
    if own in set(rows["name"]):  # FLAP's own text, on which one domain is all that counts
        flap_own, iterative_own = sides(own)
        ours += f"; on {own}, which FLAP was calibrated on, {flap_own:.1f} against {iterative_own:.1f}, "
        ours += f"{flap_own / iterative_own:.1f} times"
    yield Claim(
        f"With {wanted} samples FLAP's perplexity is more than three times the iterative method's.",
        ours,
        AGREES if flap > 3 * iterative else DIFFERS,
    )
