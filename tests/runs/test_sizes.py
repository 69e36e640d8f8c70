"""Any iteration of a run as a checkpoint."""

import json

import numpy as np
import pytest
import torch

from pruning import RunConfig, prune
from pruning.cli.main import main
from pruning.engine.events import Iteration
from pruning.errors import RunError
from pruning.models.loading import load
from pruning.runs.checkpoints import checkpoint_after, named_checkpoint
from pruning.runs.run import RunStore


@pytest.fixture
def made(tiny_folder, text_file):
    """A run in three steps whose compensation changes weights, and by iteration the logits of its model."""
    options = {
        **{"model": str(tiny_folder), "ratio": 0.4, "iterations": 3, "compensation": "least_squares"},
        **{"mixture": {"words": 1}, "domains": {"words": str(text_file)}},
        **{"samples": 4, "seq_len": 24, "eval_blocks": 3},
    }
    measured = {}

    def look(event):
        if isinstance(event, Iteration):
            measured[event.number] = event.perplexity["words"].nll, event.mask

    return prune(RunConfig.create(**options), on_event=look), measured


def test_each_iteration_is_a_model_that_computes_what_was_measured(made, capsys):
    result, measured = made
    text = ["--domain", f"words={result.run.config.domains['words']}", "--mixture", "words"]
    for number in (1, 2):
        model = load(str(checkpoint_after(result.run, number))).model
        parameters = sum(p.numel() for p in model.parameters())
        assert parameters == result.run.iterations()[number].metrics.parameters
        name = f"{result.run.id}:{number}"
        assert (
            main(["evaluate", "--model", name, *text, "--seq-len", "24", "--eval-blocks", "3", "--json"]) == 0
        )
        found = json.loads(capsys.readouterr().out)["domains"]["words"]["nll"]
        assert found == pytest.approx(measured[number][0], rel=1e-6)
    assert checkpoint_after(result.run, 3) == result.run.checkpoint


def test_an_iteration_of_a_run_that_kept_no_model_can_be_had(made):
    result, _ = made
    logits = result.loaded.model(torch.arange(8)[None]).logits
    (result.run.path / "model").rename(result.run.path / "gone")
    again = load(str(checkpoint_after(result.run, 3))).model(torch.arange(8)[None]).logits
    assert torch.equal(logits, again)


def test_an_iteration_is_exported_beside_the_run_s_own_model(made, capsys):
    result, _ = made
    assert main(["export", f"{result.run.id}:1", "--format", "hf"]) == 0
    assert (result.run.path / "exports" / "hf-01" / "config.json").exists()


@pytest.mark.parametrize("name", ["{}:0", "{}:4", "{}:x", "{}:", "{}:99999", "{}:-1", "{}:\u0663"])
def test_what_is_no_iteration_gets_a_sentence(made, name):
    run = made[0].run
    with pytest.raises(RunError, match="iteration"):
        named_checkpoint(RunStore(run.path.parent), name.format(run.id))


def test_masks_are_nested(made):
    masks = [mask for _, mask in made[1].values()]
    for before, after in zip(masks, masks[1:], strict=False):
        for site in after.kept:
            assert not np.any(after.kept[site] & ~before.kept[site])
