"""One end of a link: frames go out in turn, frames come in, and silence is watched."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterator

import trio

from agent_dispatch.remote.frames import (
    AnyFrame,
    BadFrameError,
    Due,
    Failed,
    Frame,
    Ping,
    Pong,
    Receiver,
    Silence,
    lines_of,
)


class Wire:
    """Sends and receives frames; `send` and the caller of `feed` carry the bytes."""

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[object]],
        on_frame: Callable[[AnyFrame], object],
        *,
        dead_s: float,
    ) -> None:
        """Talk over `send`.

        Args:
            send: Sends bytes; waits while the other side takes none.
            on_frame: Gets each frame but pings and pongs; must not wait.
            dead_s: The silence that ends the link.
        """
        self._send = send
        self._on_frame = on_frame
        self._receiver = Receiver()
        self._silence = Silence(dead_s, trio.current_time())
        self._short: deque[bytes] = deque()
        self._long: deque[Iterator[bytes]] = deque()
        self._messages = 0
        self._posted, self._sent = trio.Event(), trio.Event()
        self._is_sending = False
        self.heard_bytes = 0
        """How many bytes came; any byte is a sign of life."""

    def dies_after(self, dead_s: float) -> None:
        """Take a silence of this length for the end of the link."""
        self._silence = Silence(dead_s, trio.current_time())

    def post(self, frame: Frame) -> None:
        """Have a frame sent; returns at once. A long one lets others pass between its parts."""
        self._messages += 1
        lines = lines_of(frame, self._messages)
        first = next(lines)
        second = next(lines, None)
        if second is None:
            self._short.append(first)
        else:
            self._long.append(_chained(first, second, lines))
        self._posted.set()

    def feed(self, chunk: bytes) -> None:
        """Take bytes that came."""
        self._silence.heard(trio.current_time())
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
        """Send and ping until the link is dead; raises what `send` raises."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all)
            while (due := self._silence.due(trio.current_time())) is not Due.DEAD:
                if due is Due.PING:
                    # Noted now: while nothing can be sent, one ping in line is enough.
                    self._silence.said(trio.current_time())
                    self.post(Ping())
                await trio.sleep_until(self._silence.next_at)
            nursery.cancel_scope.cancel()

    async def flushed(self) -> None:
        """Wait until all that was posted is sent."""
        while self._short or self._long or self._is_sending:
            await self._sent.wait()

    async def _send_all(self) -> None:
        while True:
            while not (self._short or self._long):
                self._sent.set()
                self._posted, self._sent = trio.Event(), trio.Event()
                await self._posted.wait()
            line = self._next_line()
            if line is not None:
                self._is_sending = True
                await self._send(line)
                self._is_sending = False
                self._silence.said(trio.current_time())

    def _next_line(self) -> bytes | None:
        if self._short:
            return self._short.popleft()
        line = next(self._long[0], None)
        if line is None:
            self._long.popleft()
        else:
            # Several long frames take turns.
            self._long.rotate(-1)
        return line


def _chained(first: bytes, second: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest
