"""The command line. `python -m pruning prune` and no more prunes the demo model by the paper's method.

Tables are for people; `--json` prints one JSON object for machines. A person's mistake is answered by one
sentence on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pruning import config as options
from pruning.config import FORMATS, METHODS, ConfigError, PruningError, RunConfig, parse_mixture
from pruning.runs import RUN_ID, Run, RunStore
from pruning.terminal import ProgressBar, console, number, print_json, results_table, size_text, table
from pruning.worker import Cancelled, out_of_memory

if TYPE_CHECKING:
    from pruning.zeroshot import TaskResult

# option, field of RunConfig, how to read it, choices
_OPTIONS: list[tuple[str, str, Callable[[str], Any], tuple[str, ...] | None]] = [
    ("--model", "model", str, None),
    ("--method", "method", str, tuple(METHODS)),
    ("--ratio", "ratio", float, None),
    ("--iterations", "iterations", int, None),
    ("--mixture", "mixture", parse_mixture, None),
    ("--samples", "samples", int, None),
    ("--seq-len", "seq_len", int, None),
    ("--seed", "seed", int, None),
    ("--fusion", "fusion", str, get_args(options.Fusion)),
    ("--score", "score", str, get_args(options.Score)),
    ("--normalise", "normalise", str, get_args(options.Normalise)),
    ("--unit-score", "unit_score", str, get_args(options.UnitScore)),
    ("--allocation", "allocation", str, get_args(options.Allocation)),
    ("--attention-unit", "attention_unit", str, get_args(options.AttentionUnit)),
    ("--round-to", "round_to", int, None),
    ("--schedule", "schedule", str, get_args(options.Schedule)),
    ("--compensation", "compensation", str, get_args(options.Compensation)),
    ("--tasks", "tasks", lambda text: tuple(filter(None, text.split(","))), None),
    ("--task-data", "task_data", str, None),
    ("--task-folder", "task_folder", str, None),
    ("--limit", "task_limit", int, None),
    ("--device", "device", str, None),
    ("--dtype", "dtype", str, get_args(options.Dtype)),
    ("--eval-blocks", "eval_blocks", int, None),
]


class _Parser(argparse.ArgumentParser):
    """argparse with the house's errors: one sentence, exit code 2."""

    def error(self, message: str) -> Any:
        print(
            f"{message[:1].upper() + message[1:]}. '{self.prog} --help' lists the options.", file=sys.stderr
        )
        raise SystemExit(2)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that make a `RunConfig`; what is not given comes from the config file or the preset."""
    for flag, field, kind, choices in _OPTIONS:
        parser.add_argument(
            flag,
            dest=field,
            type=kind,
            choices=choices,
            metavar=None if choices else field.upper(),
            help=RunConfig.model_fields[field].description,
        )
    parser.add_argument(
        "--square-attention",
        action=argparse.BooleanOptionalAction,
        help=RunConfig.model_fields["square_attention"].description,
    )
    parser.add_argument(
        "--domain",
        action="append",
        metavar="NAME=SOURCE",
        help="a domain's text: a text, JSON Lines or Parquet file, or hub:NAME; may be repeated",
    )
    parser.add_argument("--keep", nargs="+", metavar="WHERE", help=RunConfig.model_fields["keep"].description)
    parser.add_argument("--remove", nargs="+", metavar="WHERE", help="cut first, in the notation of --keep")
    parser.add_argument(
        "--config", metavar="FILE", help="JSON or YAML with these options, such as a run's config.json"
    )


def run_config(args: argparse.Namespace, **changes: Any) -> RunConfig:
    """The config that the arguments mean: file first, then options, then `changes`.

    Raises:
        ConfigError: an option cannot be carried out.
    """
    given = {field: getattr(args, field, None) for field in RunConfig.model_fields}
    given = {field: value for field, value in given.items() if value is not None}
    domains = {}
    for item in getattr(args, "domain", None) or []:
        name, separator, source = item.partition("=")
        if not (separator and name and source):
            raise ConfigError(f"cannot read --domain {item!r}: write NAME=PATH or NAME=hub:ID.")
        domains[name] = source
    base: dict[str, Any] = {}
    if args.config:
        base = RunConfig.read(args.config).model_dump(exclude_unset=True)
        if "method" in given and given["method"] != base.get("method"):
            base = {
                key: value
                for key, value in base.items()
                if key not in METHODS[base.get("method", "iterative")]
            }
    if domains:
        given["domains"] = {**base.get("domains", {}), **domains}
    changes = {field: value for field, value in changes.items() if value is not None}
    return RunConfig.create(**{**base, **given, **changes})


# --- commands --------------------------------------------------------------------------------------------


def _prune(args: argparse.Namespace) -> int:
    from pruning.worker import prune

    config = run_config(args)
    bar = ProgressBar(config.iterations, quiet=args.json)
    with bar.bar:
        result = prune(config, args.out, bar)
    if args.json:
        print_json({**result.summary, "path": str(result.run.path)})
        return 0
    out = console()
    out.print(results_table(result.summary))
    ratio = result.summary["achieved_ratio"]
    out.print(
        f"{100 * ratio:.2f}% of the decoder layers' linear parameters removed in "
        f"{config.iterations} iteration{'s' * (config.iterations > 1)}, {result.summary['seconds']:.1f} s."
    )
    out.print(f"The run is in {result.run.path}", highlight=False, soft_wrap=True)
    return 0


def _calibrated(args: argparse.Namespace) -> tuple[RunConfig, Any, Any, dict[str, Any], float]:
    """Statistics and weight norms of a dense model, with what was calibrated and the seconds it took."""
    from pruning.calibration import calibrate_cached, column_norms
    from pruning.engine import calibration_blocks, drain, state_of
    from pruning.masks import Mask
    from pruning.models import load
    from pruning.sites import geometry
    from pruning.worker import check

    config = run_config(args)
    check(config)
    loaded = load(config.model, config.device, config.dtype)
    blocks = calibration_blocks(config, loaded.tokenizer, loaded.model)
    mask = Mask.full(geometry(loaded.model))
    began = time.monotonic()
    bar = ProgressBar(1, quiet=args.json)
    with bar.bar:
        statistics = drain(calibrate_cached(loaded.model, blocks, mask, state_of(loaded)), bar)
    seconds = time.monotonic() - began
    sources = {b.domain: {"blocks": len(b.ids), "tokens": int(b.ids.size), **b.source} for b in blocks}
    return config, statistics, (mask, column_norms(loaded.model, mask)), sources, seconds


def _calibrate(args: argparse.Namespace) -> int:
    config, statistics, (mask, _), sources, seconds = _calibrated(args)
    sites = len(mask.geometry.sites)
    channels = sum(mask.geometry.channels(site) for site in mask.geometry.sites)
    if args.json:
        content = {"model": config.model, "domains": sources, "sites": sites, "channels": channels}
        print_json({**content, "seconds": seconds})
        return 0
    cells = [
        (name, str(source["blocks"]), f"{source['tokens']:,}", f"{config.mixture[name]:.2f}")
        for name, source in sources.items()
    ]
    out = console()
    out.print(table(("domain", "blocks", "tokens", "share"), cells, f"statistics of {config.model}"))
    out.print(f"{channels:,} channels at {sites} sites, {seconds:.2f} s; kept for the next look.")
    return 0


def _score(args: argparse.Namespace) -> int:
    import numpy as np

    from pruning.scores import score_sites

    config, statistics, (_, norms), _, seconds = _calibrated(args)
    scores = score_sites(config.score, statistics.fuse(config.mixture, config.fusion), norms, config.seed)
    if args.out:
        from safetensors.numpy import save_file

        from pruning.runs import writing

        with writing(args.out):
            save_file({str(site): values for site, values in scores.items()}, args.out)
    rows: list[dict[str, Any]] = [
        {
            "site": str(site),
            "channels": len(values),
            "median": float(np.median(values)),
            "max": float(values.max()),
            "top_tenth_share": float(
                np.sort(values)[-max(1, len(values) // 10) :].sum() / (values.sum() or 1.0)
            ),
            "top_channel": int(values.argmax()),
        }
        for site, values in scores.items()
    ]
    if args.json:
        print_json({"model": config.model, "score": config.score, "sites": rows, "seconds": seconds})
        return 0
    cells = [
        (
            row["site"],
            f"{row['channels']:,}",
            f"{row['median']:.3g}",
            f"{row['max']:.3g}",
            f"{100 * row['top_tenth_share']:.0f}%",
            str(row["top_channel"]),
        )
        for row in rows
    ]
    columns = ("site", "channels", "median", "max", "top tenth carries", "top channel")
    console().print(table(columns, cells, f"{config.score} of {config.model}"))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from pruning.engine import drain, evaluation_blocks, state_of
    from pruning.evaluation import mean_perplexity, perplexity_cached
    from pruning.models import load
    from pruning.tasks import check_tasks
    from pruning.zeroshot import METRICS, zero_shot

    config = run_config(args, model=_model_of(args))
    check_tasks(config.tasks, config.task_data, config.task_folder)
    loaded = load(config.model, config.device, config.dtype)
    blocks = evaluation_blocks(config, loaded.tokenizer, loaded.model)
    if not blocks:
        raise ConfigError("there is nothing to evaluate on: --eval-blocks is 0.")
    bar = ProgressBar(1, quiet=args.json)
    with bar.bar:
        state = state_of(loaded)
        values = drain(perplexity_cached(loaded.model, blocks, state), bar)
        where: dict[str, Any] = {"data": config.task_data, "include": config.task_folder}
        where["limit"] = config.task_limit
        accuracies = drain(zero_shot(loaded, config.tasks, state, **where), bar) if config.tasks else {}
    mean = mean_perplexity({name: p.value for name, p in values.items()})
    if args.json:
        rows = {n: {"perplexity": p.value, **p.to_dict()} for n, p in values.items()}
        tasks = {
            name: {"items": r.items, "limit": r.limit, "version": r.version}
            | {m: {"value": r.accuracy[m], "standard_error": r.standard_error(m)} for m in r.accuracy}
            for name, r in accuracies.items()
        }
        print_json({"model": config.model, "domains": rows, "mean": mean, "tasks": tasks})
        return 0
    cells = [
        (name, number(p.value), f"{p.bits_per_byte:.3f}" if p.bits_per_byte else "-", f"{p.tokens:,}")
        for name, p in values.items()
    ]
    cells.append(("mean (geometric)", number(mean), "", ""))
    title = f"perplexity of {config.model}, blocks of {config.seq_len}"
    console().print(table(("domain", "perplexity", "bits per byte", "tokens"), cells, title))
    if accuracies:
        answers = [
            (
                name,
                *(_accuracy(result, metric) for metric in METRICS),
                f"first {result.limit}" if result.limit else f"{result.items}",
            )
            for name, result in accuracies.items()
        ]
        console().print(table(("task", *METRICS, "items"), answers, "zero-shot accuracy"))
    return 0


def _accuracy(result: TaskResult, metric: str) -> str:
    if metric not in result.accuracy:
        return ""
    return f"{100 * result.accuracy[metric]:.1f} ± {100 * result.standard_error(metric):.1f}"


def _model_of(args: argparse.Namespace) -> str | None:
    """What `evaluate` is to look at: a model, or the checkpoint of a run given by its id."""
    return str(RunStore(args.out).get(args.run_id).checkpoint) if args.run_id else args.model


def _source(name: str, store: str | None) -> str:
    """A model by its name, or the checkpoint of a run by its id."""
    if name[:8].isdigit() and "/" not in name and not Path(name).exists():
        return str(RunStore(store).get(name).checkpoint)
    return name


def _export(args: argparse.Namespace) -> int:
    from pruning.export import export
    from pruning.model_files import locate

    source = locate(_source(args.source, args.runs))
    out = args.out
    if out is None:
        if source.name != "model" or not RUN_ID.fullmatch(source.parent.name):
            raise ConfigError(f"{args.source!r} is no run: say with --out which folder to write.")
        out = source.parent / "exports" / args.format
    done = export(source, args.format, out, args.type, verify=args.verify)
    if args.json:
        content = {"path": str(done.path), "format": args.format, "architecture": done.home.architecture}
        print_json(content | {"bytes": done.bytes, "difference": done.difference, "snippet": done.snippet})
        return 0
    print(f"{done.home.architecture}, {size_text(done.bytes)}, in {done.path}")
    print(f"Loads in {done.home.loads_in}.")
    if done.difference is not None:
        print(f"Loaded again: the largest difference of a logit is {done.difference:.2g}.")
    elif args.verify:
        print("Read again: names, shapes and values are the checkpoint's, to within the type.")
    print(f"\n{done.snippet}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    from pruning.bench import bench, size
    from pruning.engine import drain
    from pruning.models import load

    models = [load(_source(name, args.runs), args.device, args.dtype) for name in args.models]
    names = [Path(name).name for name in args.models]
    models = [replace(model, name=name) for model, name in zip(models, names, strict=True)]
    sizes = [size(model) for model in models]
    bar = ProgressBar(1, quiet=args.json)
    with bar.bar:
        found = drain(bench(models, args.batch, args.lengths, args.new_tokens, args.repeats), bar)
    if args.json:
        print_json(
            {
                "models": [{"model": m.name, **asdict(s)} for m, s in zip(models, sizes, strict=True)],
                "speed": [m.to_dict() for m in found],
                "device": str(models[0].model.device),
                "dtype": str(models[0].model.dtype).removeprefix("torch."),
            }
        )
        return 0
    rows = [
        (
            m.name,
            f"{s.parameters:,}",
            f"{s.linear_parameters:,}",
            size_text(s.file_bytes),
            size_text(s.memory_bytes),
            size_text(s.cache_bytes),
        )
        for m, s in zip(models, sizes, strict=True)
    ]
    header = ("model", "parameters", "in the layers", "file", "memory", "cache of a token")
    console().print(table(header, rows, "size"))
    first = {(m.batch, m.length): m for m in reversed(found) if m.model == names[0]}
    cells = []
    for m in found:
        against = first[m.batch, m.length]
        cells.append(
            (
                m.model,
                str(m.batch),
                str(m.length),
                f"{m.prefill.median:,.0f} ({m.prefill.lowest:,.0f} to {m.prefill.highest:,.0f})",
                f"{m.prefill.median / against.prefill.median:.2f}",
                f"{m.decode.median:,.0f} ({m.decode.lowest:,.0f} to {m.decode.highest:,.0f})",
                f"{m.decode.median / against.decode.median:.2f}",
            )
        )
    columns = ("model", "batch", "length", "prefill, tokens/s", "times", "decode, tokens/s", "times")
    console().print(table(columns, cells, f"speed on {models[0].model.device}, median and range"))
    return 0


def _experiment(args: argparse.Namespace) -> int:
    from pruning.experiment_report import report
    from pruning.experiments import Experiment, carry_out, describe, folder

    experiment, store = Experiment.read(args.file), RunStore(args.runs)
    began = time.monotonic()

    def announce(number: int, total: int, config: RunConfig) -> None:
        print(f"{number}/{total}  {describe(experiment, config)}", file=sys.stderr)

    runs, problems = carry_out(experiment, store, announce)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not runs:
        raise ConfigError(f"no run of {experiment.name!r} could be carried out.")
    target = folder(store, experiment.name)
    try:
        path = report(target)
    except (ImportError, RuntimeError, ValueError, OSError):  # drawing needs kaleido and a Chromium
        path = report(target, figures=False)
    seconds = time.monotonic() - began
    if args.json:
        content = {"experiment": experiment.name, "runs": [run.id for run in runs], "problems": problems}
        print_json({**content, "report": str(path), "seconds": seconds})
    else:
        print(f"{len(runs)} runs, {seconds:.0f} s. The report is {path}")
    return 1 if problems else 0


def _generate(args: argparse.Namespace) -> int:
    import torch

    from pruning.models import load

    if not args.prompt.strip():
        raise ConfigError("the prompt is empty: write a few words for the models to go on from.")
    found = []
    for name in args.models:
        loaded = load(_source(name, args.runs), args.device, args.dtype)
        inputs = loaded.tokenizer(args.prompt, return_tensors="pt").to(loaded.model.device)
        room = loaded.model.config.max_position_embeddings - inputs.input_ids.shape[1]
        if room < 1:
            raise ConfigError(f"the prompt is longer than the context of {name!r}: shorten it.")
        torch.manual_seed(args.seed)
        sampling: dict[str, Any] = {"do_sample": args.temperature > 0}
        if args.temperature > 0:
            sampling |= {"temperature": args.temperature, "top_p": 0.95}
        began = time.perf_counter()
        with torch.no_grad():
            ids = loaded.model.generate(
                **inputs,
                max_new_tokens=min(args.tokens, room),
                pad_token_id=loaded.tokenizer.pad_token_id or loaded.tokenizer.eos_token_id,
                **sampling,
            )[0, inputs.input_ids.shape[1] :]
        seconds = time.perf_counter() - began
        text = loaded.tokenizer.decode(ids, skip_special_tokens=True)
        found.append({"model": name, "text": text, "tokens": len(ids), "seconds": seconds})
    if args.json:
        print_json({"prompt": args.prompt, "continuations": found})
        return 0
    for row in found:
        print(f"--- {row['model']}, {row['tokens']} tokens in {row['seconds']:.1f} s")
        print(args.prompt + row["text"] + "\n")
    return 0


def _count(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(_count, text.split(",")))


def _run_row(run: Run) -> dict[str, Any]:
    status, results = run.status(), run.results()
    mean = results.get("perplexity", {}).get("mean", {})
    return {
        "run_id": run.id,
        "state": status["state"],
        "model": run.config.model,
        "method": run.config.method,
        "ratio": results.get("achieved_ratio", run.config.ratio),
        "iterations": run.config.iterations,
        "mixture": run.config.mixture,
        "seed": run.config.seed,
        "parameters": results.get("parameters", {}),
        "perplexity": {name: v["pruned"] for name, v in results.get("perplexity", {}).items()},
        "dense_mean": mean.get("dense"),
        "seconds": results.get("seconds"),
        "message": status.get("message", ""),
    }


def _runs_list(args: argparse.Namespace) -> int:
    rows = [_run_row(run) for run in RunStore(args.out).all()]
    if args.json:
        print_json({"runs": rows})
    elif rows:
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
    else:
        print(f"There are no runs in {RunStore(args.out).root}: 'prune' makes one.")
    return 0


def _runs_show(args: argparse.Namespace) -> int:
    run = RunStore(args.out).get(args.run_id)
    if args.json:
        content = {
            "config": run.config.model_dump(mode="json"),
            "status": run.status(),
            "results": run.results(),
        }
        print_json({"run_id": run.id, **content})
        return 0
    out = console()
    out.print_json(json.dumps(run.config.model_dump(mode="json")))
    if results := run.results():
        out.print(results_table(results))
    status = run.status()
    out.print(f"{status['state']}  {status.get('message', '')}", markup=False)
    return 0


def _runs_cancel(args: argparse.Namespace) -> int:
    run = RunStore(args.out).get(args.run_id)
    if not run.active:
        raise ConfigError(f"run {run.id!r} is not at work: it is {run.status()['state']}.")
    run.cancel()
    deadline = time.monotonic() + 15
    while run.active and time.monotonic() < deadline:
        time.sleep(0.2)
    return _say(args, run, run.status()["state"])


def _runs_resume(args: argparse.Namespace) -> int:
    from pruning.worker import execute

    run = RunStore(args.out).get(args.run_id)
    run.check_startable()
    bar = ProgressBar(run.config.iterations, quiet=args.json)
    with bar.bar:
        result = execute(run, bar)
    if args.json:
        print_json(result.summary)
    else:
        console().print(results_table(result.summary))
    return 0


def _runs_delete(args: argparse.Namespace) -> int:
    store = RunStore(args.out)
    run = store.get(args.run_id)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"deleting {run.id!r} cannot be undone: say --yes.")
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


def _compare(args: argparse.Namespace) -> int:
    store = RunStore(args.out)
    rows = [_run_row(run) for run in ([store.get(i) for i in args.run_ids] or store.all())]
    rows = [row for row in rows if row["perplexity"]]
    if not rows:
        raise ConfigError(f"there are no finished runs to compare in {str(store.root)!r}.")
    rows.sort(
        key=lambda row: (row["model"], round(row["ratio"], 2), row["perplexity"].get("mean") or float("inf"))
    )
    if args.json:
        print_json({"runs": rows})
        return 0
    domains = list(dict.fromkeys(name for row in rows for name in row["perplexity"]))
    cells = [
        (
            row["run_id"],
            f"{row['ratio']:.0%}",
            str(row["iterations"]),
            *(number(row["perplexity"].get(name), 1) for name in domains),
        )
        for row in rows
    ]
    out = console()
    out.print(table(("run", "ratio", "K", *domains), cells))
    out.print("Perplexity after pruning; 'runs show ID' tells the rest.", highlight=False)
    return 0


# --- the parser ------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(prog="python -m pruning", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, within: Any = commands
    ) -> argparse.ArgumentParser:
        sub = within.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.set_defaults(run=run)
        return sub

    store: dict[str, Any] = {"metavar": "FOLDER", "help": "folder that holds the runs (default: runs)"}
    sub = command("prune", _prune, "Prune a model and say what it cost.")
    add_run_options(sub)
    sub.add_argument("--out", **store)
    add_run_options(command("calibrate", _calibrate, "Take the statistics of a dense model and keep them."))
    sub = command("score", _score, "Score the channels of a dense model.")
    add_run_options(sub)
    sub.add_argument("--out", metavar="FILE", help="write the scores of every channel as safetensors")
    sub = command("evaluate", _evaluate, "Perplexity of a model by domain.")
    add_run_options(sub)
    sub.add_argument("--run", dest="run_id", metavar="ID", help="evaluate the pruned model of this run")
    sub.add_argument("--out", **store)
    sub = command("experiment", _experiment, "Carry out a grid of runs and write its report.")
    sub.add_argument("file", metavar="FILE", help="YAML, such as experiments/demo_iterations.yaml")
    sub.add_argument("--runs", **store)
    sub = command("export", _export, "Write a pruned model so that other programs load it.")
    sub.add_argument("source", metavar="RUN|FOLDER", help="a run's id, or the folder of a model")
    sub.add_argument("--format", choices=FORMATS, default="hf", help="default: hf")
    sub.add_argument(
        "--type", metavar="TYPE", help="of the weights: f32, f16, bf16, q8_0 (default: as stored)"
    )
    sub.add_argument("--out", metavar="FOLDER", help="what to write (default: within the run)")
    sub.add_argument("--runs", **store)
    sub.add_argument(
        "--verify", action=argparse.BooleanOptionalAction, default=True, help="load it and compare"
    )
    sub = command("generate", _generate, "Let models go on from the same prompt.")
    sub.add_argument("prompt", metavar="PROMPT")
    sub.add_argument("--models", nargs="+", default=["demo"], metavar="MODEL", help="as for bench")
    sub.add_argument("--tokens", type=int, default=60, metavar="N", help="at most (default: 60)")
    sub.add_argument("--temperature", type=float, default=0.7, metavar="T", help="0 takes the likeliest")
    sub.add_argument("--seed", type=int, default=0, metavar="N")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    sub.add_argument("--dtype", default="auto", choices=get_args(options.Dtype))
    sub.add_argument("--runs", **store)
    sub = command("bench", _bench, "Size, memory and speed of models, measured turn by turn.")
    sub.add_argument("models", nargs="+", metavar="MODEL", help="demo, a folder, a hub id, or a run's id")
    sub.add_argument("--batch", type=_counts, default=(1, 8), metavar="N,N", help="sequences at once")
    sub.add_argument(
        "--lengths",
        type=_counts,
        metavar="N,N",
        help="tokens of a prompt (default: 128,512 as far as the context goes)",
    )
    sub.add_argument(
        "--new-tokens", type=_count, default=16, metavar="N", help="written in a repeat of decode"
    )
    sub.add_argument("--repeats", type=_count, default=5, metavar="N", help="counted rounds (default: 5)")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    sub.add_argument("--dtype", default="auto", choices=get_args(options.Dtype))
    sub.add_argument("--runs", **store)
    runs = commands.add_parser("runs", help="List, show, cancel, resume and delete runs.").add_subparsers(
        dest="runs_command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    for name, run, text in (
        ("list", _runs_list, "List the runs, the newest first."),
        ("show", _runs_show, "Show a run."),
        ("cancel", _runs_cancel, "Stop a run; it can be resumed."),
        ("resume", _runs_resume, "Go on with a run after its last complete iteration."),
        ("delete", _runs_delete, "Delete a run."),
    ):
        sub = command(name, run, text, runs)
        if name != "list":
            sub.add_argument("run_id", metavar="ID", help="a run's id, or the beginning of one")
        if name == "delete":
            sub.add_argument("--yes", action="store_true", help="do not ask")
        sub.add_argument("--out", **store)
    sub = command("compare", _compare, "Compare finished runs, the best first.")
    sub.add_argument("run_ids", nargs="*", metavar="ID", help="runs to compare (default: all)")
    sub.add_argument("--out", **store)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    os.environ.setdefault(
        "TQDM_DISABLE", "1"
    )  # before the libraries that read it: their bars would break ours
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except PruningError as error:
        print(f"{str(error)[:1].upper()}{str(error)[1:]}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Cancelled):
        print("Stopped; 'runs list' shows the run and 'runs resume ID' goes on.", file=sys.stderr)
        return 130
    except Exception as error:
        if problem := out_of_memory(error):
            print(f"{problem[:1].upper()}{problem[1:]}", file=sys.stderr)
            return 2
        raise
