"""What a value of `agents.toml` must be: a reader for every key, and the words for what is not.

A reader returns the value as the model has it, or raises `BadValueError`.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from agent_dispatch.model.config import PERMISSION_MODES

NAME_RULE = "letters, digits, hyphens and underscores, not starting with a hyphen, at most 100"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_NOT_ONE_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SHOWN_CHARS = 60
TIMEOUT_RANGE_S = (1, 1_000_000_000)
BUDGET_RANGE_USD = (0, 1_000_000_000)

Reader = Callable[[object], object]


class BadValueError(ValueError):
    """A value is not what its key takes; `str(error)` says what was expected and what was found."""


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


def permission_mode_problem(mode: str) -> str | None:
    """Say what is doubtful about a permission mode; newer CLIs may know more modes."""
    if mode in PERMISSION_MODES:
        return None
    meant = nearest(mode, PERMISSION_MODES)
    guess = f" Did you mean {meant}?" if meant else ""
    return (
        f"{mode!r} is not a permission mode that Claude Code 2.1.330 knows"
        f" ({', '.join(PERMISSION_MODES)}).{guess} It is passed on as it is."
    )


def tool_problem(tool: str) -> str | None:
    """Say why the CLI would not heed a rule for a tool."""
    if tool.startswith("-"):
        return f"{tool!r} starts with '-', so a run with it is refused."
    if tool.count("(") != tool.count(")"):
        return f"{tool!r} has a parenthesis without its pair; the CLI ignores such a rule."
    return None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the known word that `word` resembles most, if any does."""
    # Costs a few milliseconds to import, and most files hold no unknown word.
    import difflib

    folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(word.casefold().replace("-", "_")[:100], folded, n=1)
    return folded[found[0]] if found else None


def shown(value: object) -> str:
    """Say what a value is, for a person who meant something else."""
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
    if _SURROGATE.search(value):
        raise _expected("text of valid Unicode", value)
    return value


def _read_word(value: object) -> str | None:
    if not isinstance(value, str) or not is_one_line(value):
        raise _expected("text on one line", value)
    return value.strip() or None


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


def _number_reader(minimum: int, maximum: int, unit: str) -> Reader:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _expected(f"a number of {unit}, at least {minimum}", value)
        if not minimum <= value <= maximum:
            raise _expected(f"a number of {unit} from {minimum} to {maximum}", value)
        return float(value)

    return read


def _whole_reader(minimum: int, maximum: int) -> Reader:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _expected(f"a whole number, at least {minimum}", value)
        if not minimum <= value <= maximum:
            raise _expected(f"a whole number from {minimum} to {maximum}", value)
        return value

    return read


_read_timeout = _number_reader(*TIMEOUT_RANGE_S, "seconds")
_read_budget = _number_reader(*BUDGET_RANGE_USD, "US dollars")

AGENT_READERS: Mapping[str, Reader] = {
    "directory": _read_directory,
    "description": _read_text,
    "timeout": _read_timeout,
    "model": _read_word,
    "max_budget_usd": _read_budget,
    "permission_mode": _read_word,
    "allowed_tools": _read_tools,
    "disallowed_tools": _read_tools,
}

SETTING_READERS: Mapping[str, Reader] = {
    "default_timeout": _read_timeout,
    "default_model": _read_word,
    "default_permission_mode": _read_word,
    "default_allowed_tools": _read_tools,
    "default_disallowed_tools": _read_tools,
    "default_max_budget_usd": _read_budget,
    "max_dispatch_depth": _whole_reader(0, 1000),
    "max_concurrency": _whole_reader(1, 10_000),
    "call_retention_days": _number_reader(0, 1_000_000, "days"),
}

CACHE_READERS: Mapping[str, Reader] = {
    "enabled": _read_flag,
    "ttl": _number_reader(0, 1_000_000_000, "seconds"),
    "max_size": _whole_reader(0, 1_000_000_000),
}
