"""Train the demo model: a small Qwen2 on four domains, from text to `assets/demo-model/` in one script.

    python tools/train_demo_model.py --data CORPORA --work build/demo --tokens 24_000_000
    python tools/train_demo_model.py --work build/demo           # the same domains from the Hugging Face hub

CORPORA holds `<domain>/train.jsonl.gz` and `<domain>/*heldout.jsonl.gz` for wiki, web, code and math, a
JSON object with `text` a line. To these comes a fifth stream, worked problems from `math_problems.py`.
The run is seeded, writes its state to WORK every few minutes and goes on from there when started again.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from math_problems import problems
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 4096
SHARES = {"wiki": 0.30, "web": 0.27, "code": 0.20, "math": 0.13, "problems": 0.10}
HUB = {  # dataset, configuration, column(s)
    "wiki": ("Salesforce/wikitext", "wikitext-103-raw-v1", ("text",)),
    "web": ("allenai/c4", "en", ("text",)),
    "code": ("codeparrot/codeparrot-clean", None, ("content",)),
    "math": ("openai/gsm8k", "main", ("question", "answer")),
}
HUB_CHARACTERS = 16_000_000
TOKENIZER_CONFIG = {
    "clean_up_tokenization_spaces": False,
    "eos_token": END_OF_TEXT,
    "model_max_length": 512,
    "pad_token": END_OF_TEXT,
    "tokenizer_class": "Qwen2Tokenizer",
}
# Qwen2's own pattern: words, single digits, runs of punctuation. Stock converters know it by name.
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


# --- text ------------------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [text for text in (json.loads(line)["text"] for line in file) if text.strip()]


def training_texts(domain: str, data: Path | None, seed: int) -> list[str]:
    """The documents of a domain's training split, from `data` or else from the hub."""
    if domain == "problems":
        stream = problems(seed, reserved=False)
        return ["\n\n".join(next(stream).text for _ in range(8)) for _ in range(5000)]
    if data is not None:
        return read_jsonl(data / domain / "train.jsonl.gz")
    from datasets import load_dataset

    name, configuration, columns = HUB[domain]
    texts, size = [], 0
    for row in load_dataset(name, configuration, split="train", streaming=True):
        texts.append("\n".join(row[column] for column in columns))
        size += len(texts[-1])
        if size > HUB_CHARACTERS:
            break
    return texts


