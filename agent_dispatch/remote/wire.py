"""One end of a link, on either machine: queues frames, reads frames, and watches for silence."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain

import trio

from agent_dispatch.remote.frames import (
    DEAD_S,
    AnyFrame,
    BadFrameError,
    Failed,
    Frame,
    Ping,
    Pong,
    Receiver,
    lines_of,
)


def dead_after_s(lease_s: float) -> float:
    """Return after how many silent seconds a link counts as dead.

    This leaves most of the lease for a new link.
    """
    return min(DEAD_S, lease_s / 3)


class Wire:
    """Sends and receives frames. The caller of `feed` and `send` carry the bytes."""

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[object]],
        on_frame: Callable[[AnyFrame], object],
        *,
        dead_s: float,
    ) -> None:
        """Talk over `send`.

        Args:
            send: Sends bytes; waits while the other side takes none. Raises BrokenResourceError
                or ClosedResourceError once it takes no more.
            on_frame: Gets each frame except pings and pongs; must not wait.
            dead_s: After how many silent seconds the link is dead.
        """
        self._send = send
        self._on_frame = on_frame
        self.dead_s = dead_s
        """After how many silent seconds the link is dead."""
        self._heard_at = self._sent_at = trio.current_time()
        self._receiver = Receiver()
        self._short: deque[bytes] = deque()
        self._long: deque[Iterator[bytes]] = deque()
        self._messages = 0
        self._posted, self._flushed = trio.Event(), trio.Event()
        self._is_sending = False
        self.heard_bytes = 0
        """How many bytes arrived. Any byte is a sign of life."""

    def post(self, frame: Frame) -> None:
        """Queue a frame and return at once. Others may be sent between the parts of a long one."""
        self._messages += 1
        lines = lines_of(frame, self._messages)
        first, second = next(lines), next(lines, None)
        if second is None:
            self._short.append(first)
        else:
            self._long.append(chain((first, second), lines))
        self._posted.set()

    def feed(self, chunk: bytes) -> None:
        """Take bytes that arrived."""
        self._heard_at = trio.current_time()
        self.heard_bytes += len(chunk)
        for frame in self._receiver.feed(chunk):
            match frame:
                case BadFrameError(n=n):
                    self.post(Failed(n=n, error=str(frame)))
                case Ping():
                    self.post(Pong())
                case Pong():
                    pass
                case _:
                    self._on_frame(frame)

    async def run(self) -> None:
        """Send and ping until the link is dead, or its other end takes no more bytes."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all, nursery.cancel_scope)
            nursery.start_soon(self._ping)
            # Each byte moves the deadline, so an event would be set far too often.
            while trio.current_time() < (dead_at := self._heard_at + self.dead_s):  # noqa: ASYNC110
                await trio.sleep_until(dead_at)
            nursery.cancel_scope.cancel()

    async def _ping(self) -> None:
        """Send at least something in each quarter of the time after which a link is dead."""
        while True:
            ping_at = self._sent_at + self.dead_s / 4
            if trio.current_time() >= ping_at:
                # Set before it is sent: while nothing can be sent, this loop must not spin.
                self._sent_at = trio.current_time()
                self.post(Ping())
            else:
                await trio.sleep_until(ping_at)

    async def flushed(self) -> None:
        """Wait until everything that was posted has been sent."""
        while self._short or self._long or self._is_sending:
            await self._flushed.wait()

    async def _send_all(self, running: trio.CancelScope) -> None:
        while True:
            while not (self._short or self._long):
                self._flushed.set()
                self._posted, self._flushed = trio.Event(), trio.Event()
                await self._posted.wait()
            line = self._next_line()
            if line is not None:
                self._is_sending = True
                try:
                    await self._send(line)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    running.cancel()
                    return
                self._is_sending = False
                self._sent_at = trio.current_time()

    def _next_line(self) -> bytes | None:
        if self._short:
            return self._short.popleft()
        line = next(self._long[0], None)
        if line is None:
            self._long.popleft()
        else:
            # Long frames take turns.
            self._long.rotate(-1)
        return line
