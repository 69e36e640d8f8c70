"""Commands on models: export, serving, speed, text."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pruning.checksums import to_json
from pruning.cli.arguments import (
    LOAD_OPTIONS,
    TRUST,
    command,
    count,
    counts,
    option,
    port,
    seed,
    switch,
    within,
)
from pruning.cli.terminal import import_torch, print_json, print_table, show_progress
from pruning.errors import ConfigError, ModelError, library_errors
from pruning.formats.format import FORMATS
from pruning.formatting import quoted, size_text
from pruning.outputs import check_output_file, output_file
from pruning.runs.checkpoints import named_model
from pruning.runs.folder import CHECKPOINT
from pruning.runs.run import RUN_ID
from pruning.serving.engines import TIMED
from pruning.serving.server import SERVERS

RUN = "a run's id (ID:3 for its model after iteration 3)"
LENGTHS = "prompt lengths in tokens (default: 128,512, up to the model's context)"
TEMPERATURE = "sampling temperature; 0 always takes the most likely token"
MODEL = f"demo, smollm2, a folder or GGUF file, a Hub id, or {RUN}"
WEIGHTS = option(
    "--weights",
    "type of the weights: f32, f16, bf16, q8_0, q4_k_m ... (default: the dense model's, f16 for gguf)",
    metavar="TYPE",
)


@command(
    "export",
    option("source", f"{RUN}, or a model's folder", metavar="RUN|FOLDER"),
    option("--format", "export format", choices=FORMATS, default="hf"),
    WEIGHTS,
    option("--out", "folder to write (default: within the run)", metavar="FOLDER"),
    option(
        "--verify",
        "load the export and compare it with the model",
        action=argparse.BooleanOptionalAction,
        default=True,
    ),
    TRUST,
    memory_hint="free some memory, or use a smaller model",
)
def export_model(args: argparse.Namespace) -> None:
    """Write a pruned model for other programs to load."""
    import_torch()
    from pruning.formats.write import export
    from pruning.models.folder import locate

    source = locate(named_model(args.source, args.store))
    out = args.out or _within_run(source, args.source, args.format)
    written = export(source, args.format, out, args.weights, args.verify, args.trust_remote_code)
    plan = written.plan
    if args.json:
        content = {"path": str(written.path), "format": args.format, "architecture": plan.architecture}
        content |= {"type": written.kind, "bytes": written.bytes, "difference": written.difference}
        print_json({**content, "snippet": written.snippet})
        return
    weights = f", weights in {written.kind}" if written.kind else ""
    print(f"{plan.architecture}{weights}, {size_text(written.bytes)}, in {written.path}")
    print(f"Loads in {plan.loads_in}.")
    if written.difference is not None:
        print(f"Loaded again and compared: the largest logit difference is {written.difference:.2g}.")
    elif args.verify:
        print("Read again: names, shapes and values match the checkpoint, to the precision of the type.")
        print(
            "Logits were not compared, as llama-cpp-python is missing: pip install -r requirements-gguf.txt."
        )
    print(f"\n{written.snippet}")


def _within_run(checkpoint: Path, name: str, format: str) -> Path:
    """The folder for an export of a run's checkpoint."""
    if not (checkpoint.name.startswith("model") and RUN_ID.fullmatch(checkpoint.parent.name)):
        raise ConfigError(f"{quoted(name)} is no run: name the folder to write with --out.")
    iteration = checkpoint.name.removeprefix("model")  # -03, or nothing for the run's last
    return checkpoint.parent / "exports" / f"{format}{iteration}"


