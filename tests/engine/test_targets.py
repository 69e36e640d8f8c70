"""Ratios that reach a size."""

import numpy as np
import pytest

from pruning import RunConfig
from pruning.cli.main import main
from pruning.engine.budget import first_mask
from pruning.engine.targets import SIZES, ratio_for_parameters, smallest_ratio, time_ratios
from pruning.errors import ConfigError
from pruning.measure import speed
from pruning.measure.speed import Measurement, Speed
from pruning.models.folder import describe
from pruning.models.layer_view import geometry, parameter_count
from pruning.progress import Progress, drain
from pruning.runs.run import RunStore
from tests.conftest import llama_geometry, tiny_loaded

GEOMETRY = llama_geometry(64, 16, ((8, 4, 256), (8, 4, 256)))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("part", [0.9, 0.7, 0.45])
def test_the_smallest_ratio_within_the_limit_is_found(name, part):
    rng = np.random.default_rng(0)
    scores = {site: rng.random(GEOMETRY.channels(site)) for site in GEOMETRY.sites}
    config = RunConfig.create()

    def size(ratio):
        return SIZES[name](first_mask(scores, GEOMETRY, config.replace(ratio=ratio)), 200_000)

    limit = size(0) * part
    ratio = smallest_ratio(size, limit)
    assert size(ratio) <= limit < size(ratio - 0.01)


def test_what_is_out_of_reach_is_said_with_what_can_be_had():
    with pytest.raises(
        ConfigError, match="a pruning ratio of 90%, the largest, leaves 10: give at least that"
    ):
        smallest_ratio(lambda ratio: 100 * (1 - ratio), 5)
    assert smallest_ratio(lambda ratio: 100 * (1 - ratio), 500) == 0


def command_of(folder, text_file):
    text = ["--domain", f"words={text_file}", "--mixture", "words", "--calibration-blocks", "4"]
    options = [*text, "--seq-len", "24", "--iterations", "1", "--eval-blocks", "0"]
    return ["prune", "--model", str(folder), *options]


def test_the_command_line_prunes_to_a_number_of_parameters(tiny_folder, text_file, capsys):
    parameters = describe(str(tiny_folder)).parameters
    command = command_of(tiny_folder, text_file)
    assert main([*command, "--max-parameters", str(int(parameters * 0.8))]) == 0
    (run,) = RunStore().all()
    assert run.results().parameters.pruned == pytest.approx(0.8 * parameters, rel=0.02)
    assert main([*command, "--max-parameters", "1M", "--ratio", "0.3"]) == 2
    assert main([*command, "--max-parameters", "100"]) == 2
    assert "embeddings and norms" in capsys.readouterr().err
    assert main([*command, "--max-parameters", "-3"]) == 2


def test_a_ratio_for_parameters_counts_what_is_not_pruned():
    summary = describe("demo")
    linear = summary.geometry.linear_parameters
    assert ratio_for_parameters(summary, summary.parameters - linear // 2) == pytest.approx(0.5, abs=1e-4)
    assert ratio_for_parameters(summary, 1e12) == 0


def test_a_ratio_for_a_speed_lies_on_the_line_through_what_was_timed(monkeypatch):
    """Models of which a token takes a microsecond a parameter, and a hundredth of a second beside."""

    def timed(models, batches, lengths, new_tokens):
        yield Progress("bench", 1, 1)
        speeds = [1 / (1e-2 + 1e-6 * parameter_count(each.model)) for each in models]
        return [Measurement("", 1, 8, Speed(s, s, s), Speed(s, s, s)) for s in speeds]

    monkeypatch.setattr(speed, "bench", timed)
    loaded = tiny_loaded("qwen2")
    dense = parameter_count(loaded.model)
    linear = geometry(loaded.model).linear_parameters
    wanted = 1 / (1e-2 + 1e-6 * (dense - 0.4 * linear))
    timing = drain(time_ratios(loaded), lambda _: None)
    assert timing.ratio(wanted) == pytest.approx(0.4, abs=0.02)
    assert parameter_count(loaded.model) == dense
    assert timing.ratio(1) == 0
    with pytest.raises(ConfigError, match="out of reach"):
        timing.ratio(1e6)


def test_the_command_line_prunes_to_a_speed(tiny_folder, text_file, capsys):
    command = command_of(tiny_folder, text_file)
    assert main([*command, "--min-speed", "1"]) == 0
    assert "1 tokens per second need a pruning ratio of 0.00%" in capsys.readouterr().err
    assert main([*command, "--min-speed", "1", "--max-parameters", "1M"]) == 2
    assert "--max-parameters and --min-speed each set" in capsys.readouterr().err
