"""A stand-in for the Anthropic Messages API on loopback, streamed or whole, scripted by a test.

A script is a function from a request to a reply. `script(...)` makes one from rules. Each rule
looks at the text since the model last spoke, so that a retried request gets the same answer.
"""

import itertools
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import trio

MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class ApiRequest:
    """One `POST /v1/messages`, as the client sent it."""

    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def newest(self) -> str:
        """Everything since the model last spoke: prompts, context, results of tools.

        The CLI puts a message with its own context behind the user's, so the last message alone
        would miss the prompt.
        """
        messages = self.body.get("messages", [])
        spoke = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        return "\n".join(_texts(messages[spoke[-1] + 1 if spoke else 0 :]))

    @property
    def tool_results(self) -> list[str]:
        """The text of each result of a tool in `newest`, in the order they were sent."""
        messages = self.body.get("messages", [])
        spoke = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        blocks = [
            block
            for message in messages[spoke[-1] + 1 if spoke else 0 :]
            if isinstance(message["content"], list)
            for block in message["content"]
        ]
        return [
            "\n".join(_texts(block.get("content", [])))
            for block in blocks
            if block.get("type") == "tool_result"
        ]

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the model may call at once."""
        return [tool["name"] for tool in self.body.get("tools", [])]


@dataclass(frozen=True, kw_only=True)
class Text:
    """The model answers and stops."""

    text: str
    after_s: float = 0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool by the model."""

    name: str
    input: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ToolCalls:
    """The model calls tools, all in one turn."""

    calls: tuple[ToolCall, ...]
    after_s: float = 0


@dataclass(frozen=True, kw_only=True)
class ApiError:
    """The API refuses, with the body that the public API documents for this status."""

    status: int
    message: str = "refused by the script"
    headers: Mapping[str, str] = field(default_factory=dict)
    after_s: float = 0


@dataclass(frozen=True)
class Hang:
    """The API accepts the request and never answers."""


@dataclass(frozen=True)
class Held:
    """The model answers only when a test allows it."""

    until: trio.Event
    reply: Text


Reply = Text | ToolCalls | ApiError | Hang | Held
Script = Callable[[ApiRequest], Reply]


def answer(text: str, *, after_s: float = 0) -> Text:
    """The model says `text` and stops."""
    return Text(text=text, after_s=after_s)


def call(name: str, /, **arguments: Any) -> ToolCalls:
    """The model calls one tool."""
    return ToolCalls(calls=(ToolCall(name, arguments),))


def bash(command: str, *, background: bool = False) -> ToolCalls:
    """The model runs a shell command; the tool itself refuses a command that is only `sleep N`."""
    options = {"run_in_background": True} if background else {}
    return call("Bash", command=command, description="as the script says", **options)


def dispatch(agent: str, task: str, **arguments: Any) -> ToolCalls:
    """The model hands a task to an agent through our MCP server."""
    return call("mcp__agent-dispatch__dispatch", agent=agent, task=task, **arguments)


def script(*rules: tuple[str, Reply], otherwise: Reply | None = None) -> Script:
    """Answer with the first rule whose text occurs in the newest part of the conversation."""
    fallback = otherwise if otherwise is not None else answer("as you wish")

    def decide(request: ApiRequest) -> Reply:
        newest = request.newest
        return next((reply for text, reply in rules if text in newest), fallback)

    return decide


