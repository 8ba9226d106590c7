"""The pipes between an owner and a guarded child, and the tasks that read them."""

import contextlib
import os
from collections.abc import Callable
from typing import Self

import trio

_CHUNK_BYTES = 64 * 1024
_DRAIN_IDLE_S = 0.25
"""How long the pipes may be silent, after the child's exit, before they count as read."""
DRAIN_TIMEOUT_S = 2.0
"""How long to read on if another process holds a pipe and goes on writing."""

Sink = Callable[[bytes], object]


class Pipes:
    """The five pipes of a child: our ends as streams, and the guard's until it has them."""

    def __init__(self) -> None:
        """Open them; raises `OSError` at the limit of open files."""
        self._ours = contextlib.ExitStack()
        self.theirs: list[int] = []
        try:
            self.stdin = self._stream(we_write=True)
            self.stdout = self._stream(we_write=False)
            self.stderr = self._stream(we_write=False)
            read, self.lifeline = os.pipe()
            self._ours.callback(os.close, self.lifeline)
            self.theirs.append(read)
            os.set_blocking(self.lifeline, False)
            self.status = self._stream(we_write=False)
        except BaseException:
            self.__exit__()
            raise

    def _stream(self, *, we_write: bool) -> trio.lowlevel.FdStream:
        read, write = os.pipe()
        own, other = (write, read) if we_write else (read, write)
        self.theirs.append(other)
        stream = trio.lowlevel.FdStream(own)
        self._ours.callback(stream.close)
        return stream

    def close_theirs(self) -> None:
        """Close the guard's ends here. Safe to call twice."""
        while self.theirs:
            os.close(self.theirs.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close_theirs()
        self._ours.close()


class Readers:
    """Reads pipes in a nursery until told to stop, even if the nursery is cancelled."""

    def __init__(self, nursery: trio.Nursery, on_step: Callable[[], object]) -> None:
        """Call `on_step` after each chunk and each end of a pipe."""
        self._nursery = nursery
        self._on_step = on_step
        self._scopes: list[trio.CancelScope] = []
        self._draining = 0
        self._moved = trio.Event()

    def watch(self, stream: trio.lowlevel.FdStream, sink: Sink, at_end: Callable[[], None]) -> None:
        """Read to EOF or `stop`, then call `at_end`."""
        # No deadline: `stop` is called after the last step of the end, which has one.
        scope = trio.CancelScope(shield=True)
        self._scopes.append(scope)
        self._nursery.start_soon(self._read, stream, sink, at_end, scope)

    def drain(self, stream: trio.lowlevel.FdStream, sink: Sink) -> None:
        """Do the same for a pipe that `drained` waits for."""
        self._draining += 1
        self.watch(stream, sink, self._drained_one)

    async def _read(
        self,
        stream: trio.lowlevel.FdStream,
        sink: Sink,
        at_end: Callable[[], None],
        scope: trio.CancelScope,
    ) -> None:
        with scope:
            while chunk := await stream.receive_some(_CHUNK_BYTES):
                sink(chunk)
                self._step()
        at_end()
        self._step()

    def _step(self) -> None:
        self._moved.set()
        self._moved = trio.Event()
        self._on_step()

    def _drained_one(self) -> None:
        self._draining -= 1

    async def drained(self) -> None:
        """Wait for EOF on the drained pipes, or until nothing has arrived for a while."""
        with trio.move_on_after(DRAIN_TIMEOUT_S):
            while self._draining:
                with trio.move_on_after(_DRAIN_IDLE_S) as idle:
                    await self._moved.wait()
                if idle.cancelled_caught:
                    return

    def stop(self) -> None:
        """Stop reading."""
        for scope in self._scopes:
            scope.cancel()
