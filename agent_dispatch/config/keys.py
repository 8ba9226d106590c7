"""The keys of `agents.toml`, one row each. Reading, editing, inheriting and importing follow them.

A new key is one row here and one field of its struct in `model/config.py`. A key that a call may
set is also a field of `AgentFields`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from agent_dispatch.core.environment import ESSENTIAL, name_pattern
from agent_dispatch.core.text import SURROGATE
from agent_dispatch.model.config import EFFORTS, PERMISSION_MODES, GroupMember

NAME_RULE = "letters, digits, hyphens and underscores, not starting with a hyphen, at most 100"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_NOT_ONE_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
HOST_NAME_RULE = "letters, digits, dots, hyphens and underscores"
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_VARIABLE = re.compile(r"[A-Za-z_*][A-Za-z0-9_*]*")
_A_VARIABLE_OF_OURS = "AGENT_DISPATCH_DEPTH"
_MAX_INSTRUCTIONS_BYTES = 100_000
"""They travel on the command line, where one argument may have 128 KiB (execve(2), Linux)."""
_SHOWN_CHARS = 60


class BadValueError(ValueError):
    """A value is not what its key takes; `str(error)` says what was expected and what was found."""


def _strip(text: str) -> object:
    return text.strip()


def _no_problems(_value: Any) -> Iterator[str]:
    yield from ()


class Key(msgspec.Struct, frozen=True):
    """What one key takes."""

    read: Callable[[object], object]
    """Turns a value of the file into the model's, or raises `BadValueError`."""
    parse: Callable[[str], object] = _strip
    """Turns the text of a call into what the file would hold; may raise `BadValueError`."""
    max_chars: int = 200
    """How long the text of a call may be."""
    refused: Callable[[Any], Iterator[str]] = _no_problems
    """What no run could use: a call may not write it, a file that holds it is warned about."""
    doubtful: Callable[[Any], Iterator[str]] = _no_problems
    """What is probably not meant: passed on with a warning."""
    has_default: bool = False
    """An agent without this key inherits `default_KEY` of the settings."""

    def with_default(self) -> "Key":
        """The same key, inherited from the settings where an agent leaves it out."""
        return msgspec.structs.replace(self, has_default=True)

    def warnings(self, value: object) -> Iterator[str]:
        """Say what is wrong with a value that was read; None is no value."""
        if value is not None:
            yield from self.refused(value)
            yield from self.doubtful(value)


def is_agent_name(name: str) -> bool:
    """Say whether an agent may be called that."""
    return _NAME.fullmatch(name) is not None


def is_one_line(text: str) -> bool:
    """Say whether a text is valid Unicode without line breaks and control characters."""
    return _NOT_ONE_LINE.search(text) is None


def split_tools(text: str) -> list[str]:
    """Split a list of tools at the commas outside parentheses; each tool comes once.

    `Bash(git log:*,git diff:*),Read` is two tools. A parenthesis that is never closed keeps the
    rest of the text together.
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


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the known word that `word` resembles most, if any does."""
    # Costs a few milliseconds to import, and most files hold no unknown word.
    import difflib

    folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(word.casefold().replace("-", "_")[:100], folded, n=1)
    return folded[found[0]] if found else None


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