class MessagesApi:
    """The running stand-in: its address and its requests."""

    def __init__(self, port: int, decide: Script) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.decide = decide
        """The script; a test may replace it between runs."""
        self.requests: list[ApiRequest] = []
        self._arrived = trio.Condition()
        self._numbers = itertools.count(1)

    async def wait_for(self, matches: Callable[[ApiRequest], bool]) -> ApiRequest:
        """Wait for a matching request, and return the first one."""
        async with self._arrived:
            while True:
                for request in self.requests:
                    if matches(request):
                        return request
                await self._arrived.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection until the client closes it."""
        # Tests kill clients, which breaks connections at any point.
        with suppress(trio.BrokenResourceError):
            async with stream:
                reader = _Reader(stream)
                while (head := await reader.head()) is not None:
                    body = await reader.exactly(int(head.headers.get("content-length", "0")))
                    await self._respond(stream, head, body)

    async def _respond(self, stream: trio.SocketStream, head: "_Head", body: bytes) -> None:
        path = head.target.partition("?")[0]
        if head.method != "POST":
            await _send(stream, 404, {}, b"", send_body=head.method != "HEAD")
        elif path == "/v1/messages/count_tokens":
            await _send_json(stream, 200, {"input_tokens": 10})
        elif path == "/v1/messages":
            await self._message(stream, ApiRequest(headers=head.headers, body=json.loads(body)))
        else:
            await _send_json(stream, 404, _error_body(404, f"no such path: {path}"))

    async def _message(self, stream: trio.SocketStream, request: ApiRequest) -> None:
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        reply = self.decide(request)
        if isinstance(reply, Held):
            await reply.until.wait()
            reply = reply.reply
        match reply:
            case Hang():
                await trio.sleep_forever()
            case ApiError(status=status, message=message, headers=headers):
                await trio.sleep(reply.after_s)
                await _send_json(stream, status, _error_body(status, message), headers)
            case Text() | ToolCalls():
                await trio.sleep(reply.after_s)
                whole = _message_body(request, reply, next(self._numbers))
                headers = reply.headers if isinstance(reply, Text) else {}
                if request.body.get("stream"):
                    events = "".join(_events(whole)).encode()
                    fields = {"content-type": "text/event-stream", **headers}
                    await _send(stream, 200, fields, events)
                else:
                    await _send_json(stream, 200, whole, headers)


@asynccontextmanager
async def serve_messages_api(
    listening: socket.socket, decide: Script
) -> AsyncIterator[MessagesApi]:
    """Serve on a listening socket while the block runs; connections end with it."""
    api = MessagesApi(listening.getsockname()[1], decide)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, api.serve, [listener])
        yield api
        nursery.cancel_scope.cancel()


_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def _error_body(status: int, message: str) -> dict[str, Any]:
    return {
        "type": "error",
        "error": {"type": _ERROR_TYPES[status], "message": message},
        "request_id": "req_scripted",
    }


def _message_body(request: ApiRequest, reply: Text | ToolCalls, number: int) -> dict[str, Any]:
    if isinstance(reply, Text):
        content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}]
    else:
        content = [
            {"type": "tool_use", "id": f"toolu_{number}_{i}", "name": c.name, "input": c.input}
            for i, c in enumerate(reply.calls)
        ]
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": request.body["model"],
        "content": content,
        "stop_reason": "end_turn" if isinstance(reply, Text) else "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }


def _events(message: dict[str, Any]) -> list[str]:
    begun = message | {"content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            empty = block | {"text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            empty = block | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        events += [
            {"type": "content_block_start", "index": index, "content_block": empty},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events += [
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]


def _texts(value: Any) -> list[str]:
    """Every text in a list of messages or blocks, in order; a tool's input is not text."""
    match value:
        case str():
            return [value]
        case list():
            return [text for item in value for text in _texts(item)]
        case {"type": "text", "text": str(text)}:
            return [text]
        case {"content": content}:
            return _texts(content)
        case _:
            return []


@dataclass(frozen=True)
class _Head:
    method: str
    target: str
    headers: Mapping[str, str]


class _Reader:
    """Cuts one connection's bytes into heads and bodies."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def head(self) -> _Head | None:
        """Read to the empty line after the headers; None if the client has hung up."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES or not await self._more():
                return None
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        method, target, _ = first.split(" ", 2)
        fields = (line.partition(":") for line in lines)
        return _Head(method, target, {name.lower(): text.strip() for name, _, text in fields})

    async def exactly(self, count: int) -> bytes:
        """Read a body of `count` bytes; shorter only if the client hangs up before its end."""
        while len(self._buffer) < count and await self._more():
            pass
        body = bytes(self._buffer[:count])
        del self._buffer[:count]
        return body

    async def _more(self) -> bool:
        data = await self._stream.receive_some()
        self._buffer += data
        return bool(data)


async def _send_json(
    stream: trio.SocketStream, status: int, value: Any, headers: Mapping[str, str] | None = None
) -> None:
    fields = {"content-type": "application/json", **(headers or {})}
    await _send(stream, status, fields, json.dumps(value).encode())


def _send(
    stream: trio.SocketStream,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    send_body: bool = True,
) -> Awaitable[None]:
    fields = {**headers, "content-length": str(len(body)), "request-id": "req_scripted"}
    lines = [f"HTTP/1.1 {status} scripted", *(f"{name}: {text}" for name, text in fields.items())]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return stream.send_all(head + (body if send_body else b""))
