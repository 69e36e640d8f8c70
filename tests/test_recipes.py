"""The recipes of CONTRIBUTING.md, followed: what is registered once is an option everywhere."""

import json
import re
import textwrap
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING

from pruning import RunConfig, prune
from pruning.cli.main import main, parser
from pruning.config import choices
from pruning.engine.budget import site_stats
from pruning.engine.calibration import calibrate
from pruning.engine.statistics_files import read_statistics, write_statistics
from pruning.errors import ConfigError
from pruning.formats.format import FORMATS
from pruning.formats.write import export
from pruning.method.allocation import ALLOCATIONS
from pruning.method.compensation import COMPENSATIONS, Repair
from pruning.method.normalise import NORMALISERS
from pruning.method.schedules import SCHEDULES
from pruning.method.scores import SCORES
from pruning.method.statistics import STATISTICS, Statistic
from pruning.models.families import FAMILIES
from pruning.models.family import COMMON_KEYS, FOREIGN_KEYS
from pruning.models.geometry import Site
from pruning.models.layer_view import geometry, layer_views
from pruning.models.mask import Mask
from pruning.models.source import InMemory
from pruning.progress import drain
from pruning.registry import Registry
from pruning.text.blocks import TokenBlocks
from tests.conftest import tiny_model


@pytest.fixture
def registered(monkeypatch):
    """Registers for one test."""

    def add(registry, entry, name=""):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        return registry.add(entry, name)

    return add


@pytest.fixture
def quick(tiny_folder, text_file):
    return {
        "model": str(tiny_folder),
        "mixture": {"text": 1},
        "domains": {"text": str(text_file)},
        "samples": 4,
        "seq_len": 24,
        "eval_blocks": 2,
        "iterations": 2,
    }


def test_a_score_that_is_registered_is_an_option_of_everything(registered, quick, capsys):
    def energy(site):
        """Mean square times norm."""
        return site.mean_square * site.norm**2

    registered(SCORES, energy)
    result = prune(RunConfig.create(**quick, score="energy"))
    first = result.run.iterations()[1]
    site = Site(0, "mlp")
    stats = site_stats(first.statistics, None, result.run.config)[site]
    np.testing.assert_allclose(first.scores[site], stats.mean_square * first.norms[site].norm ** 2)
    assert "energy" in choices("score")
    with pytest.raises(SystemExit):
        parser().parse_args(["prune", "--help"])
    assert "energy" in capsys.readouterr().out
    arguments = [
        "score",
        "--model",
        quick["model"],
        "--mixture",
        "text",
        "--seq-len",
        "24",
        "--calibration-blocks",
        "2",
    ]
    domain = ["--domain", f"text={quick['domains']['text']}"]
    assert main([*arguments, *domain, "--score", "energy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score"] == "energy"


def test_an_unknown_score_names_those_that_are_there():
    with pytest.raises(ConfigError, match="unknown score 'energy': choose one of fluctuation, wanda_sp"):
        RunConfig.create(score="energy")


def test_normalisers_schedules_allocations_and_compensations_are_registered_alike(registered, quick):
    def ranks(scores, first):
        return np.where(np.isnan(scores), np.nan, np.argsort(np.argsort(scores)) / len(scores))

    def late(t, ratio):
        return ratio * t**2

    def nothing_of_heads(units, mask, ratio):
        chosen = ALLOCATIONS["global"](units[1::2], mask, ratio)
        return [part for unit, mlp in zip(units[::2], chosen, strict=True) for part in (unit.forced, mlp)]

    def doubled(weight, fused, removed):
        found = COMPENSATIONS["bias"](weight, fused, removed)
        return Repair(found.bias, weight.float() * 0.5)

    registered(NORMALISERS, ranks)
    registered(SCHEDULES, late)
    registered(ALLOCATIONS, nothing_of_heads)
    registered(COMPENSATIONS, doubled)
    options = {"normalise": "ranks", "schedule": "late", "allocation": "nothing_of_heads"}
    result = prune(RunConfig.create(**quick, **options, compensation="doubled", ratio=0.3))
    assert all(result.mask.kept[Site(layer, "attn")].all() for layer in range(3))
    assert result.run.iterations()[1].metrics.target_ratio == pytest.approx(0.075)
    # weights that compensation changed are part of what is kept, and of the model's name
    assert result.delta.weights.keys() == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(3)}
    stored = result.run.iterations()[-1].delta()
    assert all(torch.equal(stored.weights[name], t) for name, t in result.delta.weights.items())
    assert stored.digest("x") == result.delta.digest("x")


