"""Text that is too long, blank, or not encodable, or that Claude Code would execute."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MIN_SHARE_CHARS = 200
"""The least that `fair_shares` gives to a text, however many there are."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair. File names that are not UTF-8 carry them (PEP 383)."""
# JavaScript's trim() takes a byte order mark for white space; Python's strip() does not.
_BLANK = re.compile(r"[\s\ufeff]*")
_COMMAND = re.compile(r"[\s\ufeff]*/")


def scrubbed(value: Any) -> Any:
    """Replace each half of a surrogate pair in plain values by U+FFFD."""
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
    """Tell whether `text` has only characters that Claude Code trims."""
    return _BLANK.fullmatch(text) is not None


def is_command(text: str) -> bool:
    """Tell whether Claude Code would execute `text` itself, as a slash command."""
    return _COMMAND.match(text) is not None


def clip(text: str, max_chars: int) -> str:
    """Return `text` cut to `max_chars` characters, with an ellipsis at a cut."""
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def cut_middle(text: str, max_chars: int, where_all_is: str = "") -> str:
    """Replace the middle of a text longer than `max_chars` by a note that says so."""
    if len(text) <= max_chars:
        return text
    tail = max_chars // 3
    where = f"; {where_all_is}" if where_all_is else ""
    left_out = f"[... {len(text) - max_chars} characters left out here{where} ...]"
    return f"{text[: max_chars - tail]}\n{left_out}\n{text[len(text) - tail :]}"


def fair_shares(sizes: Sequence[int], total: int) -> list[int]:
    """Share out `total` characters: small texts whole, the others in equal parts."""
    share = total
    left = total
    waiting = sorted(sizes)
    while waiting:
        share = left // len(waiting)
        if waiting[0] > share:
            break
        left -= waiting.pop(0)
    share = max(share, MIN_SHARE_CHARS)
    return [min(size, share) for size in sizes]
