"""Damage measured for a run that did not measure it."""

import json

import pytest

from pruning import RunConfig, prune
from pruning.cli.main import main
from pruning.engine.events import Iteration
from pruning.runs.report import predicted_divergence


@pytest.fixture
def options(tiny_folder, text_file):
    return {
        **{"model": str(tiny_folder), "ratio": 0.3, "iterations": 1, "eval_blocks": 3, "samples": 4},
        **{"mixture": {"words": 1}, "domains": {"words": str(text_file)}, "seq_len": 24},
    }


def test_measured_later_it_is_what_a_run_that_measures_finds(options, capsys):
    found = []
    config = RunConfig.create(**options, allocation="measured")
    with_it = prune(config, on_event=lambda e: found.append(e) if isinstance(e, Iteration) else None).run
    without = prune(RunConfig.create(**options)).run
    assert predicted_divergence(without) == {} and predicted_divergence(with_it)["words"] > 0
    assert main(["sensitivity", without.id, "--json"]) == 0
    sites = json.loads(capsys.readouterr().out)["sites"]
    assert sites == {str(site): curve.to_dict() for site, curve in found[1].curves.items()}
    assert without.iterations()[1].curves.keys() == with_it.iterations()[1].curves.keys()
    assert main(["sensitivity", without.id]) == 0
    assert "nats per token" in capsys.readouterr().out
