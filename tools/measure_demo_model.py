"""Held-out perplexity of the demo model beside that of a unigram and a trigram model, for the model card.

    python tools/measure_demo_model.py --data CORPORA --work build/demo

WORK is that of `train_demo_model.py`, whose token streams the counting models learn from. All are measured on
the same tokens: non-overlapping blocks of 256, the first token of each block not predicted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from train_demo_model import encode, read_jsonl

from pruning.measure.perplexity import perplexity
from pruning.models.loading import load
from pruning.models.source import InMemory
from pruning.progress import drain
from pruning.text.blocks import TokenBlocks


class Counts:
    """How often each n-gram occurs, looked up by searching a sorted array of keys."""

    def __init__(self, keys: np.ndarray, counts: np.ndarray) -> None:
        self.keys, self.counts = keys, counts

    @classmethod
    def of(cls, keys: np.ndarray) -> Counts:
        return cls(*np.unique(keys, return_counts=True))

    def __getitem__(self, keys: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.counts[at], 0)

    @property
    def discount(self) -> float:
        """Ney's estimate from the n-grams seen once and twice."""
        once, twice = (self.counts == 1).sum(), (self.counts == 2).sum()
        return float(once / (once + 2 * twice))


class Trigram:
    """Interpolated Kneser-Ney with one discount an order (Chen and Goodman 1999, section 2.7)."""

    def __init__(self, tokens: np.ndarray, vocabulary: int) -> None:
        t, v = tokens.astype(np.int64), vocabulary
        self.v = v
        self.unigrams = np.bincount(t, minlength=v)
        self.three = Counts.of((t[:-2] * v + t[1:-1]) * v + t[2:])
        self.pairs_before = Counts(*_grouped(self.three.keys // v, self.three.counts))  # C(ab)
        self.kinds_after = Counts.of(self.three.keys // v)  # N(ab.)
        self.two = Counts.of(self.three.keys % (v * v))  # N(.bc)
        self.before = Counts(*_grouped(self.two.keys // v, self.two.counts))  # N(.b.)
        self.after = Counts.of(self.two.keys // v)  # N(b.) of these
        self.one = np.bincount(self.two.keys % v, minlength=v)  # N(.c)

    def bigram(self, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        base = (self.one[c] + 1) / (self.one.sum() + self.v)
        total = np.maximum(self.before[b], 1)
        rest = np.where(self.before[b] > 0, self.two.discount * self.after[b] / total, 1.0)
        return np.maximum(self.two[b * self.v + c] - self.two.discount, 0) / total + rest * base

    def trigram(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        pair = a * self.v + b
        total = self.pairs_before[pair]
        rest = np.where(total > 0, self.three.discount * self.kinds_after[pair] / np.maximum(total, 1), 1.0)
        top = np.maximum(self.three[pair * self.v + c] - self.three.discount, 0) / np.maximum(total, 1)
        return top + rest * self.bigram(b, c)

    def perplexities(self, ids: np.ndarray) -> tuple[float, float]:
        """Unigram's and trigram's, on blocks (B, T)."""
        unigram = (self.unigrams[ids[:, 1:]] + 1) / (self.unigrams.sum() + self.v)
        second = self.bigram(ids[:, 0], ids[:, 1])
        later = self.trigram(ids[:, :-2], ids[:, 1:-1], ids[:, 2:])
        logs = np.concatenate([np.log(second).ravel(), np.log(later).ravel()])
        return float(np.exp(-np.log(unigram).mean())), float(np.exp(-logs.mean()))


def _grouped(keys: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of weights by key, for keys that are sorted."""
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(weights, starts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    demo = load("demo", "cpu")
    with np.load(args.work / "streams.npz") as file:
        baseline = Trigram(np.concatenate([file[name] for name in file.files]), len(demo.tokenizer))
    files = sorted(args.data.glob("*/*heldout.jsonl.gz")) + sorted(args.data.glob("*/wikitext2*.jsonl.gz"))
    print(f"{'held-out text':28s} {'tokens':>9s} {'unigram':>9s} {'trigram':>9s} {'demo':>9s}")
    for path in files:
        name = f"{path.parent.name}/{path.name.removesuffix('.jsonl.gz')}"
        stream = encode(demo.tokenizer, read_jsonl(path)).astype(np.int64)
        ids = stream[: len(stream) // 256 * 256].reshape(-1, 256)
        result = drain(perplexity(InMemory(demo.model), [TokenBlocks(name, ids, {})]), lambda _: None)[name]
        unigram, trigram = baseline.perplexities(ids)
        print(f"{name:28s} {result.tokens:9,d} {unigram:9.1f} {trigram:9.1f} {result.value:9.2f}")
    print(json.dumps({"fingerprint": demo.fingerprint}))


if __name__ == "__main__":
    main()
