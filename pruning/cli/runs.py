"""Commands on runs in the store."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from pruning.cli.arguments import command, option, switch
from pruning.cli.terminal import (
    ProgressBar,
    import_torch,
    print_json,
    print_results,
    print_table,
    show_progress,
)
from pruning.cli.work import RESUMABLE
from pruning.engine.budget import NAMES
from pruning.errors import ConfigError, RunError
from pruning.formatting import number, quoted, sentence, size_text
from pruning.measure.comparison import Rise
from pruning.method.sensitivity import divergence_at
from pruning.runs import permissions
from pruning.runs.repair import repair as repair_run
from pruning.runs.report import Group, count_reasons, groups, provenance
from pruning.runs.run import Run, RunStore

RUN_ID = option("run_id", "a run's id, or the beginning of one", metavar="ID")


def _run_row(run: Run) -> dict[str, Any]:
    status, results = run.status(), run.results()
    pairs = results.perplexity if results else {}
    mean = pairs.get("mean")
    return {
        "run_id": run.id,
        "state": status.state,
        **run.config.model_dump(include={"model", "method", "iterations", "mixture", "seed"}),
        "ratio": results.achieved_ratio if results else run.config.ratio,
        "parameters": results.parameters.model_dump() if results else {},
        "perplexity": {name: pair.pruned for name, pair in pairs.items()},
        "dense_mean": mean.dense if mean else None,
        "seconds": results.seconds if results else None,
        "message": status.message,
    }


@command("runs list")
def list_runs(args: argparse.Namespace) -> None:
    """List the runs, the newest first."""
    rows, broken = [_run_row(run) for run in args.store.all()], args.store.broken()
    if args.json:
        print_json({"runs": rows, "broken": broken})
        return
    if rows:
        cells = [
            {
                "run": row["run_id"],
                "state": row["state"],
                "model": Path(row["model"]).name,
                "ratio": f"{row['ratio']:.0%}",
                "K": row["iterations"],
                "perplexity": number(row["perplexity"].get("mean")),
            }
            for row in rows
        ]
        print_table(cells)
    for problem in broken.values():
        print(sentence(problem))
    if not rows and not broken:
        print(f"There are no runs in {args.store.root}: 'prune' makes one.")


@command("runs show", RUN_ID, switch("--config", "print the config of the run as well"))
def show(args: argparse.Namespace) -> None:
    """Show the outcome of a run."""
    run = args.store.get(args.run_id)
    if run.problem:
        raise RunError(run.problem)
    status, results = run.status(), run.results()
    config = run.config.model_dump(mode="json")
    if args.json:
        domains = {name: source.model_dump() for name, source in run.sources.items()}
        content = {"config": config, "domains": domains, "status": status.model_dump()}
        print_json({"run_id": run.id, **content, "results": results.model_dump() if results else {}})
        return
    print(f"{status.state}  {status.message}".rstrip())
    if results:
        print_results(results)
    for line in provenance(run):
        print(line)
    if args.config:
        print(json.dumps(config, indent=2))


@command("runs cancel", RUN_ID)
def cancel(args: argparse.Namespace) -> None:
    """Stop a run; it can be resumed."""
    run = args.store.get(args.run_id)
    if not run.active:
        raise ConfigError(
            f"run {run.id!r} is not running and cannot be cancelled: it is {run.status().state}."
        )
    run.cancel()
    deadline = time.monotonic() + 15
    while run.active and time.monotonic() < deadline:
        time.sleep(0.2)
    _print_state(args, run, run.status().state)


@command(
    "runs resume",
    RUN_ID,
    switch("--yes", "agree to all that the run reads and executes"),
    option("--model", "new path of its dense model, if it was moved", metavar="PATH"),
    stopped=RESUMABLE,
)
def resume(args: argparse.Namespace) -> None:
    """Continue a run after its last complete iteration."""
    from pruning.runs.checkpoints import move_model
    from pruning.runs.worker import execute

    run = args.store.get(args.run_id)
    if args.model:
        run = move_model(run, args.model)
        print(f"{run.id}: its dense model is now {quoted(run.config.model)}.", file=sys.stderr)
    run.check_startable()
    _confirm_permissions(args, run)
    bar = ProgressBar(run.config.iterations, args.json, len(run.iterations()) - 1)
    with bar.bar:
        result = execute(run, bar)
    if args.json:
        print_json(result.summary.model_dump())
    else:
        print_results(result.summary)


def _confirm_permissions(args: argparse.Namespace, run: Run) -> None:
    """Ask about what a run from elsewhere would read and run.

    Raises:
        RunError: the person has not agreed to it.
    """
    pending = permissions.pending(run.config)
    if pending and not args.yes and sys.stdin.isatty():
        print(f"Run {run.id} {permissions.origin(pending)}. It would:", file=sys.stderr)
        for ask in pending:
            code = f", which holds {permissions.code_files(ask)}" if ask.action == "run" else ""
            print(f"  {ask}{code}", file=sys.stderr)
        args.yes = _confirmed("Continue?")
    if args.yes:
        permissions.agree(pending)
    permissions.check(run.id, run.config)


def _confirmed(question: str) -> bool:
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


@command("runs repair", RUN_ID)
def repair(args: argparse.Namespace) -> None:
    """Restore the corrupt files of a run, or go back to its last intact iteration."""
    run = args.store.get(args.run_id)
    with run.held():
        repairs = repair_run(run)
    resumable = run.resumable
    if args.json:
        print_json({"run_id": run.id, "repaired": repairs, "resumable": resumable})
        return
    for line in repairs or ["All files are intact."]:
        print(line)
    if resumable:
        print(f"'runs resume {run.argument}' continues the run.")


@command("runs delete", RUN_ID, switch("--yes", "delete without a question"))
def delete(args: argparse.Namespace) -> None:
    """Delete a run."""
    run = args.store.get(args.run_id)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"deleting {run.id!r} cannot be undone: add --yes to confirm it.")
        if not _confirmed(f"Delete run {run.id}?"):
            return
    args.store.delete(run.id)
    _print_state(args, run, "deleted")


def _print_state(args: argparse.Namespace, run: Run, state: str) -> None:
    if args.json:
        print_json({"run_id": run.id, "state": state})
    else:
        print(f"{run.id}: {state}")


@command(
    "report",
    option("run_id", "a run's id, the beginning of one, or its folder", metavar="RUN"),
    option("--html", "HTML file to write", metavar="FILE", required=True),
)
def report(args: argparse.Namespace) -> None:
    """Write a run as one HTML file that opens without a server: heatmaps, a live mixture, results."""
    from pruning.visualization.report import write_html

    folder, file = Path(args.run_id), args.html
    run = Run(folder) if (folder / "config.json").is_file() else args.store.get(args.run_id)
    size = write_html(run, file)
    if args.json:
        print_json({"run_id": run.id, "html": file, "bytes": size})
    else:
        print(f"{file}: {size_text(size)}; open it in a browser.")


@command("sensitivity", RUN_ID)
def sensitivity(args: argparse.Namespace) -> None:
    """Measure how much cutting each module costs, and keep it with a run."""
    import_torch()
    from pruning.runs.worker import measure_sensitivity

    run = args.store.get(args.run_id)
    curves = show_progress(measure_sensitivity(run), args.json)
    if args.json:
        sites = {str(site): curve.to_dict() for site, curve in curves.items()}
        print_json({"run_id": run.id, "sites": sites})
        return
    mixture = run.config.mixture
    costs = {
        site: float(divergence_at(curve.removed, curve.fused(mixture), curve.removed[-1:] / 2)[0])
        for site, curve in curves.items()
    }
    rows: dict[int, dict[str, Any]] = {}
    for site, cost in costs.items():
        rows.setdefault(site.layer, {"layer": site.layer})[NAMES.get(site.name, site.name)] = f"{cost:.4f}"
    print_table(list(rows.values()), "divergence in nats per token, half of a module cut")


@command("compare", option("run_ids", "runs to compare (default: all)", nargs="*", metavar="ID"))
def compare(args: argparse.Namespace) -> None:
    """Compare finished runs of the same model on the same text, the best first."""
    store: RunStore = args.store
    named = {run.id: run for run in map(store.get, args.run_ids)}
    comparable, excluded = groups(named.values() or store.all())
    excluded |= {} if args.run_ids else dict.fromkeys(store.broken(), "broken")
    if not comparable:
        where = f" in {str(store.root)!r}"
        if not excluded:
            raise ConfigError(f"there are no finished runs to compare{where}: 'prune' makes one.")
        unmeasured = any(reason.startswith("without") for reason in excluded.values())
        way_out = "prune with --eval-blocks above 0 to measure what it costs"
        way_out = way_out if unmeasured else "'runs list' shows the state of each"
        raise ConfigError(f"no run{where} can be compared ({count_reasons(excluded)}): {way_out}.")
    if args.json:
        rows = [_group_row(group) for group in comparable]
        reasons = [{"run_id": run_id, "reason": reason} for run_id, reason in excluded.items()]
        runs = [row for group in rows for row in group["runs"]]  # as version 0.2 had them
        print_json({"groups": rows, "left_out": reasons, "runs": runs})
        return
    for group in comparable:
        rises = _rises(group)
        dense = {name: number(pair.dense, 1) for name, pair in group.newest.results.perplexity.items()}
        table = [{"run": "dense", "ratio": "", "K": "", **dense, "against the best": ""}]
        table += [
            {
                "run": each.run.id,
                "ratio": f"{each.results.achieved_ratio:.0%}",
                "K": str(each.run.config.iterations),
                **{name: number(each.results.perplexity[name].pruned, 1) for name in dense},
                "against the best": rise.words if (rise := rises.get(each.run.id)) else "",
            }
            for each in group.members
        ]
        print_table(table, group.heading)
    print("Perplexity on held-out text, the best first; 'runs show ID' shows all results of a run.")
    print("Against the best: change of the mean, with its 95% interval, paired by block of the text.")
    if len(comparable) > 1:
        print("The tables differ in model, text or block length: do not compare numbers of different tables.")
    if excluded:
        print(f"Left out: {count_reasons(excluded)}.")


def _rises(group: Group) -> dict[str, Rise]:
    """How much more each run of a group loses than the best one, by run id."""
    best, *others = group.members
    return {each.run.id: rise for each in others if (rise := each.rise(best))}


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
            run_id: {**rise.model_dump(), "interval": rise.interval, "within_noise": rise.is_noise}
            for run_id, rise in _rises(group).items()
        },
    }
