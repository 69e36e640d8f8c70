"""Every export of SmolLM2, pruned by 30%, in every engine that is installed: what it computes, against the pruned model.

    make engines && pip install -r requirements-gguf.txt && python benchmarks/engines.py [FOLDER]

Four runs: unrounded widths, multiples of 256, equal widths, and query heads cut. Each export is opened by the
engine in its own environment and asked for the log-probabilities of held-out text and for greedy tokens. What stands
under "By hand" in the report stays there.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, machine, table

from pruning import RunConfig
from pruning.engine.blocks import evaluation_blocks
from pruning.formats.gguf import K_QUANTS
from pruning.formats.write import export
from pruning.models.loading import load
from pruning.runs.worker import prune
from pruning.serving.engines import ENGINES, find_python
from pruning.serving.process import open_engine

TOKENS, PROMPT, NEW = 96, 32, 24
FILE = RESULTS / "engines.md"
RUNS = {
    "unrounded widths": {},
    "multiples of 256": {"round_to": 256},
    "equal": {"allocation": "equal"},
    "query heads cut": {
        "attention_unit": "query_head",
        "remove": ("3.attn.0", "9.attn.4-5"),
        "keep": ("12.attn",),
    },
}
# run, format, type, engines
CASES = [
    ("unrounded widths", "hf", None, ("transformers", "vllm")),
    *(("unrounded widths", "gguf", kind, ("llamacpp",)) for kind in ("f32", "f16", "bf16", "q8_0")),
    *(("multiples of 256", "gguf", kind, ("llamacpp",)) for kind in K_QUANTS),
    ("unrounded widths", "deci", None, ("mlx", "vllm")),
    ("equal", "hf", None, ("transformers", "mlx", "vllm")),
    ("multiples of 256", "deci", None, ("mlx",)),
    ("query heads cut", "gguf", "f32", ("llamacpp",)),
    ("query heads cut", "deci", None, ("mlx",)),
    ("unrounded widths", "padded", None, ("transformers", "mlx")),
    ("query heads cut", "hf", None, ("transformers", "vllm")),
    ("equal", "unbiased", None, ("transformers", "mlx", "vllm")),
    ("unrounded widths", "padded", None, ("vllm",)),
    ("query heads cut", "deci", None, ("vllm",)),
]


@torch.no_grad()
def scores(model, prompts):
    scores = []
    for ids in map(torch.tensor, prompts):
        logits = model(ids[None]).logits[0, :-1].log_softmax(-1)
        scores.append(logits.gather(1, ids[1:, None])[:, 0].numpy())
    return scores


@torch.no_grad()
def greedy(model, prompts):
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    ids = [torch.tensor([prompt[:PROMPT]]) for prompt in prompts]
    return [model.generate(i, **options)[0, PROMPT:].tolist() for i in ids]


def apart(a, b, of=np.max):
    return of([float(of(np.abs(np.array(x) - np.array(y)))) for x, y in zip(a, b, strict=True)])


class Truth:
    """A pruned model in this process: what it computes, and what it would without the biases that compensate."""

    def __init__(self, config, folder):
        checkpoints = sorted(folder.glob("*/model"))
        self.checkpoint = checkpoints[0] if checkpoints else prune(config, folder).run.checkpoint
        loaded = load(str(self.checkpoint), "cpu", "float32")
        blocks = evaluation_blocks(config.replace(eval_blocks=1), loaded.tokenizer, loaded.model)
        self.prompts = [block.ids[0][:TOKENS].tolist() for block in blocks]
        self.scores, self.greedy = scores(loaded.model, self.prompts), greedy(loaded.model, self.prompts)
        for name, parameter in loaded.model.named_parameters():
            if name.endswith(("o_proj.bias", "down_proj.bias")):
                parameter.data.zero_()
        self.unbiased = scores(loaded.model, self.prompts)


def written(truth, format, kind, folder):
    """The export, or for the control the stock folder whose config does not say that it has biases."""
    if format != "unbiased":
        return export(truth.checkpoint, format, folder, kind)
    done = export(truth.checkpoint, "hf", folder, kind)
    file = done.path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attention_bias": False, "mlp_bias": False}))
    return done


def ask(truth, engine, path):
    try:
        with open_engine(engine, path, 2 * TOKENS, len(truth.prompts)) as opened:
            scores = opened.ask("score", prompts=truth.prompts)
            tokens = opened.ask("generate", prompts=[p[:PROMPT] for p in truth.prompts], new=NEW)
            runs_as = opened.ask("architecture") if engine in ("vllm", "mlx") else ""
            version = opened.ask("version")
    except Exception as error:  # what an engine says is the result
        return (engine, "", "refuses: " + str(error)[-140:].replace("|", "/").replace("\n", " "), "", "", "")
    mean, lost = (apart(scores, reference, np.mean) for reference in (truth.scores, truth.unbiased))
    alike = sum(
        a == b
        for ours, theirs in zip(truth.greedy, tokens, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    return (
        version, runs_as, f"{apart(scores, truth.scores):.2g}", f"{mean:.2g}", f"{alike} of {NEW * len(tokens)}",
        "honoured" if mean < lost else "dropped in silence",
    )  # fmt: skip


def main():
    rows, notes = [], []
    hand = "## By hand"
    text = FILE.read_text() if FILE.exists() else ""
    hand = text[text.index(hand) :] if hand in text else ""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", nargs="?", help="keeps runs and rows, and goes on from them")
    arguments.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        file = folder / "rows.json"
        measured = json.loads(file.read_text()) if file.exists() else {}
        truths = {}
        for name, options in RUNS.items():
            config = RunConfig.create(
                model="smollm2", ratio=0.3, iterations=1, samples=8, eval_blocks=0, **options
            )
            truths[name] = truth = Truth(config, folder / name.replace(" ", "-"))
            lost = apart(truth.scores, truth.unbiased)
            notes.append(f"- {name}: without its biases a log-probability differs by up to {lost:.2g}")
            print(notes[-1], flush=True)
        for number, (name, format, kind, engines) in enumerate(CASES):
            truth, done = truths[name], None
            what = "control: `hf`, config without its biases" if format == "unbiased" else f"`{format}`"
            for engine in engines:
                key = f"{name}, {format}, {kind}, {engine}"
                if key not in measured and engine in args.engines and find_python(engine):
                    done = done or written(truth, format, kind, Path(temporary) / f"export-{number}")
                    shown = (name, what, kind or "f32", f"{done.bytes / 1e6:.0f}", done.plan.architecture)
                    measured[key] = [*shown, *ask(truth, engine, done.path)]
                    file.write_text(json.dumps(measured, indent=1))
                    print(measured[key], flush=True)
                if key in measured:
                    rows.append(measured[key])
        write(rows, notes, hand)


def write(rows, notes, hand):
    head = ("widths", "format", "type", "MB", "architecture", "engine", "runs as", "largest difference",
            "mean difference", "greedy tokens alike", "biases")  # fmt: skip
    text = f"# SmolLM2-135M-Instruct, pruned by 30%, in the engines\n\n{machine()}\n\n"
    text += (
        f"Log-probabilities of {TOKENS} tokens of held-out text of each of four domains, and {NEW} greedy tokens behind "
        f"{PROMPT} of them, against the pruned model in transformers (float32, in this project's process). All in "
        "float32, but for the types of GGUF. Biases are honoured where the log-probabilities are in the mean nearer to "
        "the model's than to those of the model without its biases.\n\n"
    )
    text += table(head, rows) + "\n\n" + "\n".join(notes) + "\n\n`python benchmarks/engines.py`\n"
    FILE.write_text(text + (f"\n{hand}" if hand else ""))


if __name__ == "__main__":
    main()
