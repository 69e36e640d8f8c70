"""Commands on runs in the store."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.cli.terminal import ProgressBar, console, import_torch, print_json, results_table, table
from pruning.errors import ConfigError, RunError
from pruning.formatting import number, quoted, sentence, size_text
from pruning.method.damage import predicted
from pruning.models.geometry import Site
from pruning.runs import permissions
from pruning.runs.repair import repair
from pruning.runs.report import Group, MeasuredRun, count_reasons, groups, provenance
from pruning.runs.run import Run, RunStore


def _run_row(run: Run) -> dict[str, Any]:
    status, results = run.status(), run.results()
    pairs = results.perplexity if results else {}
    mean = pairs.get("mean")
    return {
        "run_id": run.id,
        "state": status.state,
        "model": run.config.model,
        "method": run.config.method,
        "ratio": results.achieved_ratio if results else run.config.ratio,
        "iterations": run.config.iterations,
        "mixture": run.config.mixture,
        "seed": run.config.seed,
        "parameters": results.parameters.model_dump() if results else {},
        "perplexity": {name: pair.pruned for name, pair in pairs.items()},
        "dense_mean": mean.dense if mean else None,
        "seconds": results.seconds if results else None,
        "message": status.message,
    }


def runs_list(args: argparse.Namespace) -> int:
    """List the runs, the newest first."""
    store = RunStore(args.runs)
    rows, broken = [_run_row(run) for run in store.all()], store.broken()
    if args.json:
        print_json({"runs": rows, "broken": broken})
        return 0
    if rows:
        cells = [
            (
                row["run_id"],
                row["state"],
                Path(row["model"]).name,
                f"{row['ratio']:.0%}",
                str(row["iterations"]),
                number(row["perplexity"].get("mean")),
            )
            for row in rows
        ]
        console().print(table(("run", "state", "model", "ratio", "K", "perplexity"), cells))
    for why in broken.values():
        print(sentence(why))
    if not rows and not broken:
        print(f"There are no runs in {store.root}: 'prune' makes one.")
    return 0


def runs_show(args: argparse.Namespace) -> int:
    """Show a run."""
    run = RunStore(args.runs).get(args.run_id)
    if run.problem:
        raise RunError(run.problem)
    if args.json:
        content = {
            "config": run.config.model_dump(mode="json"),
            "domains": {name: source.model_dump() for name, source in run.sources.items()},
            "status": run.status().model_dump(),
            "results": results.model_dump() if (results := run.results()) else {},
        }
        print_json({"run_id": run.id, **content})
        return 0
    out = console()
    out.print_json(json.dumps(run.config.model_dump(mode="json")))
    if results := run.results():
        out.print(results_table(results))
    for line in provenance(run):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    status = run.status()
    out.print(f"{status.state}  {status.message}", markup=False)
    return 0


def damage(args: argparse.Namespace) -> int:
    """Measure which layers a cut hurts, and keep it with a run."""
    import_torch()
    from pruning.progress import drain
    from pruning.runs.worker import measure_damage

    run, bar = RunStore(args.runs).get(args.run_id), ProgressBar(1, quiet=args.json)
    with bar.bar:
        curves = drain(measure_damage(run), bar)
    halves = {
        site: float(predicted(curve.removed, curve.fused(run.config.mixture), curve.removed[-1:] / 2)[0])
        for site, curve in curves.items()
    }
    if args.json:
        print_json(
            {"run_id": run.id, "sites": {str(site): curve.to_dict() for site, curve in curves.items()}}
        )
        return 0
    cells = [
        (str(site.layer), f"{halves[site]:.4f}", f"{halves[Site(site.layer, 'mlp')]:.4f}")
        for site in halves
        if site.name == "attn"
    ]
    columns = ("layer", "attention", "MLP")
    console().print(table(columns, cells, "nats a token lost where half of a module is cut"))
    return 0


def runs_cancel(args: argparse.Namespace) -> int:
    """Stop a run; it can be resumed."""
    run = RunStore(args.runs).get(args.run_id)
    if not run.active:
        raise ConfigError(
            f"run {run.id!r} is not running and cannot be cancelled: it is {run.status().state}."
        )
    run.cancel()
    deadline = time.monotonic() + 15
    while run.active and time.monotonic() < deadline:
        time.sleep(0.2)
    return _say(args, run, run.status().state)


def runs_resume(args: argparse.Namespace) -> int:
    """Continue a run after its last complete iteration."""
    from pruning.runs.checkpoints import move_model
    from pruning.runs.worker import execute

    run = RunStore(args.runs).get(args.run_id)
    if args.model:
        run = move_model(run, args.model)
        print(f"{run.id}: its dense model is now {quoted(run.config.model)}.", file=sys.stderr)
    run.check_startable()
    _agree(args, run)
    bar = ProgressBar(run.config.iterations, args.json, len(run.iterations()) - 1)
    with bar.bar:
        result = execute(run, bar)
    if args.json:
        print_json(result.summary.model_dump())
    else:
        console().print(results_table(result.summary))
    return 0


def runs_repair(args: argparse.Namespace) -> int:
    """Restore the damaged files of a run, or go back to its last intact iteration."""
    run = RunStore(args.runs).get(args.run_id)
    with run.held():
        done = repair(run)
    resumable = run.resumable
    if args.json:
        print_json({"run_id": run.id, "repaired": done, "resumable": resumable})
        return 0
    for words in done or ["Nothing is damaged."]:
        print(words)
    if resumable:
        print(f"'runs resume {run.named}' continues the run.")
    return 0


def report(args: argparse.Namespace) -> int:
    """Write a run as one HTML file that opens without a server: heatmaps, a live mixture, results."""
    from pruning.visualization.report import write_html

    folder, file = Path(args.run_id), args.html
    run = Run(folder) if (folder / "config.json").is_file() else RunStore(args.runs).get(args.run_id)
    size = write_html(run, file)
    if args.json:
        print_json({"run_id": run.id, "html": file, "bytes": size})
    else:
        print(f"{file}: {size_text(size)}; open it in a browser.")
    return 0


def _agree(args: argparse.Namespace, run: Run) -> None:
    """Ask about what a run from elsewhere would read and run.

    Raises:
        RunError: the person has not agreed to it.
    """
    found = permissions.pending(run.config)
    if found and not args.yes and sys.stdin.isatty():
        print(f"Run {run.id} {permissions.origin(found)}. It would:", file=sys.stderr)
        for ask in found:
            code = f", which holds {permissions.code_files(ask)}" if ask.does == "run" else ""
            print(f"  {ask}{code}", file=sys.stderr)
        args.yes = input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    if args.yes:
        permissions.agree(found)
    permissions.check(run.id, run.config)


def runs_delete(args: argparse.Namespace) -> int:
    """Delete a run."""
    store = RunStore(args.runs)
    run = store.get(args.run_id)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"deleting {run.id!r} cannot be undone: add --yes to confirm it.")
        if input(f"Delete run {run.id}? [y/N] ").strip().lower() not in ("y", "yes"):
            return 0
    store.delete(run.id)
    return _say(args, run, "deleted")


def _say(args: argparse.Namespace, run: Run, state: str) -> int:
    if args.json:
        print_json({"run_id": run.id, "state": state})
    else:
        print(f"{run.id}: {state}")
    return 0


def compare(args: argparse.Namespace) -> int:
    """Compare finished runs of the same model on the same text, the best first."""
    store = RunStore(args.runs)
    named = {run.id: run for run in map(store.get, args.run_ids)}
    grouped, left_out = groups(named.values() or store.all())
    left_out |= {} if args.run_ids else dict.fromkeys(store.broken(), "broken")
    if not grouped:
        where = f" in {str(store.root)!r}"
        if not left_out:
            raise ConfigError(f"there are no finished runs to compare{where}: 'prune' makes one.")
        raise ConfigError(f"no run{where} can be compared ({count_reasons(left_out)}): {_cure(left_out)}.")
    if args.json:
        rows = [_group_row(group) for group in grouped]
        reasons = [{"run_id": run_id, "reason": why} for run_id, why in left_out.items()]
        runs = [row for group in rows for row in group["runs"]]  # as version 0.2 had them
        print_json({"groups": rows, "left_out": reasons, "runs": runs})
        return 0
    out = console()
    for group in grouped:
        domains = list(group.newest.results.perplexity)
        dense = [number(pair.dense, 1) for pair in group.newest.results.perplexity.values()]
        cells = [
            (
                each.run.id,
                f"{each.results.achieved_ratio:.0%}",
                str(each.run.config.iterations),
                *(number(each.results.perplexity[name].pruned, 1) for name in domains),
                _against(each, group),
            )
            for each in group.members
        ]
        out.print(group.heading, markup=False, highlight=False, soft_wrap=True)
        columns = ("run", "ratio", "K", *domains, "against the best")
        out.print(table(columns, [("dense", "", "", *dense, ""), *cells]))
    print("Perplexity on held-out text, the best first; 'runs show ID' shows all results of a run.")
    print("Against the best: change of the mean, with its 95% interval over blocks of the text, paired.")
    if len(grouped) > 1:
        print("The tables differ in model, text or block length: do not compare numbers of different tables.")
    if left_out:
        print(f"Left out: {count_reasons(left_out)}.")
    return 0


def _against(member: MeasuredRun, group: Group) -> str:
    """How much more a run loses than the best of its group."""
    rise = member.rise(group.members[0]) if member is not group.members[0] else None
    return rise.words if rise else ""


def _group_row(group: Group) -> dict[str, Any]:
    results, config = group.newest.results, group.newest.run.config
    return {
        "heading": group.heading,
        "model": config.model,
        "weights": group.newest.weights,
        "domains": {name: results.heldout.get(name) for name in group.blocks},
        "blocks": group.blocks,
        "seq_len": config.seq_len,
        "dtype": group.newest.dtype,
        "dense": {name: pair.dense for name, pair in results.perplexity.items()},
        "runs": [_run_row(each.run) for each in group.members],
        "against_best": {
            each.run.id: {**rise.model_dump(), "interval": rise.interval, "within_noise": rise.is_noise}
            for each in group.members[1:]
            if (rise := each.rise(group.members[0]))
        },
    }


def _cure(left_out: Mapping[str, str]) -> str:
    """What makes runs comparable that are not."""
    if any(why.startswith("without") for why in left_out.values()):
        return "prune with --eval-blocks above 0 to measure what it costs"
    return "'runs list' shows where each stands"
