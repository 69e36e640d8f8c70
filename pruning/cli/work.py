"""Commands that calibrate, score, prune and evaluate."""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from pruning.cli.arguments import (
    amount,
    check_code,
    command,
    option,
    run_config,
    run_options,
    switch,
)
from pruning.cli.terminal import (
    ProgressBar,
    import_torch,
    print_json,
    print_results,
    print_sources,
    print_table,
    show_progress,
)
from pruning.config import RunConfig
from pruning.errors import CalibrationError, ConfigError
from pruning.formatting import number, quoted, sentence

if TYPE_CHECKING:
    from pruning.measure.tasks import TaskResult
    from pruning.models.geometry import Geometry
    from pruning.text.blocks import TokenBlocks

RESUMABLE = "Stopped: a run that has begun is in 'runs list', and 'runs resume ID' continues it."
# Fields of `RunConfig` that decide the statistics of a dense model.
_STATISTICS = (
    *("model", "method", "mixture", "samples", "seq_len", "token_weights"),
    *("seed", "device", "dtype", "trust_remote_code"),
)


@command(
    "prune",
    *run_options(*(name for name in RunConfig.model_fields if name != "domains")),
    option(
        "--max-parameters",
        "instead of --ratio: prune the whole model to at most N parameters, such as 100M",
        type=amount,
        metavar="N",
    ),
    option(
        "--min-speed",
        "instead of --ratio: prune until the model generates N tokens per second, timed on this machine",
        type=amount,
        metavar="N",
    ),
    stopped=RESUMABLE,
)
def prune(args: argparse.Namespace) -> None:
    """Prune a model and measure what that costs."""
    from pruning.engine.budget import warnings
    from pruning.runs.worker import prune

    config = run_config(args)
    config = config.replace(ratio=_ratio(args, config))
    bar = ProgressBar(config.iterations, quiet=args.json)
    with bar.bar:
        result = prune(config, args.store.root, bar)
    if args.json:
        print_json({**result.summary.model_dump(), "path": str(result.run.path)})
        return
    print_results(result.summary)
    print(
        f"{100 * result.summary.achieved_ratio:.2f}% of the decoder layers' linear parameters removed in "
        f"{config.iterations} iteration{'s' * (config.iterations > 1)}, {result.summary.seconds:.1f} s."
    )
    print(f"The run is in {result.run.path}")
    first = result.run.iterations()[1:2]
    for warning in warnings(result.mask, first[0].scores, config) if first else ():
        print(f"Warning: {warning}", file=sys.stderr)


def _ratio(args: argparse.Namespace, config: RunConfig) -> float:
    """The pruning ratio that was given, or the one that reaches the size or the speed that was given."""
    from pruning.engine.targets import ratio_for_parameters, time_ratios
    from pruning.models.folder import describe
    from pruning.models.loading import load

    targets = {"--max-parameters": args.max_parameters, "--min-speed": args.min_speed}
    flags = [name for name, value in targets.items() if value] + ["--ratio"] * hasattr(args, "ratio")
    if len(flags) > 1:
        raise ConfigError(f"{' and '.join(flags)} each set how much is removed: give only one of them.")
    if args.max_parameters:
        return ratio_for_parameters(describe(config.model), args.max_parameters)
    if not args.min_speed:
        return config.ratio
    loaded = load(config.model, config.device, config.dtype, config.trust_remote_code)
    ratio = show_progress(time_ratios(loaded), args.json).ratio(args.min_speed)
    print(
        f"On this machine {args.min_speed:,.0f} tokens per second need a pruning ratio of {ratio:.2%}.",
        file=sys.stderr,
    )
    return ratio


