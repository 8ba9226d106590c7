"""Text from elsewhere: what cannot be encoded, what is blank, and what is too long."""

import re
from collections.abc import Mapping
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair. File names that are not UTF-8 carry them (PEP 383)."""
# JavaScript's trim() takes a byte order mark for white space; Python's strip() does not.
_BLANK = re.compile(r"[\s\ufeff]*")
_COMMAND = re.compile(r"[\s\ufeff]*/")


def scrubbed(value: Any) -> Any:
    """Return plain values with U+FFFD in place of each half of a surrogate pair."""
    match value:
        case str():
            return SURROGATE.sub("\ufffd", value)
        case Mapping():
            return {scrubbed(key): scrubbed(item) for key, item in value.items()}
        case list() | tuple():
            return [scrubbed(item) for item in value]
        case _:
            return value


def is_blank(text: str) -> bool:
    """Tell whether there is nothing in `text` but what Claude Code trims."""
    return _BLANK.fullmatch(text) is not None


def is_command(text: str) -> bool:
    """Tell whether Claude Code would execute `text` itself, as a slash command."""
    return _COMMAND.match(text) is not None


def cut_middle(text: str, max_chars: int, where_all_is: str = "") -> str:
    """Return `text` without its middle if it is longer than that, and say so in its place."""
    if len(text) <= max_chars:
        return text
    tail = max_chars // 3
    where = f"; {where_all_is}" if where_all_is else ""
    left_out = f"[... {len(text) - max_chars} characters left out here{where} ...]"
    return f"{text[: max_chars - tail]}\n{left_out}\n{text[len(text) - tail :]}"
