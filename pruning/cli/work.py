"""Commands that calibrate, score, prune and measure."""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from pruning.cli.arguments import check_code, run_config
from pruning.cli.terminal import (
    ProgressBar,
    console,
    import_torch,
    print_json,
    results_table,
    table,
    tell_sources,
)
from pruning.config import RunConfig
from pruning.errors import CalibrationError, ConfigError
from pruning.formatting import number, quoted, sentence
from pruning.runs.run import RunStore

if TYPE_CHECKING:
    from pruning.measure.zeroshot import TaskResult


def prune(args: argparse.Namespace) -> int:
    """Prune a model and say what it cost."""
    from pruning.engine.floors import warnings
    from pruning.runs.worker import prune

    config = run_config(args)
    config = config.replace(ratio=_ratio(args, config))
    bar = ProgressBar(config.iterations, quiet=args.json)
    with bar.bar:
        result = prune(config, args.runs, bar)
    if args.json:
        print_json({**result.summary.model_dump(), "path": str(result.run.path)})
        return 0
    out = console()
    out.print(results_table(result.summary))
    ratio = result.summary.achieved_ratio
    out.print(
        f"{100 * ratio:.2f}% of the decoder layers' linear parameters removed in "
        f"{config.iterations} iteration{'s' * (config.iterations > 1)}, {result.summary.seconds:.1f} s."
    )
    out.print(f"The run is in {result.run.path}", highlight=False, soft_wrap=True)
    first = result.run.iterations()[1:2]
    for warning in warnings(result.mask, first[0].scores, config) if first else ():
        print(f"Warning: {warning}", file=sys.stderr)
    return 0


def _ratio(args: argparse.Namespace, config: RunConfig) -> float:
    """The ratio that was given, or that reaches the size or the speed that was."""
    from pruning.engine.speed_target import time_ratios
    from pruning.engine.targets import ratio_for_parameters
    from pruning.models.folder import describe
    from pruning.models.loading import load
    from pruning.progress import drain

    targets = {"--max-parameters": args.max_parameters, "--min-speed": args.min_speed}
    given = [name for name, value in targets.items() if value] + ["--ratio"] * hasattr(args, "ratio")
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} each set how much is removed: give only one of them.")
    if args.max_parameters:
        return ratio_for_parameters(describe(config.model), args.max_parameters)
    if not args.min_speed:
        return config.ratio
    loaded = load(config.model, config.device, config.dtype, config.trust_remote_code)
    bar = ProgressBar(1, quiet=args.json)
    with bar.bar:
        timing = drain(time_ratios(loaded), bar)
    ratio = timing.ratio(args.min_speed)
    print(
        f"On this machine {args.min_speed:,.0f} tokens per second need a pruning ratio of {ratio:.2%}.",
        file=sys.stderr,
    )
    return ratio


def _calibrated(args: argparse.Namespace) -> tuple[RunConfig, Any, Any, dict[str, Any], float]:
    """Statistics and weight norms of a dense model, with what was calibrated and the seconds it took."""
    import_torch()
    from pruning.engine.blocks import calibration_blocks
    from pruning.engine.calibration import calibrate_cached, column_norms
    from pruning.engine.loop import state_of
    from pruning.models.layer_view import geometry
    from pruning.models.loading import load
    from pruning.models.mask import Mask
    from pruning.progress import drain
    from pruning.runs.preflight import check, mixture_notices

    config = run_config(args)
    for words in mixture_notices(set(config.domains) - set(config.mixture), measured=False):
        print(sentence(words), file=sys.stderr)
    check(config)
    loaded = load(config.model, config.device, config.dtype, config.trust_remote_code)
    blocks = calibration_blocks(config, loaded.tokenizer, loaded.model)
    if not args.json:
        tell_sources({b.domain: b.source for b in blocks})
    mask = Mask.full(geometry(loaded.model))
    began = time.monotonic()
    bar = ProgressBar(1, quiet=args.json)
    with bar.bar:
        statistics = drain(
            calibrate_cached(loaded.model, blocks, mask, state_of(loaded), config.token_weights), bar
        )
    seconds = time.monotonic() - began
    sources = {b.domain: {"blocks": len(b.ids), "tokens": int(b.ids.size), **b.source} for b in blocks}
    return config, statistics, (mask, column_norms(loaded.model, mask)), sources, seconds


