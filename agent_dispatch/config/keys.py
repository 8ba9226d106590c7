"""The keys of `agents.toml`, one row each. Reading, editing, inheriting and importing follow them.

A new key is one row here and one field of its struct in `model/config.py`. A key that a call may
set is also a field of `AgentFields`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from agent_dispatch.config import values
from agent_dispatch.core.environment import ESSENTIAL, name_pattern
from agent_dispatch.model.config import EFFORTS, PERMISSION_MODES
from agent_dispatch.model.names import nearest

_OUR_VARIABLE = "AGENT_DISPATCH_DEPTH"


def _strip(text: str) -> object:
    return text.strip()


def _no_problems(_value: Any) -> Iterator[str]:
    yield from ()


class Key(msgspec.Struct, frozen=True):
    """What values one key takes."""

    read: Callable[[object], object]
    """Converts a value of the file, or raises `BadValueError`."""
    parse: Callable[[str], object] = _strip
    """Converts the text of a call to a value of the file, or raises `BadValueError`."""
    max_chars: int = 200
    """The longest text that a call may give."""
    refused: Callable[[Any], Iterator[str]] = _no_problems
    """Lists what no run could use. A call that gives it is refused; in a file it is a warning."""
    doubtful: Callable[[Any], Iterator[str]] = _no_problems
    """Lists what is probably a mistake. It is passed on with a warning."""
    has_default: bool = False
    """An agent without this key inherits `default_KEY` of the settings."""

    def with_default(self) -> "Key":
        """Return this key, inherited from the settings if an agent leaves it out."""
        return msgspec.structs.replace(self, has_default=True)

    def warnings(self, value: object) -> Iterator[str]:
        """List what is wrong with a value that was read; None is no value."""
        if value is not None:
            yield from self.refused(value)
            yield from self.doubtful(value)


def _number(minimum: int, maximum: int, unit: str) -> Key:
    return Key(values.number_reader(minimum, maximum, unit))


def _whole(minimum: int, maximum: int) -> Key:
    return Key(values.whole_number_reader(minimum, maximum))


def _refused_words(word: str) -> Iterator[str]:
    if word.startswith("-"):
        yield f"{word!r} starts with '-', so a run with it would be refused."


def _refused_tools(tools: list[str]) -> Iterator[str]:
    for tool in tools:
        yield from _refused_words(tool)
        if tool.count("(") != tool.count(")"):
            yield f"{tool!r} has an unmatched parenthesis; the CLI ignores such a rule."


def _doubtful_modes(mode: str) -> Iterator[str]:
    if mode not in PERMISSION_MODES:
        yield _not_known(mode, "a permission mode that Claude Code 2.1.330", PERMISSION_MODES)


def _doubtful_efforts(effort: str) -> Iterator[str]:
    if effort not in EFFORTS:
        yield _not_known(effort, "an effort that Claude Code 2.1.332", EFFORTS)


def _not_known(word: str, kind: str, known: Sequence[str]) -> str:
    # Newer CLIs may know more words.
    meant = nearest(word, known)
    guess = f" Did you mean {meant}?" if meant else ""
    return f"{word!r} is not {kind} knows ({', '.join(known)}).{guess} It is passed on as it is."


def _doubtful_tool_names(tools: list[str]) -> Iterator[str]:
    for tool in tools:
        if "(" in tool:
            yield f"{tool!r} is a rule; this list takes names of tools, such as Bash."


def _doubtful_denied_names(patterns: list[str]) -> Iterator[str]:
    for pattern in patterns:
        matches = name_pattern([pattern])
        if essential := [one for one in ESSENTIAL if matches(one)]:
            names = " and ".join(essential)
            yield f"{pattern!r} removes {names}, without which Claude Code does not work."
        if matches(_OUR_VARIABLE):
            yield f"{pattern!r} does not keep out AGENT_DISPATCH_*, which every agent gets."


_WORD = Key(values.read_word, refused=_refused_words)
_MODE = Key(values.read_word, refused=_refused_words, doubtful=_doubtful_modes)
_PROMPTS = Key(values.choice_reader("deny", "ask"))
_TOOLS = Key(values.read_tools, parse=values.parse_tools, max_chars=20_000, refused=_refused_tools)
_FLAG = Key(values.read_flag)
_CEILING = Key(values.read_ceiling)

AGENT_KEYS: Mapping[str, Key] = {
    "directory": Key(values.read_directory),
    "description": Key(values.read_text, max_chars=2000),
    "timeout": _number(1, 1_000_000_000, "seconds").with_default(),
    "model": _WORD.with_default(),
    "max_budget_usd": _number(0, 1_000_000_000, "US dollars").with_default(),
    "permission_mode": _MODE.with_default(),
    "allowed_tools": _TOOLS.with_default(),
    "disallowed_tools": _TOOLS.with_default(),
    "effort": Key(values.read_word, refused=_refused_words, doubtful=_doubtful_efforts),
    "fallback_model": _WORD,
    "tools": Key(values.read_tools, refused=_refused_tools, doubtful=_doubtful_tool_names),
    "env_allow": Key(values.read_names),
    "env_deny": Key(values.read_names, doubtful=_doubtful_denied_names),
    "instructions": Key(values.read_instructions),
    "exclusive": _FLAG,
    "nested": _FLAG,
    "capabilities": Key(values.read_lines),
    "permission_prompts": _PROMPTS,
    "verify": Key(values.read_check, parse=values.parse_check, max_chars=20_000),
    "verify_always": _FLAG,
    "verify_attempts": _whole(1, 100),
}
"""`[agents.NAME]`, in the order in which a new agent is written."""

REMOTE_KEYS: Mapping[str, Key] = {
    "host": Key(values.read_host),
    "agent": Key(values.read_agent_there),
    "description": AGENT_KEYS["description"],
}
"""`[agents.NAME]` with a `host`; the agent's other keys come from the file on that host."""

HOST_KEYS: Mapping[str, Key] = {
    "ssh": Key(values.read_ssh),
    "exec": Key(values.read_argv),
    "program": Key(values.read_program),
    "lease_seconds": _number(5, 3600, "seconds"),
}
"""`[hosts.NAME]`, in the order in which a new host is written."""

SETTING_KEYS: Mapping[str, Key] = {
    **{f"default_{name}": key for name, key in AGENT_KEYS.items() if key.has_default},
    "max_dispatch_depth": _whole(0, 1000),
    "max_concurrency": _whole(1, 10_000),
    "permission_prompts": _PROMPTS,
    "question_seconds": _number(1, 604_800, "seconds"),
    "notify": Key(values.read_argv),
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
    "description": Key(values.read_text),
    "shared_context": Key(values.read_text),
    "members": Key(values.read_members),
}
"""`[groups.NAME]`, in the order in which a new group is written."""

MEMBER_KEYS = ("agent", "use_for")
"""One member of a group."""

CACHE_KEYS: Mapping[str, Key] = {
    "enabled": _FLAG,
    "ttl": _number(0, 1_000_000_000, "seconds"),
    "max_size": _whole(0, 1_000_000_000),
}
"""`[settings.cache]`."""
