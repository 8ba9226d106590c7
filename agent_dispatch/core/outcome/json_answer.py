"""Finds the JSON value in an answer that was requested as JSON.

An answer that cannot be read with certainty stays text; nothing raises.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from agent_dispatch.core.stream.json_text import MAX_DEPTH, deeper_than, value_end

_FENCE = re.compile(rb"[ \t>]*(`{3,}|~{3,})[ \t]*([^`\r\n]*?)[ \t]*\r?")
_OPENING = re.compile(rb"[\[{]")
_WHITE_SPACE = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_CANDIDATES = 1000


def parse_answer(text: str) -> Any | msgspec.UnsetType:
    """Return the JSON value in `text`, or UNSET.

    It is the whole text, or the only fenced block that is JSON, or the only object or array in
    prose. `NaN`, `Infinity`, numbers too large for a float, and nesting too deep for the encoders
    are refused. JSON null is `None`.
    """
    data = text.encode(errors="replace")
    whole = _decode(data)
    if whole is not msgspec.UNSET:
        return whole
    fenced = (_decode(body) for body in _fenced_blocks(data))
    for candidates in (fenced, _values_in_prose(data)):
        looked_at = islice(candidates, _MAX_CANDIDATES)
        values = list(islice((v for v in looked_at if v is not msgspec.UNSET), 2))
        if values:
            return values[0] if len(values) == 1 else msgspec.UNSET
    return msgspec.UNSET


def _decode(data: bytes | memoryview) -> Any | msgspec.UnsetType:
    stripped = bytes(data).strip(_WHITE_SPACE).removeprefix(_BYTE_ORDER_MARK)
    if deeper_than(stripped, MAX_DEPTH):
        return msgspec.UNSET
    try:
        return msgspec.json.decode(stripped)
    except msgspec.DecodeError:
        return msgspec.UNSET


def _fenced_blocks(data: bytes) -> Iterator[bytes]:
    """Yield the body of each fenced block that may be JSON; an unclosed one ends with the text."""
    fence = b""
    body: list[bytes] = []
    wanted = False
    for line in data.split(b"\n"):
        found = _FENCE.fullmatch(line)
        mark, label = (found[1], found[2].lower()) if found else (b"", b"")
        if not fence:
            if mark:
                fence, body = mark, []
                # A block of another language is not an answer, even if it is valid JSON.
                wanted = label == b"" or label.startswith(b"json")
        elif mark.startswith(fence) and not label:
            if wanted:
                yield b"\n".join(body)
            fence = b""
        else:
            body.append(line)
    if fence and wanted:
        yield b"\n".join(body)


def _values_in_prose(data: bytes) -> Iterator[Any | msgspec.UnsetType]:
    """Yield the value of each outermost pair of brackets, up to the first that is not closed.

    Brackets inside a bracket that is not JSON are skipped: a part of a truncated answer, or of
    code, is not the answer.
    """
    view = memoryview(data)
    position = 0
    while found := _OPENING.search(data, position):
        end = value_end(data, found.start())
        if end is None:
            return
        yield _decode(view[found.start() : end])
        position = end
