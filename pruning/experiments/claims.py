"""The paper (arXiv 2601.02674): its figures, and its claims compared with the runs of an experiment."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pruning.experiments.grid import Experiment
from pruning.measure.significance import interval
from pruning.paths import ASSETS
from pruning.runs.report import rise

if TYPE_CHECKING:
    import pandas as pd


AGREES, DIFFERS, NOISE = "agrees", "**differs**", "within noise"


class Claim(NamedTuple):
    """A claim of the paper, these runs' numbers, and the verdict on it."""

    statement: str
    ours: str
    verdict: str


@cache
def paper() -> dict[str, Any]:
    """The figures that the paper reports, by experiment."""
    import yaml

    content: dict[str, Any] = yaml.safe_load((ASSETS / "paper.yaml").read_text(encoding="utf-8"))
    return content


def claims(experiment: Experiment, frame: pd.DataFrame) -> Iterator[Claim]:
    """The paper's claims that these runs can test, at their largest ratio.

    Of several models, only the runs of the paper's own model count.

    Args:
        experiment: names the paper's figure.
        frame: tidy table of its runs.
    """
    tests = {"main": _main, "domains": _domains, "iterations": _iterations, "samples": _samples}
    if experiment.paper is None or frame.empty:
        return
    frame = frame[frame["ratio"] == frame["ratio"].max()]
    if "model" in frame and frame["model"].nunique() > 1:
        frame = frame[frame["model"] == paper()[experiment.paper].get("model")]
    yield from tests[experiment.paper](frame)


def higher(low: pd.DataFrame, high: pd.DataFrame, sign: int = 1) -> str:
    """The verdict on the claim that `high` has the larger mean `value`, or with a sign of -1 the smaller.

    Noise is the spread over seeds, and for accuracies over items too. Both sides answer the same items, but
    count as independent, which makes the verdict cautious.
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
    """Standard error over items of an accuracy in percent; seeds share the items and do not narrow it."""
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
    """Rows by the value of an option, from the lowest mean to the highest."""
    groups = {str(name): group for name, group in rows.groupby(option)}
    return dict(sorted(groups.items(), key=lambda group: group[1]["value"].mean()))


def _means(groups: dict[str, pd.DataFrame], form: str) -> str:
    """The mean of each group in words."""
    return ", ".join(f"{name} {form.format(group['value'].mean())}" for name, group in groups.items())


def _main(frame: pd.DataFrame) -> Iterator[Claim]:
    groups = _by(_averages(frame), "method")
    if not {"wanda_sp", "flap", "iterative"} <= set(groups):
        return
    ours, iterative = _means(groups, "{:.1f}%"), groups["iterative"]
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
            statement, ours = "All domains together beat every single one.", f"rise {_means(groups, form)}"
        else:
            gap = groups["mixed"]["value"].mean() - groups[best]["value"].mean()
            statement = "So it is in average accuracy, by about 1.5 points."
            ours = f"{_means(groups, form)}: {gap:+.1f} points over {best}"
        yield Claim(statement, ours, verdict)


def _iterations(frame: pd.DataFrame) -> Iterator[Claim]:
    rows = _rises(frame)
    rows = rows[rows["method"] == "iterative"]
    first = rows[rows["iterations"] == rows["iterations"].min()]
    late, early = rows[rows["iterations"] >= 4], rows[rows["iterations"].isin([2, 3])]
    if first.empty or late.empty or early.empty:
        return
    means = rows.groupby("iterations")["value"].mean()
    yield Claim(
        "Perplexity falls with the iterations.",
        "rise " + ", ".join(f"K = {k}: {value:.3f}" for k, value in means.items()),
        higher(late, first),
    )
    late_means, early_means = means[means.index >= 4], means[means.index.isin([2, 3])]
    best = early[early["iterations"] == early_means.idxmin()]
    yield Claim(
        "It goes on falling up to 4 to 6 iterations, then settles.",
        f"from K = 4 on the rise stays within {late_means.max() - late_means.min():.3f}; before, at "
        + " and ".join(f"K = {k}, it is {value:.3f}" for k, value in early_means.items()),
        higher(late, best),
    )


def _samples(frame: pd.DataFrame) -> Iterator[Claim]:
    rows = frame[(frame["metric"] == "perplexity") & frame["method"].isin(["flap", "iterative"])]
    wanted = paper()["samples"]["samples"]
    count = wanted if wanted in set(rows["samples"]) else rows["samples"].min()
    rows = rows[rows["samples"] == count]
    if rows["method"].nunique() < 2:
        return
    means = rows.groupby(["name", "method"])["pruned"].mean()

    def both(name: str) -> str:
        flap, iterative = means[name, "flap"], means[name, "iterative"]
        return f"{flap:.1f} against {iterative:.1f}, {flap / iterative:.1f} times"

    ours = f"at {count}: {both('mean')}, over all domains"
    domain = rows.loc[rows["method"] == "flap", "mixture"].iloc[0]
    if domain in set(rows["name"]):  # FLAP is calibrated on one domain
        ours += f"; on {domain}, which FLAP was calibrated on, {both(domain)}"
    yield Claim(
        f"With {wanted} samples FLAP's perplexity is more than three times the iterative method's.",
        ours,
        AGREES if means["mean", "flap"] > 3 * means["mean", "iterative"] else DIFFERS,
    )
