"""Where things stand in a TOML text: headers, assignments and members of inline tables.

The text must be one that `tomllib` accepts; nothing is checked here. Positions are indexes into the
text; a line ends after its newline.
"""

import re
import tomllib

import msgspec

from agent_dispatch.config.edit.draft import KeyPath

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC_STRING = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"')
_LITERAL_STRING = re.compile(r"'[^'\n]*'")
_SCALAR = re.compile(r"[^,\]}#\r\n]*")
_BLANKS = re.compile(r"[ \t]*")
_FILLER = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_ESCAPE_OR_END = re.compile(r'\\.|"""', re.DOTALL)


class Header(msgspec.Struct, frozen=True):
    """A line `[path]` or `[[path]]`."""

    path: KeyPath
    start: int
    """Where its line starts."""
    end: int
    """Where the next line starts."""
    is_array: bool


class Assignment(msgspec.Struct, frozen=True):
    """A line `keys = value`; a value may span further lines."""

    path: KeyPath
    """From the root of the document: the header's path and the keys."""
    depth: int
    """How many parts of the path the header gives."""
    start: int
    """Where its first line starts."""
    value_start: int
    value_end: int
    end: int
    """Where the line after its last one starts."""


class Member(msgspec.Struct, frozen=True):
    """`keys = value` inside an inline table."""

    path: KeyPath
    """The keys below the inline table."""
    start: int
    value_start: int
    value_end: int


Statement = Header | Assignment


def scan(text: str) -> list[Statement]:
    """List the statements of `text` in order."""
    statements: list[Statement] = []
    table: KeyPath = ()
    start = 0
    while start < len(text):
        position = _after(_BLANKS, text, start)
        if position == len(text) or text[position] in "#\r\n":
            start = _line_end(text, position)
        elif text[position] == "[":
            is_array = text.startswith("[[", position)
            position = _after(_BLANKS, text, position + (2 if is_array else 1))
            table, position = _scan_key(text, position)
            end = _line_end(text, position)
            statements.append(Header(table, start, end, is_array))
            start = end
        else:
            keys, value_start = _scan_assignment(text, position)
            value_end = _value_end(text, value_start)
            end = _line_end(text, value_end)
            path = (*table, *keys)
            statements.append(Assignment(path, len(table), start, value_start, value_end, end))
            start = end
    return statements


def scan_inline_table(text: str, start: int) -> list[Member]:
    """List the members of the inline table whose brace stands at `start`."""
    return _scan_members(text, start)[0]


def is_inline_table(text: str, value_start: int) -> bool:
    """Whether the value that starts at a position is an inline table."""
    return text.startswith("{", value_start)


def _scan_members(text: str, start: int) -> tuple[list[Member], int]:
    members: list[Member] = []
    position = _after(_FILLER, text, start + 1)
    while text[position] != "}":
        keys, value_start = _scan_assignment(text, position)
        value_end = _value_end(text, value_start)
        members.append(Member(keys, position, value_start, value_end))
        position = _after_comma(text, value_end)
    return members, position + 1


def _scan_assignment(text: str, position: int) -> tuple[KeyPath, int]:
    keys, position = _scan_key(text, position)
    equals = _after(_BLANKS, text, position)
    return keys, _after(_BLANKS, text, equals + 1)


def _scan_key(text: str, position: int) -> tuple[KeyPath, int]:
    parts: list[str] = []
    while True:
        pattern = {'"': _BASIC_STRING, "'": _LITERAL_STRING}.get(text[position], BARE_KEY)
        end = _after(pattern, text, position)
        parts.append(_decode_key(text[position:end]))
        dot = _DOT.match(text, end)
        if dot is None:
            return tuple(parts), end
        position = dot.end()


def _decode_key(raw: str) -> str:
    if "\\" in raw:
        (key,) = tomllib.loads(f"{raw} = 0")
        return str(key)
    return raw[1:-1] if raw[0] in "\"'" else raw


def _value_end(text: str, start: int) -> int:
    if text.startswith('"""', start):
        position = start + 3
        while (found := _ESCAPE_OR_END.search(text, position)) and found[0] != '"""':
            position = found.end()
        return _after_extra_quotes(text, found.end() if found else len(text), '"')
    if text.startswith("'''", start):
        return _after_extra_quotes(text, text.index("'''", start + 3) + 3, "'")
    match text[start]:
        case '"':
            return _after(_BASIC_STRING, text, start)
        case "'":
            return _after(_LITERAL_STRING, text, start)
        case "[":
            position = _after(_FILLER, text, start + 1)
            while text[position] != "]":
                position = _after_comma(text, _value_end(text, position))
            return position + 1
        case "{":
            return _scan_members(text, start)[1]
        case _:
            end = _after(_SCALAR, text, start)
            return start + len(text[start:end].rstrip())


def _after_extra_quotes(text: str, end: int, quote: str) -> int:
    """Skip the one or two quotes that a multi-line string may have right before its end."""
    limit = end + 2
    while end < limit and text.startswith(quote, end):
        end += 1
    return end


def _after_comma(text: str, position: int) -> int:
    position = _after(_FILLER, text, position)
    if text[position] == ",":
        position = _after(_FILLER, text, position + 1)
    return position


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _line_end(text: str, position: int) -> int:
    newline = text.find("\n", position)
    return len(text) if newline < 0 else newline + 1
