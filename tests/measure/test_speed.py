import json

import pytest

from pruning.cli.main import main
from pruning.errors import ConfigError
from pruning.measure.speed import WARM_UP, Speed, Target, bench, bench_targets, lengths_within, size
from pruning.progress import drain
from tests.conftest import tiny_loaded, tiny_pruned


def test_sizes_are_counted_by_hand(text_file):
    dense = size(tiny_loaded("llama_mha"))
    layer = 4 * 32 * 32 + 3 * 32 * 48
    assert dense.linear_parameters == 3 * layer
    assert dense.parameters == 3 * (layer + 2 * 32) + 32 + 2 * 257 * 32  # norms, embedding and head
    assert dense.memory_bytes == 4 * dense.parameters
    assert dense.cache_bytes == 2 * 3 * 8 * 4 * 4  # keys and values, layers, heads, head_dim, float32
    pruned = size(tiny_pruned("llama_mha", text_file).loaded)
    assert pruned.linear_parameters < 0.6 * dense.linear_parameters
    assert pruned.cache_bytes <= dense.cache_bytes


def test_models_are_timed_at_every_batch_and_length():
    models = [tiny_loaded("qwen2"), tiny_loaded("llama_mha")]
    steps = []
    measurements = drain(bench(models, (1, 2), (8, 16), new_tokens=2, repeats=2), steps.append)
    assert [(m.model, m.batch, m.length) for m in measurements] == [
        (name, batch, length) for length in (8, 16) for batch in (1, 2) for name in ("qwen2", "llama_mha")
    ]
    assert steps[-1].done == steps[-1].total == 4 * 4


def test_speeds_are_those_of_rounds_in_which_targets_take_turns_after_a_warm_up():
    calls = []

    def target(name, seconds):
        """A model that takes these seconds for prefill in its rounds, and half as long for decode."""
        rounds = iter(seconds)

        def time(batch, length, new_tokens):
            calls.append((name, batch, length, new_tokens))
            prefill = next(rounds)
            return prefill, prefill / 2

        return Target(name, 64, time)

    targets = [target("a", (90, 80, 4, 1, 2)), target("b", (1, 1, 10, 10, 10))]
    a, b = drain(bench_targets(targets, (2,), (30,), new_tokens=5, repeats=3), lambda _: None)
    assert calls == [("a", 2, 30, 5), ("b", 2, 30, 5)] * (WARM_UP + 3)
    assert a.prefill == Speed(median=30.0, lowest=15.0, highest=60.0)  # 60 tokens in 2, 4 and 1 s
    assert a.decode == Speed(median=10.0, lowest=5.0, highest=20.0)  # 10 tokens in 1, 2 and 0.5 s
    assert b.prefill == Speed(6.0, 6.0, 6.0) and b.decode == Speed(2.0, 2.0, 2.0)


def test_a_length_beyond_the_context_is_refused():
    with pytest.raises(ConfigError, match="context"):
        drain(bench([tiny_loaded("qwen2")], (1,), (64,), new_tokens=1), lambda _: None)


def test_the_command_compares_models(tiny_folder, capsys):
    arguments = ["bench", str(tiny_folder), str(tiny_folder), "--batch", "1", "--lengths", "8"]
    arguments += ["--new-tokens", "2", "--repeats", "2", "--device", "cpu"]
    assert main([*arguments, "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert len(output["models"]) == len(output["speed"]) == 2 and output["device"] == "cpu"
    assert main(arguments) == 0
    assert "prefill" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--batch", "--lengths", "--repeats", "--new-tokens"])
@pytest.mark.parametrize("value", ["0", "a", "", "-1", "1,,2"])
def test_what_is_no_number_from_1_up_is_refused(option, value, capsys):
    assert main(["bench", "demo", f"{option}={value}"]) == 2
    message = capsys.readouterr().err.strip()
    assert "is no whole number from 1 to 1,000,000" in message and "\n" not in message


@pytest.mark.parametrize("counts", [{"repeats": 0}, {"new_tokens": 0}, {"batches": ()}])
def test_there_is_something_to_time(counts):
    with pytest.raises(ConfigError, match="give 1 or more"):
        drain(bench([tiny_loaded("qwen2")], **{"lengths": (8,), **counts}), lambda _: None)


def test_the_default_lengths_stay_within_the_context():
    tiny = tiny_loaded("qwen2")  # 64 tokens
    assert lengths_within([tiny.model.config.max_position_embeddings], 16) == (48,)
    tiny.model.config.max_position_embeddings = 1024
    assert lengths_within([tiny.model.config.max_position_embeddings], 16) == (128, 512)
