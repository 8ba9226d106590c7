"""Works on JSON as text: finds where a value ends, and repairs what a strict parser refuses.

Every function walks the bytes once, without recursion, so no input can exhaust the stack. Only
strings and brackets are checked; the result still has to be parsed.
"""

import codecs
import re
from collections.abc import Iterator

JsonBytes = bytes | bytearray | memoryview
"""Types that both `re` and msgspec read without a copy."""

MAX_DEPTH = 100
"""Levels of nesting that `repair` keeps: more than any event has, and safe for the stack."""

# Possessive (`++`, `*+`), so a failed match never backtracks: linear in time, constant in memory.
_STRING = rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)'
_NEXT_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+([\[\]{}])", re.DOTALL)
_NOT_A_NUMBER = re.compile(_STRING + rb"|-?Infinity|NaN", re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_OPENING = b"[{"
_PIECE_BYTES = 1 << 20


def brackets(data: JsonBytes, start: int = 0) -> Iterator[tuple[int, bool]]:
    """Yield the position of each bracket outside strings, and whether it opens."""
    while found := _NEXT_BRACKET.match(data, start):
        start = found.end()
        yield start - 1, data[start - 1] in _OPENING


def value_end(data: JsonBytes, start: int) -> int | None:
    """Return where the object or array at `start` ends; None if it is not closed."""
    depth = 0
    for position, opens in brackets(data, start):
        depth += 1 if opens else -1
        if depth == 0:
            return position + 1
    return None


def elements(data: JsonBytes) -> Iterator[tuple[int, int]]:
    """Yield the span of each object directly inside the array `data`; skip other elements."""
    depth = begin = 0
    for position, opens in brackets(data):
        if opens:
            depth += 1
            if depth == 2:
                begin = position
        else:
            depth -= 1
            if depth == 0:
                return
            if depth == 1 and data[begin] == ord("{"):
                yield begin, position + 1


def deeper_than(data: JsonBytes, limit: int) -> bool:
    """Tell whether any value in `data` is nested in more than `limit` others."""
    depth = 0
    for _, opens in brackets(data):
        depth += 1 if opens else -1
        if depth > limit:
            return True
    return False


def repair(data: bytearray) -> bool:
    """Replace, in place, what RFC 8259 forbids or a parser's stack cannot take.

    Bytes that are not UTF-8 and lone surrogate escapes become U+FFFD; `NaN`, `Infinity` and values
    nested deeper than `MAX_DEPTH` become null. This needs at most two more copies of `data`.

    Returns:
        Whether anything was replaced.
    """
    repaired = False
    if not _is_utf8(data):
        data[:] = _as_utf8(data)
        repaired = True
    if _SURROGATE.search(data):
        data[:] = _ESCAPE.sub(lambda m: rb"\ufffd" if m["lone"] else m[0], data)
        repaired = True
    if b"NaN" in data or b"Infinity" in data:
        data[:] = _NOT_A_NUMBER.sub(lambda m: m[0] if m[0][:1] == b'"' else b"null", data)
        repaired = True
    if deeper_than(data, MAX_DEPTH):
        data[:] = _shallow(data)
        repaired = True
    return repaired


def _is_utf8(data: JsonBytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    try:
        for begin in range(0, len(view), _PIECE_BYTES):
            decoder.decode(view[begin : begin + _PIECE_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _as_utf8(data: JsonBytes) -> bytearray:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    view = memoryview(data)
    repaired = bytearray()
    for begin in range(0, len(view), _PIECE_BYTES):
        repaired += decoder.decode(view[begin : begin + _PIECE_BYTES]).encode()
    repaired += decoder.decode(b"", final=True).encode()
    return repaired


def _shallow(data: JsonBytes) -> bytearray:
    view = memoryview(data)
    repaired = bytearray()
    depth = kept = cut = 0
    for position, opens in brackets(data):
        if opens:
            depth += 1
            if depth == MAX_DEPTH + 1:
                cut = position
        else:
            if depth == MAX_DEPTH + 1:
                repaired += view[kept:cut]
                repaired += b"null"
                kept = position + 1
            depth -= 1
    repaired += view[kept:]
    return repaired
