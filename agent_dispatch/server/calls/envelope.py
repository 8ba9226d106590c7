"""The envelope of an answer: JSON text and its companions; knows nothing of the MCP library."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from agent_dispatch.core.text import scrubbed
from agent_dispatch.model.replies import ResultRef
from agent_dispatch.server.tools.tool import WithWarnings


@dataclass(frozen=True, slots=True)
class Envelope:
    """The answer to one call."""

    text: str
    """JSON."""
    structured: dict[str, Any] | None = None
    """The same as an object, which Claude Code shows its model instead of the text."""
    is_error: bool = False
    warnings: Sequence[str] = ()
    """Warnings beside a list, which has no place for them."""
    ref: str | None = None
    """The job whose result can be read as a resource, where the answer only refers to it."""


def refusal(message: str) -> Envelope:
    """Wrap what is wrong with a call."""
    text = msgspec.json.encode({"error": scrubbed(message)}).decode()
    return Envelope(text, is_error=True)


def wrapped(answer: object) -> Envelope:
    """Wrap what a tool answered."""
    match answer:
        case WithWarnings(items, warnings):
            return replace(_success(items), warnings=scrubbed(list(warnings)))
        case ResultRef(ref=ref):
            return replace(_success(answer), ref=ref)
        case _:
            return _success(answer)


def _success(answer: object) -> Envelope:
    plain, text = encode(answer)
    return Envelope(text, plain if isinstance(plain, dict) else None)


def encode(answer: object) -> tuple[object, str]:
    """Return an answer as plain values and as JSON."""
    plain = msgspec.to_builtins(answer)
    try:
        return plain, msgspec.json.encode(plain).decode()
    except UnicodeEncodeError:
        plain = scrubbed(plain)
        return plain, msgspec.json.encode(plain).decode()
