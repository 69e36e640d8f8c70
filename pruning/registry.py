"""Named entries of one kind: scores, normalisers, allocations, compensations, presets, export formats.

An entry is registered where it is written, and nowhere else:

    @SCORES.add
    def energy(site): ...

`RunConfig` validates against the registry, and the command line and the app list what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pruning.formatting import quoted

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Entries by name, in the order in which they were added. Beside a type it is a check for pydantic.

    Args:
        kind: what an entry is, for messages.
    """

    __hash__ = object.__hash__  # pydantic keeps it beside a field's type

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, entry: T, name: str = "") -> T:
        """Register an entry under its own name or another; a decorator.

        Raises:
            ValueError: the name is taken.
        """
        name = name or str(getattr(entry, "__name__", ""))
        if name in self._entries:
            raise ValueError(f"there is a {self.kind} {name!r} already")
        self._entries[name] = entry
        return entry

    def named(self, name: str) -> Callable[[T], T]:
        """`add` under a name that is no Python identifier, or is taken there; a decorator."""
        return lambda entry: self.add(entry, name)

    def check(self, name: str) -> str:
        """The name itself.

        Raises:
            ValueError: no entry has it.
        """
        if not isinstance(name, str) or name not in self._entries:
            raise ValueError(f"unknown {self.kind} {quoted(name)}: choose one of {', '.join(self)}")
        return name

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """A string that is checked against the names at the time it is given."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self.check, serialization=core_schema.to_string_ser_schema()
        )
