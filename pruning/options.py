"""Options that a person wrote into a JSON or YAML file, read within limits."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pruning.errors import ConfigError
from pruning.formatting import quoted

# A config of ours takes 2 KB, with thousands of pinned heads 100 KB; YAML of 1 MB takes seconds to read.
MOST_BYTES = 1_000_000
# An alias (`*name`) repeats what stands elsewhere; a dozen of them, nested, make billions of what was little.
MOST_ALIASES = 0


def read_options(path: str | Path, what: str) -> dict[str, Any]:
    """The options in a file.

    Args:
        path: the file.
        what: it holds, for messages.

    Raises:
        ConfigError: it cannot be read, or holds no options.
    """
    name = f"the {what} {quoted(path)}"
    try:
        with Path(path).open("rb") as stream:
            text = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {name}: {reason}.") from None
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{name} is longer than {MOST_BYTES:,} bytes: check that it is the right file.")
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, name))
    except (ValueError, RecursionError):
        content = _yaml(text, name)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{name} holds no options by name: write lines such as 'name: value'.")
    return content


def _once(pairs: list[tuple[Any, Any]], name: str) -> dict[Any, Any]:
    """The object of some keys and values, each key given once."""
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ConfigError(f"{name} gives {quoted(key)} {count} times: give it once.")
    return dict(pairs)


def _yaml(text: bytes, name: str) -> Any:
    import yaml

    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        if sum(isinstance(event, yaml.AliasEvent) for event in events) > MOST_ALIASES:
            raise ConfigError(
                f"{name} has a YAML alias ('*'), which is not supported: write out what it repeats."
            )
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if isinstance(node, yaml.MappingNode):
            _once([(key.value, value) for key, value in node.value if isinstance(key.value, str)], name)
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{name} is neither JSON nor YAML: correct its syntax.") from None
    # what PyYAML's readers of dates, numbers and tags raise; and nesting beyond any sense
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
        raise ConfigError(f"{name} holds a value that cannot be read: put text between quotes.") from None
