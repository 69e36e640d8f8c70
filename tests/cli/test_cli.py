import json
import re

import pytest

from pruning.cli.main import main
from pruning.runs.run import RunStore
from tests.conftest import needs_demo


@pytest.fixture
def text(tiny_folder, text_file):
    model = ("--model", str(tiny_folder), "--domain", f"words={text_file}", "--mixture", "words=1")
    return [*model, "--seq-len", "24"]


@pytest.fixture
def options(text):
    return [*text, "--calibration-blocks", "4", "--eval-blocks", "3"]


@pytest.fixture
def options_of(text, options):
    """The options of the fixture `options` that a command takes."""
    calibration = [*text, "--calibration-blocks", "4"]
    return {
        "prune": options,
        "calibrate": calibration,
        "score": calibration,
        "evaluate": [*text, "--eval-blocks", "3"],
    }


def run(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_prune_prints_one_object(capsys, options):
    found = run(capsys, "prune", *options, "--ratio", "0.3", "--iterations", "2")
    assert found["achieved_ratio"] == pytest.approx(0.3, abs=0.03)
    assert found["config"]["iterations"] == 2
    assert set(found["perplexity"]["mean"]) == {"dense", "pruned", "rise"}
    assert len(found["iterations"]) == 2
    assert RunStore().get(found["run_id"])


def test_report_writes_one_page_of_a_run(capsys, options, tmp_path):
    made = run(capsys, "prune", *options, "--ratio", "0.3", "--iterations", "2")
    found = run(capsys, "report", made["run_id"][:18], "--html", str(tmp_path / "run.html"))
    text = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert found["run_id"] == made["run_id"] and found["bytes"] == len(text.encode())
    assert text.startswith("<!doctype html>") and "perplexity words" in text
    assert "://" not in text  # nothing is fetched from anywhere


def test_every_documented_option_reaches_the_config(capsys, options, tmp_path):
    found = run(
        capsys,
        *("prune", *options, "--method", "flap", "--ratio", "0.2", "--iterations", "2", "--seed", "3"),
        *(
            "--fusion",
            "total",
            "--normalise",
            "share",
            "--allocation",
            "uniform",
            "--attention-unit",
            "query_head",
        ),
        *("--compensation", "none", "--keep", "0.attn", "--remove", "1.mlp.0-1", "--device", "cpu"),
        *("--dtype", "float32", "--runs-dir", str(tmp_path / "elsewhere")),
    )
    config = found["config"]
    expected = {"method": "flap", "fusion": "total", "normalise": "share", "allocation": "uniform", "seed": 3}
    expected |= {
        "attention_unit": "query_head",
        "compensation": "none",
        "keep": ["0.attn"],
        "remove": ["1.mlp.0-1"],
    }
    assert {name: config[name] for name in expected} == expected
    assert (tmp_path / "elsewhere" / found["run_id"] / "model").is_dir()


def test_a_run_repeats_from_its_config(capsys, options):
    first = run(capsys, "prune", *options)
    path = RunStore().get(first["run_id"]).path / "config.json"
    again = run(capsys, "prune", "--config", str(path))
    assert again["perplexity"] == first["perplexity"]
    changed = run(capsys, "prune", "--config", str(path), "--ratio", "0.2")
    assert changed["config"]["ratio"] == 0.2
    assert changed["config"]["domains"] == first["config"]["domains"]


def test_another_method_drops_the_old_presets_choices(capsys, options, tmp_path):
    first = run(capsys, "prune", *options, "--method", "wanda_sp")
    path = RunStore().get(first["run_id"]).path / "config.json"
    config = run(capsys, "prune", "--config", str(path), "--method", "iterative")["config"]
    assert (config["score"], config["allocation"], config["iterations"]) == ("fluctuation", "global", 5)


def test_calibrate_score_and_evaluate(capsys, options, options_of, tmp_path):
    assert run(capsys, "calibrate", *options_of["calibrate"])["domains"]["words"]["tokens"] == 96
    file = tmp_path / "scores.safetensors"
    assert len(run(capsys, "score", *options_of["score"], "--out", str(file))["sites"]) == 6
    assert file.exists()
    evaluated = run(capsys, "evaluate", *options_of["evaluate"])
    pruned = run(capsys, "prune", *options)
    assert evaluated["mean"] == pytest.approx(pruned["perplexity"]["mean"]["dense"])
    again = run(capsys, "evaluate", "--model", pruned["run_id"], *options_of["evaluate"][2:])
    assert again["mean"] == pytest.approx(pruned["perplexity"]["mean"]["pruned"], rel=1e-6)


def test_runs_and_compare(capsys, options):
    found = [run(capsys, "prune", *options, "--ratio", r)["run_id"] for r in ("0.2", "0.4")]
    assert [row["run_id"] for row in run(capsys, "compare")["runs"]] == found
    assert {row["run_id"] for row in run(capsys, "runs", "list")["runs"]} == set(found)
    assert run(capsys, "runs", "show", found[0])["status"]["state"] == "finished"
    assert run(capsys, "runs", "delete", found[0], "--yes")["state"] == "deleted"
    assert len(run(capsys, "runs", "list")["runs"]) == 1


def test_compare_groups_and_names_what_it_leaves_out(capsys, options):
    assert main(["prune", *options, "--eval-blocks", "0", "--iterations", "1"]) == 0
    capsys.readouterr()
    assert main(["compare"]) == 2
    error = capsys.readouterr().err
    assert "1 without evaluation (--eval-blocks 0)" in error and "--eval-blocks above 0" in error
    first = run(capsys, "prune", *options, "--iterations", "1")["run_id"]
    second = run(capsys, "prune", *options, "--iterations", "1", "--seq-len", "12")["run_id"]
    found = run(capsys, "compare")
    assert [[row["run_id"] for row in group["runs"]] for group in found["groups"]] == [[second], [first]]
    assert [group["seq_len"] for group in found["groups"]] == [12, 24]
    assert all(group["domains"]["words"] and group["model"] == options[1] for group in found["groups"])
    assert [each["reason"] for each in found["left_out"]] == ["without evaluation (--eval-blocks 0)"]
    assert main(["compare"]) == 0
    printed = capsys.readouterr().out
    assert "3 blocks of 24 tokens" in printed and "3 blocks of 12 tokens" in printed
    assert "Left out: 1 without evaluation (--eval-blocks 0)." in printed and "do not compare" in printed


@pytest.mark.parametrize("command", ["calibrate", "score", "prune"])
def test_a_domain_that_is_not_in_the_mixture_is_said_at_the_start(
    capsys, options, options_of, text_file, command
):
    extra = ["--domain", f"notes={text_file}"] + (["--iterations", "1"] if command == "prune" else [])
    assert main([command, *options_of[command], *extra]) == 0
    use = "is measured and not calibrated on" if command == "prune" else "is not used"
    words = f"omain 'notes' {use}: it has no weight in the mixture (list it in --mixture beside the others "
    words += "to calibrate on it)"
    assert words in capsys.readouterr().err.splitlines()[0]
    assert main(["prune", *options, "--domain", "notes=/no/such/file.txt"]) == 2  # before a model is loaded
    assert "Domain 'notes'" in capsys.readouterr().err


def test_resume(capsys, options):
    from pruning import RunConfig
    from pruning.runs.worker import execute

    config = run(capsys, "prune", *options)["config"]
    interrupted = RunStore().create(RunConfig.create(**config))

    def stop(event):
        if getattr(event, "number", None) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(interrupted, on_event=stop)
    assert run(capsys, "runs", "list")["runs"][0]["state"] == "cancelled"
    assert run(capsys, "runs", "resume", interrupted.id)["achieved_ratio"] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("command", ["prune", "compare", "runs list", "calibrate", "score", "evaluate"])
def test_people_get_tables(capsys, options_of, command):
    if command not in options_of:
        main(["prune", *options_of["prune"], "--json"])
        capsys.readouterr()
    assert main([*command.split(), *options_of.get(command, ())]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_an_old_spelling_works_and_is_noted(capsys, text, tmp_path):
    runs = ["--runs", str(tmp_path / "elsewhere")]
    old = ["--samples", "4", "--eval-blocks", "3", "--adapt-mixture", "--iterations", "2"]
    assert main(["prune", *text, *old, *runs, "--json"]) == 0
    out, error = capsys.readouterr()
    made = json.loads(out)
    assert made["config"]["samples"] == 4 and made["config"]["adapt_mixture"]
    assert RunStore(tmp_path / "elsewhere").get(made["run_id"])
    assert error.splitlines()[:3] == [
        "--samples is now --calibration-blocks: the old name goes in the next version.",
        "--runs is now --runs-dir: the old name goes in the next version.",
        "--adapt-mixture is now --mixture auto: the old name goes in the next version.",
    ]
    assert main(["damage", "nope"]) == 2
    assert capsys.readouterr().err.startswith("damage is now sensitivity: ")


@pytest.mark.parametrize("name", ["prune", "export", "serve", "generate", "compare", "calibrate"])
def test_help_lists_no_old_spelling(capsys, name):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    words = re.findall(r"--[a-z-]+", capsys.readouterr().out)
    assert "--runs-dir" in words
    assert not {"--runs", "--samples", "--type", "--so-far", "--limit", "--adapt-mixture"} & {*words}


def test_a_run_is_shown_by_its_outcome(capsys, options):
    made = run(capsys, "prune", *options, "--iterations", "1")
    assert main(["runs", "show", made["run_id"]]) == 0
    outcome = capsys.readouterr().out
    assert outcome.startswith("finished") and "perplexity words" in outcome and "seq_len" not in outcome
    assert main(["runs", "show", made["run_id"], "--config"]) == 0
    both = capsys.readouterr().out
    assert both.startswith(outcome) and json.loads(both.removeprefix(outcome)) == made["config"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate", "--ratio", "0.3"], "'evaluate' takes no '--ratio': '"),
        (["calibrate", "--schedule", "cubic"], "'calibrate' takes no '--schedule': '"),
        (["score", "--eval-blocks", "3"], "'score' takes no '--eval-blocks': '"),
        (["prune", "--ratio", "1.5"], "Ratio is 1.5"),
        (["prune", "--ratio", "much"], "invalid float value: 'much'"),
        (["prune", "--mixture", "wiki=0,code=0"], "All domain weights are zero"),
        (["prune", "--mixture", "wiki=-1"], "-1"),
        (["prune", "--mixture", "poetry=1"], "Unknown domain 'poetry'"),
        (["prune", "--model", "no-such-model"], "There is no model 'no-such-model'"),
        (["prune", "--method", "magic"], "invalid choice: 'magic'"),
        (["prune", "--config", "no-such-file"], "no-such-file"),
        (["prune", "--domain", "x"], "write NAME=PATH"),
        (["runs", "show", "nope"], "There is no run 'nope'"),
        (["runs", "delete", "nope", "--yes"], "There is no run 'nope'"),
        (["compare"], "no finished runs"),
        (["evaluate", "--model", "20200101-000000-flap-0000"], "There is no run '20200101-000000-flap-0000'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(capsys, arguments, says):
    code = main(arguments)
    printed = capsys.readouterr()
    assert code == 2
    assert says in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
    assert RunStore().all() == []


@needs_demo
@pytest.mark.long
def test_the_demo_prunes_in_three_lines():
    from pruning import RunConfig, prune

    result = prune(RunConfig(samples=4, iterations=2, eval_blocks=4))
    assert result.perplexity["mean"].pruned > result.perplexity["mean"].dense


def test_export_writes_into_the_run_or_where_it_is_told(capsys, options, tmp_path):
    run_id = run(capsys, "prune", *options, "--ratio", "0.3", "--iterations", "1")["run_id"]
    found = run(capsys, "export", run_id)
    assert found["difference"] == 0 and found["path"].endswith(f"{run_id}/exports/hf")
    assert "trust_remote_code" in found["snippet"]
    found = run(
        capsys, "export", run_id, "--format", "gguf", "--weights", "f32", "--out", str(tmp_path / "g")
    )
    assert found["path"].endswith("tiny-pruned-f32.gguf")
    checkpoint = str(RunStore().get(run_id).checkpoint)
    for arguments, words in (
        (["export", checkpoint, "--format", "gguf", "--weights", "q4_k"], "choose one of"),
        (["export", str(tmp_path)], "no config.json"),
        (["export", "20991231-2"], "There is no run"),
        (["export", options[1]], "--out"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert words in error and len(error.strip().splitlines()) == 1


NINES, PATH = "9" * 4400, "x" * 5000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["prune", "--mixture", "wiki=1e308,code=1e308"],
            "The weight of domain 'wiki' is 1e.308: weights are",
        ),
        (["prune", "--mixture", "wiki=-1"], "The weight of domain 'wiki' is -1.0"),
        (
            ["prune", "--calibration-blocks", str(2**64)],
            "Samples is 18446744073709551616: input should be less than",
        ),
        (
            ["prune", "--calibration-blocks", "1000000", "--seq-len", "1000000"],
            "tokens: give fewer --calibration-blocks",
        ),
        (["prune", "--calibration-blocks", NINES], "Argument --calibration-blocks: invalid int value"),
        (["prune", "--seed", "-1"], "Seed is -1"),
        (["prune", "--seed", str(2**64)], "Seed is 18446744073709551616"),
        (["prune", "--ratio", "nan"], "Ratio is nan"),
        (["prune", "--mixture", f"wiki={NINES}"], "The weight of domain 'wiki' is inf"),
        (["prune", "--model", PATH], "(5,000 characters)|Model has 5,000 characters"),
        (["prune", "--model", "a/" * 300], "There is no model"),
        (["prune", "--model", "x" * 300], "There is no model .*File name too long"),
        (["prune", "--model", "\udcff"], "Model is .*leave out the character, or rename"),
        (["prune", "--model", "a\0b"], "Model is 'a.x00b'"),
        (["prune", "--config", PATH], "Cannot read the config .*5,000 characters.*File name too long"),
        (["prune", "--task-folder", "y" * 300], "There is no folder"),
        (["prune", "--domain", f"a={PATH}", "--mixture", "a"], "Domains has 5,000 characters"),
        (["prune", "--domain", f"a={'x' * 300}", "--mixture", "a"], "Domain 'a': .*File name too long"),
        (["prune", "--domain", "a/b=notes.txt"], "'a/b' cannot name a domain: use up to 64 letters"),
        (["prune", "--domain", "a\nb=notes.txt"], "cannot name a domain|leave out the character, or rename"),
        (["prune", "--domain", f"{'a' * 300}=notes.txt"], "cannot name a domain"),
        (["prune", "--domain", "mean=notes.txt"], "'mean' cannot name a domain"),
        (
            ["prune", "--domain", "Wiki=a.txt", "--mixture", "Wiki,wiki", "--domain", "wiki=b.txt"],
            "ome file systems do not tell the domains 'Wiki' and 'wiki' apart",
        ),
        (["prune", "--domain", "=notes.txt"], "Cannot read --domain '=notes.txt'"),
        (["prune", "--mixture", "=1"], "'' cannot name a domain"),
        (["prune", "--mixture", ",,"], "The mixture is empty"),
        (["generate", "-degrees"], "PROMPT .write a prompt that begins with '-' after '--'"),
        (["prune", "--eval-blocks", "most"], "--eval-blocks: 'most' is neither a whole number nor all"),
        (["generate", "x", "--tokens", "-1"], "'-1' is no whole number from 1 to"),
        (["generate", "x", "--tokens", NINES], "is no whole number from 1 to"),
        (["generate", "x", "--seed", "-1"], "'-1' is no whole number from 0 to"),
        (["generate", "x", "--seed", str(2**64)], "is no whole number from 0 to"),
        (["generate", "x", "--temperature", "nan"], "'nan' is no number from 0 to 100"),
        (["generate", "x", "--temperature", "-1"], "'-1' is no number from 0 to 100|expected one argument"),
        (["generate", "x", "--models", "20260101-" + "x" * 300], "There is no run"),
        (["bench", "x" * 300], "There is no model"),
        (["export", "x" * 300], "There is no model"),
        (["runs", "show", "\udcff" * 300], "There is no run"),
        (["app", "--port", "70000"], "'70000' is no whole number from 1 to 65,535"),
        ([PATH], "Argument COMMAND: invalid choice"),
    ],
)
def test_numbers_and_words_that_cannot_be_are_one_short_sentence(capsys, arguments, says):
    code = main(arguments)
    words = capsys.readouterr().err
    assert code == 2
    assert re.search(says, words) and words.count("\n") == 1 and len(words) < 800
    assert RunStore().all() == []


@pytest.mark.parametrize("prompt", ["-5 degrees", "--samples", "damage"])
def test_a_prompt_may_begin_with_a_dash(capsys, tiny_folder, prompt):
    assert main(["generate", "--models", str(tiny_folder), "--tokens", "3", "--", prompt]) == 0
    assert prompt in capsys.readouterr().out


@needs_demo
def test_tasks_are_evaluated_alone(capsys):
    options = ["--tasks", "prunescope_wiki", "--task-limit", "3", "--eval-blocks", "0"]
    found = run(capsys, "evaluate", "--model", "demo", *options)
    assert found["domains"] == {} and found["mean"] is None
    assert found["tasks"]["prunescope_wiki"]["items"] == 3
    assert main(["evaluate", "--model", "demo", "--eval-blocks", "0"]) == 2
    assert "no --tasks are named" in capsys.readouterr().err