@command(
    "serve",
    option("source", RUN, metavar="RUN"),
    option("--engine", "engine to serve with (default: the first that is installed)", choices=SERVERS),
    WEIGHTS,
    option("--port", "port on localhost", type=port, default=8000, metavar="N"),
    TRUST,
    memory_hint="free some memory, or use a smaller model",
)
def serve(args: argparse.Namespace) -> None:
    """Export a run and start vLLM's or llama.cpp's own server on it, on this machine only."""
    import_torch()
    from pruning.formats.write import export
    from pruning.models.folder import locate
    from pruning.serving import server
    from pruning.serving.engines import ENGINES

    chosen = server.find_server(args.engine)
    engine = ENGINES[chosen.engine]
    source = Path(named_model(args.source, args.store))
    if not (CHECKPOINT.fullmatch(source.name) and RUN_ID.fullmatch(source.parent.name)):
        raise ConfigError(f"{args.source!r} is no run: give the id of a run ('runs list' shows all of them).")
    source = locate(str(source))
    out = _within_run(source, args.source, engine.format)
    written = export(source, engine.format, out, args.weights, True, args.trust_remote_code)
    name = source.parent.name + source.name.removeprefix("model")
    request = server.curl(name, args.port)
    if args.json:
        start = chosen.command(written.path, name, args.port)
        print_json({"engine": chosen.engine, "path": str(written.path), "command": start, "curl": request})
    else:
        print(f"{written.plan.architecture}, {size_text(written.bytes)}, in {written.path}")
        print(
            f"Starting {engine.title}. When it listens, send a request from another terminal:\n\n{request}\n"
        )
    sys.stdout.flush()
    server.start(chosen, written.path, name, args.port)


def _load(name: str, args: argparse.Namespace) -> Any:
    from pruning.models.loading import load

    return load(named_model(name, args.store), args.device, args.dtype, args.trust_remote_code)


@command(
    "generate",
    option("prompt", "text for the models to continue", metavar="PROMPT"),
    option("--models", f"{MODEL} (default: demo)", nargs="+", metavar="MODEL"),
    option("--tokens", "most tokens to generate", type=count, default=60, metavar="N"),
    option("--temperature", TEMPERATURE, type=within(0, 100, float), default=0.7, metavar="T"),
    option("--seed", "random seed of the sampling", type=seed, default=0, metavar="N"),
    option(
        "--stream-file",
        "JSON file that is rewritten with the text of all models after every word",
        metavar="FILE",
    ),
    *LOAD_OPTIONS,
    memory_hint="use --dtype bfloat16, a shorter prompt, or a smaller model",
)
def generate(args: argparse.Namespace) -> None:
    """Continue one prompt with several models."""
    import_torch()
    import torch
    from transformers import TextStreamer

    from pruning.measure.writing import continue_prompt

    class FileStreamer(TextStreamer):
        """Writes the text of all models to the stream file."""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            texts[-1] += text
            with output_file(args.stream_file) as temporary:
                temporary.write_text(to_json({"prompt": args.prompt, "texts": texts}), encoding="utf-8")

    texts: list[str] = []
    if args.stream_file:
        check_output_file(args.stream_file)
    if not args.prompt.strip():
        raise ConfigError("the prompt is empty: write a few words for the models to continue.")
    continuations = []
    for name in args.models or ["demo"]:
        loaded = _load(name, args)
        with library_errors(ModelError, f"the tokenizer of {quoted(name)} cannot read the prompt"):
            prompt = loaded.tokenizer(args.prompt, return_tensors="pt")["input_ids"]
        torch.manual_seed(args.seed)
        texts.append("")
        streamer = FileStreamer(loaded.tokenizer, skip_prompt=True, skip_special_tokens=True)
        began = time.perf_counter()
        ids = continue_prompt(
            loaded, prompt, args.tokens, args.temperature, streamer if args.stream_file else None
        )
        seconds = time.perf_counter() - began
        text = loaded.tokenizer.decode(ids, skip_special_tokens=True)
        continuations.append({"model": name, "text": text, "tokens": len(ids), "seconds": seconds})
    if args.json:
        print_json({"prompt": args.prompt, "continuations": continuations})
        return
    for each in continuations:
        print(f"--- {each['model']}, {each['tokens']} tokens in {each['seconds']:.1f} s")
        print(f"{args.prompt}{each['text']}\n")


