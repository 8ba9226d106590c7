"""Reads values of `agents.toml`, and the texts of a call that become such values.

Each reader and parser raises `BadValueError` for a value that cannot be used.
"""

import re
import shlex
from collections.abc import Callable

import msgspec

from agent_dispatch.core.text import SURROGATE
from agent_dispatch.errors import NOT_JSON
from agent_dispatch.model.config import GroupMember

NAME_RULE = "letters, digits, hyphens and underscores, not starting with a hyphen, at most 100"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_NOT_ONE_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
HOST_NAME_RULE = "letters, digits, dots, hyphens and underscores"
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_VARIABLE = re.compile(r"[A-Za-z_*][A-Za-z0-9_*]*")
_MAX_INSTRUCTIONS_BYTES = 100_000
"""They travel on the command line, where one argument may have 128 KiB (execve(2), Linux)."""
_SHOWN_CHARS = 60


class BadValueError(ValueError):
    """A value cannot be used; `str(error)` says what was expected and what was found."""


def is_agent_name(name: str) -> bool:
    """Whether an agent or a group may have this name."""
    return _NAME.fullmatch(name) is not None


def is_host_name(name: str) -> bool:
    """Whether a host may have this name."""
    return _HOST_NAME.fullmatch(name) is not None


def is_one_line(text: str) -> bool:
    """Whether a text is valid Unicode without line breaks and control characters."""
    return _NOT_ONE_LINE.search(text) is None


def split_tools(text: str) -> list[str]:
    """Split a list of tools at the commas outside parentheses, without repeated tools.

    `Bash(git log:*,git diff:*),Read` is two tools. After a parenthesis that is never closed, the
    rest of the text is one tool.
    """
    tools: list[str] = []
    depth = start = 0
    for position, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            tools.append(text[start:position])
            start = position + 1
    tools.append(text[start:])
    return list(dict.fromkeys(tool.strip() for tool in tools if tool.strip()))


def shown(value: object) -> str:
    """Describe a value in an error: its type, and the value itself if it is short."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = value if len(value) <= _SHOWN_CHARS else f"{value[:_SHOWN_CHARS]}…"
            return f"the text {text!r}"
        case int() if abs(value) >= 10**18:
            return "a huge number"
        case int() | float():
            return f"the number {value!r}"
        case list():
            return "an array"
        case dict():
            return "a table"
        case None:
            return "nothing"
        case _:
            return "a date or time"


def _expected(what: str, value: object) -> BadValueError:
    return BadValueError(f"expected {what}, got {shown(value)}")


def read_directory(value: object) -> str:
    """Read the path of a project."""
    if not isinstance(value, str) or not value.strip():
        raise _expected("the path of the project, as text", value)
    if not is_one_line(value):
        raise _expected("a path without control characters", value)
    return value


def read_text(value: object) -> str:
    """Read any text of valid Unicode."""
    if not isinstance(value, str):
        raise _expected("text", value)
    if SURROGATE.search(value):
        raise _expected("text of valid Unicode", value)
    return value


def read_word(value: object) -> str | None:
    """Read a text on one line; blank text is None."""
    if not isinstance(value, str) or not is_one_line(value):
        raise _expected("text on one line", value)
    return value.strip() or None


def choice_reader(*words: str) -> Callable[[object], str]:
    """Return a reader of one of these words."""

    def read(value: object) -> str:
        if value not in words or not isinstance(value, str):
            raise _expected(" or ".join(f'"{word}"' for word in words), value)
        return value

    return read


def read_flag(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise _expected("true or false", value)
    return value


def read_tools(value: object) -> list[str]:
    """Read an array of tools, or one text that `split_tools` splits."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise _expected("an array of tools, or one text with commas between them", value)
    tools: list[str] = []
    for item in items:
        if not isinstance(item, str) or not is_one_line(item):
            raise BadValueError(f"expected each tool as text on one line, got {shown(item)}")
        tools += split_tools(item)
    return list(dict.fromkeys(tools))


def read_names(value: object) -> list[str]:
    """Read names of environment variables, in which `*` stands for any characters."""
    names = read_lines(value)
    for name in names:
        if not _VARIABLE.fullmatch(name):
            raise BadValueError(
                f"expected names of environment variables, in which * stands for any characters,"
                f" got {shown(name)}"
            )
    return names


