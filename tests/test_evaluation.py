import math

import numpy as np
import pytest
import torch

from pruning import evaluation
from pruning.domains import TokenBlocks
from pruning.engine import drain
from pruning.evaluation import Perplexity, mean_perplexity, perplexity
from tests.conftest import tiny_model

IDS = np.random.default_rng(0).integers(0, 256, (5, 30))


def test_perplexity_is_that_of_the_models_own_loss(monkeypatch):
    monkeypatch.setattr(evaluation, "LOGIT_TOKENS", 17)
    model = tiny_model("qwen3")
    found = drain(perplexity(model, [TokenBlocks("a", IDS, {})]), lambda _: None)["a"]
    ids = torch.from_numpy(IDS)
    with torch.no_grad():
        expected = model(input_ids=ids, labels=ids).loss.item()
    assert found.tokens == 5 * 29
    assert math.log(found.value) == pytest.approx(expected, rel=1e-5)


def test_overflow_is_infinite_and_not_an_error():
    assert Perplexity(1e6, 10, 8).value == math.inf


def test_the_mean_is_geometric():
    assert mean_perplexity({"a": 2.0, "b": 8.0}) == pytest.approx(4.0)
