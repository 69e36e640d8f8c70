"""A few of the inputs of benchmarks/fuzz.py; docs/reliability.md has the figures of many."""

import pytest

from benchmarks import fuzz

pytestmark = pytest.mark.long


@pytest.mark.parametrize("kind", [kind for kind in fuzz.KINDS if kind != "addresses"])
def test_inputs_that_nobody_would_write_end_in_a_sentence(kind):
    found = fuzz.fuzz(kind, 60)
    assert found.inputs >= 50 and found.tracebacks == {}


def test_addresses_that_nobody_would_write_show_a_page():
    assert fuzz.fuzz("addresses", 2).tracebacks == {}
    fuzz._address(("importance", {"channel": "9" * 5000, "iteration": "1000000000", "layer": "nan"}), None)


@pytest.mark.parametrize("value", ["9" * 5000, "INF"])
@pytest.mark.parametrize("page", ["importance", "masks", "sensitivity"])
def test_a_link_whose_every_setting_is_absurd_shows_a_page(page, value):
    keys = ("channel", "iteration", "layer", "ratio", "w_code", "round_to", "site", "run", "method", "keep")
    fuzz._address((page, dict.fromkeys(keys, value)), None)
