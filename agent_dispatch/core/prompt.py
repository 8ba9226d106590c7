"""What is asked of an agent: checks on the request, the prompt, and the lines written to stdin."""

import math
import re
from typing import Any

import msgspec

from agent_dispatch.core.events import ControlRequestEvent
from agent_dispatch.core.json_schema import check_schema
from agent_dispatch.core.text import SURROGATE
from agent_dispatch.errors import InvalidRequestError, SchemaError, quoted
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.question import ASK_USER, PastQuestion

MAX_SCHEMA_BYTES = 100_000
"""It travels on the command line, where one argument may have 128 KiB (execve(2), Linux)."""
MAX_PROMPT_BYTES = 10_000_000
"""Claude Code refuses more on stdin as text, and no model's context holds it as an event."""
MAX_MESSAGE_CHARS = 100_000
"""The job's record holds each message, and is written anew with each."""

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
# JavaScript's trim() takes a byte order mark for white space; Python's strip() does not.
_BLANK = re.compile(r"[\s\ufeff]*")
IN_ANSWER = "put the question into your answer"
NOBODY_THERE = "nobody was there to allow it; finish what you can and say what is missing"
NOT_TO_BE_SHOWN = "this call is too large to be shown to a person"
DENIED_BY_PERSON = "The user denied this call. Do not try it again in another way."
_COMMAND = re.compile(r"[\s\ufeff]*/")

_JSON_INSTRUCTION = (
    "Reply with one JSON value and nothing else: no sentence before or after it, no code fence."
    " If the task cannot be done, reply with a JSON object whose only key is"
    ' "error" and whose value says why.'
)


def check_request(request: DispatchRequest, shared_context: str = "") -> str:
    """Check what can be known of a request before an agent is looked up.

    Args:
        request: The request.
        shared_context: Of its group, if it has one.

    Returns:
        The prompt, as `build_prompt` makes it.

    Raises:
        InvalidRequestError: Something in it cannot be sent; nothing may be started.
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
        raise InvalidRequestError("task is empty: say what the agent is to do.")
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
    """Check that a running agent can be told `text`.

    Raises:
        InvalidRequestError: It is empty, too long or no text.
    """
    check_text("message", text)
    if is_blank(text):
        raise InvalidRequestError("message is empty: say what the agent is to know or do.")
    if (length := len(text)) > MAX_MESSAGE_CHARS:
        raise InvalidRequestError(
            f"The message has {length:,} characters, and {MAX_MESSAGE_CHARS:,} are allowed. Put the"
            " material into a file in the agent's directory and name it in the message."
        )


def schema_text(json_schema: dict[str, Any] | str) -> str:
    """Return a JSON Schema as JSON, whichever way a caller gave it; empty for none."""
    if isinstance(json_schema, str):
        return json_schema.strip()
    # `{}` fits every value: it asks for one all the same.
    return msgspec.json.encode(json_schema).decode()


def build_prompt(request: DispatchRequest, shared_context: str = "") -> str:
    """Return the text that the agent's model reads; it never begins with a slash command."""
    context = "" if is_blank(request.context) else request.context
    caller = "" if is_blank(request.caller) else request.caller
    goal = "" if is_blank(request.goal) else request.goal
    if caller or goal or request.group:
        sections = {
            "Goal": goal,
            "Dispatched by": caller,
            "Shared context": "" if is_blank(shared_context) else shared_context,
            "Context": context,
            "Task": request.task,
        }
        prompt = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
        instruction = f"## Form of the answer\n\n{_JSON_INSTRUCTION}"
    else:
        if context:
            prompt = f"Context:\n{context}\n\nTask:\n{request.task}"
        elif _COMMAND.match(request.task):
            # Claude Code would execute `/compact` itself and ask no model.
            prompt = f"Task:\n{request.task}"
        else:
            prompt = request.task
        instruction = _JSON_INSTRUCTION
    # With a schema the CLI itself tells the model how to answer.
    wants_footer = request.response_format == "json" and not request.json_schema
    return f"{prompt}\n\n{instruction}" if wants_footer else prompt


def user_line(prompt: str) -> bytes:
    """Return the line that starts a turn (`--input-format=stream-json`)."""
    return _line({"type": "user", "message": {"role": "user", "content": prompt}})


