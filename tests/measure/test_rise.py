"""A difference of two perplexities has an interval over blocks of held-out text, paired."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from pruning import RunConfig, RunStore, prune
from pruning.cli.main import main
from pruning.measure.comparison import Pair, Rise
from pruning.measure.perplexity import perplexity
from pruning.models.source import InMemory
from pruning.progress import drain
from pruning.runs.report import groups
from pruning.text.blocks import TokenBlocks
from tests.conftest import tiny_model

RNG = np.random.default_rng(0)
BEFORE = RNG.normal(3, 1, 12)
AFTER = BEFORE + RNG.normal(0.2, 0.1, 12)


def test_the_interval_of_one_domain_is_that_of_the_paired_t_test():
    rise = Rise.between([(BEFORE, AFTER)])
    truth = stats.ttest_rel(AFTER, BEFORE).confidence_interval(0.95)
    assert rise.value - rise.interval == pytest.approx(truth.low)
    assert rise.value + rise.interval == pytest.approx(truth.high)
    assert not rise.is_noise and rise.blocks == 12


def test_domains_count_alike_and_their_spreads_are_joined_as_welch_does():
    other = RNG.normal(0.5, 0.4, 5)
    rise = Rise.between([(BEFORE, AFTER), (np.zeros(5), other)])
    first = AFTER - BEFORE
    assert rise.value == pytest.approx((first.mean() + other.mean()) / 2)
    # the mean of two is half of a sum, whose interval is that of a difference with one side negated
    truth = stats.ttest_ind(first, -other, equal_var=False).confidence_interval(0.95)
    assert rise.interval == pytest.approx((truth.high - truth.low) / 4)


def test_noise_says_how_many_blocks_would_tell():
    rise = Rise.between([(np.zeros(8), np.array([0.1, -0.1] * 4) + 0.01)])
    assert rise.is_noise and "within noise (about" in rise.text("perplexity")
    assert rise.blocks_to_tell == math.ceil(8 * (rise.interval / 0.01) ** 2)


def test_one_block_or_none_tells_nothing():
    assert Rise.between([]) is None and Rise.between([((), ())]) is None
    assert Rise.between([((1.0,), (1.0, 2.0))]) is None
    rise = Rise.between([((1.0,), (2.0,))])
    assert math.isinf(rise.interval) and rise.is_noise and rise.text("perplexity") == "unknown from one block"
    assert Pair(dense=2.0, pruned=3.0, rise=rise).change == "1.50x"
    assert Rise.model_validate(json.loads(json.dumps(rise.model_dump()).replace("Infinity", "null"))) == rise


def test_losses_of_blocks_are_those_of_the_model():
    model, ids = tiny_model("qwen2"), torch.randint(0, 256, (5, 24), generator=torch.manual_seed(1))
    measured = drain(perplexity(InMemory(model), [TokenBlocks("a", ids.numpy(), {})]), lambda _: None)["a"]
    with torch.no_grad():
        logits = model(ids).logits[:, :-1]
    truth = [
        torch.nn.functional.cross_entropy(row, target, reduction="sum").item()
        for row, target in zip(logits, ids[:, 1:], strict=True)
    ]
    assert measured.blocks == pytest.approx(truth, rel=1e-5) and measured.nll == sum(measured.blocks)


def test_runs_are_compared_block_by_block(tiny_folder, text_file, capsys):
    options = {"domains": {"words": str(text_file)}, "mixture": {"words": 1.0}, "model": str(tiny_folder)}
    options |= {"samples": 2, "seq_len": 24, "iterations": 1, "eval_blocks": 6}
    for ratio in (0.1, 0.6):
        prune(RunConfig(**options, ratio=ratio))
    (group,), _ = groups(RunStore().all())
    best, worst = group.members
    rise = worst.rise(best)
    losses = [member.results.iterations[-1].perplexity["words"].losses for member in (best, worst)]
    assert rise == Rise.between([tuple(losses)]) and rise.value > 0
    assert rise.value == pytest.approx(math.log(worst.mean() / best.mean()))
    assert main(["compare", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["groups"]
    assert row["against_best"][worst.run.id]["interval"] == pytest.approx(rise.interval)
    assert main(["compare"]) == 0 and "against" in capsys.readouterr().out