def _read_directory(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _expected("the path of the project, as text", value)
    if not is_one_line(value):
        raise _expected("a path without control characters", value)
    return value


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise _expected("text", value)
    if SURROGATE.search(value):
        raise _expected("text of valid Unicode", value)
    return value


def _read_word(value: object) -> str | None:
    if not isinstance(value, str) or not is_one_line(value):
        raise _expected("text on one line", value)
    return value.strip() or None


def _read_choice(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in words or not isinstance(value, str):
            raise _expected(" or ".join(f'"{word}"' for word in words), value)
        return value

    return read


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _expected("true or false", value)
    return value


def _read_tools(value: object) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise _expected("an array of tools, or one text with commas between them", value)
    tools: list[str] = []
    for item in items:
        if not isinstance(item, str) or not is_one_line(item):
            raise BadValueError(f"expected each tool as text on one line, got {shown(item)}")
        tools += split_tools(item)
    return list(dict.fromkeys(tools))


def _read_names(value: object) -> list[str]:
    """Read names of environment variables, in which `*` stands for any characters."""
    names = _read_lines(value)
    for name in names:
        if not _VARIABLE.fullmatch(name):
            raise BadValueError(
                f"expected names of environment variables, in which * stands for any characters,"
                f" got {shown(name)}"
            )
    return names


def _read_lines(value: object) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise _expected("an array of texts", value)
    for item in items:
        if not isinstance(item, str) or not item.strip() or not is_one_line(item):
            raise BadValueError(f"expected each item as text on one line, got {shown(item)}")
    return list(dict.fromkeys(item.strip() for item in items))


def _read_instructions(value: object) -> str | None:
    text = _read_text(value)
    if "\0" in text:
        raise BadValueError("expected text without NUL characters")
    if (size := len(text.encode())) > _MAX_INSTRUCTIONS_BYTES:
        raise BadValueError(
            f"expected at most {_MAX_INSTRUCTIONS_BYTES:,} bytes, got {size:,}; put the rest into"
            " the project's CLAUDE.md"
        )
    return text if text.strip() else None


def _parse_tools(text: str) -> list[str]:
    if text.strip().startswith("["):
        try:
            return _read_tools(msgspec.json.decode(text, type=list[str]))
        except msgspec.DecodeError as error:
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


def _read_members(value: object) -> list[GroupMember]:
    if not isinstance(value, list):
        raise _expected('an array of tables such as {agent = "infra", use_for = "logs"}', value)
    members: list[GroupMember] = []
    for item in value:
        agent = item.get("agent") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(agent, str) or not is_agent_name(agent):
            raise BadValueError(f"expected each member as a table with an agent, got {shown(item)}")
        use_for = _read_text(item.get("use_for", ""))
        members.append(GroupMember(agent=agent, use_for=use_for))
    return members


def _number(minimum: int, maximum: int, unit: str) -> Key:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _expected(f"a number of {unit}, at least {minimum}", value)
        if not minimum <= value <= maximum:
            raise _expected(f"a number of {unit} from {minimum} to {maximum}", value)
        return float(value)

    return Key(read)


def _read_ceiling(value: object) -> float:
    # 0 would leave a run no cap: it is not clear whether that forbids all runs or allows any.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e9:
        raise _expected("an amount of US dollars above 0; leave it out for no ceiling", value)
    return float(value)


def _whole(minimum: int, maximum: int) -> Key:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _expected(f"a whole number, at least {minimum}", value)
        if not minimum <= value <= maximum:
            raise _expected(f"a whole number from {minimum} to {maximum}", value)
        return value

    return Key(read)


def _refused_words(word: str) -> Iterator[str]:
    if word.startswith("-"):
        yield f"{word!r} starts with '-', so a run with it would be refused."


def _refused_tools(tools: list[str]) -> Iterator[str]:
    for tool in tools:
        yield from _refused_words(tool)
        if tool.count("(") != tool.count(")"):
            yield f"{tool!r} has a parenthesis without its pair; the CLI ignores such a rule."


def _doubtful_modes(mode: str) -> Iterator[str]:
    # Newer CLIs may know more modes.
    if mode not in PERMISSION_MODES:
        meant = nearest(mode, PERMISSION_MODES)
        guess = f" Did you mean {meant}?" if meant else ""
        yield (
            f"{mode!r} is not a permission mode that Claude Code 2.1.330 knows"
            f" ({', '.join(PERMISSION_MODES)}).{guess} It is passed on as it is."
        )


def _doubtful_efforts(effort: str) -> Iterator[str]:
    if effort not in EFFORTS:
        meant = nearest(effort, EFFORTS)
        guess = f" Did you mean {meant}?" if meant else ""
        yield (
            f"{effort!r} is not an effort that Claude Code 2.1.332 knows ({', '.join(EFFORTS)})."
            f"{guess} It is passed on as it is."
        )


def _doubtful_tool_names(tools: list[str]) -> Iterator[str]:
    for tool in tools:
        if "(" in tool:
            yield f"{tool!r} is a rule; this list takes names of tools, such as Bash."


def _doubtful_denied_names(patterns: list[str]) -> Iterator[str]:
    for pattern in patterns:
        matches = name_pattern([pattern])
        if essential := [one for one in ESSENTIAL if matches(one)]:
            names = " and ".join(essential)
            yield f"{pattern!r} takes {names} away, without which Claude Code does not work."
        if matches(_A_VARIABLE_OF_OURS):
            yield f"{pattern!r} does not keep out AGENT_DISPATCH_*, which every agent gets."


_WORD = Key(_read_word, refused=_refused_words)
_MODE = Key(_read_word, refused=_refused_words, doubtful=_doubtful_modes)
_PROMPTS = Key(_read_choice("deny", "ask"))
_TOOLS = Key(_read_tools, parse=_parse_tools, max_chars=20_000, refused=_refused_tools)
_FLAG = Key(_read_flag)
_CEILING = Key(_read_ceiling)


def is_host_name(name: str) -> bool:
    """Say whether a host may be called that."""
    return _HOST_NAME.fullmatch(name) is not None


def _read_host(value: object) -> str:
    if not isinstance(value, str) or not is_host_name(value):
        raise _expected(f"the name of a host ({HOST_NAME_RULE})", value)
    return value


def _read_agent_there(value: object) -> str:
    if not isinstance(value, str) or not is_agent_name(value):
        raise _expected(f"the name of an agent ({NAME_RULE})", value)
    return value


def _read_ssh(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not is_one_line(value):
        raise _expected("what ssh is to connect to, as text on one line", value)
    if value.startswith("-"):
        raise BadValueError(f"{shown(value)} starts with '-', which ssh would take for an option")
    return value


def _read_argv(value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise _expected("an array of texts, the command and its arguments", value)
    for word in value:
        if not isinstance(word, str) or "\0" in word or SURROGATE.search(word):
            raise BadValueError(f"expected each argument as text, got {shown(word)}")
    if not value[0]:
        raise BadValueError("the command is empty")
    return list(value)


def _read_check(value: object) -> list[str] | None:
    return None if value == [] else _read_argv(value)


def _parse_check(text: str) -> list[str] | None:
    """Read a command as a shell would split it, or as a JSON array; no shell runs it."""
    if text.strip().startswith("["):
        try:
            return _read_check(msgspec.json.decode(text))
        except msgspec.DecodeError as error:
            raise BadValueError(
                f"it starts with '[' but is not a JSON array of texts: {error}"
            ) from error
    import shlex  # Only this option needs it.

    try:
        return _read_check(shlex.split(text))
    except ValueError as error:
        raise BadValueError(f"its quotation marks do not match ({error})") from error


def _read_program(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not is_one_line(value):
        raise _expected("the absolute path of agent-dispatch there", value)
    if set(value) & set("'\"\\$`!"):
        raise BadValueError(f"{shown(value)} holds a character that a remote shell may change")
    return value


AGENT_KEYS: Mapping[str, Key] = {
    "directory": Key(_read_directory),
    "description": Key(_read_text, max_chars=2000),
    "timeout": _number(1, 1_000_000_000, "seconds").with_default(),
    "model": _WORD.with_default(),
    "max_budget_usd": _number(0, 1_000_000_000, "US dollars").with_default(),
    "permission_mode": _MODE.with_default(),
    "allowed_tools": _TOOLS.with_default(),
    "disallowed_tools": _TOOLS.with_default(),
    "effort": Key(_read_word, refused=_refused_words, doubtful=_doubtful_efforts),
    "fallback_model": _WORD,
    "tools": Key(_read_tools, refused=_refused_tools, doubtful=_doubtful_tool_names),
    "env_allow": Key(_read_names),
    "env_deny": Key(_read_names, doubtful=_doubtful_denied_names),
    "instructions": Key(_read_instructions),
    "exclusive": _FLAG,
    "nested": _FLAG,
    "capabilities": Key(_read_lines),
    "permission_prompts": _PROMPTS,
    "verify": Key(_read_check, parse=_parse_check, max_chars=20_000),
    "verify_always": _FLAG,
    "verify_attempts": _whole(1, 100),
}
"""`[agents.NAME]`, in the order in which a new agent is written."""

REMOTE_KEYS: Mapping[str, Key] = {
    "host": Key(_read_host),
    "agent": Key(_read_agent_there),
    "description": AGENT_KEYS["description"],
}
"""`[agents.NAME]` with a `host`; other keys of an agent are read on that host, from its file."""

HOST_KEYS: Mapping[str, Key] = {
    "ssh": Key(_read_ssh),
    "exec": Key(_read_argv),
    "program": Key(_read_program),
    "lease_seconds": _number(5, 3600, "seconds"),
}
"""`[hosts.NAME]`, in the order in which a new host is written."""

SETTING_KEYS: Mapping[str, Key] = {
    **{f"default_{name}": key for name, key in AGENT_KEYS.items() if key.has_default},
    "max_dispatch_depth": _whole(0, 1000),
    "max_concurrency": _whole(1, 10_000),
    "permission_prompts": _PROMPTS,
    "question_seconds": _number(1, 604_800, "seconds"),
    "notify": Key(_read_argv),
    "mcp_may_widen_permissions": _FLAG,
    "patience_seconds": _number(-604_800, 604_800, "seconds"),
    "task_after_seconds": _number(0, 604_800, "seconds"),
    "call_retention_days": _number(0, 1_000_000, "days"),
    "background_retention_days": _number(0, 1_000_000, "days"),
    "max_cost_per_day_usd": _CEILING,
    "max_cost_per_tree_usd": _CEILING,
    "max_runs_per_tree": _whole(1, 1_000_000),
    "hold_at_usage_limit": _FLAG,
    "max_holds": _whole(0, 1000),
}
"""`[settings]`, without its tables."""

GROUP_KEYS: Mapping[str, Key] = {
    "description": Key(_read_text),
    "shared_context": Key(_read_text),
    "members": Key(_read_members),
}
"""`[groups.NAME]`, in the order in which a new group is written."""

MEMBER_KEYS = ("agent", "use_for")
"""Of one of its members."""

CACHE_KEYS: Mapping[str, Key] = {
    "enabled": _FLAG,
    "ttl": _number(0, 1_000_000_000, "seconds"),
    "max_size": _whole(0, 1_000_000_000),
}
"""`[settings.cache]`."""
