"""JSON with comments, changed in place.

Editors write such files: `//` and `/* */` comments, and commas after the last member.
"""

import json
import re
from typing import Any

import msgspec

from agent_dispatch.config.edit.draft import KeyPath, Syntax, newline_of

_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_LAST_COMMA = re.compile(r'"(?:\\.|[^"\\])*"|([{\[,:]\s*)?,(?=\s*[}\]])', re.DOTALL)
_NOT_NEWLINE = re.compile(r"[^\n]")
_BLANKS = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
_INDENT = "  "


class _Member(msgspec.Struct, frozen=True):
    key: str
    start: int
    value_start: int
    value_end: int


def parse_jsonc(text: str) -> dict[str, Any]:
    """Parse an object in JSON with comments; blank text is an empty one.

    Raises:
        ValueError: It is something else; the message says where.
    """
    plain = _plain(text)
    if not plain.strip():
        return {}
    try:
        data = json.loads(plain, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError("expected an object in braces")
    return data


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _without_comments(text: str) -> str:
    """Replace comments by blanks, so that every position stays."""

    def blank(found: re.Match[str]) -> str:
        return found[0] if found[0][0] == '"' else _NOT_NEWLINE.sub(" ", found[0])

    return _STRING_OR_COMMENT.sub(blank, text)


def _plain(text: str) -> str:
    """Return plain JSON with every value at the position that it has in `text`."""

    def blank(found: re.Match[str]) -> str:
        # A comma after nothing is an error in the text, which the parser reports.
        return found[0] if found[0][0] == '"' or found[1] else " "

    return _STRING_OR_LAST_COMMA.sub(blank, _without_comments(text))


def _members(plain: str, start: int) -> tuple[list[_Member], int]:
    """List the members of the object at `start`; return them and where its closing brace is."""
    members = []
    position = _skip(plain, start + 1)
    while plain[position] != "}":
        key, end = _DECODER.raw_decode(plain, position)
        value_start = _skip(plain, _skip(plain, end) + 1)
        _, value_end = _DECODER.raw_decode(plain, value_start)
        members.append(_Member(key, position, value_start, value_end))
        position = _skip(plain, value_end)
        if plain[position] == ",":
            position = _skip(plain, position + 1)
    return members, position


def _skip(plain: str, position: int) -> int:
    found = _BLANKS.match(plain, position)
    return position if found is None else found.end()


def _set_key(text: str, path: KeyPath, value: object) -> str:
    if not _plain(text).strip():
        text = text.rstrip("\n") + ("\n" if text.strip() else "") + "{}\n"
    plain = _plain(text)
    return _set_in(text, plain, _skip(plain, 0), path, value)


def _set_in(text: str, plain: str, start: int, path: KeyPath, value: object) -> str:
    """Set a value inside the object at `start`; missing objects around it are made."""
    members, close = _members(plain, start)
    # Of equal keys, the last one counts.
    found = [member for member in members if member.key == path[0]]
    if not found:
        for outer in reversed(path[1:]):
            value = {outer: value}
        return _insert(text, start, members, close, path[0], value)
    member = found[-1]
    if path[1:]:
        return _set_in(text, plain, member.value_start, path[1:], value)
    rendered = _render(value, _indent_at(text, member.start), text)
    return text[: member.value_start] + rendered + text[member.value_end :]


def _insert(
    text: str, start: int, members: list[_Member], close: int, key: str, value: object
) -> str:
    """Add a member after the last one of the object from `start` to `close`."""
    newline = newline_of(text)
    outer = _indent_at(text, start)
    is_one_line = "\n" not in text[start:close]
    name = json.dumps(key, ensure_ascii=False)
    if members and is_one_line:
        end = members[-1].value_end
        return f"{text[:end]}, {name}: {json.dumps(value, ensure_ascii=False)}{text[end:]}"
    indent = _indent_at(text, members[0].start) if members else outer + _unit(text)
    member = f"{newline}{indent}{name}: {_render(value, indent, text)}"
    end = members[-1].value_end if members else start + 1
    gap = text[end:close]
    content = gap.rstrip()
    if not members:
        return f"{text[:end]}{content}{member}{newline}{outer}{text[close:]}"
    has_comma = "," in _without_comments(text)[end:close]
    first, last = ("", ",") if has_comma else (",", "")
    behind = gap[len(content) :] or f"{newline}{outer}"
    return f"{text[:end]}{first}{content}{member}{last}{behind}{text[close:]}"


def _remove(text: str, path: KeyPath) -> str:
    plain = _plain(text)
    start = _skip(plain, 0)
    for part in path[:-1]:
        members, _ = _members(plain, start)
        start = members[_last(members, part)].value_start
    members, _ = _members(plain, start)
    index = _last(members, path[-1])
    cut = members[index]
    without_comments = _without_comments(text)
    comma = _skip(without_comments, cut.value_end)
    begin, end = cut.start, cut.value_end
    if without_comments[comma] == ",":
        end = comma + 1
    elif index:
        # It is the last one: the comma before it goes too, and comments between them stay.
        comma = without_comments.index(",", members[index - 1].value_end)
        text = text[:comma] + text[comma + 1 :]
        begin, end = begin - 1, end - 1
    return _cut_lines(text, begin, end)


def _last(members: list[_Member], key: str) -> int:
    return max(place for place, member in enumerate(members) if member.key == key)


def _cut_lines(text: str, begin: int, end: int) -> str:
    """Cut out a range, and the whole line if nothing else stands on it."""
    before, after = text[:begin].rstrip(" \t"), text[end:]
    is_first = not before or before.endswith("\n")
    if is_first and (rest := after.lstrip(" \t\r")).startswith("\n"):
        return before + rest[1:]
    return text[:begin] + after if is_first else before + after


def _indent_at(text: str, position: int) -> str:
    """Return the indentation of the line at a position."""
    line = text[text.rfind("\n", 0, position) + 1 : position]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str) -> str:
    """Return the indentation of one level in this text."""
    found = re.search(r"\n([ \t]+)\S", text)
    return found[1] if found else _INDENT


def _render(value: object, indent: str, text: str) -> str:
    newline = newline_of(text)
    lines = json.dumps(value, ensure_ascii=False, indent=_unit(text)).split("\n")
    return f"{newline}{indent}".join(lines)


JSONC = Syntax("an object", parse_jsonc, _set_key, _set_key, _remove)