def test_a_statistic_that_is_registered_is_taken_by_a_pass(registered, tmp_path):
    @dataclass(frozen=True, slots=True)
    class SecondMoments(Statistic):
        """The sum of outer products of a site's inputs."""

        outer: object

        def merge(self, other):
            return type(self)(self.count + other.count, self.outer + other.outer)

        def in_dense_indices(self, kept):
            full = np.full((len(kept),) * 2, np.nan)
            full[np.ix_(kept, kept)] = self.outer.numpy()
            return type(self)(self.count, full)

    def second(observation):
        x = observation.inputs.flatten(0, -2).double()
        return SecondMoments(len(x), x.T @ x)

    registered(STATISTICS, second)
    model = tiny_model("qwen2")
    ids = np.random.default_rng(0).integers(0, 256, (5, 24))
    blocks = [TokenBlocks("a", ids[:3], {}), TokenBlocks("b", ids[3:], {})]
    mask = Mask.full(geometry(model))
    statistics, moments = (
        drain(calibrate(InMemory(model), blocks, mask, kind), lambda _: None).statistics["a"]
        for kind in ("second", "moments")
    )
    seen = []
    view = layer_views(model)[1]
    hook = view.projection("mlp").register_forward_pre_hook(
        lambda _, args: seen.append(args[0].double().flatten(0, 1))
    )
    with torch.no_grad():
        model(torch.from_numpy(ids[:3]))
    hook.remove()
    site = Site(1, "mlp")
    outer = statistics[site].outer
    np.testing.assert_allclose(outer, (seen[0].T @ seen[0]).numpy(), rtol=1e-5, atol=1e-8)
    expected = moments[site].m2 + 72 * moments[site].mean ** 2
    np.testing.assert_allclose(np.diag(outer), expected, rtol=1e-5)
    write_statistics(tmp_path / "second.safetensors", statistics)
    back = read_statistics(tmp_path / "second.safetensors", SecondMoments)
    np.testing.assert_array_equal(back[site].outer, outer)
    assert back[site].count == 72


def test_an_export_format_that_is_registered_writes_and_checks(registered, tiny_folder, tmp_path):
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = text.partition("### An export format")[2]
    code = textwrap.dedent(re.search(r"```python\n(.*?)```", recipe, re.DOTALL)[1])
    registered(FORMATS, FORMATS["hf"], "another")  # so that what the code registers is gone after the test
    exec(compile(code, "tensors.py", "exec"), {"__name__": "tensors"})
    result = export(tiny_folder, "tensors", tmp_path / "out", "f32")
    assert result.path.name == "tensors.safetensors" and result.difference == 0.0
    assert result.plan.unsupported_reason == "" and result.snippet.startswith("from safetensors")


def test_a_name_is_registered_once():
    registry = Registry("thing")
    registry.add(1, "one")
    with pytest.raises(ValueError, match="there is a thing 'one' already"):
        registry.add(2, "one")


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_a_family_declares_every_field_of_its_config(model_type):
    """An allow-list: whoever adds one whose config scales, caps or leaves out something has to say so."""
    fields_ = {field.name for field in fields(CONFIG_MAPPING[model_type])}
    undeclared = fields_ - FAMILIES[model_type].keys - COMMON_KEYS
    assert undeclared <= FOREIGN_KEYS.keys() | {"layer_types"}, sorted(undeclared)