def read_lines(value: object) -> list[str]:
    """Read an array of texts, each on one line, or one such text."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise _expected("an array of texts", value)
    for item in items:
        if not isinstance(item, str) or not item.strip() or not is_one_line(item):
            raise BadValueError(f"expected each item as text on one line, got {shown(item)}")
    return list(dict.fromkeys(item.strip() for item in items))


def read_instructions(value: object) -> str | None:
    """Read text for the system prompt; blank text is None."""
    text = read_text(value)
    if "\0" in text:
        raise BadValueError("expected text without NUL characters")
    if (size := len(text.encode())) > _MAX_INSTRUCTIONS_BYTES:
        raise BadValueError(
            f"expected at most {_MAX_INSTRUCTIONS_BYTES:,} bytes, got {size:,}; put the rest into"
            " the project's CLAUDE.md"
        )
    return text if text.strip() else None


def parse_tools(text: str) -> list[str]:
    """Parse a list of tools as a call gives it: with commas, or as a JSON array."""
    if text.strip().startswith("["):
        try:
            return read_tools(msgspec.json.decode(text, type=list[str]))
        except NOT_JSON as error:
            raise BadValueError(
                f"it starts with '[' but is not a JSON array of texts: {error}."
                ' Write it as "Bash,Read", or as ["Bash", "Read"]'
            ) from error
    if tools := split_tools(text):
        return tools
    raise BadValueError(
        f"{text!r} names no tool. Write [] to grant nothing beyond the project's own settings, or"
        " none to inherit the default"
    )


def read_members(value: object) -> list[GroupMember]:
    """Read the members of a group."""
    if not isinstance(value, list):
        raise _expected('an array of tables such as {agent = "infra", use_for = "logs"}', value)
    members: list[GroupMember] = []
    for item in value:
        agent = item.get("agent") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(agent, str) or not is_agent_name(agent):
            raise BadValueError(f"expected each member as a table with an agent, got {shown(item)}")
        use_for = read_text(item.get("use_for", ""))
        members.append(GroupMember(agent=agent, use_for=use_for))
    return members


def number_reader(minimum: int, maximum: int, unit: str) -> Callable[[object], float]:
    """Return a reader of numbers in a range."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _expected(f"a number of {unit}, at least {minimum}", value)
        if not minimum <= value <= maximum:
            raise _expected(f"a number of {unit} from {minimum} to {maximum}", value)
        return float(value)

    return read


def read_ceiling(value: object) -> float:
    """Read an amount of US dollars above 0."""
    # 0 would leave a run no cap: it is not clear whether that forbids all runs or allows any.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e9:
        raise _expected("an amount of US dollars above 0; leave it out for no ceiling", value)
    return float(value)


def whole_number_reader(minimum: int, maximum: int) -> Callable[[object], int]:
    """Return a reader of whole numbers in a range."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _expected(f"a whole number, at least {minimum}", value)
        if not minimum <= value <= maximum:
            raise _expected(f"a whole number from {minimum} to {maximum}", value)
        return value

    return read


def read_host(value: object) -> str:
    """Read the name of a host."""
    if not isinstance(value, str) or not is_host_name(value):
        raise _expected(f"the name of a host ({HOST_NAME_RULE})", value)
    return value


def read_agent_there(value: object) -> str:
    """Read an agent's name on its host."""
    if not isinstance(value, str) or not is_agent_name(value):
        raise _expected(f"the name of an agent ({NAME_RULE})", value)
    return value


def read_ssh(value: object) -> str:
    """Read a destination for ssh."""
    if not isinstance(value, str) or not value.strip() or not is_one_line(value):
        raise _expected("what ssh is to connect to, as text on one line", value)
    if value.startswith("-"):
        raise BadValueError(f"{shown(value)} starts with '-', which ssh would take for an option")
    return value


def read_argv(value: object) -> list[str]:
    """Read a command and its arguments."""
    if not isinstance(value, list) or not value:
        raise _expected("an array of texts, the command and its arguments", value)
    for word in value:
        if not isinstance(word, str) or "\0" in word or SURROGATE.search(word):
            raise BadValueError(f"expected each argument as text, got {shown(word)}")
    if not value[0]:
        raise BadValueError("the command is empty")
    return list(value)


def read_check(value: object) -> list[str] | None:
    """Read a command and its arguments; an empty array is None."""
    return None if value == [] else read_argv(value)


def parse_check(text: str) -> list[str] | None:
    """Parse a command that is split like in a shell, or a JSON array; no shell runs it."""
    if text.strip().startswith("["):
        try:
            return read_check(msgspec.json.decode(text, type=list[str]))
        except NOT_JSON as error:
            raise BadValueError(
                f"it starts with '[' but is not a JSON array of texts: {error}"
            ) from error
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadValueError(f"its quotation marks do not match ({error})") from error
    return read_check(words)


def read_program(value: object) -> str:
    """Read where agent-dispatch is on a host."""
    if not isinstance(value, str) or not value.startswith("/") or not is_one_line(value):
        raise _expected("the absolute path of agent-dispatch there", value)
    if set(value) & set("'\"\\$`!"):
        raise BadValueError(f"{shown(value)} holds a character that a remote shell may change")
    return value