def calibrate(args: argparse.Namespace) -> int:
    """Collect the calibration statistics of a dense model and cache them."""
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
    out.print(f"{channels:,} channels at {sites} sites, {seconds:.2f} s; the statistics are cached.")
    return 0


def score(args: argparse.Namespace) -> int:
    """Score the channels of a dense model."""
    import numpy as np

    from pruning.method.scores import score_sites
    from pruning.outputs import check_output_file

    if args.out:
        check_output_file(args.out)
    config, statistics, (_, norms), _, seconds = _calibrated(args)
    scores = score_sites(
        config.score,
        statistics.fuse(config.mixture, config.fusion, worst_domain=config.worst_domain),
        norms,
        config.seed,
    )
    if args.out:
        from safetensors.numpy import save_file

        from pruning.outputs import output_file

        with output_file(args.out) as temporary:
            save_file({str(site): values for site, values in scores.items()}, temporary)
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


def evaluate(args: argparse.Namespace) -> int:
    """Perplexity of a model by domain, and accuracy by task."""
    import_torch()
    from pruning.engine.blocks import evaluation_blocks
    from pruning.engine.loop import state_of
    from pruning.measure.comparison import mean_perplexity
    from pruning.measure.perplexity import perplexity_cached
    from pruning.measure.tasks import check_tasks
    from pruning.measure.zeroshot import METRICS, zero_shot
    from pruning.models.loading import load
    from pruning.progress import drain

    config = run_config(args)
    check_tasks(config.tasks, config.task_data, config.task_folder)
    if config.eval_blocks == 0 and not config.tasks:
        raise ConfigError(
            "there is nothing to evaluate: --eval-blocks is 0 and no --tasks are named: set one of them."
        )
    loaded = load(config.model, config.device, config.dtype, config.trust_remote_code)
    blocks = evaluation_blocks(config, loaded.tokenizer, loaded.model)
    if not args.json:
        tell_sources({b.domain: b.source for b in blocks})
    bar = ProgressBar(1, quiet=args.json)
    with bar.bar:
        state = state_of(loaded)
        values = drain(perplexity_cached(loaded.model, blocks, state), bar)
        where: dict[str, Any] = {"data": config.task_data, "include": config.task_folder}
        where["limit"] = config.task_limit
        accuracies = drain(zero_shot(loaded, config.tasks, state, **where), bar) if config.tasks else {}
    if broken := next((name for name, p in values.items() if math.isnan(p.nll)), None):
        raise CalibrationError(
            f"the model gives no numbers (NaN) on domain {quoted(broken)}: its weights are broken, or it "
            "needs another --dtype."
        )
    mean = mean_perplexity({name: p.value for name, p in values.items()}) if values else None
    if args.json:
        rows = {n: {"perplexity": p.value, **p.to_dict()} for n, p in values.items()}
        tasks = {
            name: {"items": r.items, "limit": r.limit, "version": r.version}
            | {m: {"value": r.accuracy[m], "standard_error": r.standard_error(m)} for m in r.accuracy}
            for name, r in accuracies.items()
        }
        weight = next(loaded.model.parameters())
        computed = {"device": weight.device.type, "dtype": str(weight.dtype).removeprefix("torch.")}
        print_json({"model": config.model, **computed, "domains": rows, "mean": mean, "tasks": tasks})
        return 0
    if values:
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


def experiment(args: argparse.Namespace) -> int:
    """Carry out a grid of runs and write its report."""
    from pruning.experiments.grid import Experiment, carry_out, describe, folder
    from pruning.experiments.report import report

    experiment, store = Experiment.read(args.file), RunStore(args.runs)
    check_code(experiment.configs(), f"the experiment {quoted(args.file)}", args.yes)
    began = time.monotonic()

    def announce(number: int, total: int, config: RunConfig) -> None:
        print(f"{number}/{total}  {describe(experiment, config)}", file=sys.stderr)

    runs, problems = carry_out(experiment, store, announce)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not runs:
        raise ConfigError(
            f"no run of the experiment {experiment.name!r} could be carried out: see the reason of each on "
            "standard error."
        )
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