def message_line(text: str, line_id: str) -> bytes:
    """Return the user line that says something more during a turn.

    Args:
        text: What to say; it becomes no command of Claude Code.
        line_id: A UUID, by which events tell what became of it.
    """
    content = f"Message:\n{text}" if _COMMAND.match(text) else text
    return _line({"type": "user", "message": {"role": "user", "content": content}, "uuid": line_id})


def withdrawal_line(line_id: str) -> bytes:
    """Return the line that takes back a user line whose turn has not begun."""
    request = {"subtype": "cancel_async_message", "message_uuid": line_id}
    return _line({"type": "control_request", "request_id": line_id, "request": request})


def interrupt_line(request_id: str) -> bytes:
    """Return the line that ends the turn in hand; the process lives on and prints a result."""
    return _line(
        {
            "type": "control_request",
            "request_id": request_id,
            "request": {"subtype": "interrupt"},
        }
    )


def refusal_line(asked: ControlRequestEvent) -> bytes:
    """Return the answer to a question of the CLI that nobody is there to decide.

    Without an answer it would wait until the deadline: a permission is denied, a form that one of
    the agent's MCP servers shows is cancelled, anything else is refused as not supported.
    """
    is_model_s = asked.request.tool_name == ASK_USER
    answers: dict[str, dict[str, Any]] = {
        "can_use_tool": _denial(IN_ANSWER if is_model_s else "Nobody can be asked in a dispatch."),
        "elicitation": {"action": "cancel"},
    }
    return _answer_line(asked, answers.get(asked.request.subtype))


def allowance_line(asked: ControlRequestEvent) -> bytes:
    """Return the answer that lets the CLI make the call that it asked for, as it asked for it."""
    return _answer_line(asked, {"behavior": "allow", "updatedInput": asked.request.input})


def denial_line(asked: ControlRequestEvent, reason: str) -> bytes:
    """Return the answer that denies a call; the model reads the reason."""
    return _answer_line(asked, _denial(reason))


def allowed_later_task(call: PastQuestion) -> str:
    """Return the task that resumes a session whose call was allowed after it had ended."""
    given = msgspec.json.encode(call.input).decode()
    return (
        f"Your call of {call.tool} was denied, because nobody was there to allow it. The user has"
        " allowed it now, once. Make exactly that call again, with the same input, and then finish"
        f" your task:\n\n{given}"
    )


def is_permission(asked: ControlRequestEvent) -> bool:
    """Whether the CLI asks for a permission that a person can give.

    The model's own question to the user is none: no dispatch has a form for it.
    """
    request = asked.request
    return request.subtype == "can_use_tool" and request.tool_name != ASK_USER


def _denial(reason: str) -> dict[str, Any]:
    return {"behavior": "deny", "message": reason}


def _answer_line(asked: ControlRequestEvent, answer: dict[str, Any] | None) -> bytes:
    response: dict[str, Any] = {"request_id": asked.request_id}
    if answer is None:
        response |= {"subtype": "error", "error": "agent-dispatch does not support this request"}
    else:
        response |= {"subtype": "success", "response": answer}
    return _line({"type": "control_response", "response": response})


def _line(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def check_timeout(timeout_s: float | None) -> None:
    """Check the timeout of one call; it is brought into its range later.

    Raises:
        InvalidRequestError: It is no number of seconds.
    """
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise InvalidRequestError(
            f"The timeout must be a number of seconds above 0, not {timeout_s}."
        )


def is_blank(text: str) -> bool:
    """Tell whether there is nothing in `text` but what Claude Code trims."""
    return _BLANK.fullmatch(text) is not None


def check_text(name: str, text: str) -> None:
    """Check that a prompt can carry `text`.

    Raises:
        InvalidRequestError: It cannot; `name` says what it is.
    """
    if "\0" in text:
        raise InvalidRequestError(
            f"{name} holds a NUL character, which no prompt can carry: remove it."
        )
    if SURROGATE.search(text):
        raise InvalidRequestError(
            f"{name} holds half of a surrogate pair (\\ud800 to \\udfff alone), which is no text:"
            " send the whole character, or remove it."
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
    if size > MAX_SCHEMA_BYTES:
        raise SchemaError(
            f"json_schema has {size:,} bytes, and a command line takes at most"
            f" {MAX_SCHEMA_BYTES:,}: leave out descriptions, or share parts by $ref."
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
