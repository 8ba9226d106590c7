"""Checks the fields that a call gives for an agent, before `agents.toml` is read."""

import os
import shlex
from collections.abc import Mapping
from typing import Any

from agent_dispatch.config.keys import AGENT_KEYS, Key
from agent_dispatch.config.project.facts import directory_problem
from agent_dispatch.config.values import NAME_RULE, BadValueError, is_agent_name, is_one_line
from agent_dispatch.errors import InvalidRequestError, quoted
from agent_dispatch.model.next_step import NextStep, StepKind, run


def check_name(name: str) -> None:
    """Check the name of a new agent."""
    if not is_agent_name(name):
        raise InvalidRequestError(f"{quoted(name, 200)} cannot name an agent: use {NAME_RULE}.")


def require_free(data: Mapping[str, Any], name: str) -> None:
    """Check that no agent of the file has this name."""
    if name in data.get("agents", {}):
        raise InvalidRequestError(
            f"Agent {name!r} exists already. Change it, or remove it and add it again.",
            NextStep(kind=StepKind.UPDATE_AGENT, agent=name),
            run(f"agent-dispatch remove {shlex.quote(name)}"),
        )


def check_directory(directory: str) -> str:
    """Return the absolute path of an existing directory, without symbolic links.

    `~` is expanded; a relative path starts at the working directory.

    Raises:
        InvalidRequestError: There is no such directory, or no agent could work there.
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


def check_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check the fields that a call gives.

    Returns:
        Keys and values as the file holds them. Empty text and 0 are left out, because they say
        nothing about a key. None means to remove the key: the call gave `none` or a negative
        number.

    Raises:
        InvalidRequestError: A value is not allowed; the message names its field.
    """
    changes: dict[str, Any] = {}
    for name, key in AGENT_KEYS.items():
        given = fields.get(name) or ""
        if isinstance(given, str):
            says_nothing, removes = not given.strip(), given.strip().casefold() == "none"
        else:
            says_nothing, removes = False, given < 0
        if not says_nothing:
            changes[name] = None if removes else _checked(name, key, given)
    return changes


def require_not_negative(fields: Mapping[str, Any]) -> None:
    """Refuse negative numbers for a new agent: it has nothing to remove yet."""
    for name, value in fields.items():
        if not isinstance(value, str) and value < 0:
            raise InvalidRequestError(
                f"{name} is {value!r:.40}: give a positive number, or 0 to inherit the default."
            )


def _checked(name: str, key: Key, given: str | float) -> object:
    try:
        if isinstance(given, str):
            _require_line(name, given)
            if (length := len(given.strip())) > key.max_chars:
                raise InvalidRequestError(
                    f"{name} has {length} characters: at most {key.max_chars} are allowed."
                )
            value = key.read(key.parse(given))
        else:
            key.read(given)
            value = as_written(given)
    except BadValueError as error:
        raise bad_field(name, error) from error
    for problem in key.refused(value):
        raise InvalidRequestError(f"{name}: {problem}")
    return value


def as_written(number: float) -> float:
    """Return a finite number as a person would write it: 300, not 300.0."""
    return int(number) if number == int(number) else number


def bad_field(name: str, error: BadValueError) -> InvalidRequestError:
    """Return the error for a field of a call."""
    return InvalidRequestError(f"{name}: {error}.")


def _require_line(field: str, text: str) -> None:
    if not is_one_line(text):
        raise InvalidRequestError(
            f"{field} holds a line break, a control character or invalid Unicode, which"
            f" agents.toml is kept free of: {text!r:.200}. Write it as one line."
        )
