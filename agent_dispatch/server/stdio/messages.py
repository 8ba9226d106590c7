"""The two streams of messages that the MCP library needs, over our own lines and frames.

The library's `stdio_server` reads in a thread that cannot be cancelled, so after SIGINT it waits
for the client to close stdin (measured with mcp 2.3.0). It also drops lines that it cannot parse.
Here every line gets a message or an error, and nothing delays the exit.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import Self

import anyio
import trio
from mcp.shared.message import SessionMessage
from mcp_types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from agent_dispatch.server.stdio.byte_streams import (
    HANG_UP_CHECK_S,
    READ_MARK_BYTES,
    LineReader,
    Outbox,
    Overlong,
)
from agent_dispatch.server.stdio.front_door import FrontDoor
from agent_dispatch.server.stdio.malformed import (
    Ignored,
    Refusal,
    Salvaged,
    is_request_without_proper_id,
    refuse_overlong,
    second_look,
)
from agent_dispatch.server.stdio.unanswered import Unanswered

logger = logging.getLogger(__name__)

EOF_GRACE_S = 0.3
"""How long calls may still be answered after the end of the input."""


class _Stream:
    """The methods that the library requires of both streams."""

    async def aclose(self) -> None:
        """Close nothing: the descriptors belong to the opener of the wire."""
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class MessageReader(_Stream):
    """The client's messages, as the library's `ReadStream`; answers malformed lines itself."""

    def __init__(
        self,
        lines: LineReader,
        outbox: Outbox,
        unanswered: Unanswered,
        door: FrontDoor | None,
        *,
        on_end: Callable[[], None],
    ) -> None:
        """Read from `lines`; refusals and the answers of `door` go to `outbox`.

        `on_end` is called once, when the client has left and the grace period has passed.
        """
        self._door = door
        self._lines = lines
        self._outbox = outbox
        self._unanswered = unanswered
        self._on_end = on_end

    async def receive(self) -> SessionMessage:
        """Return the next message.

        Raises:
            anyio.EndOfStream: The client closed its end, and the grace period for its answers has
                passed.
        """
        if (message := self._next_of_handshake()) is not None:
            return SessionMessage(message)
        while (line := await self._next_line()) is not None:
            if isinstance(line, Overlong):
                self._refuse(
                    refuse_overlong(line.head, line.tail, line.size, self._lines.max_line_bytes)
                )
            elif line and not line.isspace() and (message := self._for_library(line)) is not None:
                return SessionMessage(message)
        self._unanswered.input_ended = True
        with trio.move_on_after(EOF_GRACE_S):
            await self._unanswered.wait_none()
        self._unanswered.remove_all()
        self._on_end()
        raise anyio.EndOfStream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def _next_line(self) -> bytes | Overlong | None:
        """Read on, but wait while the client does not read: its answers would pile up."""
        while self._outbox.is_backed_up:
            if self._lines.is_hung_up():
                return None
            with trio.move_on_after(HANG_UP_CHECK_S):
                await self._outbox.wait_below(READ_MARK_BYTES)
        return await self._lines.receive()

    def _for_library(self, line: bytes) -> JSONRPCMessage | None:
        """Return the message for the library; None if the line has been answered here."""
        if self._door is not None and (frame := self._door.answer(line)) is not None:
            self._post(frame)
            return self._next_of_handshake()
        if (message := self._decode(line)) is not None:
            self._unanswered.add(message, self._lines.arrived_at)
        return message

    def _next_of_handshake(self) -> JSONRPCMessage | None:
        """Return a message that the door answered and that the library still needs."""
        if self._door is None or not self._door.handshake:
            return None
        message = self._decode(self._door.handshake.pop(0))
        if message is not None:
            self._unanswered.note_answered_by_door(message)
        return message

    def _decode(self, line: bytes) -> JSONRPCMessage | None:
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValidationError:
            return self._look_again(line)
        if isinstance(message, JSONRPCNotification) and is_request_without_proper_id(line):
            return self._look_again(line)
        return message

    def _look_again(self, line: bytes) -> JSONRPCMessage | None:
        match second_look(line):
            case Refusal() as refusal:
                self._refuse(refusal)
            case Ignored(reason):
                logger.warning("ignored a message of the client: %s", reason)
            case Salvaged(message):
                return JSONRPCRequest.model_validate(message, by_name=False)
        return None

    def _refuse(self, refusal: Refusal) -> None:
        error = ErrorData(code=refusal.code, message=refusal.message)
        for request_id in refusal.ids:
            self._post(_encode(JSONRPCError(jsonrpc="2.0", id=request_id, error=error)))

    def _post(self, frame: bytes) -> None:
        # If the client is gone, the outbox has reported it already.
        with contextlib.suppress(trio.BrokenResourceError):
            self._outbox.post(frame)


class MessageWriter(_Stream):
    """Our messages, as the library's `WriteStream`: one whole frame per message."""

    def __init__(self, lines: LineReader, outbox: Outbox, unanswered: Unanswered) -> None:
        """Write to `outbox`; after the end of `lines` only answers that are due."""
        self._lines = lines
        self._outbox = outbox
        self._unanswered = unanswered
        self._closed = False

    async def send(self, item: SessionMessage, /) -> None:
        """Hand a message to the outbox; wait while too much is queued there.

        Raises:
            anyio.ClosedResourceError: The connection has been closed on our side.
            anyio.BrokenResourceError: The client no longer reads.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        is_second = self._unanswered.pop_answered_by_door(item.message)
        is_late = not self._unanswered.is_due(item.message) and self._has_client_left()
        if is_second or is_late:
            await trio.lowlevel.checkpoint()
            return
        try:
            if (frame := self._frame(item.message)) is not None:
                await self._outbox.send(frame)
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error
        finally:
            self._unanswered.remove(item.message)

    def _has_client_left(self) -> bool:
        # The descriptor knows it before the end of the input has been read.
        return self._unanswered.input_ended or self._lines.is_hung_up()

    async def aclose(self) -> None:
        """Refuse further messages; those in the outbox are still written."""
        self._closed = True
        await trio.lowlevel.checkpoint()

    @staticmethod
    def _frame(message: JSONRPCMessage) -> bytes | None:
        try:
            return _encode(message)
        except ValueError:
            # For example an unpaired surrogate in a name that the library quotes.
            logger.exception("a message cannot be encoded")
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            error = ErrorData(code=INTERNAL_ERROR, message="The answer cannot be written as JSON.")
            return _encode(JSONRPCError(jsonrpc="2.0", id=message.id, error=error))
        return None


def _encode(message: JSONRPCMessage) -> bytes:
    """Return the frame of a message: compact JSON in UTF-8 and a line feed."""
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
