"""The lines that a run writes to claude's stdin (`--input-format=stream-json`)."""

from typing import Any

import msgspec

from agent_dispatch.core.stream.events import ControlRequestEvent
from agent_dispatch.core.text import is_command
from agent_dispatch.model.question import ASK_USER

NOBODY_THERE = "nobody was there to allow it; finish what you can and say what is missing"
NOT_TO_BE_SHOWN = "this call is too large to be shown to a person"
DENIED_BY_PERSON = "The user denied this call. Do not try it again in another way."


def user_line(prompt: str) -> bytes:
    """Return the line that starts a turn."""
    return _line({"type": "user", "message": {"role": "user", "content": prompt}})


def message_line(text: str, line_id: str) -> bytes:
    """Return the user line that carries a message to a running turn.

    Args:
        text: The message; Claude Code does not execute it as a slash command.
        line_id: A UUID, which the events about this line repeat.
    """
    content = f"Message:\n{text}" if is_command(text) else text
    return _line({"type": "user", "message": {"role": "user", "content": content}, "uuid": line_id})


def withdrawal_line(line_id: str) -> bytes:
    """Return the line that takes back a user line whose turn has not begun."""
    return _request_line(line_id, {"subtype": "cancel_async_message", "message_uuid": line_id})


def interrupt_line(request_id: str) -> bytes:
    """Return the line that ends the current turn; the process lives on and prints a result."""
    return _request_line(request_id, {"subtype": "interrupt"})


def refusal_line(event: ControlRequestEvent) -> bytes:
    """Return the answer to a question of the CLI that no person can answer.

    Without an answer it would wait until the deadline. A permission is denied, a form of an MCP
    server of the agent is cancelled, and anything else is refused as not supported.
    """
    match event.request.subtype:
        case "can_use_tool" if event.request.tool_name == ASK_USER:
            return denial_line(event, "put the question into your answer")
        case "can_use_tool":
            return denial_line(event, "Nobody can be asked in a dispatch.")
        case "elicitation":
            return _answer_line(event, {"action": "cancel"})
        case _:
            return _answer_line(event, None)


def allowance_line(event: ControlRequestEvent) -> bytes:
    """Return the answer that allows a call with its input unchanged."""
    return _answer_line(event, {"behavior": "allow", "updatedInput": event.request.input})


def denial_line(event: ControlRequestEvent, reason: str) -> bytes:
    """Return the answer that denies a call; the model reads the reason."""
    return _answer_line(event, {"behavior": "deny", "message": reason})


def is_permission(event: ControlRequestEvent) -> bool:
    """Tell whether the CLI asks for a permission that a person can give.

    The model's own question to the user is not one: a dispatch has no form for it.
    """
    request = event.request
    return request.subtype == "can_use_tool" and request.tool_name != ASK_USER


def _request_line(request_id: str, request: dict[str, str]) -> bytes:
    return _line({"type": "control_request", "request_id": request_id, "request": request})


def _answer_line(event: ControlRequestEvent, answer: dict[str, Any] | None) -> bytes:
    response: dict[str, Any] = {"request_id": event.request_id}
    if answer is None:
        response |= {"subtype": "error", "error": "agent-dispatch does not support this request"}
    else:
        response |= {"subtype": "success", "response": answer}
    return _line({"type": "control_response", "response": response})


def _line(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\n"
