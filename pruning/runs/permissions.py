"""What a run would read and run that its config names, and whether the person here has agreed to it.

A run folder or a config can come from anybody. Its domains may name any file of this machine, and a folder of
tasks holds code: lm-eval calls the functions that its YAML names, and fills its templates without a sandbox.
So does a model whose tokenizer is Python code of its folder.
Whoever names such things here has agreed to them; of what came from elsewhere, a list is shown first.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pruning.config import RunConfig
from pruning.errors import RunError
from pruning.formatting import listed, quoted
from pruning.paths import cache_folder, exists, expand

# Entries of a folder of tasks that are looked through. One that holds more is asked about every time.
ENTRIES = 2_000
# Variable of the environment with the marks that could not be written: the workers started here inherit it.
AGREED = "PRUNESCOPE_AGREED"
CODE_OPTIONS = ("task_folder", "trust_remote_code")  # of a config, that let code of a folder run
CODE = (".yaml", ".yml", ".py", ".jinja", ".j2")


@dataclass(frozen=True)
class Permission:
    """One thing to agree to.

    Attributes:
        does: `read` a file or a folder, `download` a data set, or `run` the code of a folder of tasks or of a
            model.
        what: its absolute path or its name.
        content: names the code in it, so that a changed folder is asked about again.
    """

    does: str
    what: str
    content: str = ""

    def __str__(self) -> str:
        return f"{self.does} {quoted(self.what)}"

    @property
    def _mark(self) -> Path:
        key = json.dumps([self.does, self.what, self.content])
        return cache_folder() / "agreed" / hashlib.blake2b(key.encode(), digest_size=16).hexdigest()

    @property
    def agreed(self) -> bool:
        """Whether the person has."""
        return self._mark.name in os.environ.get(AGREED, "").split() or exists(self._mark)

    def agree(self) -> None:
        """Keep that the person has: for good, or for this process where the cache cannot be written."""
        try:
            self._mark.parent.mkdir(parents=True, exist_ok=True)
            self._mark.touch()
        except OSError:
            os.environ[AGREED] = f"{os.environ.get(AGREED, '')} {self._mark.name}".strip()


def permissions_for(config: RunConfig) -> list[Permission]:
    """What a config would have read and run, beside its model and what ships with the project."""
    found = []
    for source in config.domains.values():
        if source.startswith("hub:"):
            found.append(Permission("download", source.removeprefix("hub:")))
        elif source != "embedded":
            found.append(read_permission(source))
    if config.tasks and config.task_data:
        found.append(read_permission(config.task_data))
    if config.tasks and config.task_folder:
        folder = expand(config.task_folder)
        found.append(Permission("run", str(folder.absolute()), _code(folder)))
    if config.trust_remote_code and exists(expand(config.model)):
        folder = expand(config.model)
        found.append(Permission("run", str(folder.absolute()), _code(folder)))
    return list(dict.fromkeys(found))


def read_permission(path: str) -> Permission:
    """The reading of a file or a folder."""
    return Permission("read", str(expand(path).absolute()))


def _code(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        entries = sorted(path for path, _ in zip(folder.rglob("*"), range(ENTRIES + 1), strict=False))
        for file in entries:
            if file.suffix.lower() in CODE and file.is_file():
                digest.update(f"{file.relative_to(folder)}\0".encode("utf-8", "replace"))
                digest.update(file.read_bytes())
    except OSError:
        return "unreadable"
    return digest.hexdigest() if len(entries) <= ENTRIES else "too many entries"


def pending(config: RunConfig) -> list[Permission]:
    """What the person has not agreed to yet."""
    return [ask for ask in permissions_for(config) if not ask.agreed]


def agree(found: Iterable[Permission]) -> None:
    """Keep that the person has agreed."""
    for ask in found:
        ask.agree()


def check(run_id: str, config: RunConfig) -> None:
    """Refuse to work on a run that was not made here, until the person has agreed to what it names.

    Raises:
        RunError: what it would read or run.
    """
    if found := pending(config):
        raise RunError(
            f"run {run_id!r} {origin(found)}, and would {'; '.join(map(str, found[:5]))}"
            f"{f' and {len(found) - 5} more' if len(found) > 5 else ''}: look at that first, then resume it "
            "with --yes, or confirm it in the app."
        )


def origin(found: Iterable[Permission]) -> str:
    """Why a run needs agreement, as far as it can be known: changed code is asked about like foreign code."""
    code = any(ask.does == "run" for ask in found)
    return "was not made here, or its code has changed since" if code else "was not made here"


def code_files(ask: Permission) -> str:
    """The files of a folder of tasks, for the person to look at."""
    folder = Path(ask.what)
    files = (path for path, _ in zip(folder.rglob("*"), range(ENTRIES), strict=False))
    names = sorted(str(path.relative_to(folder)) for path in files if path.suffix.lower() in CODE)
    return listed(names) or "no file of code yet"
