"""What a caller may say about an agent, checked before it gets near `agents.toml`.

Every check returns the value as the file holds it, or raises `InvalidRequestError`. Where a call
may leave a field as it is, the empty text or 0 says so; `none` takes the field out.
"""

import os
from collections.abc import Callable
from typing import Any

import msgspec

from agent_dispatch.config.scan import directory_problem
from agent_dispatch.config.values import (
    BUDGET_RANGE_USD,
    NAME_RULE,
    TIMEOUT_RANGE_S,
    is_agent_name,
    is_one_line,
    split_tools,
    tool_problem,
)
from agent_dispatch.errors import InvalidRequestError

_MAX_DESCRIPTION_CHARS = 2000
_MAX_WORD_CHARS = 200
_MAX_TOOLS_CHARS = 20_000


def check_name(name: str) -> str:
    """Check the name of a new agent."""
    if not is_agent_name(name):
        raise InvalidRequestError(f"{name[:200]!r} cannot name an agent: use {NAME_RULE}.")
    return name


def check_directory(directory: str) -> str:
    """Find an existing directory: `~` is expanded, a relative path starts where we run.

    Returns:
        Its absolute path without symbolic links.
    """
    _require_line("directory", directory)
    if not directory.strip():
        raise InvalidRequestError("directory is empty: give the path of the project.")
    try:
        path = os.path.realpath(os.path.expanduser(directory))
    except OSError as error:
        raise InvalidRequestError(
            f"directory {directory!r} cannot be found from here: {error.strerror}."
            " Give an absolute path."
        ) from error
    _require_line("directory", path)
    if problem := directory_problem(path):
        raise InvalidRequestError(
            f"{problem[0].upper()}{problem[1:]}. Give the path of an existing project."
        )
    return path


def check_fields(
    *,
    description: str,
    timeout: float,
    max_budget_usd: float,
    model: str,
    permission_mode: str,
    allowed_tools: str,
    disallowed_tools: str,
) -> dict[str, Any]:
    """Check the fields that a call gives.

    Returns:
        Key and value as the file holds them, the fields left empty absent; None is for a field to
        take out: its text is `none`, or its number negative.

    Raises:
        InvalidRequestError: A value is not allowed; the message names its field.
    """
    changes: dict[str, Any] = {}
    texts: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
        ("description", description, _check_description),
        ("model", model, lambda text: _check_word("model", text)),
        ("permission_mode", permission_mode, lambda text: _check_word("permission_mode", text)),
        ("allowed_tools", allowed_tools, lambda text: _check_tools("allowed_tools", text)),
        ("disallowed_tools", disallowed_tools, lambda text: _check_tools("disallowed_tools", text)),
    )
    for key, text, check in texts:
        if text.strip():
            changes[key] = None if _is_clearing(text) else check(text)
    numbers = (
        ("timeout", timeout, TIMEOUT_RANGE_S, "seconds"),
        ("max_budget_usd", max_budget_usd, BUDGET_RANGE_USD, "US dollars"),
    )
    for key, number, bounds, unit in numbers:
        if number:
            changes[key] = None if number < 0 else _check_number(key, number, bounds, unit)
    return changes


def require_not_negative(field: str, value: float) -> None:
    """Refuse a number below zero where there is nothing yet to take out."""
    if value < 0:
        raise InvalidRequestError(
            f"{field} is {value!r:.40}: give a positive number, or 0 to inherit the default."
        )


def _is_clearing(text: str) -> bool:
    """Say whether a text asks to take its field out."""
    return text.strip().casefold() == "none"


def _check_description(description: str) -> str:
    """Check a description: one line."""
    _require_line("description", description)
    return _require_short("description", description.strip(), _MAX_DESCRIPTION_CHARS)


def _check_word(field: str, text: str) -> str:
    """Check a value that stands next to a flag of the CLI: a model or a permission mode."""
    _require_line(field, text)
    word = _require_short(field, text.strip(), _MAX_WORD_CHARS)
    if word.startswith("-"):
        raise InvalidRequestError(
            f"{field} {word!r} starts with '-', which the CLI could take for a flag."
        )
    return word


def _check_tools(field: str, text: str) -> list[str]:
    """Check a list of tools: with commas between them, or a JSON array of texts.

    `[]` is the empty list: it grants nothing beyond the project's own settings.
    """
    _require_line(field, text)
    _require_short(field, text, _MAX_TOOLS_CHARS)
    if text.strip().startswith("["):
        try:
            items = msgspec.json.decode(text, type=list[str])
        except msgspec.DecodeError as error:
            raise InvalidRequestError(
                f"{field} starts with '[' but is not a JSON array of texts: {error}."
                ' Write it as "Bash,Read", or as ["Bash", "Read"].'
            ) from error
        for item in items:
            _require_line(field, item)
        tools = list(dict.fromkeys(tool for item in items for tool in split_tools(item)))
    else:
        tools = split_tools(text)
        if not tools:
            raise InvalidRequestError(
                f"{field} {text!r} names no tool. Write [] to grant nothing beyond the project's"
                " own settings, or none to inherit the default."
            )
    for tool in tools:
        if problem := tool_problem(tool):
            raise InvalidRequestError(f"{field}: {problem}")
    return tools


def _check_number(field: str, value: float, bounds: tuple[int, int], unit: str) -> float:
    """Check a number; nan is within no bounds."""
    minimum, maximum = bounds
    if not minimum <= value <= maximum:
        raise InvalidRequestError(
            f"{field} is {value!r:.40}: give a number of {unit} from {minimum} to {maximum}."
        )
    # As a person would write it: 300, not 300.0.
    return int(value) if value == int(value) else value


def _require_line(field: str, text: str) -> None:
    if not is_one_line(text):
        raise InvalidRequestError(
            f"{field} holds a line break, a control character or invalid Unicode, which"
            f" agents.toml is kept free of: {text!r:.200}. Write it as one line."
        )


def _require_short(field: str, text: str, limit: int) -> str:
    if len(text) > limit:
        raise InvalidRequestError(
            f"{field} has {len(text)} characters: at most {limit} are allowed."
        )
    return text
