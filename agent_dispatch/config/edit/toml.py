"""TOML texts changed in place: keys and tables written into them, and cut out of them.

A table may be `[a.b]`, dotted keys, or an inline table. A comment on the line of a removed key goes
with it. A removed table takes the comments that are plainly its own: those right below its last
line, and a block right above its header that follows a blank line.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from agent_dispatch.config.edit.draft import KeyPath, Syntax, newline_of
from agent_dispatch.config.edit.toml_scan import (
    BARE_KEY,
    Assignment,
    Header,
    Statement,
    is_inline_table,
    scan,
    scan_inline_table,
)

_INDENT = re.compile(r"[ \t]*")
_LINE_WIDTH = 100


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML text.

    Raises:
        ValueError: It is not TOML; the message says where.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("arrays or inline tables are nested too deeply") from None


def _set_key(text: str, target: KeyPath, value: object) -> str:
    """Give a key a value, where it stands or as the last key of its table."""
    for statement in scan(text):
        if not isinstance(statement, Assignment):
            continue
        if statement.path == target:
            rendered = _render(value, newline_of(text))
            return text[: statement.value_start] + rendered + text[statement.value_end :]
        if _holds(text, statement, target):
            rest = target[len(statement.path) :]
            return _set_in_inline_table(text, statement.value_start, rest, _render(value))
    return _insert_key(_remove(text, target), target[:-1], target[-1], value)


def _insert_key(text: str, table: KeyPath, key: str, value: object) -> str:
    after: Statement | None = None
    for statement in scan(text):
        if isinstance(statement, Header):
            belongs = statement.path == table and not statement.is_array
        else:
            belongs = statement.depth <= len(table) and _is_within(statement.path, table)
        if belongs:
            after = statement
    if after is None:
        return _append_table(text, table, {key: value})
    depth = len(table) if isinstance(after, Header) else after.depth
    newline = newline_of(text)
    found = _INDENT.match(text, after.start)
    indent = found[0] if found else ""
    line = f"{indent}{_line((*table, key)[depth:], value, newline)}{newline}"
    if not text[: after.end].endswith("\n"):
        line = newline + line
    return text[: after.end] + line + text[after.end :]


def _add_table(text: str, table: KeyPath, values: Mapping[str, object]) -> str:
    """Write a new table at the end, or into the inline table that must hold it."""
    for statement in scan(text):
        if isinstance(statement, Assignment) and _holds(text, statement, table):
            rest = table[len(statement.path) :]
            return _set_in_inline_table(text, statement.value_start, rest, _render(values))
    return _append_table(text, table, values)


def _append_table(text: str, table: KeyPath, values: Mapping[str, object]) -> str:
    newline = newline_of(text)
    if text and not text.endswith("\n"):
        text += newline
    if text[:-1].rpartition("\n")[2].strip():
        text += newline
    lines = [f"[{_dotted(table)}]", *(_line((key,), values[key], newline) for key in values)]
    return text + "".join(line + newline for line in lines)


def _remove(text: str, target: KeyPath) -> str:
    """Remove a key or a table and everything below it, in whichever form."""
    statements = scan(text)
    cuts: list[tuple[int, int]] = []
    index = 0
    while index < len(statements):
        statement = statements[index]
        index += 1
        if isinstance(statement, Header) and _is_within(statement.path, target):
            first = index - 1
            while index < len(statements) and _continues(statements[index], target):
                index += 1
            cuts.append(_section(text, statements, first, index))
        elif isinstance(statement, Assignment) and _is_within(statement.path, target):
            cuts.append((statement.start, statement.end))
        elif isinstance(statement, Assignment) and _holds(text, statement, target):
            rest = target[len(statement.path) :]
            return _remove_from_inline_table(text, statement.value_start, rest)
    for start, end in reversed(cuts):
        text = text[:start] + text[end:]
    return text


def _continues(statement: Statement, target: KeyPath) -> bool:
    return isinstance(statement, Assignment) or _is_within(statement.path, target)


def _section(text: str, statements: list[Statement], first: int, following: int) -> tuple[int, int]:
    """Return the range of a removed section: its own comments and one gap of blank lines too."""
    floor = statements[first - 1].end if first else 0
    ceiling = statements[following].start if following < len(statements) else len(text)
    start = statements[first].start
    above = _lines_up(text, start, floor, _is_comment)
    # A comment that touches the line before it, or opens the file, may be about something else.
    if above > floor:
        start = above
    end = statements[following - 1].end
    below = _lines_down(text, end, ceiling, _is_comment)
    if below < ceiling or ceiling == len(text):
        end = below
    gap = _lines_down(text, end, ceiling, _is_blank)
    if gap == len(text):
        return _lines_up(text, start, floor, _is_blank), gap
    is_apart = start == 0 or _lines_up(text, start, floor, _is_blank) < start
    return start, gap if is_apart else end


def _lines_up(text: str, start: int, floor: int, fits: Callable[[str], bool]) -> int:
    while start > floor:
        line_start = max(floor, text.rfind("\n", 0, start - 1) + 1)
        if not fits(text[line_start:start]):
            break
        start = line_start
    return start


def _lines_down(text: str, end: int, ceiling: int, fits: Callable[[str], bool]) -> int:
    while end < ceiling:
        newline = text.find("\n", end, ceiling)
        line_end = ceiling if newline < 0 else newline + 1
        if not fits(text[end:line_end]):
            break
        end = line_end
    return end


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _is_blank(line: str) -> bool:
    return not line.strip()


def _set_in_inline_table(text: str, start: int, target: KeyPath, rendered: str) -> str:
    members = scan_inline_table(text, start)
    for member in members:
        if member.path == target:
            return text[: member.value_start] + rendered + text[member.value_end :]
        if _is_within(target, member.path) and is_inline_table(text, member.value_start):
            rest = target[len(member.path) :]
            return _set_in_inline_table(text, member.value_start, rest, rendered)
    text = _remove_from_inline_table(text, start, target)
    members = scan_inline_table(text, start)
    entry = f"{_dotted(target)} = {rendered}"
    if not members:
        close = text.index("}", start)
        return f"{text[: start + 1]} {entry} {text[close:]}"
    end = members[-1].value_end
    return f"{text[:end]}, {entry}{text[end:]}"


def _remove_from_inline_table(text: str, start: int, target: KeyPath) -> str:
    members = scan_inline_table(text, start)
    for index in reversed(range(len(members))):
        member = members[index]
        if _is_within(member.path, target):
            if index + 1 < len(members):
                text = text[: member.start] + text[members[index + 1].start :]
            else:
                cut = members[index - 1].value_end if index else member.start
                text = text[:cut] + text[member.value_end :]
            # The positions have changed, and members before this one may have to go too.
            members = scan_inline_table(text, start)
        elif _is_within(target, member.path) and is_inline_table(text, member.value_start):
            rest = target[len(member.path) :]
            return _remove_from_inline_table(text, member.value_start, rest)
    return text


def _holds(text: str, statement: Assignment, target: KeyPath) -> bool:
    """Whether `target` lies inside the inline table that the statement assigns."""
    return (
        len(statement.path) < len(target)
        and _is_within(target, statement.path)
        and is_inline_table(text, statement.value_start)
    )


def _is_within(path: KeyPath, table: KeyPath) -> bool:
    return path[: len(table)] == table


def _line(keys: KeyPath, value: object, newline: str) -> str:
    name = _dotted(keys)
    short = f"{name} = {_render(value)}"
    return short if len(short) <= _LINE_WIDTH else f"{name} = {_render(value, newline)}"


def _dotted(path: KeyPath) -> str:
    """Write a path of keys, quoted where needed."""
    return ".".join(part if BARE_KEY.fullmatch(part) else _render(part) for part in path)


def _render(value: object, newline: str | None = None) -> str:
    """Write a value; with `newline` a long array may take a line for each item."""
    # Most calls only read.
    import tomli_w

    if isinstance(value, Mapping):
        inner = ", ".join(f"{_dotted((key,))} = {_render(value[key])}" for key in value)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        line = "[" + ", ".join(map(_render, value)) + "]"
        if newline is None or len(line) <= _LINE_WIDTH:
            return line
        return "".join(["[", *(f"{newline}    {_render(item)}," for item in value), newline, "]"])
    return tomli_w.dumps({"_": value})[len("_ = ") : -1].replace("\n", newline or "\n")


TOML = Syntax("a table", parse_toml, _set_key, _add_table, _remove)
