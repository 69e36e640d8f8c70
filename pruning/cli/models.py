"""Commands on models that are there: export, speed, the same prompt continued."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from pruning.checksums import to_json
from pruning.cli.terminal import ProgressBar, console, import_torch, print_json, table
from pruning.errors import ConfigError, ModelError, library_errors
from pruning.formatting import quoted, size_text
from pruning.outputs import check_output_file, output_file
from pruning.runs.checkpoints import named_model
from pruning.runs.folder import CHECKPOINT
from pruning.runs.run import RUN_ID, RunStore


def export_model(args: argparse.Namespace) -> int:
    """Write a pruned model so that other programs load it."""
    import_torch()
    from pruning.formats.write import export
    from pruning.models.folder import locate

    source = locate(named_model(args.source, RunStore(args.runs)))
    out = args.out or _within_run(source, args.source, args.format)
    done = export(source, args.format, out, args.type, args.verify, args.trust_remote_code)
    if args.json:
        content = {"path": str(done.path), "format": args.format, "architecture": done.form.architecture}
        content["type"] = done.kind
        print_json(content | {"bytes": done.bytes, "difference": done.difference, "snippet": done.snippet})
        return 0
    weights = f", weights in {done.kind}" if done.kind else ""
    print(f"{done.form.architecture}{weights}, {size_text(done.bytes)}, in {done.path}")
    print(f"Loads in {done.form.loads_in}.")
    if done.difference is not None:
        print(f"Loaded again and compared: the largest difference of a logit is {done.difference:.2g}.")
    elif args.verify:
        print("Read again: names, shapes and values are the checkpoint's, as far as the type can hold them.")
        print(
            "Logits were not compared, as llama-cpp-python is not installed: pip install -r "
            "requirements-gguf.txt."
        )
    print(f"\n{done.snippet}")
    return 0


def _within_run(checkpoint: Path, name: str, format: str) -> Path:
    """The folder of a run's export."""
    if not (checkpoint.name.startswith("model") and RUN_ID.fullmatch(checkpoint.parent.name)):
        raise ConfigError(f"{quoted(name)} is no run: name the folder to write with --out.")
    size = checkpoint.name.removeprefix("model")  # of one iteration: -03
    return checkpoint.parent / "exports" / f"{format}{size}"


def serve(args: argparse.Namespace) -> int:
    """Export a run and start vLLM's or llama.cpp's own server on it, on this machine only."""
    import_torch()
    from pruning.formats.write import export
    from pruning.models.folder import locate
    from pruning.serving import server
    from pruning.serving.engines import ENGINES

    found = server.find(args.engine)
    format = ENGINES[found.engine].format
    source = Path(named_model(args.source, RunStore(args.runs)))
    if not (CHECKPOINT.fullmatch(source.name) and RUN_ID.fullmatch(source.parent.name)):
        raise ConfigError(f"{args.source!r} is no run: give the id of a run ('runs list' shows all of them).")
    source = locate(str(source))
    done = export(
        source, format, _within_run(source, args.source, format), args.type, True, args.trust_remote_code
    )
    name = source.parent.name + source.name.removeprefix("model")
    command = found.command(done.path, name, args.port)
    ask = server.curl(name, args.port)
    if args.json:
        print_json({"engine": found.engine, "path": str(done.path), "command": command, "curl": ask})
    else:
        print(f"{done.form.architecture}, {size_text(done.bytes)}, in {done.path}")
        print(
            f"Starting {ENGINES[found.engine].title}. Once it listens, send a request from another terminal:"
            f"\n\n{ask}\n"
        )
    sys.stdout.flush()
    server.start(found, done.path, name, args.port)


def measure(args: argparse.Namespace) -> int:
    """Size, memory and speed of models, measured turn by turn."""
    import_torch()
    from pruning.measure.speed import bench, shortened, size
    from pruning.models.loading import load
    from pruning.progress import drain
    from pruning.serving.bench import bench_served

    if args.ratios:
        return _time_ratios(args)
    options = args.device, args.dtype, args.trust_remote_code
    models = [load(named_model(name, RunStore(args.runs)), *options) for name in args.models]
    names = [Path(name).name for name in args.models]
    models = [replace(model, name=name) for model, name in zip(models, names, strict=True)]
    sizes = [size(model) for model in models]
    if args.depth:
        dense = load(named_model(args.models[0], RunStore(args.runs)), *options)
        rival = shortened(replace(dense, name=names[0]), sizes[-1].parameters)
        models, names, sizes = [*models, rival], [*names, rival.name], [*sizes, size(rival)]
    bar = ProgressBar(1, quiet=args.json)
    with bar.bar:
        counts = args.batch, args.lengths, args.new_tokens, args.repeats
        timed = bench(models, *counts) if args.engine == "transformers" else None
        found = drain(timed or bench_served(args.engine, models, *counts), bar)
    if args.json:
        print_json(
            {
                "models": [{"model": m.name, **asdict(s)} for m, s in zip(models, sizes, strict=True)],
                "speed": [m.to_dict() for m in found],
                "engine": args.engine,
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
    console().print(
        table(columns, cells, f"speed in {args.engine} on {models[0].model.device}, median and range")
    )
    return 0


def _time_ratios(args: argparse.Namespace) -> int:
    from pruning.engine.speed_target import time_ratios
    from pruning.models.loading import load
    from pruning.progress import drain

    if len(args.models) > 1:
        raise ConfigError(f"--ratios times one model, and {len(args.models)} are named: name only one.")
    dense = load(
        named_model(args.models[0], RunStore(args.runs)), args.device, args.dtype, args.trust_remote_code
    )
    bar = ProgressBar(1, quiet=args.json)
    with bar.bar:
        timing = drain(time_ratios(dense), bar)
    if args.json:
        print_json(asdict(timing))
        return 0
    lines = [(f"{r:.0%}", f"{s:,.0f}") for r, s in zip(timing.ratios, timing.speeds, strict=True)]
    console().print(table(("pruned", "tokens per second"), lines, f"speed of {dense.name}"))
    return 0


def generate(args: argparse.Namespace) -> int:
    """Let models go on from the same prompt."""
    import_torch()
    import torch
    from transformers import TextStreamer

    from pruning.measure.writing import continue_prompt
    from pruning.models.loading import load

    class Growing(TextStreamer):
        """Writes the words so far of all models to a file, for whoever watches."""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            texts[-1] += text
            with output_file(args.so_far) as temporary:
                temporary.write_text(to_json({"prompt": args.prompt, "texts": texts}), encoding="utf-8")

    texts: list[str] = []
    if args.so_far:
        check_output_file(args.so_far)
    if not args.prompt.strip():
        raise ConfigError("the prompt is empty: write a few words for the models to continue.")
    found = []
    for name in args.models:
        loaded = load(named_model(name, RunStore(args.runs)), args.device, args.dtype, args.trust_remote_code)
        with library_errors(ModelError, f"the tokenizer of {quoted(name)} cannot read the prompt"):
            prompt = loaded.tokenizer(args.prompt, return_tensors="pt")["input_ids"]
        torch.manual_seed(args.seed)
        texts.append("")
        streamer = Growing(loaded.tokenizer, skip_prompt=True, skip_special_tokens=True)
        began = time.perf_counter()
        ids = continue_prompt(
            loaded, prompt, args.tokens, args.temperature, streamer if args.so_far else None
        )
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
