"""Errors of calls; each surface turns them, once, into an envelope or an exit status.

A run that failed is a `DispatchResult` with an `error_type`. Any other exception is a bug and
propagates. The message of an error says what happened; its next steps say what to do.
"""

from collections.abc import Iterable

import msgspec

from agent_dispatch.model.names import did_you_mean
from agent_dispatch.model.next_step import NextStep, StepKind, run

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not the expected JSON. Neither of the last two, bytes that
are not UTF-8 and deep nesting, is a `DecodeError`."""
_SHOWN_CHARS = 100
"""The longest name of an agent."""


def quoted(text: str, max_chars: int = 60) -> str:
    """Return `text` in quotation marks for an error, cut to `max_chars` characters."""
    return repr(text[:max_chars]) + ("…" if len(text) > max_chars else "")


class DispatchError(Exception):
    """The call cannot be carried out; `str(error)` is written for the caller."""

    def __init__(self, message: str = "", *next_steps: NextStep) -> None:
        super().__init__(message)
        self.next_steps = next_steps


class InvalidRequestError(DispatchError):
    """An argument is missing, has the wrong type, or is not allowed."""


class SchemaError(InvalidRequestError):
    """Claude Code does not take the JSON Schema of a call."""


class UnknownAgentError(DispatchError):
    """No agent of that name is configured."""

    def __init__(self, name: str, available: Iterable[str]) -> None:
        known = sorted(available)
        add_one = () if known else (NextStep(kind=StepKind.ADD_AGENT),)
        super().__init__(_unknown("agent", name, known), *add_one)


class UnknownGroupError(DispatchError):
    """No group of that name is configured."""

    def __init__(self, name: str, available: Iterable[str]) -> None:
        super().__init__(_unknown("group", name, sorted(available)))


def _unknown(kind: str, name: str, known: list[str]) -> str:
    suggestion = did_you_mean(name, known)
    available = ", ".join(known) or "none yet"
    return f"Unknown {kind}: {quoted(name, _SHOWN_CHARS)}.{suggestion} Available: {available}"


class ConfigError(DispatchError):
    """`agents.toml` cannot be read, parsed or written; the file on disk is unchanged."""


class UnusableAgentError(DispatchError):
    """The agent's own table in `agents.toml` is broken; the other agents work."""

    def __init__(self, name: str, reason: str) -> None:
        import shlex  # Only a message needs it.

        super().__init__(
            f"Agent {name!r} is not usable: {reason}. Correct its table in agents.toml, or remove"
            " the agent.",
            run(f"agent-dispatch remove {shlex.quote(name)}"),
        )
