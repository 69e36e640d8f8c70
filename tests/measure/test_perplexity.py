import math

import numpy as np
import pytest
import torch

from pruning.measure import perplexity as evaluation
from pruning.measure.comparison import mean_perplexity
from pruning.measure.perplexity import Perplexity, perplexity, perplexity_cached
from pruning.models.source import InMemory
from pruning.progress import drain
from pruning.text.blocks import TokenBlocks, heldout_blocks
from pruning.text.sources import DomainText
from tests.conftest import tiny_loaded, tiny_model

IDS = np.random.default_rng(0).integers(0, 256, (5, 30))


def test_perplexity_is_that_of_the_models_own_loss(monkeypatch):
    monkeypatch.setattr(evaluation, "LOGIT_TOKENS", 17)
    model = tiny_model("qwen3")
    found = drain(perplexity(InMemory(model), [TokenBlocks("a", IDS, {})]), lambda _: None)["a"]
    ids = torch.from_numpy(IDS)
    with torch.no_grad():
        expected = model(input_ids=ids, labels=ids).loss.item()
    assert found.tokens == 5 * 29
    assert math.log(found.value) == pytest.approx(expected, rel=1e-5)


def test_overflow_is_infinite_and_not_an_error():
    assert Perplexity(1e6, 10, 8).value == math.inf


def test_the_mean_is_geometric():
    assert mean_perplexity({"a": 2.0, "b": 8.0}) == pytest.approx(4.0)


@torch.no_grad()
def test_the_likelihood_is_that_of_the_harness():
    """Blocks that begin with the end-of-text token, as the harness conditions its wikitext documents."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    loaded = tiny_loaded("qwen2")
    text = "The river rises in the north, and flows to the sea; naïve."
    blocks = heldout_blocks("a", DomainText([text], {}), loaded.tokenizer, len(text.encode()))
    tokens = loaded.tokenizer(text).input_ids
    ids = np.array([[loaded.tokenizer.eos_token_id, *tokens]])
    ours = drain(perplexity(loaded.source, [TokenBlocks("a", ids, {}, len(text.encode()))]), lambda _: None)[
        "a"
    ]
    harness = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1)
    request = Instance("loglikelihood_rolling", {}, (text,), 0)
    (theirs,) = harness.loglikelihood_rolling([request], disable_tqdm=True)
    assert ours.nll == pytest.approx(-theirs, rel=1e-5)
    # bits per byte as the harness defines it: log-likelihood over bytes, in bits
    assert ours.bits_per_byte == pytest.approx(-theirs / len(text.encode()) / math.log(2), rel=1e-5)
    assert blocks.bytes == len(text.encode()) - 1  # byte tokens: all but the first


def test_the_dense_model_is_measured_once(monkeypatch):
    model, blocks = tiny_model("qwen2"), [TokenBlocks("a", IDS, {}), TokenBlocks("b", IDS[:2], {})]
    first = drain(perplexity_cached(InMemory(model), blocks[:1], "state"), lambda _: None)
    measured = []

    class Counted(evaluation.Evaluation):
        def __init__(self, source, blocks, dense=None):
            measured.extend(each.domain for each in blocks)
            super().__init__(source, blocks, dense)

    monkeypatch.setattr(evaluation, "Evaluation", Counted)
    both = drain(perplexity_cached(InMemory(model), blocks, "state"), lambda _: None)
    assert both["a"] == first["a"] and list(both) == ["a", "b"] and measured == ["b"]
    drain(perplexity_cached(InMemory(model), blocks, "another state"), lambda _: None)
    assert measured == ["b", "a", "b"]


def test_another_block_length_is_measured_again():
    """The same tokens in shorter blocks have another perplexity, and the cache knows."""
    model = tiny_model("qwen2")
    first, second = (
        drain(
            perplexity_cached(InMemory(model), [TokenBlocks("a", IDS[:4].reshape(shape), {})], "state"),
            lambda _: None,
        )
        for shape in ((4, 30), (8, 15))
    )
    assert (first["a"].seq_len, second["a"].seq_len) == (30, 15)
    assert (first["a"].tokens, second["a"].tokens) == (4 * 29, 8 * 14)
