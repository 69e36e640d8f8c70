import json

import pytest

from pruning import RunConfig
from pruning.config import METHODS
from pruning.errors import ConfigError
from pruning.limits import parse_mixture
from pruning.text.sources import EMBEDDED_DOMAINS


def test_presets_fill_what_is_not_given():
    config = RunConfig.create(method="flap", samples=7)
    assert (config.iterations, config.normalise, config.mixture, config.samples) == (
        1,
        "zscore",
        {"wiki": 1.0},
        7,
    )


def test_options_override_the_preset():
    assert RunConfig.create(method="flap", iterations=3).iterations == 3


def test_the_mixture_auto_is_equal_at_first_and_then_moves():
    config = RunConfig.create(mixture="auto", domains={"own": "own.txt"})
    assert config.adapt_mixture and set(config.mixture.values()) == {0.2}
    assert RunConfig.create(mixture=parse_mixture("auto")).adapt_mixture
    assert RunConfig.create(**json.loads(config.model_dump_json())) == config
    assert not RunConfig.create(mixture={"auto": 1}, domains={"auto": "auto.txt"}).adapt_mixture


@pytest.mark.parametrize("method", METHODS)
def test_every_preset_is_a_valid_config_that_survives_json(method):
    config = RunConfig.create(method=method)
    assert RunConfig.create(**json.loads(config.model_dump_json())) == config


def test_weights_are_normalised_and_zero_ones_left_out():
    assert RunConfig.create(mixture={"wiki": 3, "web": 0, "code": 1}).mixture == {"wiki": 0.75, "code": 0.25}


def test_a_config_that_is_read_again_is_the_same():
    for shares in ((0.35, 0.45, 0.15, 0.05), (0.05, 0.5, 0.15, 0.29999999999999993), (1, 1, 15, 18)):
        weights = dict(zip(EMBEDDED_DOMAINS, shares, strict=True))
        config = RunConfig.create(mixture=weights)
        for _ in range(3):
            again = RunConfig.create(**json.loads(config.model_dump_json()))
            assert again.model_dump_json() == config.model_dump_json()
            config = again


def test_the_embedded_domains_are_measured_where_all_text_is_embedded():
    assert RunConfig.create(mixture={"code": 1}).measured_domains == ("wiki", "web", "code", "math")
    own = RunConfig.create(mixture={"a": 1}, domains={"b": "b.txt", "a": "a.txt"})
    assert own.measured_domains == ("a", "b")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ratio": 1.0}, "ratio is 1.0"),
        ({"ratio": -0.1}, "ratio is -0.1"),
        ({"ratio": "half"}, "ratio is 'half'"),
        ({"mixture": {"wiki": 0, "code": 0}}, "all domain weights are zero"),
        ({"mixture": {}}, "all domain weights are zero"),
        ({"mixture": {"wiki": -1}}, "'wiki' is -1"),
        ({"mixture": {"wiki": float("nan")}}, "'wiki' is nan"),
        ({"mixture": {"poetry": 1}}, "unknown domain 'poetry'"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"normalise": "softmax"}, "unknown normaliser 'softmax'"),
        ({"method": ["flap"]}, "unknown method ['flap']"),
        ({"samples": 0}, "samples is 0"),
        ({"ratoi": 0.5}, "unknown option 'ratoi'"),
    ],
)
def test_a_wrong_option_is_one_sentence_with_its_value(options, says):
    with pytest.raises(ConfigError) as error:
        RunConfig.create(**options)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_mixture_is_read_as_written():
    assert parse_mixture("wiki=0.4, code = 2,math") == {"wiki": 0.4, "code": 2.0, "math": 1.0}


@pytest.mark.parametrize("text", ["", "wiki=x", "wiki=1,wiki=2"])
def test_a_broken_mixture_is_refused(text):
    with pytest.raises(ConfigError):
        parse_mixture(text)


@pytest.mark.parametrize("schedule", ["linear", "geometric", "cubic"])
def test_schedules_rise_and_end_at_the_ratio(schedule):
    config = RunConfig.create(ratio=0.6, iterations=7, schedule=schedule)
    ratios = [config.ratio_at(k) for k in range(1, 8)]
    assert ratios == sorted(ratios)
    assert ratios[0] > 0
    assert ratios[-1] == pytest.approx(0.6)


def test_config_files(tmp_path):
    config = RunConfig.create(ratio=0.3, mixture={"code": 1})
    (tmp_path / "run.json").write_text(json.dumps({"config": config.model_dump(mode="json"), "versions": {}}))
    (tmp_path / "plain.yaml").write_text("ratio: 0.3\nmixture: {code: 1}\n")
    assert RunConfig.read(tmp_path / "run.json") == config == RunConfig.read(tmp_path / "plain.yaml")


def test_a_run_of_version_0_1_weights_all_tokens_alike(tmp_path):
    content = RunConfig.create(normalise="share").model_dump(mode="json")
    del content["token_weights"]  # which it did not know
    (tmp_path / "run.json").write_text(json.dumps({"config": content, "versions": {}}))
    assert RunConfig.read(tmp_path / "run.json").token_weights == "equal"
    (tmp_path / "own.yaml").write_text("ratio: 0.3")
    assert RunConfig.read(tmp_path / "own.yaml").token_weights == "residual"


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "3: 4", None])
def test_a_broken_config_file_is_refused(tmp_path, content):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError):
        RunConfig.read(path)
