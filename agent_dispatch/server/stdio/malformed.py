"""Malformed lines: what to answer, and under which id.

Pure: bytes in, verdicts out. Few lines come here (those that the fast parser refused, or took for a
notification although they have an id), so clarity counts more than speed.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_types import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, RequestId

from agent_dispatch.server.stdio.byte_streams import EDGE_BYTES

MAX_BATCH_ANSWERS = 1000

_SCALAR_ID = rb'(-?\d{1,18}|"[^"\\\x00-\x1f]{0,200}")'
_ID_AT_HEAD = re.compile(
    rb'\s*\{\s*(?:"(?:jsonrpc|method)"\s*:\s*"[^"\\]*"\s*,\s*)*"id"\s*:\s*'
    + _SCALAR_ID
    + rb"\s*[,}]"
)
# The brace that ends a line closes the message, so a member just before it is the message's own;
# inside a string the quotes around `id` would be escaped.
_ID_AT_TAIL = re.compile(rb'[,{]\s*"id"\s*:\s*' + _SCALAR_ID + rb"\s*\}\s*$")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A JSON-RPC error to send, once for each id; `None` is an unknown id."""

    code: int
    message: str
    ids: tuple[RequestId | None, ...]


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A message that can be served; it has unpaired surrogates only in a tool's arguments."""

    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ignored:
    """A malformed response. It is never answered, because its id is one of ours."""

    reason: str


Verdict = Refusal | Salvaged | Ignored


def second_look(line: bytes) -> Verdict:
    """Decide what to do with a line that the fast parser did not take for a message."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refusal(
            PARSE_ERROR,
            f"Parse error: byte {error.start} of the line is not UTF-8. Send UTF-8.",
            (_id_of(line),),
        )
    try:
        return _judge(json.loads(text))
    except RecursionError:
        return Refusal(
            PARSE_ERROR, "Parse error: nested too deeply. Send a flatter value.", (_id_of(line),)
        )
    except ValueError as error:
        return Refusal(
            PARSE_ERROR,
            f"Parse error: not JSON ({error}). Send one JSON-RPC message per line.",
            (_id_of(line),),
        )


def is_request_without_proper_id(line: bytes) -> bool:
    """Whether a line that parses as a notification is a request with an invalid id, such as 1.5.

    With `"id": null` the method decides.
    """
    if b'"id"' not in line:
        return False
    message = json.loads(line)
    return "id" in message and not message["method"].startswith("notifications/")


def refuse_overlong(head: bytes, tail: bytes, size: int, limit: int) -> Refusal:
    """Return the answer to a line that was too long; only its two ends were kept."""
    return Refusal(
        INVALID_REQUEST,
        f"Invalid request: the line has {size} bytes, and at most {limit} are read. Send less, or"
        " put large material in a file and name the file.",
        (_id_at_edges(head, tail),),
    )


def _judge(message: object) -> Verdict:
    if isinstance(message, list):
        known = [i for item in message if (i := _proper_id(item)) is not None]
        return Refusal(
            INVALID_REQUEST,
            "Invalid request: MCP has no batches. Send each message on a line of its own.",
            tuple(known[:MAX_BATCH_ANSWERS]) or (None,),
        )
    if not isinstance(message, dict):
        return _invalid("a message is a JSON object", None)
    request_id = _proper_id(message)
    if "method" not in message and ("result" in message or "error" in message):
        return Ignored("a response that is not well-formed")
    if "id" in message and request_id is None:
        return _invalid("`id` must be text or a whole number", None)
    if message.get("jsonrpc") != "2.0":
        return _invalid('`jsonrpc` must be "2.0"', request_id)
    if not isinstance(message.get("method"), str):
        return _invalid("`method` must be text", request_id)
    if not isinstance(message.get("params", {}), dict | None):
        return _invalid("`params` must be an object", request_id, INVALID_PARAMS)
    if not _is_text_clean(_without_arguments(message)):
        return _invalid("it contains an unpaired surrogate, which is not text", request_id)
    if message["method"] != "tools/call" or _is_text_clean(message):
        return _invalid("a value is nested too deeply or out of range", request_id, INVALID_PARAMS)
    return Salvaged(message)


def _invalid(why: str, request_id: RequestId | None, code: int = INVALID_REQUEST) -> Refusal:
    title = "Invalid params" if code == INVALID_PARAMS else "Invalid request"
    return Refusal(code, f"{title}: {why}.", (request_id,))


def _without_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    params = message.get("params") or {}
    return {**message, "params": {k: v for k, v in params.items() if k != "arguments"}}


def _is_text_clean(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _proper_id(message: object) -> RequestId | None:
    if not isinstance(message, dict):
        return None
    found = message.get("id")
    if isinstance(found, bool) or not isinstance(found, int | str) or not _is_text_clean(found):
        return None
    return found


def _id_of(line: bytes) -> RequestId | None:
    """Return the id in a line that cannot be parsed."""
    try:
        return _proper_id(json.loads(line.decode("utf-8", "replace").lstrip("\ufeff")))
    except (ValueError, RecursionError):
        return _id_at_edges(line, line[-EDGE_BYTES:])


def _id_at_edges(head: bytes, tail: bytes) -> RequestId | None:
    found = _ID_AT_HEAD.match(head) or _ID_AT_TAIL.search(tail)
    if found is None:
        return None
    try:
        return _proper_id({"id": json.loads(found[1])})
    except ValueError:
        return None