def _calibrated(args: argparse.Namespace) -> tuple[RunConfig, list[TokenBlocks], Geometry, Any, Any, float]:
    """Config, blocks, geometry, statistics, weight norms and seconds of a calibration pass."""
    import_torch()
    from pruning.engine.blocks import calibration_blocks
    from pruning.engine.calibration import calibrate_cached
    from pruning.engine.loop import state_of
    from pruning.models.layer_view import geometry
    from pruning.models.loading import load
    from pruning.models.mask import Mask
    from pruning.runs.preflight import check, mixture_notices

    config = run_config(args).replace(ratio=0.0)  # nothing is cut, so no ratio is out of reach
    for notice in mixture_notices(config, measured=False):
        print(sentence(notice), file=sys.stderr)
    check(config)
    loaded = load(config.model, config.device, config.dtype, config.trust_remote_code)
    blocks = calibration_blocks(config, loaded.tokenizer, loaded.model)
    if not args.json:
        print_sources({b.domain: b.source for b in blocks})
    mask = Mask.full(geometry(loaded.model))
    began = time.monotonic()
    source = loaded.source
    stage = calibrate_cached(source, blocks, mask, state_of(loaded), config.token_weights)
    statistics, norms = show_progress(stage, args.json)
    seconds = time.monotonic() - began
    return config, blocks, mask.geometry, statistics, norms, seconds


@command("calibrate", *run_options(*_STATISTICS))
def calibrate(args: argparse.Namespace) -> None:
    """Collect the calibration statistics of a dense model and cache them."""
    config, blocks, shapes, _, _, seconds = _calibrated(args)
    sites, channels = len(shapes.sites), sum(map(shapes.channels, shapes.sites))
    if args.json:
        sources = {b.domain: {"blocks": len(b.ids), "tokens": int(b.ids.size), **b.source} for b in blocks}
        content = {"model": config.model, "domains": sources, "sites": sites, "channels": channels}
        print_json({**content, "seconds": seconds})
        return
    rows = [
        {"domain": b.domain, "blocks": len(b.ids), "tokens": b.ids.size, "share": config.mixture[b.domain]}
        for b in blocks
    ]
    print_table(rows, f"statistics of {config.model}", tokens=",", share=".2f")
    print(f"{channels:,} channels at {sites} sites, {seconds:.2f} s; the statistics are cached.")


