"""How much goes out with a call."""

from collections.abc import Sequence

import msgspec

INLINE_CHARS = 40_000
"""Answers up to here are never cut: Claude Code shows as much (measured with 2.1.330)."""
ROOM_BYTES = 160 * 1024
"""On the wire, for the text and what else can be large; with all around it less than 0.2 MiB."""
MIN_SHARE_CHARS = 200
"""Of each of many answers, however many there are."""


def fair_shares(sizes: Sequence[int], total: int) -> list[int]:
    """Return how much of each is shown so that all fit: the small ones whole, the others alike."""
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


def join_hints(*texts: str | None) -> str | None:
    """Return the texts in one; None if there is none."""
    # A hint with next steps has one on each line, and a command goes on to the line's end.
    lines = any(text and "\n" in text for text in texts)
    return ("\n" if lines else " ").join(filter(None, texts)) or None


def wire_bytes(value: object) -> int:
    """Return the bytes of `value` in a reply: as structured content, and as JSON inside a text."""
    try:
        document = msgspec.json.encode(value)
    except UnicodeEncodeError:
        # Half of a surrogate pair; it goes out as one character of three bytes.
        document = str(value).encode("utf-8", "replace")
    return len(document) + len(msgspec.json.encode(document.decode()))
