"""The mixture that tunes itself."""

import math

import pytest

from pruning.method.mixture import FLOOR, NOISE, RATE, adapt

EQUAL = {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}


def test_one_step_is_the_formula():
    found = adapt({"a": 0.5, "b": 0.5}, {"a": 0.3, "b": 0.1})
    pull = RATE * 0.1 / (0.2 + NOISE)
    assert found["a"] / found["b"] == pytest.approx(math.exp(2 * pull), rel=1e-12)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)


def test_equal_losses_move_nothing():
    assert adapt(EQUAL, dict.fromkeys(EQUAL, 0.7)) == pytest.approx(EQUAL)


def test_no_domain_is_lost_sight_of_however_often_the_others_lose():
    weights = EQUAL
    for _ in range(50):
        weights = adapt(weights, {"a": 3.0, "b": 0.1, "c": 0.0, "d": -0.1})
    assert min(weights.values()) == pytest.approx(FLOOR / 4)
    assert sum(weights.values()) == pytest.approx(1)
    assert max(weights, key=weights.get) == "a"


@pytest.mark.parametrize(
    "rises", [{"a": math.inf, "b": 0.1}, {"a": math.nan, "b": 0.1}, {"a": -0.2, "b": 0.1}]
)
def test_what_cannot_be_compared_moves_nothing(rises):
    assert adapt({"a": 0.6, "b": 0.4}, rises) == {"a": 0.6, "b": 0.4}


def test_differences_that_are_small_beside_the_noise_hardly_count():
    found = adapt({"a": 0.5, "b": 0.5}, {"a": 0.002, "b": 0.0})
    assert found["a"] == pytest.approx(0.5, abs=0.01)
