"""The divergence from the dense model, by block, beside that of transformers' own logits over all tokens."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM

from pruning import RunConfig, RunStore, prune
from pruning.checksums import read_arrays, read_json, write_json
from pruning.cli.main import main
from pruning.engine.blocks import evaluation_blocks
from pruning.measure import perplexity as evaluation
from pruning.measure.comparison import Rise
from pruning.measure.perplexity import Evaluation, predictions_cached
from pruning.models import layer_pass as passes
from pruning.models.layer_pass import layer_pass
from pruning.models.source import InMemory
from pruning.paths import cache_folder
from pruning.progress import drain
from pruning.runs.report import groups, results_sections
from pruning.runs.worker import Cancelled, execute
from pruning.text.blocks import TokenBlocks
from pruning.visualization import report
from tests.conftest import TINY, byte_tokenizer, tiny_model

RNG = np.random.default_rng(0)
BLOCKS = [TokenBlocks(name, RNG.integers(0, 256, (count, 30)), {}) for name, count in (("a", 5), ("b", 3))]


def evaluated(model, dense=None, blocks=BLOCKS):
    visitor = Evaluation(InMemory(model), blocks, dense)
    drain(layer_pass(visitor.source, [visitor], "evaluate"), lambda _: None)
    return visitor


@torch.no_grad()
def exact(dense, changed, ids):
    """Nats per token of each block, over the whole vocabulary, in double precision."""
    p, q = (
        model(torch.from_numpy(ids)).logits[:, :-1].double().log_softmax(-1) for model in (dense, changed)
    )
    return torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean(-1).tolist()


def changed(name):
    model = tiny_model(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", TINY)
def test_over_a_small_vocabulary_the_divergence_is_exact(name, monkeypatch):
    """Whatever tokens pass a layer or meet the output head together."""
    monkeypatch.setattr(evaluation, "LOGIT_TOKENS", 17)
    monkeypatch.setitem(passes.BATCH_TOKENS, "cpu", 60)
    monkeypatch.setattr(evaluation, "TOP", 300)
    dense, other = tiny_model(name), changed(name)
    measured = evaluated(other, evaluated(dense).predictions()).perplexities()
    for each in BLOCKS:
        truth = exact(dense, other, each.ids)
        assert measured[each.domain].divergence == pytest.approx(truth, rel=1e-4) and min(truth) > 1e-3


def test_fewer_tokens_give_a_lower_bound_that_rises_to_the_divergence(monkeypatch):
    dense, other = tiny_model("qwen3"), changed("qwen3")
    truth = np.array(exact(dense, other, BLOCKS[0].ids))
    bounds = []
    for top in (1, 8, 64, 200, 256):
        monkeypatch.setattr(evaluation, "TOP", top)
        predictions = evaluated(dense).predictions()
        assert predictions["a"].tokens.shape == (5 * 29, top)
        bounds.append(evaluated(other, predictions).perplexities()["a"].divergence)
    assert (np.diff(bounds, axis=0) > 0).all() and (bounds[-2] < truth).all()
    np.testing.assert_allclose(bounds[-2], truth, rtol=0.1)
    np.testing.assert_allclose(bounds[-1], truth, rtol=1e-4)  # the others are one token: nothing is lumped


def test_the_dense_model_does_not_diverge_from_itself():
    model = tiny_model("qwen2")
    visitor = evaluated(model)
    measured = evaluated(model, visitor.predictions()).perplexities()
    assert all(value == 0 for each in measured.values() for value in each.divergence)
    plain = {name: replace(each, divergence=()) for name, each in measured.items()}
    assert plain == visitor.perplexities()  # perplexities are those of a pass without comparison
    assert len(measured["a"].divergence) == 5


def test_predictions_are_cached_once_and_corrupt_ones_made_anew(monkeypatch):
    source, passed = InMemory(tiny_model("qwen2")), []
    monkeypatch.setattr(evaluation, "layer_pass", lambda *args: passed.append(1) or layer_pass(*args))

    def predictions():
        return drain(predictions_cached(source, BLOCKS, "state"), lambda _: None)

    def same(one, other):
        return all((x == y).all() for d in ("a", "b") for x, y in zip(one[d], other[d], strict=True))

    first = predictions()
    assert same(first, predictions()) and len(passed) == 1
    file, _ = sorted((cache_folder() / "predictions").iterdir())
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert read_arrays(file) is None
    assert same(first, predictions()) and len(passed) == 2 and read_arrays(file)


# --- runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tiny_folder, text_file):
    options = {"domains": {"words": str(text_file), "same": str(text_file)}, "model": str(tiny_folder)}
    options |= {"mixture": {"words": 1, "same": 1}, "samples": 2, "seq_len": 24, "eval_blocks": 6}
    return RunConfig.create(**options, iterations=2, ratio=0.4)


def test_a_run_records_the_divergence_of_its_checkpoint(config, capsys):
    result = prune(config)
    dense = AutoModelForCausalLM.from_pretrained(config.model)
    blocks, _ = evaluation_blocks(config, byte_tokenizer(), dense)
    truth = exact(dense, result.loaded.model, blocks.ids)
    last = result.summary.iterations[-1]
    assert last.perplexity["words"].divergence == pytest.approx(truth, rel=1e-3)
    words, mean = result.summary.divergence["words"], result.summary.mean_divergence
    interval = stats.ttest_1samp(last.perplexity["words"].divergence, 0).confidence_interval(0.95)
    assert (words.value - words.interval, words.value + words.interval) == pytest.approx(tuple(interval))
    assert mean.value == pytest.approx(words.value)  # both domains have the same text
    assert result.summary.iterations[0].divergence["mean"].value < mean.value
    assert not result.run.iterations()[0].metrics.divergence
    section = results_sections(result.summary)["divergence"]
    assert [row.measure for row in section] == ["divergence words", "divergence same", "divergence mean"]
    assert section[0].pruned == f"{words.value:.3f}" and section[0].change == f"± {words.interval:.3f}"
    capsys.readouterr()
    arguments = ["evaluate", "--model", result.run.id, "--domain", f"words={config.domains['words']}"]
    arguments += ["--mixture", "words=1", "--seq-len", "24", "--eval-blocks", "6"]
    assert main([*arguments, "--json"]) == 0
    evaluated_again = json.loads(capsys.readouterr().out)
    assert evaluated_again["divergence"]["words"] == pytest.approx(words.value, rel=1e-4)
    assert main(arguments) == 0 and f"{words.value:.3f} ±" in capsys.readouterr().out
    assert "divergence mean" in repr(result) and "divergence mean" in report.markdown(result.run)
    assert "Divergence and perplexity by iteration" in report.html(result.run)


def test_a_resumed_run_measures_the_same(config, monkeypatch, tmp_path):
    complete, run = prune(config), RunStore(tmp_path / "resumed").create(config)

    def stop(event):
        if getattr(event, "number", 0) == 1:
            run.cancel()

    with pytest.raises(Cancelled):
        execute(run, stop)
    assert run.last_iteration == 1
    (run.path / "cancel").unlink()
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "empty"))  # the dense model is asked once more
    resumed = execute(run)
    assert resumed.summary.divergence == complete.summary.divergence
    assert [it.perplexity for it in resumed.summary.iterations] == [
        it.perplexity for it in complete.summary.iterations
    ]


def without_divergence(run):
    """The run as an earlier version wrote it."""
    for file in (run.path / "results.json", *run.path.glob("iteration-*/metrics.json")):
        content = read_json(file)
        content.pop("divergence", None)
        for each in (content, *content.get("iterations", ())):
            for text in each["perplexity"].values():
                text.pop("divergence", None)
        write_json(file, content)


def test_runs_rank_by_divergence_and_by_perplexity_beside_earlier_ones(config, capsys):
    for ratio in (0.1, 0.6):
        prune(config.replace(ratio=ratio, iterations=1, save_model=False))
    (group,), _ = groups(RunStore().all())
    assert [each.mean("divergence") for each in group.members] == sorted(
        each.results.mean_divergence.value for each in group.members
    )
    best, worst = group.members
    rise = worst.rise(best, "divergence")
    difference = [
        np.subtract(*(each.results.iterations[-1].perplexity["words"].divergence for each in (worst, best)))
    ]
    assert rise.value == pytest.approx(np.mean(difference)) and rise.text("divergence").startswith("+")
    assert main(["compare", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["groups"]
    assert row["ranked_by"] == "divergence" and list(row["divergence_against_best"]) == [worst.run.id]
    assert row["divergence_against_best"][worst.run.id]["interval"] == pytest.approx(rise.interval)
    assert main(["compare"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("Divergence from the dense model (KL, nats per token)") < printed.index("Perplexity")

    without_divergence(worst.run)
    assert worst.run.results().divergence == {}
    (group,), _ = groups(RunStore().all())
    assert group.against_best("divergence") == {} and len(group.against_best()) == 1
    assert main(["compare", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"][0]["ranked_by"] == "perplexity"
    for arguments in (["compare"], ["runs", "show", worst.run.id], ["runs", "list"]):
        assert main(arguments) == 0
    assert "perplexity words" in report.markdown(worst.run) and report.html(worst.run)


def test_a_difference_in_nats_is_told_with_its_interval():
    blocks = np.array([0.3, 0.5, 0.4, 0.6])
    rise = Rise.between([(blocks, blocks + [0.1, 0.12, 0.08, 0.1])])
    low, high = stats.ttest_1samp([0.1, 0.12, 0.08, 0.1], 0).confidence_interval(0.95)
    assert rise.text("divergence") == f"+0.100 ({low:+.3f} to {high:+.3f})"
    assert "blocks would tell" in Rise.over([[0.1, -0.1, 0.11, -0.09]]).text("divergence")
    assert Rise.over([[0.1]]).text("divergence") == "unknown from one block"
    assert Rise.over([]) is None and Rise.over([[0.1], []]) is None
