"""Permissions for what a config reads, downloads and runs.

A run folder or a config can come from anybody. Its domains may name any file of this machine, and a folder of
tasks holds code: lm-eval calls the functions that its YAML names, and fills its templates without a sandbox.
The same holds for a model whose tokenizer is Python code of its folder.
Whoever names such things here has permitted them; for a config from elsewhere, a list is shown first.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pruning.checksums import key_of
from pruning.config import RunConfig
from pruning.errors import RunError
from pruning.formatting import listed, quoted
from pruning.paths import cache_folder, exists, expand

ENTRIES = 2_000  # a folder of tasks with more entries needs permission every time
# Environment variable with the marks that could not be written: the workers started here inherit it.
AGREED = "PRUNESCOPE_AGREED"
CODE_OPTIONS = ("task_folder", "trust_remote_code")  # options of a config that let code of a folder run
CODE = (".yaml", ".yml", ".py", ".jinja", ".j2")


@dataclass(frozen=True)
class Permission:
    """One thing to permit.

    Attributes:
        action: `read` a file or a folder, `download` a data set, or `run` the code of a folder.
        target: its absolute path or its name.
        content: digest of the code, so that changed code needs permission again.
    """

    action: str
    target: str
    content: str = ""

    def __str__(self) -> str:
        return f"{self.action} {quoted(self.target)}"

    @property
    def _mark(self) -> Path:
        return cache_folder() / "agreed" / key_of(json.dumps([self.action, self.target, self.content]))

    @property
    def agreed(self) -> bool:
        """Whether it is granted."""
        return self._mark.name in os.environ.get(AGREED, "").split() or exists(self._mark)

    def agree(self) -> None:
        """Grant it for good, or for this process where the cache cannot be written."""
        try:
            self._mark.parent.mkdir(parents=True, exist_ok=True)
            self._mark.touch()
        except OSError:
            os.environ[AGREED] = f"{os.environ.get(AGREED, '')} {self._mark.name}".strip()


def permissions_for(config: RunConfig) -> list[Permission]:
    """What a config reads and runs, beside its model and what ships with the project."""
    permissions = []
    for source in config.domains.values():
        if source.startswith("hub:"):
            permissions.append(Permission("download", source.removeprefix("hub:")))
        elif source != "embedded":
            permissions.append(read_permission(source))
    if config.tasks and config.task_data:
        permissions.append(read_permission(config.task_data))
    if config.tasks and config.task_folder:
        permissions.append(_run_permission(expand(config.task_folder)))
    if config.trust_remote_code and exists(expand(config.model)):
        permissions.append(_run_permission(expand(config.model)))
    return list(dict.fromkeys(permissions))


def read_permission(path: str) -> Permission:
    """Permission to read a file or a folder."""
    return Permission("read", str(expand(path).absolute()))


def _run_permission(folder: Path) -> Permission:
    """Permission to run the code of a folder."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        entries = _entries(folder, ENTRIES + 1)
        for file in entries:
            if file.suffix.lower() in CODE and file.is_file():
                digest.update(f"{file.relative_to(folder)}\0".encode("utf-8", "replace"))
                digest.update(file.read_bytes())
        content = digest.hexdigest() if len(entries) <= ENTRIES else "too many entries"
    except OSError:
        content = "unreadable"
    return Permission("run", str(folder.absolute()), content)


def _entries(folder: Path, most: int) -> list[Path]:
    return sorted(path for path, _ in zip(folder.rglob("*"), range(most), strict=False))


def pending(config: RunConfig) -> list[Permission]:
    """Permissions of a config that are not granted yet."""
    return [permission for permission in permissions_for(config) if not permission.agreed]


def agree(permissions: Iterable[Permission]) -> None:
    """Grant permissions."""
    for permission in permissions:
        permission.agree()


def check(run_id: str, config: RunConfig) -> None:
    """Refuse to work on a run from elsewhere until its permissions are granted.

    Raises:
        RunError: a permission is pending.
    """
    if permissions := pending(config):
        more = f" and {len(permissions) - 5} more" if len(permissions) > 5 else ""
        raise RunError(
            f"run {run_id!r} {origin(permissions)}, and would {'; '.join(map(str, permissions[:5]))}{more}: "
            "look at that first, then resume it with --yes, or confirm it in the app."
        )


def origin(permissions: Iterable[Permission]) -> str:
    """Why a run needs permissions: changed code cannot be distinguished from foreign code."""
    code = any(permission.action == "run" for permission in permissions)
    return "was not made here, or its code has changed since" if code else "was not made here"


def code_files(permission: Permission) -> str:
    """The files of code in a folder, for a person to look at."""
    folder = Path(permission.target)
    files = (path for path in _entries(folder, ENTRIES) if path.suffix.lower() in CODE)
    return listed([str(file.relative_to(folder)) for file in files]) or "no file of code yet"