@command(
    "score",
    *run_options(*_STATISTICS, "score", "fusion", "worst_domain"),
    option("--out", "write the scores of every channel as safetensors", metavar="FILE"),
)
def score(args: argparse.Namespace) -> None:
    """Score the channels of a dense model."""
    import numpy as np

    from pruning.engine.budget import scores as channel_scores
    from pruning.outputs import check_output_file

    if args.out:
        check_output_file(args.out)
    config, _, _, statistics, norms, seconds = _calibrated(args)
    scores = channel_scores(statistics, norms, config)
    if args.out:
        from safetensors.numpy import save_file

        from pruning.outputs import output_file

        with output_file(args.out) as temporary:
            save_file({str(site): values for site, values in scores.items()}, temporary)
    sites: list[dict[str, Any]] = []
    for site, values in scores.items():
        top_tenth = np.sort(values)[-max(1, len(values) // 10) :]
        sites.append(
            {
                "site": str(site),
                "channels": len(values),
                "median": float(np.median(values)),
                "max": float(values.max()),
                "top_tenth_share": float(top_tenth.sum() / (values.sum() or 1.0)),
                "top_channel": int(values.argmax()),
            }
        )
    if args.json:
        print_json({"model": config.model, "score": config.score, "sites": sites, "seconds": seconds})
        return
    title = f"{config.score} of {config.model}"
    print_table(sites, title, channels=",", median=".3g", max=".3g", top_tenth_share=".0%")


@command(
    "evaluate",
    *run_options(
        *("model", "mixture", "seq_len", "eval_blocks", "tasks", "task_data", "task_folder", "task_limit"),
        *("seed", "device", "dtype", "trust_remote_code"),
        mixture="domains to evaluate, beside those of --domain; their weights do not matter",
        seed="random seed of the text sampling (default: 0)",
    ),
)
def evaluate(args: argparse.Namespace) -> None:
    """Measure the perplexity of a model by domain, and its accuracy by task."""
    import_torch()
    from pruning.engine.blocks import evaluation_blocks
    from pruning.engine.loop import state_of
    from pruning.measure.comparison import mean_perplexity
    from pruning.measure.perplexity import perplexity_cached
    from pruning.measure.tasks import METRICS, check_tasks, zero_shot
    from pruning.models.loading import load

    config = run_config(args)
    check_tasks(config.tasks, config.task_data, config.task_folder)
    if config.eval_blocks == 0 and not config.tasks:
        raise ConfigError(
            "there is nothing to evaluate: --eval-blocks is 0 and no --tasks are named: set one of them."
        )
    loaded = load(config.model, config.device, config.dtype, config.trust_remote_code)
    blocks = evaluation_blocks(config, loaded.tokenizer, loaded.model)
    if not args.json:
        print_sources({b.domain: b.source for b in blocks})
    state = state_of(loaded)
    domains = show_progress(perplexity_cached(loaded.source, blocks, state), args.json)
    answers: dict[str, TaskResult] = {}
    if config.tasks:
        data: dict[str, Any] = {"data": config.task_data, "include": config.task_folder}
        stage = zero_shot(loaded, config.tasks, state, **data, limit=config.task_limit)
        answers = show_progress(stage, args.json)
    if broken := next((name for name, p in domains.items() if math.isnan(p.nll)), None):
        raise CalibrationError(
            f"the model gives no numbers (NaN) on domain {quoted(broken)}: its weights are broken, or it "
            "needs another --dtype."
        )
    mean = mean_perplexity({name: p.value for name, p in domains.items()}) if domains else None
    if args.json:
        tasks = {
            name: {"items": r.items, "limit": r.limit, "version": r.version}
            | {m: {"value": r.accuracy[m], "standard_error": r.standard_error(m)} for m in r.accuracy}
            for name, r in answers.items()
        }
        weight = next(loaded.model.parameters())
        computed = {"device": weight.device.type, "dtype": str(weight.dtype).removeprefix("torch.")}
        perplexities = {name: {"perplexity": p.value, **p.to_dict()} for name, p in domains.items()}
        content = {"model": config.model, **computed, "domains": perplexities, "mean": mean, "tasks": tasks}
        print_json(content)
        return
    if domains:
        rows = [
            {
                "domain": name,
                "perplexity": number(p.value),
                "bits per byte": f"{p.bits_per_byte:.3f}" if p.bits_per_byte else "-",
                "tokens": f"{p.tokens:,}",
            }
            for name, p in domains.items()
        ]
        last = {"domain": "mean (geometric)", "perplexity": number(mean), "bits per byte": "", "tokens": ""}
        print_table([*rows, last], f"perplexity of {config.model}, blocks of {config.seq_len} tokens")
    if answers:
        rows = [
            {
                "task": name,
                **{metric: _accuracy(result, metric) for metric in METRICS},
                "items": f"first {result.limit}" if result.limit else f"{result.items}",
            }
            for name, result in answers.items()
        ]
        print_table(rows, "zero-shot accuracy in percent")


def _accuracy(result: TaskResult, metric: str) -> str:
    if metric not in result.accuracy:
        return ""
    return f"{100 * result.accuracy[metric]:.1f} ± {100 * result.standard_error(metric):.1f}"


@command(
    "experiment",
    option("file", "YAML, such as experiments/demo_iterations.yaml", metavar="FILE"),
    switch("--yes", "run the code in the task and model folders that FILE names"),
    stopped="Stopped: the same command continues the experiment where it stopped.",
)
def experiment(args: argparse.Namespace) -> int:
    """Carry out a grid of runs and write its report."""
    from pruning.experiments.grid import Experiment, carry_out, describe, folder
    from pruning.experiments.report import report

    experiment = Experiment.read(args.file)
    check_code(experiment.configs(), f"the experiment {quoted(args.file)}", args.yes)
    began = time.monotonic()

    def announce(number: int, total: int, config: RunConfig) -> None:
        print(f"{number}/{total}  {describe(experiment, config)}", file=sys.stderr)

    runs, problems = carry_out(experiment, args.store, announce)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not runs:
        raise ConfigError(
            f"no run of the experiment {experiment.name!r} could be carried out: see the reason of each on "
            "standard error."
        )
    target = folder(args.store, experiment.name)
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
