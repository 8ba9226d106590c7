"""Limits of what goes out with a call, and how texts share them."""

import msgspec

INLINE_CHARS = 40_000
"""A shorter answer is never cut: Claude Code shows this much (measured with 2.1.330)."""
ROOM_BYTES = 160 * 1024
"""Bytes on the wire for the text and other large parts; a whole reply is below 0.2 MiB."""


def join_hints(*texts: str | None) -> str | None:
    """Join hints; None if all are empty."""
    # A hint with next steps has one per line, and a command extends to the end of its line.
    lines = any(text and "\n" in text for text in texts)
    return ("\n" if lines else " ").join(filter(None, texts)) or None


def wire_bytes(value: object) -> int:
    """Return the bytes of `value` in a reply: as structured content and as JSON inside a text."""
    try:
        document = msgspec.json.encode(value)
    except UnicodeEncodeError:
        # Half of a surrogate pair goes out as one character of three bytes.
        document = str(value).encode("utf-8", "replace")
    return len(document) + len(msgspec.json.encode(document.decode()))
