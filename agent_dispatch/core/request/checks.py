"""Checks a request before anything is started."""

import re
from typing import Any

import msgspec

from agent_dispatch.core.request.json_schema import check_schema
from agent_dispatch.core.request.prompt import build_prompt
from agent_dispatch.core.request.timeout import check_timeout
from agent_dispatch.core.text import SURROGATE, is_blank
from agent_dispatch.errors import InvalidRequestError, SchemaError, quoted
from agent_dispatch.model.dispatch import DispatchRequest

_MAX_SCHEMA_BYTES = 100_000
"""A schema is passed on the command line, where one argument may have 128 KiB (execve(2))."""
MAX_PROMPT_BYTES = 10_000_000
"""Claude Code refuses more as text on stdin, and no model's context holds more."""
MAX_MESSAGE_CHARS = 100_000
"""The job's record contains all messages, and is rewritten with each."""
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


def check_request(request: DispatchRequest, shared_context: str = "") -> str:
    """Check a request, as far as that is possible without its agent, and build its prompt.

    Args:
        shared_context: Of its group, if it has one.

    Returns:
        The prompt, from `build_prompt`.

    Raises:
        InvalidRequestError: Something in the request cannot be sent.
    """
    texts = {
        "agent": request.agent,
        "task": request.task,
        "context": request.context,
        "caller": request.caller,
        "goal": request.goal,
        "group": request.group,
        "shared_context of the group": shared_context,
        "response_format": request.response_format,
        "json_schema": request.json_schema,
        "session_id": request.session_id or "",
    }
    for name, text in texts.items():
        check_text(name, text)
    if is_blank(request.task):
        raise InvalidRequestError("task is empty: say what the agent should do.")
    if request.response_format not in ("", "json"):
        raise InvalidRequestError(
            f"response_format {quoted(request.response_format)} is not known:"
            ' use "json" for one JSON value, or leave it out for text.'
        )
    if request.json_schema:
        _check_schema(request.json_schema)
    if request.session_id is not None and not _UUID.fullmatch(request.session_id):
        raise InvalidRequestError(
            f"session_id {quoted(request.session_id)} is not a session: it is the UUID that an"
            " earlier result carried as `session_id`. Leave it out to start a new session."
        )
    if request.group and request.session_id is not None:
        raise InvalidRequestError(
            "group and session cannot be combined: the session has its context already. Leave one"
            " of them out."
        )
    _check_word("model", request.model)
    _check_word("effort", request.effort)
    check_timeout(request.timeout_s)
    prompt = build_prompt(request, shared_context)
    if (size := len(prompt.encode())) > MAX_PROMPT_BYTES:
        raise InvalidRequestError(
            f"The prompt has {size:,} bytes, and Claude Code takes at most {MAX_PROMPT_BYTES:,}."
            " Put the material into a file in the agent's directory and name it in the task."
        )
    return prompt


def check_message(text: str) -> None:
    """Check a message to a running agent.

    Raises:
        InvalidRequestError: It is empty, too long, or has characters that no prompt can carry.
    """
    check_text("message", text)
    if is_blank(text):
        raise InvalidRequestError("message is empty: say what the agent should know or do.")
    if (length := len(text)) > MAX_MESSAGE_CHARS:
        raise InvalidRequestError(
            f"The message has {length:,} characters, and {MAX_MESSAGE_CHARS:,} are allowed. Put the"
            " material into a file in the agent's directory and name it in the message."
        )


def schema_text(json_schema: dict[str, Any] | str) -> str:
    """Return a JSON Schema, given as an object or as text, as JSON; empty for none."""
    if isinstance(json_schema, str):
        return json_schema.strip()
    # `{}` accepts every value, but still asks for a JSON value.
    return msgspec.json.encode(json_schema).decode()


def check_text(name: str, text: str) -> None:
    """Check that a prompt can carry `text`.

    Raises:
        InvalidRequestError: It cannot; the message calls it `name`.
    """
    if "\0" in text:
        raise InvalidRequestError(
            f"{name} contains a NUL character, which a prompt cannot carry: remove it."
        )
    if SURROGATE.search(text):
        raise InvalidRequestError(
            f"{name} contains half of a surrogate pair (\\ud800 to \\udfff alone), which is not"
            " text: send the whole character, or remove it."
        )


def _check_word(name: str, text: str) -> None:
    """Check that a command line can carry `text` after a flag."""
    check_text(name, text)
    if text.lstrip().startswith("-") or not text.isprintable():
        raise InvalidRequestError(
            f"{name} {quoted(text)} is not {'an' if name[0] in 'aeiou' else 'a'} {name}: give one"
            f" word, as `claude --{name}` takes it, or leave it out for the agent's own."
        )


def _check_schema(schema: str) -> None:
    size = len(schema.encode())
    if size > _MAX_SCHEMA_BYTES:
        raise SchemaError(
            f"json_schema has {size:,} bytes, and a command line takes at most"
            f" {_MAX_SCHEMA_BYTES:,}: leave out descriptions, or share parts by $ref."
        )
    example = '{"type": "object", "properties": {"count": {"type": "integer"}}}'
    try:
        value = msgspec.json.decode(schema)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SchemaError(
            f"json_schema is not JSON: {error}. It is a JSON Schema, such as {example}"
        ) from error
    if not isinstance(value, dict):
        raise SchemaError(
            f"json_schema must be an object, not {quoted(schema)}. It is a JSON Schema, such as"
            f" {example}"
        )
    check_schema(value)
