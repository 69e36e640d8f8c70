"""With --json, standard output is one JSON object, whatever happens."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import needs_demo

pytestmark = pytest.mark.processes

PRUNE = ("prune", "--calibration-blocks", "1", "--seq-len", "32", "--iterations", "1", "--eval-blocks", "1")


def start(folder, *arguments, **options):
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "pruning", *arguments]
    return subprocess.Popen(command, cwd=folder, **{**pipes, **options})


@pytest.mark.parametrize(
    "arguments",
    [
        ("prune", "--ratio", "x", "--json"),
        ("prune", "--json", "--nope"),
        ("prune", "--json=1"),
        ("runs", "show", "none", "--json", "--json"),
        ("nonsense", "--json"),
        ("evaluate", "--model", "/no/such/model", "--json"),
        ("experiment", "none.yaml", "--json"),
        ("report", "none", "--html", "/", "--json"),
    ],
    ids=" ".join,
)
def test_an_error_is_one_object_as_well(arguments, tmp_path):
    process = start(tmp_path, *arguments)
    out, error = process.communicate()
    assert process.returncode == 2 and json.loads(out)["error"] == error.strip() != ""


@needs_demo
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_so(number, tmp_path):
    # a shell that starts the tests in the background makes them, and what they start, ignore SIGINT
    as_in_a_terminal = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = start(tmp_path, *PRUNE, "--calibration-blocks", "300", "--json", **as_in_a_terminal)
    lines = iter(process.stderr.readline, "")
    assert any("calibrate" in line for line in lines)  # at work, and not silent
    os.kill(process.pid, number)
    out, _ = process.communicate()
    assert process.returncode == 130 and json.loads(out)["error"].startswith("Stopped")


@needs_demo
def test_a_reader_who_has_gone_is_no_traceback(tmp_path):
    reader, writer = os.pipe()
    process = start(tmp_path, "runs", "list", "--json", stdout=writer)
    os.close(reader)
    os.close(writer)
    assert process.wait() != 0 and "Traceback" not in process.stderr.read()


def test_what_libraries_print_goes_to_standard_error(tmp_path):
    code = "import os; from pruning.cli.terminal import json_output, print_json\n"
    code += "with json_output(): print('python'); os.system('echo shell'); print_json({'a': 1})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"a": 1}, done.stderr
    assert "python" in done.stderr and "shell" in done.stderr