@command(
    "bench",
    option("models", MODEL, nargs="+", metavar="MODEL"),
    option("--batch", "batch sizes", type=counts, default="1,8", metavar="N,N"),
    option("--lengths", LENGTHS, type=counts, metavar="N,N"),
    option("--new-tokens", "tokens to generate after each prompt", type=count, default=16, metavar="N"),
    option(
        "--engine",
        "engine to time; all but transformers run exports of the models",
        choices=TIMED,
        default=TIMED[0],
    ),
    switch("--depth", "also time layer dropping at equal parameter count"),
    switch("--ratios", "instead, time one model at three pruning ratios, in tokens per second"),
    option("--repeats", "timed rounds after the warm-up", type=count, default=5, metavar="N"),
    *LOAD_OPTIONS,
    memory_hint="lower --batch or --lengths, use --dtype bfloat16, or time fewer or smaller models",
)
def bench(args: argparse.Namespace) -> None:
    """Measure size, memory and speed of models, which take turns."""
    import_torch()
    from pruning.measure.speed import bench, drop_layers, size
    from pruning.serving.bench import bench_engine

    if args.ratios:
        _time_ratios(args)
        return
    models = [replace(_load(name, args), name=Path(name).name) for name in args.models]
    if args.depth:
        dense = replace(_load(args.models[0], args), name=models[0].name)
        models.append(drop_layers(dense, size(models[-1]).parameters))
    sizes = [(model.name, size(model)) for model in models]
    settings = args.batch, args.lengths, args.new_tokens, args.repeats
    stage = bench(models, *settings) if args.engine == "transformers" else None
    speeds = show_progress(stage or bench_engine(args.engine, models, *settings), args.json)
    device = str(models[0].model.device)
    if args.json:
        content: dict[str, Any] = {"models": [{"model": name, **asdict(each)} for name, each in sizes]}
        content |= {"speed": [m.to_dict() for m in speeds], "engine": args.engine, "device": device}
        print_json({**content, "dtype": str(models[0].model.dtype).removeprefix("torch.")})
        return
    rows: list[dict[str, str]] = [
        {
            "model": name,
            "parameters": f"{each.parameters:,}",
            "in the layers": f"{each.linear_parameters:,}",
            "file": size_text(each.file_bytes),
            "memory": size_text(each.memory_bytes),
            "cache per token": size_text(each.cache_bytes),
        }
        for name, each in sizes
    ]
    print_table(rows, "size")
    baseline = {(m.batch, m.length): m for m in reversed(speeds) if m.model == models[0].name}
    rows = []
    for m in speeds:
        rows.append({"model": m.model, "batch": str(m.batch), "length": str(m.length)})
        for phase in ("prefill", "decode"):
            speed, base = getattr(m, phase), getattr(baseline[m.batch, m.length], phase)
            median = f"{speed.median:,.0f} ({speed.lowest:,.0f} to {speed.highest:,.0f})"
            rows[-1][f"{phase}, tokens/s"] = median
            rows[-1][f"{phase} speedup"] = f"{speed.median / base.median:.2f}x"
    print_table(rows, f"speed in {args.engine} on {device}, median and range")


def _time_ratios(args: argparse.Namespace) -> None:
    from pruning.engine.targets import time_ratios

    if len(args.models) > 1:
        raise ConfigError(f"--ratios times one model, and {len(args.models)} are named: name only one.")
    dense = _load(args.models[0], args)
    timing = show_progress(time_ratios(dense), args.json)
    if args.json:
        print_json(asdict(timing))
        return
    speeds = zip(timing.ratios, timing.speeds, strict=True)
    rows = [{"pruned": f"{ratio:.0%}", "tokens per second": f"{speed:,.0f}"} for ratio, speed in speeds]
    print_table(rows, f"speed of {dense.name}")