def train_tokenizer(texts: dict[str, list[str]], seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen2's normalisation and pattern, which its tokenizer class insists on."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    rng = random.Random(seed)

    def sample() -> Iterator[str]:
        for documents in texts.values():
            budget = 4_000_000
            for text in rng.sample(documents, len(documents)):
                yield text
                budget -= len(text)
                if budget < 0:
                    break

    bpe.train_from_iterator(
        sample(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    """All documents, each closed by the end-of-text token, as one uint16 array."""
    end = [tokenizer.eos_token_id]
    rows = (ids + end for ids in tokenizer(texts, verbose=False)["input_ids"])
    return np.fromiter(itertools.chain.from_iterable(rows), dtype=np.uint16)


class Batches:
    """Random blocks of the domains' streams. Step i gives the same batch however often the run was resumed."""

    def __init__(self, streams: dict[str, np.ndarray], batch: int, seq_len: int, seed: int):
        self.streams, self.batch, self.seq_len, self.seed = streams, batch, seq_len, seed

    def __call__(self, step: int) -> torch.Tensor:
        rng = np.random.default_rng((self.seed, step))
        names = rng.choice(list(self.streams), size=self.batch, p=[SHARES[name] for name in self.streams])
        rows = []
        for name in names:
            stream = self.streams[name]
            start = rng.integers(len(stream) - self.seq_len - 1)
            rows.append(stream[start : start + self.seq_len + 1])
        return torch.from_numpy(np.stack(rows).astype(np.int64))  # (batch, seq_len + 1)


# --- model -----------------------------------------------------------------------------------------------


def new_model(seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = Qwen2ForCausalLM(config)
    for layer in model.model.layers:  # every layer starts as the identity
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def optimizers(model: Qwen2ForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, norms and biases."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def schedule(step: int, steps: int) -> float:
    """Warm-up over 1%, constant, linear decay to zero over the last 45%."""
    return min(1.0, (step + 1) / (0.01 * steps), (steps - step) / (0.45 * steps))


@torch.no_grad()
def perplexity(model: torch.nn.Module, stream: np.ndarray, device: str, blocks: int | None = None) -> float:
    """exp of the mean negative log-likelihood over non-overlapping blocks of 256 tokens."""
    model.eval()
    count = min(len(stream) // 256, blocks or 10**9)
    ids = torch.from_numpy(stream[: count * 256].astype(np.int64)).view(count, 256)
    total, tokens = 0.0, 0
    for block in ids.split(32):
        block = block.to(device)
        logits = model(input_ids=block, use_cache=False).logits[:, :-1].float()
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), block[:, 1:].flatten(), reduction="sum"
        ).item()
        tokens += block[:, 1:].numel()
    model.train()
    return math.exp(total / tokens)


# --- the run ---------------------------------------------------------------------------------------------


def prepare(work: Path, data: Path | None, seed: int) -> tuple[PreTrainedTokenizerFast, dict, dict]:
    """Tokenizer, training streams and held-out streams, made once and kept in `work`."""
    folder = work / "tokenizer"
    if not (work / "streams.npz").exists():
        texts = {name: training_texts(name, data, seed) for name in SHARES}
        tokenizer = train_tokenizer(texts, seed)
        tokenizer.save_pretrained(folder)
        np.savez(work / "streams.npz", **{name: encode(tokenizer, rows) for name, rows in texts.items()})
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with np.load(work / "streams.npz") as file:
        streams = {name: file[name] for name in file.files}
    heldout = {}
    if data is not None:
        for path in sorted(data.glob("*/*heldout.jsonl.gz")):
            heldout[path.parent.name + "/" + path.name.removesuffix(".jsonl.gz")] = encode(
                tokenizer, read_jsonl(path)
            )
    else:  # no held-out files: the last 2% of each stream are kept from training
        for name, stream in streams.items():
            cut = int(len(stream) * 0.98)
            streams[name], heldout[name] = stream[:cut], stream[cut:]
    return tokenizer, streams, heldout


def train(args: argparse.Namespace) -> None:
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer, streams, heldout = prepare(args.work, args.data, args.seed)
    print({name: len(stream) for name, stream in streams.items()}, "tokens")
    batches = Batches(streams, args.batch, args.seq_len, args.seed)
    steps = args.tokens // (args.batch * args.seq_len)

    model = new_model(args.seed).to(args.device).train()
    optimizers_ = optimizers(model, args.lr)
    state_file, step = args.work / "state.pt", 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=args.device)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers_, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step = state["step"]
        print(f"going on at step {step}")

    forward = torch.compile(model) if args.compile else model
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    saved_at, started, first = time.monotonic(), time.monotonic(), step
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=steps, completed=step)
        while step < steps:
            for optimizer in optimizers_:
                for group in optimizer.param_groups:
                    group["lr"] = args.lr * schedule(step, steps)
            block = batches(step).to(args.device)
            with torch.autocast(args.device, dtype=torch.bfloat16):
                logits = forward(input_ids=block[:, :-1], use_cache=False).logits
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), block[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers_:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            progress.update(bar, completed=step, description=f"loss {loss.item():.3f}")
            if step % args.eval_every == 0 or step == steps:
                rate = (step - first) * args.batch * args.seq_len / (time.monotonic() - started)
                report = {
                    n: round(perplexity(model, s, args.device, blocks=64), 1) for n, s in heldout.items()
                }
                line = {"step": step, "loss": round(loss.item(), 3), "tokens_per_second": int(rate), **report}
                progress.console.print(line)
                with (args.work / "log.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
            if time.monotonic() - saved_at > 240 or step == steps:
                torch.save(
                    {
                        "model": model.state_dict(),
                        "optimizers": [optimizer.state_dict() for optimizer in optimizers_],
                        "step": step,
                    },
                    state_file.with_suffix(".tmp"),
                )
                state_file.with_suffix(".tmp").replace(state_file)
                saved_at = time.monotonic()

    model.to(torch.bfloat16).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    (args.out / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")
    report = {name: round(perplexity(model, stream, args.device), 2) for name, stream in heldout.items()}
    print(json.dumps({"heldout_perplexity": report}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the corpora; without it they come from the hub")
    parser.add_argument("--work", type=Path, required=True, help="where tokens and the run's state are kept")
    parser.add_argument("--out", type=Path, default=Path("assets/demo-model"))
    parser.add_argument("--tokens", type=int, default=24_000_000)
    parser.add_argument("--batch", type=int, default=12, help="blocks a step")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--eval-every", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
