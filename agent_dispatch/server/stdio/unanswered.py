"""Requests of a client that were read and not answered yet."""

import trio
from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)

_CANCELLED = "notifications/cancelled"


class Unanswered:
    """The requests that wait for an answer; cancelled requests do not."""

    def __init__(self) -> None:
        self._arrivals: dict[RequestId, float] = {}
        """When each request came, on Trio's clock."""
        self._answered_by_door: set[RequestId] = set()
        self._none_left = trio.lowlevel.ParkingLot()
        self.input_ended = False
        """After the end of its input, a client gets only the answers that it waits for: it reads
        nothing else, and the Python SDK 1.x crashes on it."""

    def add(self, message: JSONRPCMessage, arrived_at: float) -> None:
        """Add a request that was read; a cancel notice removes the request that it names."""
        if isinstance(message, JSONRPCRequest):
            self._arrivals[message.id] = arrived_at
        elif isinstance(message, JSONRPCNotification) and message.method == _CANCELLED:
            self._remove((message.params or {}).get("requestId"))

    def remove(self, answer: JSONRPCMessage) -> None:
        """Remove the request whose answer was handed to the wire."""
        if isinstance(answer, JSONRPCResponse | JSONRPCError):
            self._remove(answer.id)

    def remove_all(self) -> None:
        """Remove all requests: no answer is due any more."""
        self._arrivals.clear()
        self._none_left.unpark_all()

    def is_due(self, message: JSONRPCMessage) -> bool:
        """Whether a message is the answer to a request that waits for it."""
        return isinstance(message, JSONRPCResponse | JSONRPCError) and message.id in self._arrivals

    def arrived_at(self, request_id: RequestId | None) -> float:
        """Return when a request came, on Trio's clock; now, if no answer to it is due."""
        now = trio.current_time()
        return now if request_id is None else self._arrivals.get(request_id, now)

    async def wait_none(self) -> None:
        """Wait until no answer is due."""
        while self._arrivals:
            await self._none_left.park()

    def note_answered_by_door(self, request: JSONRPCMessage) -> None:
        """Note that the front door answered a request, so the library's answer must be dropped."""
        if isinstance(request, JSONRPCRequest):
            self._answered_by_door.add(request.id)

    def pop_answered_by_door(self, message: JSONRPCMessage) -> bool:
        """Whether a message answers a request that the front door answered; true only once."""
        if not isinstance(message, JSONRPCResponse | JSONRPCError) or message.id is None:
            return False
        is_second = message.id in self._answered_by_door
        self._answered_by_door.discard(message.id)
        return is_second

    def _remove(self, request_id: object) -> None:
        if isinstance(request_id, int | str):
            self._arrivals.pop(request_id, None)
        if not self._arrivals:
            self._none_left.unpark_all()
