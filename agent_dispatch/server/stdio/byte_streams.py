"""Lines in, frames out: the bytes of the stdio transport, on Trio. Knows no protocol.

Reading stops only for a client that does not read its answers. A frame is written whole or not at
all, even if its sender is cancelled.
"""

import errno
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from agent_dispatch.server.stdio.wire import is_hung_up, is_pollable

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
EDGE_BYTES = 4096
"""How much of each end of a line is searched for its id; of a line that is too long, only that is
kept."""

SEND_MARK_BYTES = 256 * 1024
"""Above this many unwritten bytes a sender waits."""
READ_MARK_BYTES = 8 * 1024 * 1024
"""Above this many unwritten bytes no further request is read."""
HANG_UP_CHECK_S = 0.05

_CLIENT_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.ESHUTDOWN})


@dataclass(frozen=True, slots=True)
class Overlong:
    """The two ends of a line above the limit."""

    head: bytes
    tail: bytes
    size: int


class LineReader:
    """Reads lines from a descriptor, up to a maximum size."""

    def __init__(
        self,
        fd: int,
        unread: bytes = b"",
        *,
        since: float = 0,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        """Read `unread`, and then `fd`, which the caller closes.

        A pipe or socket becomes non-blocking. `since` is the arrival time of its first input.
        """
        self.arrived_at = since
        """The earliest arrival time of the last line, on Trio's clock."""
        self._fd = fd
        self.max_line_bytes = max_line_bytes
        self._buffer = bytearray(unread)
        self._searched = 0
        self._head = b""
        self._dropped = 0
        self._ended = False
        self._pollable = is_pollable(fd)
        if self._pollable:
            os.set_blocking(fd, False)

    async def receive(self) -> bytes | Overlong | None:
        """Return the next line without its line feed; None at the end of the input.

        Input that ends without a line feed is a line too. A read error ends the input.
        """
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > self.max_line_bytes:
                self._drop_middle()
            chunk = b"" if self._ended else await self._read()
            if not chunk:
                # A terminal may have more to read after its end of file.
                self._ended = True
                return self._take(len(self._buffer)) if self._buffer else None
            self._buffer += chunk
        return self._take(end)

    def is_hung_up(self) -> bool:
        """Whether the other end has closed, even if some of its input is unread."""
        return self._pollable and is_hung_up(self._fd)

    def close(self) -> None:
        """Make the descriptor blocking again: other processes may share its description."""
        if self._pollable:
            os.set_blocking(self._fd, True)

    async def _read(self) -> bytes:
        try:
            if not self._pollable:
                chunk = await trio.to_thread.run_sync(
                    os.read, self._fd, CHUNK_BYTES, abandon_on_cancel=True
                )
                self.arrived_at = trio.current_time()
                return chunk
            while True:
                try:
                    return os.read(self._fd, CHUNK_BYTES)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._fd)
                    self.arrived_at = trio.current_time()
        except OSError as error:
            if error.errno not in _CLIENT_GONE:
                logger.error("requests can no longer be read: %s", error)
            return b""

    def _take(self, end: int) -> bytes | Overlong:
        with memoryview(self._buffer) as view:
            line = bytes(view[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        if not self._dropped and len(line) <= self.max_line_bytes:
            return line
        overlong = Overlong(
            head=self._head or line[:EDGE_BYTES],
            tail=line[-EDGE_BYTES:],
            size=self._dropped + len(line),
        )
        self._head, self._dropped = b"", 0
        return overlong

    def _drop_middle(self) -> None:
        self._head = self._head or bytes(self._buffer[:EDGE_BYTES])
        surplus = len(self._buffer) - EDGE_BYTES
        del self._buffer[:surplus]
        self._dropped += surplus
        self._searched = len(self._buffer)


class Outbox:
    """Writes frames to a descriptor.

    A frame that fits is written at once. The rest is queued and written by `run`, so a cancelled
    sender never leaves half a frame behind, and a client that does not read delays only its own
    answers.
    """

    def __init__(self, fd: int, *, on_gone: Callable[[], None], unwritten: bytes = b"") -> None:
        """Write `unwritten`, and then the frames, to `fd`, which the caller closes.

        `on_gone` is called once, when the other end has closed.
        """
        self._fd = fd
        self._on_gone = on_gone
        self._queue = deque([memoryview(unwritten)] if unwritten else ())
        self._queued_bytes = len(unwritten)
        self._gone = False
        self._leaving = False
        self._work = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._pollable = is_pollable(fd)
        if self._pollable:
            os.set_blocking(fd, False)

    @property
    def is_backed_up(self) -> bool:
        """Whether so much is queued that no further request should be read."""
        return self._queued_bytes > READ_MARK_BYTES and not self._gone and not self._leaving

    async def send(self, frame: bytes) -> None:
        """Hand over a whole frame; wait while too much is queued.

        If cancelled, the frame is still written.

        Raises:
            trio.BrokenResourceError: The other end is gone.
        """
        self.post(frame)
        await self.wait_below(SEND_MARK_BYTES)
        await trio.lowlevel.checkpoint()

    def post(self, frame: bytes) -> None:
        """Hand over a whole frame without waiting.

        Raises:
            trio.BrokenResourceError: The other end is gone.
        """
        rest = memoryview(frame)
        if self._pollable and not self._queue and not self._gone:
            rest = rest[self._write_now(rest) :]
        if self._gone:
            raise trio.BrokenResourceError("the client no longer reads")
        if rest:
            self._queue.append(rest)
            self._queued_bytes += len(rest)
            self._work.unpark_all()

    async def wait_below(self, mark_bytes: int) -> None:
        """Wait until at most `mark_bytes` are queued, or the reader is gone."""
        while self._queued_bytes > mark_bytes and not self._gone and not self._leaving:
            await self._room.park()

    def release_senders(self) -> None:
        """End all waits for room, now and later: the process is about to exit."""
        self._leaving = True
        self._room.unpark_all()

    async def run(self) -> None:
        """Write the queue, until cancelled or the other end is gone."""
        while not self._gone:
            if not self._queue:
                await self._work.park()
            elif self._pollable:
                self._written(self._write_now(self._queue[0]))
                if self._queue and not self._gone:
                    await trio.lowlevel.wait_writable(self._fd)
            else:
                self._written(await self._write_in_thread(self._queue[0]))

    async def flush(self) -> None:
        """Wait until the queue is written, or cannot be."""
        while self._queue and not self._gone:
            await self._room.park()

    def close(self) -> None:
        """Make the descriptor blocking again: other processes may share its description."""
        if self._pollable:
            os.set_blocking(self._fd, True)

    def _written(self, count: int) -> None:
        if self._gone:
            return
        self._queued_bytes -= count
        self._queue[0] = self._queue[0][count:]
        if not self._queue[0]:
            self._queue.popleft()
        # Not earlier: waking every sender after every write would be quadratic.
        if self._queued_bytes <= SEND_MARK_BYTES:
            self._room.unpark_all()

    def _write_now(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._give_up(error)
            return 0

    async def _write_in_thread(self, data: memoryview) -> int:
        try:
            return await trio.to_thread.run_sync(
                os.write, self._fd, data[:CHUNK_BYTES], abandon_on_cancel=True
            )
        except OSError as error:
            self._give_up(error)
            return 0

    def _give_up(self, error: OSError) -> None:
        if error.errno not in _CLIENT_GONE:
            logger.error("answers can no longer be written: %s", error)
        self._gone = True
        self._queue.clear()
        self._queued_bytes = 0
        self._room.unpark_all()
        self._on_gone()
