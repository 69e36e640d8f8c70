"""Chats: turns of a row as one text, by the model's chat template or joined."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pruning.text.files import replace_surrogates

CHATS = ("messages", "conversations", "conversation")
ROLES = {"human": "user", "gpt": "assistant"}  # as ShareGPT writes them
# What templates read as today (`strftime_now`): what is calibrated on must not depend on the day. It is the
# date that templates of Llama 3.1 take where they are given none.
TEMPLATE_DATE = datetime(2024, 7, 26)
_DIRECTIVES = "aAbBcdDeFHIjklmMpPrRSTuUVwWxXyYzZ"
_FILTERS = "".join(
    f"|replace('%{flag}{directive}', '{TEMPLATE_DATE.strftime(f'%{flag}{directive}')}')"
    for flag in ("", "-")
    for directive in _DIRECTIVES
)
# Data given to a template cannot be called, so the function that it finds is shadowed by a macro. The line
# that this takes gives no output, since transformers trims the line end behind a block.
_FIXED_DATE = f"{{% macro strftime_now(format) %}}{{{{ format{_FILTERS} }}}}{{% endmacro %}}\n"


class Skip(Exception):
    """Why a row gives no document."""


def has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer can render a chat."""
    return getattr(tokenizer, "chat_template", None) is not None


def template_record(tokenizer: Any) -> dict[str, str]:
    """What decides how a tokenizer renders chats, for the run's record."""
    read = json.dumps([tokenizer.chat_template, tokenizer.special_tokens_map], sort_keys=True, default=str)
    digest = hashlib.blake2b(read.encode(errors="replace"), digest_size=16).hexdigest()
    return {"chat_template": digest, "template_date": TEMPLATE_DATE.date().isoformat()}


def chat_text(value: list[Any], tokenizer: Any) -> str:
    """The text of a chat.

    Args:
        value: turns, each with `role` and `content`, or `from` and `value` as ShareGPT writes them.
        tokenizer: whose chat template renders them; without one they are joined.

    Raises:
        Skip: a turn has no role or text, or the template refuses the chat.
    """
    turns = [_turn(turn) for turn in value]
    if not turns:
        raise Skip("empty")
    if not has_template(tokenizer):
        return "\n\n".join(turn["content"] for turn in turns)
    try:
        template = _FIXED_DATE + tokenizer.get_chat_template()
        return str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False))
    except Exception:  # a template raises what it likes, for roles that do not alternate say
        raise Skip("refused by the chat template") from None


def parse_chat(value: str) -> list[Any] | str:
    """The turns that a string holds as JSON; a string that is none is returned as it is.

    Raises:
        Skip: it begins like JSON, and is broken or no list.
    """
    if not value.lstrip().startswith(("[", "{")):
        return value
    try:
        turns = json.loads(value)
    except (ValueError, RecursionError):
        turns = None
    if not isinstance(turns, list):
        raise Skip("no list of turns")
    return turns


def _turn(turn: Any) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise Skip("no text")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if isinstance(content, list):  # parts, some of which may be pictures
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        content = "".join(part for part in parts if isinstance(part, str)) or None
    if not isinstance(role, str) or not isinstance(content, str):
        raise Skip("a turn without role or text")
    return {"role": ROLES.get(role, role), "content": replace_surrogates(content)}
