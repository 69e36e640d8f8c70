"""No code that came with a file runs without the user's yes, and nothing is asked on standard input."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pruning import RunConfig, RunStore, prune
from pruning.checksums import checksum_of
from pruning.cli.main import main
from pruning.errors import ModelError
from pruning.models.loading import load

pytestmark = pytest.mark.processes
PROJECT = Path(__file__).resolve().parents[2]
LOADERS = {"from_pretrained", "from_config", "load_dataset", "HFLM", "LLM"}
# Of these the code is the file that this program has written beside the weights just before.
WRITTEN_HERE = {"pruning/formats/huggingface.py", "pruning/serving/worker.py"}
CODE = """
open({marker!r}, "w").write("this code came with the folder")
from transformers import PreTrainedTokenizerFast
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
def generate(model, *args, **kwargs):
    return model
"""


def calls(file):
    """Calls of libraries that load models, tokenizers, settings or data sets, or let models write."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            options = {keyword.arg: keyword.value for keyword in node.keywords}
            written = name == "generate" and "max_new_tokens" in options
            if name in LOADERS or written or (name == "__init__" and "pretrained" in options):
                yield node, options


def test_every_loader_is_told_not_to_run_code():
    for folder in ("pruning", "ui", "pages"):
        for file in sorted((PROJECT / folder).rglob("*.py")):
            path = file.relative_to(PROJECT).as_posix()
            for call, options in calls(file):
                value = options.get("trust_remote_code")
                assert value is not None, f"{path}:{call.lineno} does not say trust_remote_code"
                if not isinstance(value, ast.Constant):  # decided by the user's yes, at one place
                    assert path == "pruning/models/reading.py", f"{path}:{call.lineno}"
                else:
                    assert value.value is False or path in WRITTEN_HERE, f"{path}:{call.lineno}"


@pytest.fixture
def foreign(tiny_folder, tmp_path):
    """A model whose folder brings Python for everything that transformers would run."""
    marker = tmp_path / "RAN"
    code = CODE.format(marker=str(marker))
    (tiny_folder / "tokenization_own.py").write_text(code)
    (tiny_folder / "custom_generate").mkdir()
    (tiny_folder / "custom_generate" / "generate.py").write_text(code)
    tokenizer = json.loads((tiny_folder / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "OwnTokenizer"}
    tokenizer |= {"auto_map": {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}}
    (tiny_folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    config = json.loads((tiny_folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "tokenization_own.OwnConfig",
        "AutoModelForCausalLM": "tokenization_own.OwnModel",
    }
    (tiny_folder / "config.json").write_text(json.dumps(config))
    return tiny_folder, marker


QUICK = ("--calibration-blocks", "1", "--seq-len", "24", "--iterations", "1", "--eval-blocks", "1")


@pytest.mark.parametrize(
    "command",
    [
        ("prune", *QUICK, "--model"),
        ("evaluate", "--seq-len", "24", "--eval-blocks", "1", "--model"),
        ("generate", "The river", "--tokens", "2", "--models"),
        ("bench",),
        ("export", "--out", "exported"),
        ("calibrate", "--calibration-blocks", "1", "--seq-len", "24", "--model"),
    ],
    ids=lambda command: command[0],
)
def test_a_yes_on_standard_input_runs_nothing(command, foreign, tmp_path):
    folder, marker = foreign
    arguments = [sys.executable, "-m", "pruning", *command, str(folder), "--json"]
    done = subprocess.run(arguments, input="y\n" * 200, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and not marker.exists()
    assert "tokenization_own.py" in json.loads(done.stdout)["error"]  # exactly one object
    assert "--trust-remote-code" in done.stderr and "Traceback" not in done.stderr


def test_code_of_a_config_and_of_generation_is_left_alone(foreign, tmp_path):
    folder, marker = foreign
    content = json.loads((folder / "tokenizer_config.json").read_text())
    del content["auto_map"], content["tokenizer_class"]
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    arguments = [sys.executable, "-m", "pruning", "generate", "a", "--tokens", "2", "--models", str(folder)]
    done = subprocess.run(
        [*arguments, "--json"], input="y\n" * 200, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prompt"] == "a" and not marker.exists()


def test_code_runs_after_the_users_yes_and_its_checksum_is_on_record(foreign, text_file):
    folder, marker = foreign
    options = {"samples": 1, "seq_len": 24, "iterations": 1, "eval_blocks": 1, "ratio": 0.2}
    options |= {"domains": {"words": str(text_file)}, "mixture": {"words": 1.0}, "model": str(folder)}
    result = prune(RunConfig(**options, trust_remote_code=True))
    assert marker.exists()
    event = next(event for event in result.run.events() if event["event"] == "code")
    assert event["files"] == {"tokenization_own.py": checksum_of(folder / "tokenization_own.py")}


def test_code_of_another_repository_is_never_fetched(foreign):
    folder, _ = foreign
    content = json.loads((folder / "tokenizer_config.json").read_text())
    content["auto_map"] = {"AutoTokenizer": ["someone/else--tokenization_own.OwnTokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="not in that folder"):
        load(str(folder), "cpu", trust_remote_code=True)


def test_a_config_from_elsewhere_cannot_say_yes(foreign, tmp_path, capsys):
    folder, marker = foreign
    config = {"model": str(folder), "trust_remote_code": True, "samples": 1, "seq_len": 24, "iterations": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["prune", "--config", str(tmp_path / "config.json")]) == 2
    assert "would run the code in" in capsys.readouterr().err and not marker.exists()
    assert RunStore().all() == []
