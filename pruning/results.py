"""Reading what runs came to: tidy rows, retention by capability, the paper's figures. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pruning.domains import ASSETS
from pruning.runs import Run

if TYPE_CHECKING:
    import pandas as pd

# What a domain's text and a task ask of a model. Texts and tasks that are not named here form groups of
# their own.
CAPABILITIES: dict[str, tuple[str, ...]] = {
    "prose": ("wiki", "web", "prunescope_wiki", "prunescope_web", "prunescope_agreement"),
    "code": ("code", "prunescope_code"),
    "mathematics": ("math", "prunescope_arithmetic"),
    "questions": ("prunescope_answers", "arc_challenge", "arc_easy", "openbookqa", "boolq"),
    "common sense": ("hellaswag", "piqa", "winogrande"),
}


@dataclass(frozen=True)
class Retained:
    """What is left of a capability.

    Attributes:
        capability: its name.
        source: `text` (perplexity) or `tasks` (accuracy).
        value: pruned over dense so that 1 is no loss: the geometric mean over domains of dense over pruned
            perplexity, or the mean over tasks of pruned over dense accuracy.
        standard_error: of the tasks' mean, from the paired differences; None for text.
        of: what it is the mean of.
        limit: only the first so many items of a task were asked; None for all.
    """

    capability: str
    source: str
    value: float
    standard_error: float | None
    of: tuple[str, ...]
    limit: int | None = None


def capability(name: str) -> str:
    """The group that a domain or a task belongs to; its own name where none is known."""
    return next((group for group, names in CAPABILITIES.items() if name in names), name)


def retention(results: Mapping[str, Any]) -> list[Retained]:
    """What is left of each capability, from the content of a run's `results.json`."""
    texts: dict[str, dict[str, float]] = {}
    for name, value in results.get("perplexity", {}).items():
        if name != "mean" and value["dense"] and value["pruned"]:
            texts.setdefault(capability(name), {})[name] = value["dense"] / value["pruned"]
    tasks: dict[str, dict[str, dict[str, Any]]] = {}
    for name, row in results.get("zero_shot", {}).get("tasks", {}).items():
        if row["acc"]["dense"]:
            tasks.setdefault(capability(name), {})[name] = {**row["acc"], "limit": row["limit"]}
    found = []
    for group in dict.fromkeys([*CAPABILITIES, *texts, *tasks]):
        if values := texts.get(group):
            mean = math.exp(math.fsum(math.log(v) for v in values.values()) / len(values))
            found.append(Retained(group, "text", mean, None, tuple(values)))
        if rows := tasks.get(group):
            mean = math.fsum(r["pruned"] / r["dense"] for r in rows.values()) / len(rows)
            squares = math.fsum((r["standard_error"] / r["dense"]) ** 2 for r in rows.values())
            limit = max((r["limit"] or 0 for r in rows.values()), default=0) or None
            found.append(Retained(group, "tasks", mean, math.sqrt(squares) / len(rows), tuple(rows), limit))
    return found


def tidy(run: Run) -> list[dict[str, Any]]:
    """A finished run as rows of one measure each: `metric`, `name`, `dense`, `pruned`, what decided it."""
    results, config = run.results(), run.config
    common = {
        "run_id": run.id,
        "model": config.model,
        "method": config.method,
        "ratio": config.ratio,
        "achieved_ratio": results["achieved_ratio"],
        "iterations": config.iterations,
        "samples": config.samples,
        "seq_len": config.seq_len,
        "seed": config.seed,
        "mixture": mixture_label(config.mixture),
        **{f"share_{name}": share for name, share in config.mixture.items()},
        "seconds": results["seconds"],
    }
    rows = []
    for metric in ("perplexity", "bits_per_byte"):
        for name, value in results.get(metric, {}).items():
            rows.append({**common, "metric": metric, "name": name, **value})
    accuracies = results.get("zero_shot", {"tasks": {}})
    named = [*accuracies["tasks"].items()]
    named += [("average", accuracies["average"])] if "average" in accuracies else []
    for name, row in named:
        for metric in ("acc", "acc_norm"):
            if metric in row:
                value = {key: row[metric].get(key) for key in ("dense", "pruned", "delta", "standard_error")}
                extra = {"items": row.get("items"), "limit": row.get("limit")}
                rows.append({**common, "metric": metric, "name": name, **value, **extra})
    return rows


def mixture_label(mixture: Mapping[str, float]) -> str:
    """A mixture in a few words: `wiki`, `mixed` for equal shares of several, or the shares."""
    if len(mixture) == 1:
        return next(iter(mixture))
    if max(mixture.values()) - min(mixture.values()) < 1e-9:
        return "mixed" if len(mixture) > 2 else " + ".join(mixture)
    return ", ".join(f"{name} {share:.2g}" for name, share in mixture.items())


def rise(frame: pd.DataFrame, of: str = "mean") -> pd.DataFrame:
    """Rows of one measure with `value`: what the figures show.

    For perplexity the rise of the log-perplexity over the dense model, for accuracy the pruned model's in
    percent, for bits per byte the pruned model's.

    Args:
        frame: rows of one measure of the tidy table.
        of: `mean` over domains or tasks, `each` of them, or the name of one.
    """
    import numpy as np

    metric = frame["metric"].iloc[0]
    shares = [name for name in frame.columns if name.startswith("share_")]
    frame = frame.assign(**{name: frame[name].fillna(0.0) for name in shares})
    total = "average" if metric.startswith("acc") else "mean"
    if of == "mean" and metric == "bits_per_byte":  # its table has no row of the mean
        keys = [c for c in frame.columns if c not in ("name", "dense", "pruned", "delta", "standard_error")]
        rows = frame.groupby(keys, dropna=False, as_index=False)[["dense", "pruned"]].mean()
    elif of == "each":
        rows = frame[frame["name"] != total].copy()
    else:
        rows = frame[frame["name"] == (total if of == "mean" else of)].copy()
    if metric == "perplexity":
        return rows.assign(value=np.log(rows["pruned"] / rows["dense"]))
    return rows.assign(value=rows["pruned"] * (100 if metric.startswith("acc") else 1))


def axis_title(metric: str, of: str = "mean") -> str:
    """What `rise` measures, in words."""
    whose = {"mean": "mean ", "each": ""}.get(of, f"{of} ")
    if metric == "perplexity":
        return f"rise of the {whose}log-perplexity"
    if metric == "bits_per_byte":
        return f"{whose}bits per byte"
    return f"{'average ' if of == 'mean' else whose}{metric}, %"


@cache
def paper() -> dict[str, Any]:
    """The paper's figures, by experiment."""
    import yaml

    content = yaml.safe_load((ASSETS / "paper.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
