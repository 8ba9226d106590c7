"""The two streams that the MCP library wants, on our own stdio wire.

Its `stdio_server` reads in a thread that cannot be cancelled, so SIGINT waits for the client to
close stdin (measured with mcp 2.3.0); and it drops what it cannot parse without an answer. Here
every line gets a message or an error, and nothing holds up the way out.
"""

import contextlib
import logging
from collections.abc import Callable
from types import TracebackType
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
    RequestId,
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

logger = logging.getLogger(__name__)

CANCELLED = "notifications/cancelled"

EOF_GRACE_S = 0.3
"""How long calls that were made before the end of the input may still be answered."""


class Unanswered:
    """The requests that were read and not answered yet, as far as an answer is due."""

    def __init__(self) -> None:
        self._ids: dict[RequestId, float] = {}
        """With the time at which each came, on Trio's clock."""
        self._answered: set[RequestId] = set()
        self._none_left = trio.lowlevel.ParkingLot()
        self.input_ended = False
        """From here on nothing but due answers may go out: the client no longer listens for more,
        and the 1.x SDK crashes on it."""

    def is_due(self, message: JSONRPCMessage) -> bool:
        """Whether a message is an answer that is still waited for."""
        return isinstance(message, JSONRPCResponse | JSONRPCError) and message.id in self._ids

    def drop_all(self) -> None:
        """No answer is due."""
        self._ids.clear()
        self._none_left.unpark_all()

    def arrived_at(self, request_id: RequestId | None) -> float:
        """When a request came, on Trio's clock; now, if no answer to it is due."""
        now = trio.current_time()
        return now if request_id is None else self._ids.get(request_id, now)

    def note_read(self, message: JSONRPCMessage, at: float) -> None:
        """A request waits for its answer from here on; a cancelled one no longer does."""
        if isinstance(message, JSONRPCRequest):
            self._ids[message.id] = at
        elif isinstance(message, JSONRPCNotification) and message.method == CANCELLED:
            self._settle((message.params or {}).get("requestId"))

    def note_answered(self, message: JSONRPCMessage) -> None:
        """The library's answer to this request is not wanted: the client has one."""
        if isinstance(message, JSONRPCRequest):
            self._answered.add(message.id)

    def is_wanted(self, message: JSONRPCMessage) -> bool:
        """Whether a message of the library's is to be written; ask once for each."""
        if not isinstance(message, JSONRPCResponse | JSONRPCError) or message.id is None:
            return True
        is_wanted = message.id not in self._answered
        self._answered.discard(message.id)
        return is_wanted

    def note_sent(self, message: JSONRPCMessage) -> None:
        """An answer was handed to the wire."""
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            self._settle(message.id)

    async def wait_none(self) -> None:
        """Wait until no answer is due."""
        while self._ids:
            await self._none_left.park()

    def _settle(self, request_id: object) -> None:
        if isinstance(request_id, int | str):
            self._ids.pop(request_id, None)
        if not self._ids:
            self._none_left.unpark_all()


class MessageReader:
    """The client's messages, as the library's `ReadStream`; it refuses other lines itself."""

    def __init__(
        self,
        lines: LineReader,
        outbox: Outbox,
        unanswered: Unanswered,
        door: FrontDoor | None = None,
        *,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Read from `lines`; refusals, and what `door` answers, go to `outbox`.

        `on_end` is called once, when the client has gone and the grace period has passed.
        """
        self._door = door
        self._lines = lines
        self._outbox = outbox
        self._unanswered = unanswered
        self._on_end = on_end

    async def receive(self) -> SessionMessage:
        """The next message.

        Raises:
            anyio.EndOfStream: The client closed its end, and had a moment to get its answers.
        """
        if (message := self._next_of_handshake()) is not None:
            return SessionMessage(message)
        while (line := await self._next_line()) is not None:
            if isinstance(line, Overlong):
                self._refuse(
                    refuse_overlong(line.head, line.tail, line.size, self._lines.max_line_bytes)
                )
            elif line and not line.isspace() and (message := self._pass(line)) is not None:
                return SessionMessage(message)
        self._unanswered.input_ended = True
        with trio.move_on_after(EOF_GRACE_S):
            await self._unanswered.wait_none()
        self._unanswered.drop_all()
        self._on_end()
        raise anyio.EndOfStream

    async def aclose(self) -> None:
        """Nothing to do: the opener of the wire closes the descriptor."""
        await trio.lowlevel.checkpoint()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _next_line(self) -> bytes | Overlong | None:
        """Read on, unless the client sends without ever reading: its answers would pile up."""
        while self._outbox.is_backed_up:
            if self._lines.is_hung_up():
                return None
            with trio.move_on_after(HANG_UP_CHECK_S):
                await self._outbox.wait_below(READ_MARK_BYTES)
        return await self._lines.receive()

    def _pass(self, line: bytes) -> JSONRPCMessage | None:
        """Give what the library is to be told of a line; None: the answer is on its way already."""
        if self._door is not None and (frame := self._door.answer(line)) is not None:
            # A client that is gone wants no answer, and the outbox has told so already.
            with contextlib.suppress(trio.BrokenResourceError):
                self._outbox.post(frame)
            return self._next_of_handshake()
        if (message := self._decode(line)) is not None:
            self._unanswered.note_read(message, self._lines.arrived_at)
        return message

    def _next_of_handshake(self) -> JSONRPCMessage | None:
        """Give a message that the door has answered and the library does not know yet."""
        if self._door is None or not self._door.handshake:
            return None
        message = self._decode(self._door.handshake.pop(0))
        if message is not None:
            self._unanswered.note_answered(message)
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
        # A client that is gone wants no refusal, and the outbox has told so already.
        with contextlib.suppress(trio.BrokenResourceError):
            for request_id in refusal.ids:
                self._outbox.post(_encode(JSONRPCError(jsonrpc="2.0", id=request_id, error=error)))


class MessageWriter:
    """What we say, as the library's `WriteStream`: one whole frame per message."""

    def __init__(self, lines: LineReader, outbox: Outbox, unanswered: Unanswered) -> None:
        """Write to `outbox`, and nothing but answers once `lines` have ended."""
        self._lines = lines
        self._outbox = outbox
        self._unanswered = unanswered
        self._closed = False

    async def send(self, item: SessionMessage, /) -> None:
        """Hand a message over; returns once it is written or little enough is queued.

        Raises:
            anyio.ClosedResourceError: The connection has been closed on our side.
            anyio.BrokenResourceError: The client no longer reads.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        is_wanted = self._unanswered.is_wanted(item.message)
        is_late = not self._unanswered.is_due(item.message) and self._has_client_left()
        if is_late or not is_wanted:
            await trio.lowlevel.checkpoint()
            return
        try:
            if (frame := self._frame(item.message)) is not None:
                await self._outbox.send(frame)
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error
        finally:
            self._unanswered.note_sent(item.message)

    def _has_client_left(self) -> bool:
        # Asked of the descriptor as well: its end may not have been read yet.
        return self._unanswered.input_ended or self._lines.is_hung_up()

    async def aclose(self) -> None:
        """Refuse further messages; those handed over are still written."""
        self._closed = True
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    @staticmethod
    def _frame(message: JSONRPCMessage) -> bytes | None:
        try:
            return _encode(message)
        except ValueError:
            # An unpaired surrogate, for example in a name that the library quotes back.
            logger.exception("a message cannot be encoded")
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            error = ErrorData(code=INTERNAL_ERROR, message="The answer cannot be written as JSON.")
            return _encode(JSONRPCError(jsonrpc="2.0", id=message.id, error=error))
        return None


def _encode(message: JSONRPCMessage) -> bytes:
    """One frame: compact UTF-8 JSON and a line feed."""
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
